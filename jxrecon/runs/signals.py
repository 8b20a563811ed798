"""SIGTERM, SIGINT and SIGHUP, turned into a question that a loop asks between its steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jxrecon import interrupt


class Interrupted(Exception):
    """A signal ended training at `step`, which is saved."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"{signal.Signals(number).name}: step {step} is saved")
        self.number = number


class Signals:
    """Notes the first signal, so that the loop ends after its step; a second one ends it at once."""

    number: int | None = None

    def __enter__(self) -> Signals:
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in interrupt.numbers():
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is None and self.number is not None:  # after the loop had asked for the last time
            signal.raise_signal(self.number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        first, self.number = self.number is None, self.number or number
        interrupt.silence_lost_terminal(number)
        if not first:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)

    def caught(self, step: int, every: int) -> bool:
        """Whether to stop now; several processes agree on it every so many steps."""
        if jax.process_count() > 1:
            if step % every:
                return False
            noted = multihost_utils.process_allgather(np.int32(self.number or 0))
            self.number = int(noted.max()) or None
        return self.number is not None
