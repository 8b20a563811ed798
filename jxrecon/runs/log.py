"""The log of a training: JSON lines and TensorBoard."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tensorboardX import summary
from tensorboardX.event_file_writer import (
    EventsWriter,
)
from tensorboardX.proto.event_pb2 import Event, SessionLog

from jxrecon.files import append_to, make_folder, no_link, write_file
from jxrecon.types import InputError


class MetricsLog:
    """metrics.jsonl and tensorboard/ of a run folder."""

    def __init__(self, folder: Path, step: int) -> None:
        """Opens both and drops what was logged after `step`: a resumed run logs it again."""
        path, board = folder / "metrics.jsonl", folder / "tensorboard"
        lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        steps = [_step_of(line) for line in lines]
        if count := steps.count(None):
            print(f"warning: {path}: {count} damaged line(s) dropped", file=sys.stderr, flush=True)
        kept = [line for line, of in zip(lines, steps) if of is not None and of <= step]
        write_file(path, b"".join(kept))
        no_link(board)
        make_folder(board)
        self._file = append_to(path)
        # SummaryWriter would write in a thread, which fails unheard
        self._board = EventsWriter(str(board / "events"), f".{os.getpid()}")
        if step:
            start = SessionLog(
                status=SessionLog.START
            )  # TensorBoard forgets the steps from here on
            self._board.write_event(Event(wall_time=time.time(), step=step + 1, session_log=start))

    def write(self, step: int, split: str, terms: dict[str, float]) -> None:
        """One line; numbers that are not finite become null, as JSON has none."""
        values = {k: v if math.isfinite(v) else None for k, v in terms.items()}
        with self._refused():
            self._file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
        for name, value in terms.items():
            self.show(step, f"{split}/{name}", value)
        with self._refused():
            self._board.flush()

    def show(self, step: int, name: str, value: float) -> None:
        """A number for TensorBoard alone."""
        with self._refused():
            shown = summary.scalar(name, value)
            self._board.write_event(Event(wall_time=time.time(), step=step, summary=shown))

    def close(self) -> None:
        with self._refused():
            self._file.close()
            self._board.close()

    @contextmanager
    def _refused(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = Path(self._file.name).parent
            raise InputError(f"{where}: cannot be logged to ({error.strerror or error})") from None


def _step_of(line: bytes) -> int | None:
    """The step of a logged line; None for a damaged one, as the last one of a killed run, cut off."""
    try:
        step = json.loads(line)["step"] if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return step if type(step) is int else None
