"""Logs hold each step once, whatever happened to the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jxrecon.runs import log as logs
from jxrecon.types import InputError


def write(folder: Path, first: int, last: int) -> None:
    log = logs.MetricsLog(folder, first)
    for step in range(first + 1, last + 1):
        log.write(step, "train", {"loss": step / 10})
    log.close()


def steps(folder: Path) -> list[int]:
    return [
        json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]


def test_resumed_log_holds_each_step_once(tmp_path: Path) -> None:
    write(tmp_path, 0, 8)
    write(tmp_path, 5, 9)
    assert steps(tmp_path) == list(range(1, 10))


def test_line_cut_off_by_a_kill_is_dropped(tmp_path: Path) -> None:
    write(tmp_path, 0, 3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "spl')
    write(tmp_path, 3, 5)
    assert steps(tmp_path) == [1, 2, 3, 4, 5]


def test_damaged_lines_are_dropped_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, 0, 5)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"loss", b"l\xffss")
    lines[3] = b"[1]\n" + b'{"step": "four"}\n' + b"[" * 100_000 + b"\n"
    path.write_bytes(b"".join(lines))
    write(tmp_path, 5, 6)
    assert steps(tmp_path) == [1, 3, 5, 6]
    assert "metrics.jsonl: 4 damaged line(s) dropped" in capsys.readouterr().err


def test_no_log_is_written_through_a_link(tmp_path: Path) -> None:
    folder, other = tmp_path / "run", tmp_path / "other"
    folder.mkdir()
    (folder / "metrics.jsonl").symlink_to(other)
    write(folder, 0, 2)
    assert not other.exists()
    assert steps(folder) == [1, 2]
    (tmp_path / "run2").mkdir()
    (tmp_path / "run2" / "tensorboard").symlink_to(tmp_path)
    with pytest.raises(InputError, match="tensorboard: a link to"):
        write(tmp_path / "run2", 0, 2)


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    log = logs.MetricsLog(tmp_path, 0)
    log.write(1, "validation", {"psnr_db": float("inf"), "mae": 2.0})
    log.close()
    [line] = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line) == {"step": 1, "split": "validation", "psnr_db": None, "mae": 2.0}
