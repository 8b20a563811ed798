"""Files that appear under their name only when they are whole, and the folder of what can be made again."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath
from typing import Any

from jxrecon.types import InputError, shown

MAX_BYTES = 2 * 1024**3
"""Largest volume that is read, counted as float32: 512 x 512 x 2048 voxels."""


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
    """Writes a whole file, text as UTF-8; errors as of `whole`."""
    with whole(path) as part, part.open("xb") as stream:
        stream.write(content if isinstance(content, bytes) else content.encode())


def cache_folder(part: str = "") -> Path | None:
    """Where results of this part that can be made again are kept between runs; None with JXRECON_NO_CACHE."""
    if os.environ.get("JXRECON_NO_CACHE"):
        return None
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "jxrecon" / part
