"""The files of a folder and their checksums, in one of them: a flipped bit shows, in metadata too."""

from __future__ import annotations

import zlib
from pathlib import Path

from jxrecon.files import write_file

NAME = "files.crc32"
"""A line a file: CRC32, bytes, path below the folder; the last one holds the CRC32 of those before."""


def seal(folder: Path) -> None:
    """Writes the checksums of all files below a folder that will not change any more.

    Raises:
        InputError: the disk refuses.
    """
    lines = "".join(f"{line}\n" for line in _lines(folder))
    write_file(folder / NAME, f"{lines}{zlib.crc32(lines.encode()):08x}\n")


def damage(folder: Path) -> str | None:
    """What is not as it was sealed, in words; None: nothing, or the folder was never sealed.

    A save that was killed before its end leaves no seal: then only what else tells of damage does.
    """
    try:
        text = (folder / NAME).read_bytes().decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        return f"{NAME} cannot be read ({error})"
    *lines, last = text.splitlines() or [""]
    if last != f"{zlib.crc32(text[: text.rfind(last)].encode()):08x}":
        return f"{NAME} has a wrong checksum"
    found = set(_lines(folder))
    other = next((line for line in lines if line not in found), None)
    return (
        None if other is None else f"{other.split(' ', 2)[-1]} is missing or has another checksum"
    )


def _lines(folder: Path) -> list[str]:
    return [
        f"{_crc32(path):08x} {path.stat().st_size} {path.relative_to(folder).as_posix()}"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != NAME
    ]


def _crc32(path: Path) -> int:
    found = 0
    with path.open("rb") as stream:
        while part := stream.read(1 << 20):
            found = zlib.crc32(part, found)
    return found
