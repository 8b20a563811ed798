"""Files that appear under their name only when they are whole, and the folder of what can be made again."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jxrecon.types import InputError


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file of the same ending beside `path`, to be written within; moved to `path` at the end, in one step.

    Folders are made where they are missing. What is there already stays as it is until the move; after an
    error nothing new is left behind.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    part = path.with_name(f".part_{os.getpid()}_{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)  # of a process of the same number that was killed
        yield part
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Makes a folder where it is missing, so that a long computation does not end in vain.

    Raises:
        InputError: it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None


def one_line(error: BaseException) -> str:
    """What an error says, or its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def write_file(path: Path, content: bytes | str) -> None:
    """Writes a whole file, text as UTF-8; errors as of `whole`."""
    with whole(path) as part, part.open("xb") as stream:
        stream.write(content if isinstance(content, bytes) else content.encode())


def cache_folder(part: str = "") -> Path | None:
    """Where results of this part that can be made again are kept between runs; None with JXRECON_NO_CACHE."""
    if os.environ.get("JXRECON_NO_CACHE"):
        return None
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "jxrecon" / part
