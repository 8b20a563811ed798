"""The log of a training: JSON lines and TensorBoard."""

from __future__ import annotations

import json
import math
from pathlib import Path

from tensorboardX import SummaryWriter

from jxrecon.files import write_file


class MetricsLog:
    """metrics.jsonl and tensorboard/ of a run folder."""

    def __init__(self, folder: Path, step: int) -> None:
        """Opens both and drops what was logged after `step`: a resumed run logs it again."""
        path = folder / "metrics.jsonl"
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            write_file(path, "".join(line for line in lines if _step_of(line) <= step))
        self._file = path.open("a", buffering=1)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, split: str, terms: dict[str, float]) -> None:
        """One line; numbers that are not finite become null, as JSON has none."""
        values = {k: v if math.isfinite(v) else None for k, v in terms.items()}
        self._file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
        for name, value in terms.items():
            self._board.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        self._file.close()
        self._board.close()


def _step_of(line: str) -> float:
    """The step of a logged line; infinite for the last line of a killed run, which may be cut off."""
    try:
        return json.loads(line)["step"] if line.endswith("\n") else math.inf
    except ValueError:
        return math.inf
