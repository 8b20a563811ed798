"""Signals end a command whatever it is in, with their exit code and no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = """
import argparse, ctypes, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it
from jxrecon.cli import command_parser, entry
import jxrecon.cli
jxrecon.cli._prepare_jax = lambda: None

def main(options):
    if options.how != "waits":
        print("begun", flush=True)
    if options.how == "swallows":  # as a callback within a library's C code
        while True:
            try:
                time.sleep(30)
            except KeyboardInterrupt:
                pass
    if options.how == "computes":  # a call that Python's handlers have to wait for
        ctypes.CDLL(None).usleep.restype = None
        for _ in range(30):
            while ctypes.CDLL(None).sleep(30):
                pass
    try:
        print("begun", flush=True)
        time.sleep(30)
    finally:
        print("tidied", flush=True)

def parser():
    made = command_parser("x", "", "")
    made.add_argument("how")
    return made

raise SystemExit(entry(parser, main))
"""


@pytest.mark.parametrize(
    ("how", "number", "code"),
    [
        ("waits", signal.SIGINT, 130),
        ("waits", signal.SIGTERM, 143),
        ("waits", signal.SIGHUP, 129),
        ("swallows", signal.SIGINT, 130),
        ("computes", signal.SIGTERM, 143),
    ],
)
def test_a_signal_ends_a_command(how: str, number: int, code: int, tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    command = [sys.executable, str(script), how]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdout.readline() == "begun\n"
        began = time.monotonic()
        os.kill(child.pid, number)
        out, error = child.communicate(timeout=20)
    assert child.returncode == code
    assert time.monotonic() - began < 8
    assert error == "interrupted\n"
    assert out == ("tidied\n" if how == "waits" else "")
