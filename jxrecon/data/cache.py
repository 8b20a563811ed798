"""Arrays that took long to make, kept in one file beside the fingerprint of what they were made from."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np


def fingerprint(*facts: Any) -> str:
    """SHA-256 of facts that JSON can write: equal for equal facts, on every machine."""
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def load_arrays(path: Path, key: str) -> dict[str, np.ndarray] | None:
    """What `save_arrays` wrote under this key; None where it is absent, damaged or of another key."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
            if str(kept["fingerprint"]) != key:
                return None
            return {name: kept[name] for name in kept.files if name != "fingerprint"}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def save_arrays(path: Path, key: str, arrays: dict[str, Any]) -> None:
    """Writes an uncompressed .npz, whole or not at all.

    A cache is a convenience: a disk that refuses it is told of in a line on stderr, no more.
    """
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as stream:
            part = Path(stream.name)
            np.savez(stream, fingerprint=np.array(key), **arrays)
        os.replace(part, path)
    except OSError as error:
        print(f"{path}: not cached ({error.strerror or error})", file=sys.stderr)
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
