"""Logs hold each step once, whatever happened to the run."""

from __future__ import annotations

import json
from pathlib import Path

from jxrecon.runs import log as logs


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


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    log = logs.MetricsLog(tmp_path, 0)
    log.write(1, "validation", {"psnr_db": float("inf"), "mae": 2.0})
    log.close()
    [line] = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line) == {"step": 1, "split": "validation", "psnr_db": None, "mae": 2.0}
