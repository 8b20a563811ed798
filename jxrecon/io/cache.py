"""Arrays that took long to make, kept in one file beside the fingerprint of what they were made from."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from jxrecon.files import whole
from jxrecon.types import InputError


def fingerprint(*facts: Any) -> str:
    """SHA-256 of facts that JSON can write: equal for equal facts, on every machine."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def stamp(path: Path) -> tuple[str, int, int, int]:
    """Where a file lies, its size and its times of change; a file that is not there has none of them.

    The time of the inode's change cannot be set: a file put in the place of another one differs. A folder has
    the size and the latest times of all that is in it.
    """
    parts = [path, *path.rglob("*")] if path.is_dir() else [path]
    facts = [part.stat() for part in parts if part.exists()]
    if not facts:
        return str(path.resolve()), -1, -1, -1
    size = sum(one.st_size for one in facts)
    latest = max(one.st_mtime_ns for one in facts), max(one.st_ctime_ns for one in facts)
    return str(path.resolve()), size, *latest


def load_arrays(path: Path, key: str) -> dict[str, np.ndarray] | None:
    """What `save_arrays` wrote under this key; None where it is absent, damaged or of another key."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
            if str(kept["fingerprint"]) != key:
                return None
            return {name: kept[name] for name in kept.files if name != "fingerprint"}
    except Exception:  # whatever a damaged file makes NumPy raise
        return None


def save_arrays(path: Path, key: str, arrays: dict[str, Any]) -> None:
    """Writes an uncompressed .npz, whole or not at all.

    A cache is a convenience: a disk that refuses it is told of in a line on stderr, no more.
    """
    try:
        with whole(path) as part, part.open("wb") as stream:
            np.savez(stream, fingerprint=np.array(key), **arrays)
    except InputError as error:
        print(f"{error}; not cached", file=sys.stderr)
