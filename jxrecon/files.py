"""Files that appear under their name only when they are whole, and the folder of what can be made again."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath
from typing import Any, TextIO

from jxrecon.types import InputError, shown

MAX_BYTES = 2 * 1024**3
"""Largest volume that is read, counted as float32: 512 x 512 x 2048 voxels."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """An empty file of the same ending beside `path`, to be written within; moved to `path` at the end.

    Folders are made where they are missing. What is there already stays as it is until the move; after an
    error nothing new is left behind.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    part = path.with_name(f".part_{os.getpid()}_{path.name}"[:255])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)  # of a process of the same number that was killed
        part.open("xb").close()  # a new file, and not what somebody's link leads to
        yield part
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def append_to(path: Path) -> TextIO:
    """A text file to be added to, each line written as it ends; a link in its place is not followed.

    Raises:
        InputError: it cannot be written to.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, 0o666)

    try:
        return open(path, "a", 1, "utf-8", "surrogateescape", "", opener=opener)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None


def no_link(path: Path) -> None:
    """Raises InputError where a folder that is to be filled is a link: what lies there is of others."""
    if path.is_symlink():
        raise InputError(f"{path}: a link to {os.readlink(path)}, expected a folder of its own")


@contextmanager
def locked(folder: Path, what: str) -> Iterator[Callable[[], None]]:
    """Keeps other processes from doing the same in a folder; the lock dies with its process.

    Args:
        folder: made where missing; `.WHAT.lock` in it stays, and means nothing by itself.
        what: "training" or "evaluation".

    Yields:
        a function that raises InputError once the folder is gone, or another one lies in its place.

    Raises:
        InputError: another process has the lock, or the folder cannot be written to.
    """
    path = folder / f".{what}.lock"
    make_folder(folder)
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder}: another {what} is under way there, expected to be alone: wait for its end, or "
                "give another folder"
            ) from None
        except OSError:  # a file system without locks
            pass
        own = os.fstat(lock)

        def still_there() -> None:
            try:
                found = os.stat(path, follow_symlinks=False)
            except OSError:
                found = None
            if found is None or (found.st_dev, found.st_ino) != (own.st_dev, own.st_ino):
                raise InputError(f"{folder}: moved, removed or replaced during the {what}")

        yield still_there
    finally:
        os.close(lock)


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


def check_writable(folder: Path) -> None:
    """Refuses a folder that cannot be made or written to, before any time is spent; leaves nothing behind.

    Raises:
        InputError: it cannot; on full, read-only and foreign disks, or where a file lies in its place.
    """
    made: list[Path] = []
    probe = folder / f".probe_{os.getpid()}"
    try:
        for place in (*list(folder.parents)[::-1], folder):
            if not place.exists():
                place.mkdir()
                made.append(place)
        probe.mkdir()
        made.append(probe)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from None
    finally:
        for place in reversed(made):
            with suppress(OSError):
                place.rmdir()


MOST_NAME_BYTES = 200
"""Longest name of a case: file systems allow 255, and an ending follows."""


def component(name: str, origin: str) -> str:
    """A name that was read from data, as it is: one path component, which leads to no other folder.

    Args:
        name: of a case, a patient or a method, to be part of a path.
        origin: the file that it was read from, to be named in the error.

    Raises:
        InputError: it is empty, leads elsewhere on some system (`..`, `a/b`, `C:a`), is longer than 200
            bytes, or can be no file's.
    """
    try:
        size = len(os.fsencode(name))
    except UnicodeEncodeError:  # half of a surrogate pair, out of a JSON file
        size = 0
    plain = PureWindowsPath(name).name == name and name != ".." and "\0" not in name
    if not plain or not 0 < size <= MOST_NAME_BYTES:
        raise InputError(
            f"{origin}: the name {shown(name)}, expected one that a file can have: without / and \\, of 1 to "
            f"{MOST_NAME_BYTES} bytes"
        )
    return name


def as_component(name: str) -> str:
    """Any name as one path component that every system allows; equal names stay equal.

    Letters, digits and `_ . + -` stay, all else becomes `_`; what is too long is cut and ends in eight
    digits of its SHA-256. Two names may become one: who needs them apart has to look.
    """
    plain = re.sub(r"[^\w.+-]", "_", unicodedata.normalize("NFC", name)).strip(".") or "case"
    if re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", plain, re.I):  # devices of Windows
        plain = f"_{plain}"
    if len(plain.encode()) <= MOST_NAME_BYTES:
        return plain
    digits = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
    return plain.encode()[: MOST_NAME_BYTES - 9].decode(errors="ignore") + f"_{digits}"


MOST_JSON_BYTES, MOST_JSON_LEVELS = 1 << 24, 64


def read_json(path: Path) -> Any:
    """What a JSON file holds. Whole numbers of more than 18 digits become floats, perhaps infinite.

    Raises:
        InputError: it cannot be read, is longer than 16 MiB, no JSON, or nested more than 64 levels deep.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_JSON_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(content) > MOST_JSON_BYTES:
        raise InputError(f"{path}: more than {MOST_JSON_BYTES} bytes, expected a JSON file")
    try:
        value = json.loads(
            content, parse_int=lambda text: int(text) if len(text) < 19 else float(text)
        )
        if _levels(value) > MOST_JSON_LEVELS:
            raise RecursionError
    except RecursionError:
        raise InputError(f"{path}: nested more than {MOST_JSON_LEVELS} levels deep") from None
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as JSON ({one_line(error)})") from None
    return value


def _levels(value: Any) -> int:
    """How deep lists and objects of JSON are nested; without recursion."""
    count, level = 0, [value]
    while level := [node for node in level if isinstance(node, dict | list)]:
        level = [
            one for node in level for one in (node.values() if isinstance(node, dict) else node)
        ]
        count += 1
    return count


def one_line(error: BaseException) -> str:
    """What an error says, or its kind where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def write_file(path: Path, content: bytes | str) -> None:
    """Writes a whole file, text as UTF-8 and names of files in it as their bytes; errors as of `whole`."""
    with whole(path) as part, part.open("wb") as stream:
        stream.write(
            content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")
        )


def cache_folder(part: str = "") -> Path | None:
    """Where results of this part that can be made again are kept between runs; None with JXRECON_NO_CACHE."""
    if os.environ.get("JXRECON_NO_CACHE"):
        return None
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "jxrecon" / part
