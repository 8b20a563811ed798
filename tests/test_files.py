"""Names out of data as parts of paths; locks; who writes what and where."""

import os
import re
import shutil
from pathlib import Path

import pytest

from jxrecon.files import append_to, as_component, check_writable, component, locked, write_file
from jxrecon.types import InputError

ELSEWHERE = ["", ".", "..", "../a", "a/../b", "/etc", "a\\b", "C:a", "a\0b", "x" * 300, "\ud800"]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_name_that_leads_elsewhere_is_refused_or_made_one_component(name: str, tmp_path: Path):
    with pytest.raises(
        InputError, match=r"^list\.csv: the name .*, expected one that a file can have"
    ):
        component(name, "list.csv")
    safe = as_component(name)
    assert component(safe, "list.csv") == safe
    (tmp_path / safe).write_text("")  # the file system agrees
    assert (tmp_path / safe).resolve().parent == tmp_path.resolve()


@pytest.mark.parametrize("name", ['o"ne, two\nthree', "Müller 1", "a.b-c+d", "..a"])
def test_a_name_of_a_file_stays_as_it_is(name: str):
    assert component(name, "x") == name
    assert re.fullmatch(r"[\w.+-]+", as_component(name))


def test_long_names_that_differ_at_their_end_stay_apart():
    assert as_component("é" * 150 + "1") != as_component("é" * 150 + "2")
    assert as_component("con.nii") == "_con.nii"


def test_a_lock_is_for_one_alone_and_ends_with_it(tmp_path: Path):
    folder = tmp_path / "run"
    with locked(folder, "training"):
        with pytest.raises(InputError, match="run: another training is under way there"):
            locked(folder, "training").__enter__()
        with locked(folder, "evaluation"):
            pass
    with locked(folder, "training") as still_there:  # the file that was left means nothing
        still_there()
        shutil.rmtree(folder)
        with pytest.raises(InputError, match="moved, removed or replaced during the training"):
            still_there()
        (tmp_path / "other").mkdir()
        folder.symlink_to(tmp_path / "other")
        with pytest.raises(InputError, match="moved, removed or replaced"):
            still_there()


def test_writers_follow_the_umask_and_no_link(tmp_path: Path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("of others")
    link.symlink_to(target)
    with pytest.raises(InputError, match="link: cannot be written"):
        append_to(link)
    before = os.umask(0o027)
    try:
        write_file(link, "ours")
    finally:
        os.umask(before)
    assert target.read_text() == "of others"
    assert link.read_text() == "ours"
    assert link.stat().st_mode & 0o777 == 0o640


def test_a_folder_is_tried_before_it_is_needed_and_left_as_it_was(tmp_path: Path):
    check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    for bad in ("file", "file/below", "x" * 300):
        with pytest.raises(InputError, match="cannot be written"):
            check_writable(tmp_path / bad)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
