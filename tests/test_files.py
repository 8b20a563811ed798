"""Names out of data as parts of paths."""

import re
from pathlib import Path

import pytest

from jxrecon.files import as_component, component
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
