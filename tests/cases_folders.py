"""Rows of test_cases: X-rays against their sidecars, folders of many files, meshes."""

import json

from jxrecon.data import lidc

_PAIR = "--xray {case}/%s/chest_ct_frontal%s {case}/%s/chest_ct_lateral%s"


def sirt(folder: str, ending: str, flags: str = "") -> str:
    """A small reconstruction of the pair in a folder of the case."""
    pair = _PAIR % (folder, ending, folder, ending)
    return f"reconstruct --method sirt --grid 16,16,16 --spacing-mm 24 {pair} {flags} --out {{out}}"


def explained(written) -> None:
    """The volume explains its X-rays, which those of the other polarity are not."""
    facts = json.loads((written.out / "chest_ct_recon_facts.json").read_text())
    assert max(facts["reprojection_error"]) < 0.05


def kept_apart(*cases: str):
    """The cases are these, each written, and every one with the source's own patient."""

    def check(written) -> None:
        text = (written.out / "manifest.jsonl").read_text()
        rows = [json.loads(line) for line in text.splitlines()]
        assert sorted(row["patient"] for row in rows) == sorted(cases)
        assert len({row["name"].casefold() for row in rows}) == len(cases)
        assert len({row["sources"][0]["path"] for row in rows}) == len(cases)
        lists = {s: (written.out / f"{s}.txt").read_text().split() for s in ("train", "test")}
        owner = {row["name"]: row["patient"] for row in rows}
        sides = [{owner[name] for name in names} for names in lists.values()]
        assert not sides[0] & sides[1]
        for row in rows:
            assert lidc.read_case(written.out / row["name"] / lidc.FILE).ct.shape == (24,) * 3

    return check


def said(*words: str):
    """The command's text holds all of these."""

    def check(written) -> None:
        for word in words:
            assert word in written.text, word

    return check


LIDC = "prepare lidc {case}/src {out} --edge 24"

ROWS = [
    ("46_name_collisions", LIDC, kept_apart("P 1", "P_1", "P/1")),
    ("46b_name_collisions", LIDC, kept_apart("P", "P", "P_1")),
    (
        "44_ap_files",
        LIDC,
        said("2 cases", "1 AppleDouble (._a_ct.nii.gz)", "hold the same numbers"),
    ),
    ("50_png8_old_sidecar", sirt(".", ".png"), "frontal.png .* no patient is so thin"),
    ("50b_png8_clipped", sirt(".", ".png"), "frontal.png .* no patient is so thin"),
    ("56_polarity", sirt(".", ".png"), "frontal.png .* air seems bright.* --inverted"),
    ("56_polarity", sirt(".", ".png", "--inverted"), explained),
    ("56_polarity", sirt("nii", ".nii.gz"), "frontal.nii.gz .* air seems bright.* --inverted"),
    (
        "80_meshes",
        "prepare meshes {case} {out} --dry-run",
        said(
            "9 cases to write, 0 there, 2 left out",
            "c_lps_no_header.stl: lies",
            "state --lps",
            "p_two_lobes.ply: 2 pieces, the largest with 50% of the area",
            "its header says 1 unit = 1000 mm",
            "2 bytes after its 1280 triangles",
            "its header counts 0 triangles, its length holds 1280",
        ),
    ),
]
