"""The report of surfaces: one file without links, true numbers, true meshes, outlines where they lie."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import trimesh

from jxrecon.evaluation.table import means
from jxrecon.experiment import Experiment, Field, Schedule, Views
from jxrecon.geometry import camera_at
from jxrecon.mesh import Mesh, template
from jxrecon.methods.base.method import SurfaceProblem
from jxrecon.metrics.statistics import PairedTest
from jxrecon.metrics.surface import CONVENTIONS
from jxrecon.report import surfaces as report
from jxrecon.report.surfaces import Shown, write_report
from jxrecon.runs.run import Run

RADIUS = 60.0
SPHERE = trimesh.creation.icosphere(subdivisions=2, radius=RADIUS)
TEMPLATE = template(Mesh(SPHERE.vertices, SPHERE.faces))
CAMERA = camera_at(0.0, shape=(48, 40), pixel_mm=8.0)
IMAGE = np.linspace(0, 3, 48 * 40, dtype=np.float32).reshape(48, 40)
MOVED = TEMPLATE.vertices + np.float32([0, 2, -15])
FOUND = {
    "zero <motion>": TEMPLATE.vertices,
    "toy": MOVED + np.float32([3.0, 0.0, 0.0]),
}
TEST = PairedTest(2, 12.13, 11.5, 12.75, 3.4, 1.0, 0.0156, 0.000225, 0.0312, 0.00045)


def write(folder, synthetic=True, tests=True):
    """A report about made-up numbers; returns its text."""
    views = Views(pixels=40)
    experiment = Experiment(
        name="toy",
        size="tiny",
        field=Field((6, 7, 8), (20.0, 20.0, 20.0)),
        views=views,
        schedule=Schedule(8, 2),
        settings=views,
    )
    run = Run(
        folder, experiment, None, SurfaceProblem(TEMPLATE, CAMERA, 2), None, synthetic, "Spheres."
    )
    names, metrics = ("case_a", "case_b"), (*CONVENTIONS, "seconds")
    rows = [
        {"method": m, "split": "validation", "case": c, **dict.fromkeys(metrics, 0.5), **special}
        for m, md in (("zero <motion>", 15.13), ("toy", 3.0))
        for c, special in zip(names, ({"md_vertex_mm": md}, {"md_vertex_mm": md + 0.5}))
    ]
    lines = [{"step": s, "split": "train", "L_pos": 1.0 / s} for s in range(1, 9)]
    (folder / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    summary = {
        "experiment": "toy",
        "size": "tiny",
        "step": 8,
        "synthetic": synthetic,
        "data": "Spheres <of> nothing.",
        "split": "validation",
        "cases": 2,
        "organs": 2,
        "conventions": {**CONVENTIONS, "seconds": "of one surface"},
        "metrics": means(rows, metrics),
        "tests": {"zero <motion>": TEST._asdict()} if tests else {},
        "tested": "organ by organ",
        "xrays": "noise-free",
    }
    shown = [Shown("best", "case_a", IMAGE, TEMPLATE.vertices, MOVED, FOUND)]
    write_report(run, rows, summary, shown, folder)
    return (folder / "report.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Checks that tags are closed in the order of their opening; keeps them with their attributes."""

    VOID = frozenset({"meta", "img", "input", "link", "br"})

    def __init__(self, page):
        super().__init__()
        self.open, self.found = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write(tmp_path_factory.mktemp("report"))


def meshes_of(page):
    return json.loads(re.search(r'id="meshes">(.*?)</script>', page, re.S)[1])


def unpacked(text, kind):
    return np.frombuffer(base64.b64decode(text), kind).reshape(-1, 3)


def test_the_page_is_whole_and_loads_nothing_from_anywhere(page):
    tags = Tags(page)
    assert tags.open == []
    assert not re.search(r"https?:|<link|@import|url\(|\bimport\b|fetch\(", page)
    sources = [attributes["src"] for _, attributes in tags.found if "src" in attributes]
    assert len(sources) == 4  # strips, overlay, still picture, curves
    for source in sources:
        head, _, data = source.partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")


def test_the_table_has_means_deviations_and_p_values(page):
    body = page[page.index("<tbody>") :]
    own = re.search(r'<tr class="own"><td>toy</td>(.*?)</tr>', body, re.S)[1]
    assert re.search(r'class="best">3\.25\s*<span class="std">± 0\.25', own)
    rival = re.search(r"<td>zero &lt;motion&gt;</td>(.*?)</tr>", body, re.S)[1]
    assert re.search(r"15\.38\s*<span class=\"std\">± 0\.25", rival)
    assert "<td>0.031</td><td>0.00045</td>" in rival
    assert "organ by organ" in page
    effects = re.findall(r"<td>zero &lt;motion&gt;</td>(.*?)</tr>", page, re.S)[1]
    cells = re.findall(r"<td>(.*?)</td>", effects)
    assert cells == ["+12.13", "+11.50 to +12.75", "3.4", "1", "0.016", "0.00022", "2"]
    for sentence in CONVENTIONS.values():
        assert sentence.split("<")[0].split("'")[0] in page


def test_the_verdict_names_the_best_of_the_others_and_its_p(page):
    assert "mean distance of vertices 3.25 mm, 12.13 mm less than the best" in page
    assert "15.38 mm; p = 0.031, Wilcoxon, Holm-corrected" in page
    metrics = {
        m: {"md_vertex_mm": {"mean": md}} for m, md in (("a", 2.0), ("b", 3.0), ("toy", 4.0))
    }
    said = report.verdict({"metrics": metrics, "tests": {}}, "toy")
    assert "4.00 mm, 2.00 mm more than the best of the others (a, 2.00 mm)." in said
    assert report.verdict({"metrics": {"toy": metrics["toy"]}, "tests": {}}, "toy") is None


def test_the_browser_gets_the_very_meshes_and_its_buttons_name_them(page):
    meshes = meshes_of(page)
    np.testing.assert_array_equal(unpacked(meshes["faces"], "<u4"), TEMPLATE.faces)
    (case,) = meshes["cases"]
    for text, expected in zip(case, [TEMPLATE.vertices, MOVED, *FOUND.values()], strict=True):
        np.testing.assert_array_equal(unpacked(text, "<f4"), expected)
    radios = re.findall(
        r'type="radio" [^>]*value="(\d)"( checked)?>\s*([^<]*?) <small>([\d.]+)', page
    )
    assert radios == [
        ("3", " checked", "toy", "3.00"),
        ("2", "", "zero &lt;motion&gt;", "15.13"),
        ("0", "", "reference", "15.13"),
    ]


def test_the_meshes_stand_still_until_a_script_shows_them(page):
    tags = Tags(page).found
    figures = [attributes for tag, attributes in tags if tag == "figure"]
    assert [f["class"] for f in figures] == ["turning"]  # the script adds "live" where WebGL works
    assert re.search(r"figure\.turning > \.stage, .*display: none", page)


def test_the_shader_has_as_many_colours_as_it_is_given(page):
    assert f"colours[{len(meshes_of(page)['colours'])}]" in page


def test_synthetic_data_is_called_so_and_one_organ_gives_no_p(page, tmp_path):
    assert "SYNTHETIC data" in page
    real = write(tmp_path, synthetic=False, tests=False)
    assert "SYNTHETIC" not in real
    assert "patient data" in real
    assert "Wilcoxon" not in real


def test_names_and_sentences_are_text_and_never_markup(page):
    assert "Spheres &lt;of&gt; nothing." in page
    assert "<motion>" not in page


def test_the_ramp_ends_at_a_round_number_that_most_distances_do_not_reach():
    assert report.top_mm([np.linspace(0, 2.5, 1000)]) == 3.0
    assert report.top_mm([np.full(10, 5.0)]) == 5.0
    assert report.top_mm([np.array([11.0, np.nan])]) == 20.0
    assert report.top_mm([np.zeros(4)]) == pytest.approx(0.01)


def test_the_script_reaches_the_page_as_it_is_written(page):
    script = Path(report.__file__).parent / "templates" / "surfaces.js"
    assert script.read_text().strip() in page
