"""What the tests of the converters share."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TOOLS = Path(__file__).resolve().parents[1] / "tools"
needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)


def of_words(command: Callable[[list[str]], int]) -> Callable[..., int]:
    """A command that takes its words one by one, as numbers and paths, too."""

    def call(*words: Any) -> int:
        return command([str(word) for word in words])

    return call
