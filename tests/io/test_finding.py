"""One finder of files: links, hidden files and names, with nothing passed over in silence."""

import pytest

from jxrecon.io.finding import by_case, find_files, safe_names
from jxrecon.types import InputError


def is_ct(path):
    return path.name.lower().endswith("_ct.nii.gz")


def test_every_file_is_taken_or_named_with_the_reason(tmp_path, capsys):
    folder, store = tmp_path / "in", tmp_path / "store"
    for path in (folder / "a_ct.nii.gz", folder / "sub" / "B_CT.NII.GZ", store / "c_ct.nii.gz"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    (folder / "._a_ct.nii.gz").write_bytes(b"AppleDouble")
    (folder / ".hidden_ct.nii.gz").write_bytes(b"x")
    (folder / "notes.txt").write_bytes(b"x")
    (folder / "store").symlink_to(store)
    (folder / "gone_ct.nii.gz").symlink_to(tmp_path / "nothing")
    (folder / "twin_ct.nii.gz").symlink_to(folder / "a_ct.nii.gz")
    found = find_files(folder, is_ct).told(folder)
    assert {path.name for path in found.files} == {"a_ct.nii.gz", "B_CT.NII.GZ", "c_ct.nii.gz"}
    told = capsys.readouterr().err
    for reason in (
        "3 taken",
        "1 AppleDouble (._a_ct.nii.gz)",
        "1 hidden (.hidden_ct.nii.gz)",
        "1 of another kind (notes.txt)",
        "1 that link to nothing (gone_ct.nii.gz)",
        "1 the same file as a_ct.nii.gz (twin_ct.nii.gz)",
    ):
        assert reason in told
    (flat,) = find_files(folder, is_ct, deep=False).files
    assert flat.name == "a_ct.nii.gz"


@pytest.mark.parametrize("target", ["in", "in/deeper/loop", "."])
def test_a_loop_of_links_is_refused(tmp_path, target):
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    (tmp_path / "in" / "deeper" / "loop").symlink_to(tmp_path / target)
    with pytest.raises(InputError, match=r"deeper/loop: links .* expected no loop"):
        find_files(tmp_path / "in")


def test_two_cases_never_share_a_name(tmp_path):
    people = [("P 1", "a"), ("P_1", "b"), ("p/1", "c"), ("Q", "d")]
    names = safe_names(people)
    assert len({name.casefold() for name in names}) == 4
    assert names[3] == "Q"
    assert all("/" not in name and name.casefold().startswith("p_1_") for name in names[:3])
    # Who is added or gone beside them changes no name of those that stay apart.
    assert safe_names([*people[:2], ("p.1", "z")])[:2] == names[:2]
    with pytest.raises(InputError, match="found twice"):
        safe_names([("x", "same"), ("x", "same")])
    for name in ("p 1.ply", "p_1.ply"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match="results would be called as those of"):
        by_case(tmp_path, (".ply",), lambda name: True)
