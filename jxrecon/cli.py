"""What every entry point shares: one line and an exit code for bad input, and the folder of caches."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import jax

from jxrecon.types import InputError

Main = Callable[[list[str] | None], int]
"""An entry point: its arguments without the program's name (None: those of the process) -> exit code."""

_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
"""What a full, read-only or foreign disk answers."""


def cache_folder() -> Path | None:
    """Where results that can be computed again are kept between runs; None with JXRECON_NO_CACHE."""
    if os.environ.get("JXRECON_NO_CACHE"):
        return None
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "jxrecon"


def entry(main: Main, arguments: list[str] | None = None) -> int:
    """Runs an entry point; used as `raise SystemExit(entry(main))`.

    Compiled programs are kept in `cache_folder()`, or where JAX_COMPILATION_CACHE_DIR says.

    Args:
        main: the entry point.
        arguments: handed on to it; None means those of the process.

    Returns:
        what `main` returns; 2 after bad input or when the disk refuses to be written to, with one
        line on stderr; 130 after Ctrl-C.
    """
    folder = cache_folder()
    if folder and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(folder / "xla"))
    try:
        return main(arguments)
    except InputError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        print(f"error: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def train() -> int:
    """The console script jxrecon-train."""
    from jxrecon.train import main

    return entry(main)


def evaluate() -> int:
    """The console script jxrecon-evaluate."""
    from jxrecon.evaluate import main

    return entry(main)


def reconstruct() -> int:
    """The console script jxrecon-reconstruct."""
    from jxrecon.reconstruct import main

    return entry(main)


def register() -> int:
    """The console script jxrecon-register."""
    from jxrecon.register import main

    return entry(main)


def style() -> int:
    """The console script jxrecon-style."""
    from jxrecon.style import main

    return entry(main)


def prepare() -> int:
    """The console script jxrecon-prepare."""
    from jxrecon.prepare import main

    return entry(main)
