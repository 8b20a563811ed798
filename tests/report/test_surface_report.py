"""The report of surfaces: one file without links, true numbers, true meshes, outlines where they lie."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import trimesh

from jxrecon.data.surfaces import SurfaceDataset, SurfaceSet
from jxrecon.evaluation.bench import recon_path
from jxrecon.evaluation.compare import Results
from jxrecon.evaluation.contenders import Contender
from jxrecon.evaluation.setting import make_setting
from jxrecon.evaluation.summary import summarise
from jxrecon.evaluation.surfaces import surface_judge
from jxrecon.experiment import Experiment, Schedule, Views
from jxrecon.io.meshes import write_mesh
from jxrecon.kinds import SURFACES
from jxrecon.mesh import Mesh, template
from jxrecon.methods.base.method import SurfaceProblem
from jxrecon.metrics.metric import COSTS
from jxrecon.metrics.surface import METRICS
from jxrecon.report import surfaces as report
from jxrecon.report.page import write_report
from jxrecon.runs.run import Run, Trained
from jxrecon.types import InputError

RADIUS = 60.0
SPHERE = trimesh.creation.icosphere(subdivisions=2, radius=RADIUS)
TEMPLATE = template(Mesh(SPHERE.vertices, SPHERE.faces))
EXPERIMENT = Experiment(
    name="toy",
    size="tiny",
    kind=SURFACES,
    views=Views(pixels=40, count=1, detector_mm=320.0),
    schedule=Schedule(8, 2),
    settings=Views(pixels=40),
)
CAMERA = EXPERIMENT.views.cameras[0]
IMAGE = np.linspace(0, 3, 40 * 40, dtype=np.float32).reshape(40, 40)
MOVED = TEMPLATE.vertices + np.float32([0, 2, -15])
FOUND = {
    "zero <motion>": TEMPLATE.vertices,
    "toy": MOVED + np.float32([3.0, 0.0, 0.0]),
}
NAMES = ("case_a", "case_b", "case_c", "case_d")  # two of each organ


def dataset_of(synthetic=True, organs=2):
    names = NAMES[: 2 * organs]
    cases = SurfaceSet(
        names,
        np.stack([IMAGE] * len(names)),
        np.stack([TEMPLATE.vertices] * len(names)),
        np.stack([MOVED] * len(names)),
        np.arange(len(names), dtype=np.int32) // 2,
    )
    return SurfaceDataset(cases, cases, "Spheres <of> nothing.", synthetic, TEMPLATE)


def write(folder, synthetic=True, organs=2):
    """A report about made-up numbers; returns its text."""
    dataset = dataset_of(synthetic, organs)
    names = dataset.train.names
    run = Run(folder, EXPERIMENT, None, SurfaceProblem(TEMPLATE, CAMERA, 2), None, synthetic, "")
    rows = []
    for method, md in (("zero <motion>", 15.13), ("toy", 3.0)):
        for n, case in enumerate(names):
            where = {"method": method, "views": 1, "split": "validation", "case": case}
            numbers = dict.fromkeys([*METRICS, *COSTS], 0.5)
            rows.append({**where, **numbers, "md_vertex_mm": md + (n % 2) * 0.5 + (n // 2) * 0.002})
            found = FOUND[method] + np.float32([0, 0, 0.001 * n])
            write_mesh(recon_path(folder, method, 1, case, ".ply"), Mesh(found, TEMPLATE.faces))
    lines = [{"step": s, "split": "train", "L_pos": 1.0 / s} for s in range(1, 9)]
    (folder / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    setting = make_setting(EXPERIMENT, dataset)
    contenders = [Contender(name, (1,), lambda problem: None, "0") for name in FOUND]
    trained = Trained(run, None, 8)
    summary = summarise(setting, contenders, rows, "toy", trained)
    return write_report(Results(setting, contenders, rows, summary, folder, trained)).read_text(
        encoding="utf-8"
    )


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
    assert len(sources) == 8  # strips, overlays and still pictures of three cases, training curves
    for source in sources:
        head, _, data = source.partition(",")
        assert head == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")


def test_the_table_has_means_deviations_and_p_values(page):
    body = page[page.index("<tbody>") :]
    own = re.search(r'<tr class="own">\s*<td>toy</td>(.*?)</tr>', body, re.S)[1]
    assert re.search(r'class="best">3\.25\s*<span class="std">± 0\.25', own)
    rival = re.search(r"<td>zero &lt;motion&gt;</td>(.*?)</tr>", body, re.S)[1]
    assert re.search(r"15\.38\s*<span class=\"std\">± 0\.25", rival)
    assert "over 2 organs" in page
    effects = page[page.index("<h2>Tests</h2>") :]
    cells = re.findall(r"<td>(.*?)</td>", re.search(r"<tbody>(.*?)</tbody>", effects, re.S)[1])
    assert cells[0] == "zero &lt;motion&gt;"
    assert cells[1] == "+12.13"
    assert cells[-1] == "2"  # organs, not cases
    for metric in METRICS.values():
        assert metric.convention.split("<")[0].split("'")[0] in page


def test_the_verdict_names_the_best_of_the_others_and_its_p(page):
    assert re.search(
        r"toy: MD \[mm\] 3\.25, 12\.13 better than the best of the others \(zero &lt;motion&gt;, "
        r"15\.38; p = [\d.]+, Wilcoxon, Holm-corrected\)\.",
        page,
    ), page[page.index("verdict") :][:300]


def test_the_browser_gets_the_very_meshes_and_its_buttons_name_them(page):
    meshes = meshes_of(page)
    np.testing.assert_array_equal(unpacked(meshes["faces"], "<u4"), TEMPLATE.faces)
    assert len(meshes["cases"]) == 3  # best, median, worst
    expected = [TEMPLATE.vertices, MOVED, *FOUND.values()]
    for text, mesh in zip(meshes["cases"][0], expected, strict=True):
        np.testing.assert_array_equal(unpacked(text, "<f4"), mesh)
    radios = re.findall(
        r'type="radio" name="surface0" value="(\d)"( checked)?>\s*([^<]*?) <small>([\d.]+)', page
    )
    assert radios == [
        ("3", " checked", "toy", "3.00"),
        ("2", "", "zero &lt;motion&gt;", "15.13"),
        ("0", "", "reference", "15.13"),
    ]


def test_the_meshes_stand_still_until_a_script_shows_them(page):
    tags = Tags(page).found
    figures = [attributes for tag, attributes in tags if tag == "figure"]
    assert [f["class"] for f in figures] == [
        "turning"
    ] * 3  # the script adds "live" where WebGL works
    assert re.search(r"figure\.turning > \.stage, .*display: none", page)


def test_the_shader_has_as_many_colours_as_it_is_given(page):
    assert f"colours[{len(meshes_of(page)['colours'])}]" in page


def test_synthetic_data_is_called_so_and_one_organ_gives_no_p(page, tmp_path):
    assert "SYNTHETIC data" in page
    real = write(tmp_path, synthetic=False, organs=1)
    assert "SYNTHETIC" not in real
    assert "patient data" in real
    assert "<h2>Tests</h2>" not in real


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


def test_surfaces_are_found_from_one_xray_and_no_other_number():
    setting = make_setting(EXPERIMENT, dataset_of())
    assert surface_judge().bench(setting, 1).views == 1
    with pytest.raises(InputError, match="--views 2: surfaces are found from one X-ray"):
        surface_judge().bench(setting, 2)


@pytest.mark.parametrize(
    ("faces", "camera", "fits"),
    [
        (TEMPLATE.faces, CAMERA, True),
        (TEMPLATE.faces, CAMERA.replace(shape=(40, 20)), False),
        (TEMPLATE.faces, CAMERA.replace(source=CAMERA.source + 1.0), False),
        (TEMPLATE.faces[:, ::-1], CAMERA, False),
    ],
)
def test_a_run_fits_only_data_of_its_template_and_camera(faces, camera, fits, tmp_path):
    problem = SurfaceProblem(TEMPLATE._replace(faces=faces), camera, 2)
    run = Run(tmp_path, EXPERIMENT, None, problem, None, True, "")
    setting = make_setting(EXPERIMENT, dataset_of())
    if fits:
        surface_judge().check(setting, run)
    else:
        with pytest.raises(InputError, match="expected runs on the same data"):
            surface_judge().check(setting, run)
