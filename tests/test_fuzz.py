"""Damaged files of every format are read or refused in one line: see tools/fuzz.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def fuzz(count: int) -> None:
    ended = subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / "fuzz.py"), "--count", str(count)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"{count} damaged files: " in ended.stdout


def test_sixty_damaged_files() -> None:
    fuzz(60)


@pytest.mark.slow
def test_two_thousand_damaged_files() -> None:
    fuzz(2000)
