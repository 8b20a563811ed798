"""What a person at the terminal sees of long work: spinner, bars, lines now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    track,
)

T = TypeVar("T")

_PLAIN_SECONDS = 15.0  # between progress lines when stderr is a file


class Spinner:
    """What goes on: in place on a terminal, else a line every `_PLAIN_SECONDS`."""

    def __init__(self, text: str) -> None:
        console = Console(stderr=True)
        self._status = console.status(text) if console.is_terminal else None
        self._told = time.monotonic()

    def __enter__(self) -> Spinner:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._status:
            self._status.stop()

    def tell(self, text: str) -> None:
        """Shows the text in place of the last one."""
        if self._status:
            self._status.update(text)
        elif time.monotonic() - self._told > _PLAIN_SECONDS:
            self._told = time.monotonic()
            print(text, file=sys.stderr, flush=True)


class Meter:
    """Steps done, steps a second and time left: a bar on a terminal, else a line now and then."""

    def __init__(self, first: int, last: int, silent: bool = False) -> None:
        """Counts from step `first` to `last`."""
        self._bar: Progress | None = None
        self._first, self._last, self._silent = first, last, silent
        self._done, self._terms = first, ""
        self._began: float | None = None  # the first step compiles and is left out of the rate
        self._told = time.monotonic()

    def __enter__(self) -> Meter:
        console = Console(stderr=True)
        if console.is_terminal and not self._silent:
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[terms]}"),
                console=console,
            )
            self._task = self._bar.add_task(
                "", total=self._last, completed=self._first, rate="", terms=""
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def terms(self, terms: dict[str, float]) -> None:
        """What to show beside the count from now on."""
        self._terms = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())

    def step(self, done: int) -> None:
        """Step number `done` is finished."""
        now, self._done = time.monotonic(), done
        if self._began is None:
            self._began = now
        counted = done - self._first - 1
        rate = counted / (now - self._began) if counted and now > self._began else 0.0
        if self._bar:
            self._bar.update(
                self._task, completed=done, rate=f"{rate:.2f} steps/s", terms=self._terms
            )
        elif not self._silent and (now - self._told > _PLAIN_SECONDS or done == self._last):
            self._told = now
            left = f", {(self._last - done) / rate:.0f} s left" if rate else ""
            line = f"step {done}/{self._last}  {rate:.2f} steps/s{left}  {self._terms}"
            print(line.rstrip(), file=sys.stderr, flush=True)


class CaseBar:
    """Cases done and time left of each method: a bar on a terminal, else a line now and then."""

    def __init__(self, total: int) -> None:
        console = Console(stderr=True)
        self._columns = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._plain, self._total, self._told = not console.is_terminal, total, time.monotonic()

    def __enter__(self) -> CaseBar:
        self._columns.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._columns.stop()

    def begin(self, name: str, done: int) -> None:
        """The next method, of which some cases are done already."""
        self._name, self._first, self._done = name, done, done
        self._began = time.monotonic()
        self._task = self._columns.add_task(name, total=self._total, completed=done)
        if self._plain:
            kept = f", {done} done before" if done else ""
            print(f"{name}: {self._total} cases{kept}", file=sys.stderr, flush=True)

    def advance(self) -> None:
        """One case is done."""
        self._done += 1
        self._columns.update(self._task, completed=self._done)
        now = time.monotonic()
        if self._done == self._first + 1:  # it compiled: not the pace of the others
            self._first, self._began = self._done, now
        elif self._plain and now - self._told > _PLAIN_SECONDS:
            self._told = now
            left = (now - self._began) / (self._done - self._first) * (self._total - self._done)
            line = f"{self._name}: {self._done}/{self._total} cases, {left:.0f} s left"
            print(line, file=sys.stderr, flush=True)


def progress(items: Iterable[T], what: str, total: int) -> Iterable[T]:
    """The items, with a bar on stderr where that is a terminal."""
    console = Console(stderr=True)
    hidden = not console.is_terminal
    return track(items, what, total, console=console, transient=True, disable=hidden)
