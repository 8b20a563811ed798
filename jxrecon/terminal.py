"""What a person at the terminal sees: notes on what was read, and spinner, bars, lines of long work."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Self, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    track,
)
from rich.status import Status

T = TypeVar("T")

_PLAIN_SECONDS = 15.0  # between progress lines when stderr is a file
_heard: ContextVar[list[str] | None] = ContextVar("heard", default=None)


def note(line: str) -> None:
    """Tells what was done beside what was asked for: on stderr, or to who listens with `noted`."""
    heard = _heard.get()
    if heard is None:
        print(f"note: {line}", file=sys.stderr, flush=True)
    else:
        heard.append(line)


@contextmanager
def noted() -> Iterator[list[str]]:
    """The notes of what runs within, in this thread, instead of lines on stderr."""
    lines: list[str] = []
    token = _heard.set(lines)
    try:
        yield lines
    finally:
        _heard.reset(token)


class _Live:
    """Shown in place on a terminal, else as a line every `_PLAIN_SECONDS`."""

    def __init__(self, shown: Progress | Status, silent: bool = False) -> None:
        terminal = shown.console.is_terminal
        self._shown = shown if terminal and not silent else None
        self._plain = not terminal and not silent
        self._told = time.monotonic()

    def __enter__(self) -> Self:
        if self._shown:
            self._shown.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._shown:
            self._shown.stop()

    def _line(self, text: str, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._plain and (at_once or now - self._told > _PLAIN_SECONDS):
            self._told = now
            print(text, file=sys.stderr, flush=True)


class Spinner(_Live):
    """What goes on."""

    def __init__(self, text: str) -> None:
        self._status = Console(stderr=True).status(text)
        super().__init__(self._status)

    def tell(self, text: str) -> None:
        """Shows the text in place of the last one."""
        self._status.update(text)
        self._line(text)


def _bar(*columns: ProgressColumn) -> Progress:
    name, bar, count = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(name, bar, count, *columns, console=Console(stderr=True))


class Meter(_Live):
    """Steps done, steps a second and time left."""

    def __init__(self, first: int, last: int, silent: bool = False) -> None:
        """Counts from step `first` to `last`."""
        rate, terms = TextColumn("{task.fields[rate]}"), TextColumn("{task.fields[terms]}")
        self._bar = _bar(rate, TimeRemainingColumn(), terms)
        super().__init__(self._bar, silent)
        self._task = self._bar.add_task("training", total=last, completed=first, rate="", terms="")
        self._first, self._last, self._terms = first, last, ""
        self._began: float | None = None  # the first step compiles and is left out of the rate

    def terms(self, terms: dict[str, float]) -> None:
        """What to show beside the count from now on."""
        self._terms = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())

    def step(self, done: int) -> None:
        """Step number `done` is finished."""
        now = time.monotonic()
        if self._began is None:
            self._began = now
        counted = done - self._first - 1
        rate = counted / (now - self._began) if counted and now > self._began else 0.0
        pace = f"{rate:.2f} steps/s"
        self._bar.update(self._task, completed=done, rate=pace, terms=self._terms)
        left = f", {(self._last - done) / rate:.0f} s left" if rate else ""
        line = f"step {done}/{self._last}  {pace}{left}  {self._terms}".rstrip()
        self._line(line, at_once=done == self._last)


class CaseBar(_Live):
    """Cases done and time left of each method."""

    def __init__(self, total: int) -> None:
        self._bar = _bar(TimeRemainingColumn())
        super().__init__(self._bar)
        self._total = total

    def begin(self, name: str, done: int) -> None:
        """The next method, of which some cases are done already."""
        self._name, self._first, self._done = name, done, done
        self._began = time.monotonic()
        self._task = self._bar.add_task(name, total=self._total, completed=done)
        kept = f", {done} done before" if done else ""
        self._line(f"{name}: {self._total} cases{kept}", at_once=True)

    def advance(self) -> None:
        """One case is done."""
        self._done += 1
        self._bar.update(self._task, completed=self._done)
        now = time.monotonic()
        if self._done == self._first + 1:  # it compiled: not the pace of the others
            self._first, self._began = self._done, now
            return
        left = (now - self._began) / (self._done - self._first) * (self._total - self._done)
        self._line(f"{self._name}: {self._done}/{self._total} cases, {left:.0f} s left")


def progress(items: Iterable[T], what: str, total: int) -> Iterable[T]:
    """The items, with a bar on stderr where that is a terminal."""
    console = Console(stderr=True)
    hidden = not console.is_terminal
    return track(items, what, total, console=console, transient=True, disable=hidden)
