"""Damages small files of every format at random and reads them: each is read, or refused in one line.

    python tools/fuzz.py --count 500 --seed 0

The process that reads them is another one. What counts as a fault: an error that is no InputError, a warning,
a line that shows NumPy's types, more than 10 s, more than 500 MB beside what reading the
undamaged file takes. The seed and the number of a fault make its file again: --keep DIR writes it there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fuzz_samples import samples

from jxrecon.types import InputError

SECONDS, BYTES = 10.0, 500_000_000

_GOOD, _HANGS = ("read", "refused"), "hangs or dies"

ODD_NUMBERS = (
    b"-1", b"0", b"65536", b"4294967295", b"99999999999999999999", b"1e999", b"nan", b"inf", b"[" * 3000,
    b"../../x", b"\xff\xfe", b"null", b'"', b",", b"\n",
)  # fmt: skip


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """The bytes of a file after one to four random changes."""
    data = bytearray(content)
    for _ in range(random.integers(1, 5)):
        at, to = sorted(random.integers(0, len(data) + 1, 2).tolist())
        # the head of a file says what it is and holds
        at = at if random.random() < 0.5 else min(at, int(random.integers(0, 400)))
        kind = random.integers(0, 8)
        if kind == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << int(random.integers(8))
        elif kind == 1:
            data[at : at + 4] = random.bytes(4)
        elif kind == 2:
            data[at : at + 4] = random.choice(
                [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0"]
            )
        elif kind == 3:
            del data[at : at + int(random.integers(1, 64))]
        elif kind == 4:
            data[at:at] = data[at : min(to, at + 256)]
        elif kind == 5:
            del data[to:]
        else:
            _change_word(data, at, ODD_NUMBERS[random.integers(len(ODD_NUMBERS))])
    return bytes(data)


def _change_word(data: bytearray, at: int, word: bytes) -> None:
    """Puts a word in place of the number that begins next, as of a text."""
    digits = b"0123456789.-"
    while at < len(data) and data[at] not in digits:
        at += 1
    end = at
    while end < len(data) and data[end] in digits:
        end += 1
    data[at:end] = word


class Outcome(NamedTuple):
    """What became of a file: "read", "refused" or a fault in words; the error; memory that it took, bytes."""

    what: str
    line: str
    peak: int


class Worker:
    """A process that makes the good files in a folder and reads them when it is told to."""

    def __init__(self, folder: Path, ending: str) -> None:
        """Begins; `ending` is that of the files, empty for all."""
        spawn = multiprocessing.get_context("spawn")  # JAX does not survive a fork
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(folder, ending, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.paths: list[Path] = self._pipe.recv()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.join()

    def tried(self, place: int) -> Outcome | None:
        """What reading one of the files ends in; None where the process is of no use any more."""
        self._pipe.send(place)
        try:
            return Outcome(*self._pipe.recv()) if self._pipe.poll(SECONDS) else None
        except EOFError:
            return None


def _serve(folder: Path, ending: str, pipe: Any) -> None:
    good = [one for one in samples(folder) if one.path.name.endswith(ending)]
    for sample in good:
        try:
            sample.read()
        except InputError as error:
            print(f"undamaged, yet refused: {error}", file=sys.stderr)
    warnings.simplefilter("error")  # which a user would see as a line more
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    pipe.send([sample.path for sample in good])
    while True:
        pipe.send(tuple(_outcome(good[pipe.recv()].read)))


def _outcome(read: Callable[[], Any]) -> Outcome:
    Path("/proc/self/clear_refs").write_text("5")  # forgets the most memory so far
    before, what, line = _peak(), "read", ""
    try:
        read()
    except InputError as error:
        what, line = "refused", str(error)
    except Exception as error:
        what, line = f"raises {type(error).__name__}", str(error)
    if "np." in line or "numpy" in line:
        what = f"{what} in no good line"
    peak = _peak() - before
    return Outcome(what if peak < BYTES else f"takes {peak} bytes", line, peak)


def _peak() -> int:
    """Most bytes of memory of this process so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def _one(worker: Worker, seed: int, number: int) -> tuple[Path, Outcome, bytes]:
    """Damages a file, has it read and puts it back."""
    place = number % len(worker.paths)
    path = worker.paths[place]
    content = path.read_bytes()
    damaged = mutated(content, np.random.default_rng([seed, number]))
    path.write_bytes(damaged)
    outcome = worker.tried(place) or Outcome(_HANGS, "", 0)
    path.write_bytes(content)
    return path, outcome, damaged


def main(arguments: list[str] | None = None) -> int:
    """Damages and reads; returns 1 after a fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=500, help="files (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--only", default="", metavar="ENDING", help="files of this ending alone")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the files of faults go")
    options = parser.parse_args(arguments)
    totals, most, begun = Counter[str](), 0, 0
    while begun < options.count:
        with tempfile.TemporaryDirectory() as folder, Worker(Path(folder), options.only) as worker:
            while begun < options.count:
                begun += 1
                path, outcome, damaged = _one(worker, options.seed, begun - 1)
                totals[outcome.what] += 1
                most = max(most, outcome.peak)
                if outcome.what not in _GOOD:
                    print(f"{begun - 1} {path.name}: {outcome.what}: {outcome.line}")
                    if options.keep:
                        options.keep.mkdir(parents=True, exist_ok=True)
                        (options.keep / f"{begun - 1}_{path.name}").write_bytes(damaged)
                if outcome.what == _HANGS:
                    break
    told = ", ".join(f"{count} {what}" for what, count in totals.most_common())
    print(f"{options.count} damaged files: {told}; {most / 1e6:.0f} MB at most")
    return 1 if totals.keys() - set(_GOOD) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
