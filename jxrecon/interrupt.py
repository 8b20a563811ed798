"""Signals that end a command: heeded from its first second to its last, also while a library computes.

Python runs a handler between two lines of the main thread. Within XLA that may take minutes, and what a
handler raises in a callback of C code is swallowed. So a thread hears of every signal at once, and ends a
process that has not ended by itself in a while.
"""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

_HANGUP = getattr(signal, "SIGHUP", 0)  # Windows has none

GRACE_SECONDS = 3.0
"""From a signal to the end of a process that does not react."""


class Ended(KeyboardInterrupt):
    """A signal is to end the command."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def numbers() -> list[int]:
    """Ctrl-C, the end that a batch system asks for, and, unless it is ignored, a terminal that is closed."""
    hangup = _HANGUP and signal.getsignal(_HANGUP) != signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM, *([_HANGUP] if hangup else [])]


@contextmanager
def heeded(last: bool = False) -> Iterator[None]:
    """Within, a signal raises `Ended` in the main thread, and ends the process if that comes to nothing.

    A SIGHUP that is ignored, as under nohup, stays so. Handlers that are set within take their place
    (`runs.signals`): then the first signal is theirs alone.

    Args:
        last: nothing but the end of the process follows: a signal then ends it at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    timers: list[threading.Timer] = []
    before: dict[int, Any] = {number: signal.signal(number, _raise) for number in numbers()}
    woken = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader, timers), daemon=True).start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, _leave if last else handler)
        signal.set_wakeup_fd(woken)
        os.close(writer)
        for timer in timers:
            timer.cancel()


def silence_lost_terminal(number: int) -> None:
    """After a SIGHUP, what is still said goes nowhere: writing to a closed terminal is an error."""
    if number == _HANGUP:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            with suppress(OSError):
                if stat.S_ISCHR(os.fstat(stream).st_mode):
                    os.dup2(nowhere, stream)
        os.close(nowhere)


def _raise(number: int, frame: FrameType | None) -> None:
    silence_lost_terminal(number)
    raise Ended(number)


def _leave(number: int, frame: FrameType | None = None) -> NoReturn:
    os._exit(128 + number)


def _watch(reader: int, timers: list[threading.Timer]) -> None:
    """Sets a timer at every signal that is to end the process: not at the first of a handler set within."""
    heard: Counter[int] = Counter()
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        while woken := pipe.read(64):
            for number in set(woken) & {signal.SIGINT, signal.SIGTERM, _HANGUP}:
                heard[number] += 1
                if signal.getsignal(number) is _raise or heard[number] > 1:
                    timer = threading.Timer(GRACE_SECONDS, _give_up, [number])
                    timer.daemon = True
                    timers.append(timer)
                    timer.start()


def _give_up(number: int) -> NoReturn:
    with suppress(OSError):
        os.write(2, b"interrupted\n")
    _leave(number)
