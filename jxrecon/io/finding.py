"""The files of a folder, by the same rules for every command, and names for what is found in them.

Links are followed, a loop of them is refused. Hidden files, AppleDouble ones (`._name`, which macOS
writes beside the real one) and folders `__MACOSX` are no data. Nothing is passed over in silence: what
is not taken is counted and named in a note.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from jxrecon.files import as_component
from jxrecon.terminal import note, noted
from jxrecon.types import InputError

_NAMED = 4  # of what is passed over for one reason


class Found(NamedTuple):
    """What a folder holds.

    Attributes:
        files: what was looked for, sorted by path.
        passed: (path, why) of everything else.
    """

    files: tuple[Path, ...]
    passed: tuple[tuple[Path, str], ...]

    def told(self, folder: Path) -> Found:
        """Itself, after a note on what was passed over, if anything was."""
        reasons = defaultdict(list)
        for path, why in self.passed:
            reasons[why].append(str(path.relative_to(folder)))
        parts = []
        for why, names in reasons.items():
            more = ", ..." if len(names) > _NAMED else ""
            parts.append(f"{len(names)} {why} ({', '.join(names[:_NAMED])}{more})")
        if parts:
            note(f"{folder}: {len(self.files)} taken, passed over {', '.join(parts)}")
        return self


def find_files(
    folder: Path,
    wanted: Callable[[Path], bool] = lambda path: True,
    *,
    deep: bool = True,
    apart: Path | None = None,
) -> Found:
    """The files of a folder.

    Args:
        folder: to look in.
        wanted: whether a file is looked for, by its path; endings in any case of letters are its own care.
        deep: look into subfolders; else they are passed over.
        apart: a folder that is left out, such as that of results.

    Raises:
        InputError: there is no such folder, it cannot be listed, it is `apart`, or links lead in a loop.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected one of files")
    if apart is not None and apart.resolve() == folder.resolve():
        raise InputError(f"{apart}: sources and results in one folder, expected two")
    files: list[Path] = []
    passed: list[tuple[Path, str]] = []
    seen: dict[tuple[int, int], Path] = {}
    left_out = apart.resolve() if apart else None
    above = tuple(map(_identity, folder.resolve().parents))  # a link to one of them leads back, too
    try:
        os.listdir(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror or error})") from None
    for path, why in _entries(folder, above, seen, deep, left_out):
        if why:
            passed.append((path, why))
        elif not wanted(path):
            passed.append((path, "of another kind"))
        elif (first := seen.setdefault(_identity(path), path)) != path:
            passed.append((path, f"the same file as {first.relative_to(folder)}"))
        else:
            files.append(path)
    return Found(tuple(sorted(files)), tuple(passed))


def _identity(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_dev, facts.st_ino


def _entries(
    folder: Path,
    above: tuple[tuple[int, int], ...],
    seen: dict[tuple[int, int], Path],
    deep: bool,
    apart: Path | None,
) -> Iterator[tuple[Path, str]]:
    """(path, why it is no data or "") of the files in a folder and, if deep, below it."""
    try:
        above = (*above, _identity(folder))
        names = sorted(os.listdir(folder))
    except OSError as error:
        yield folder, f"that cannot be read ({error.strerror or error})"
        return
    for path in (folder / name for name in names):
        if path.name.startswith("._"):
            yield path, "AppleDouble"
        elif path.name.startswith(".") or path.name == "__MACOSX":
            yield path, "hidden"
        else:
            try:
                identity = _identity(path)
            except OSError as error:
                if error.errno == errno.ELOOP:
                    raise InputError(f"{path}: links to itself, expected no loop") from None
                gone = "that link to nothing" if path.is_symlink() else "that cannot be read"
                yield path, gone
                continue
            if path.is_file():
                yield path, ""
            elif not path.is_dir():
                yield path, "neither file nor folder"
            elif not deep:
                yield path, "folder"
            elif identity in above:
                raise InputError(
                    f"{path}: links back to a folder that it lies in, expected no loop"
                )
            elif apart is not None and path.resolve() == apart:
                continue
            elif (first := seen.setdefault(identity, path)) != path:
                yield path, f"the same folder as {first.name}"
            else:
                yield from _entries(path, above, seen, deep, apart)


def ends(path: Path, endings: Sequence[str]) -> str | None:
    """The one of these endings that a file's name has, in any case of letters; None if it has none."""
    return next((ending for ending in endings if path.name.lower().endswith(ending)), None)


def by_case(
    folder: Path,
    endings: Sequence[str],
    taken: Callable[[str], bool],
    folders: Callable[[Path], bool] = lambda path: False,
) -> dict[str, Path]:
    """The files NAME + ending of a folder, not below it, by NAME; what is passed over is told.

    Args:
        folder: to look in.
        endings: in small letters, the longest first; files may have them in any case.
        taken: whether a case of this name is wanted.
        folders: whether a subfolder is a case, too: NAME, or NAME and an ending up to its first dot.

    Raises:
        InputError: two files would be one case, or as of `find_files`.
    """
    found = find_files(folder, lambda path: ends(path, endings) is not None, deep=False)
    whole = [path for path, why in found.passed if why == "folder" and folders(path)]
    files, passed = {}, [one for one in found.passed if one[0] not in whole]
    marks = sorted({mark for e in endings if (mark := e.split(".")[0])}, key=len, reverse=True)
    for path in sorted((*found.files, *whole)):
        ending = ends(path, marks if path in whole else endings) or ""
        name = path.name[: len(path.name) - len(ending)]
        if name in files:
            raise InputError(f"{path}: a second file of case {name}, expected one")
        if taken(name):
            files[name] = path
        else:
            passed.append((path, "of no case that is wanted"))
    alike: dict[str, str] = {}
    for name in files:
        if (other := alike.setdefault(as_component(name).casefold(), name)) != name:
            raise InputError(
                f"{files[name]}: its results would be called as those of {files[other].name}, "
                "expected other names"
            )
    Found(tuple(files.values()), tuple(passed)).told(folder)
    return files


def safe_names(wanted: Sequence[tuple[str, str]]) -> list[str]:
    """One path component for each (name, what identifies it), no two alike in any case of letters.

    Names that would be alike are followed by a digest of what identifies them: they stay the same
    whatever is added to or taken from the list beside them.

    Raises:
        InputError: two of the list are the same in both.
    """
    twice = next((pair for pair, times in Counter(wanted).items() if times > 1), None)
    if twice:
        raise InputError(f"{twice[1]}: found twice as {twice[0]}, expected two cases to differ")
    names = [as_component(name) for name, _ in wanted]
    count = Counter(name.casefold() for name in names)
    taken = {name.casefold() for name in names if count[name.casefold()] == 1}
    for place, (_, identity) in enumerate(wanted):
        if count[(name := names[place]).casefold()] > 1:
            digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
            length = 6
            while (made := f"{name}_{digest[:length]}").casefold() in taken:
                length += 1
            names[place] = made
            taken.add(made.casefold())
    return names


def of_cases(
    folder: Path,
    endings: Sequence[str],
    names: Sequence[str],
    what: str,
    folders: Callable[[Path], bool] = lambda path: False,
) -> dict[str, Path]:
    """The file of each of these cases, as `by_case` finds them; the others do not matter.

    Raises:
        InputError: a case has none; `what` says what was looked for.
    """
    with noted():
        files = by_case(folder, endings, set(names).__contains__, folders)
    for name in names:
        if name not in files:
            wanted = folder / f"{name}{endings[0]}"
            raise InputError(f"{wanted}: no such file, expected the {what} of case {name}")
    return {name: files[name] for name in names}
