"""Progress tells where long work stands."""

from __future__ import annotations

import pytest

from jxrecon import terminal


def test_progress_without_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    with terminal.Meter(0, 40) as meter:
        meter.terms({"loss": 0.25})
        for done in range(1, 41):
            now[0] += 0.5
            meter.step(done)
    assert capsys.readouterr().err.splitlines() == [
        "step 31/40  2.00 steps/s, 4 s left  loss 0.25",
        "step 40/40  2.00 steps/s, 0 s left  loss 0.25",
    ]


def test_other_processes_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.Meter(0, 1, silent=True) as meter:
        meter.step(1)
    assert capsys.readouterr().err == ""
