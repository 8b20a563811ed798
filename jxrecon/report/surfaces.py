"""Section of the report with organs' surfaces: how they lie on the X-ray, and the meshes to be turned.

The meshes turn in the browser by WebGL, and stand still where there is none.
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.colors import to_hex, to_rgb

from jxrecon.evaluation.bench import recon_path
from jxrecon.evaluation.compare import Results
from jxrecon.geometry import Camera
from jxrecon.io.meshes import read_mesh
from jxrecon.mesh import Template
from jxrecon.report.drawing import data_uri
from jxrecon.report.outlines import COLOURS, RAMP, overlay_figure, still_figure
from jxrecon.report.page import Section, chosen, rows_of

_STOPS = 16  # colours of the ramp that the shader mixes; surfaces.js counts on them


class Shown(NamedTuple):
    """A case, why it is shown, its line integrals, and vertices in mm: known, true, found by each method."""

    label: str
    case: str
    image: Float[np.ndarray, "rows columns"]
    reference: Float[np.ndarray, "v 3"]
    target: Float[np.ndarray, "v 3"]
    found: dict[str, Float[np.ndarray, "v 3"]]


def sections(results: Results) -> list[Section]:
    """The best, median and worst case of the method that is looked at, with what every method found."""
    setting, own = results.setting, results.summary["against"]
    ending, shown = setting.judge.ending, []
    for label, row in chosen(setting.judge, rows_of(results, own, 1)):
        batch = setting.cases.batch(np.array([setting.names.index(row["case"])], np.int32))
        found = {}
        for c in results.contenders:
            path = recon_path(results.out, c.name, 1, row["case"], ending)
            found[c.name] = np.asarray(read_mesh(path).vertices)
        arrays = batch.image[0], batch.reference[0], batch.target[0]
        shown.append(Shown(label, row["case"], *arrays, found))
    template, camera = setting.dataset.template, setting.experiment.views.cameras[0]
    order = ["reference", "target", *dict.fromkeys(name for case in shown for name in case.found)]
    top = top_mm([distances(case.found[own], case.target) for case in shown])
    ramp = matplotlib.colormaps[RAMP](np.linspace(0, 1, _STOPS))[:, :3]
    meshes = {
        "faces": _packed(template.faces, "<u4"),
        "top_mm": top,
        "colours": np.round(ramp, 3).tolist(),
        "shells": [to_rgb(COLOURS[name]) for name in ("reference", "target")],
        "cases": [
            [_packed(v, "<f4") for v in (case.reference, case.target, *case.found.values())]
            for case in shown
        ],
    }
    values = {
        "own": own,
        "cases": [_pictures(case, own, template, camera, top) for case in shown],
        "order": order,
        "colours": COLOURS,
        "top_mm": top,
        "ramp": [to_hex(colour) for colour in ramp],
        "meshes": meshes,
    }
    return [Section("surfaces.html.jinja", values)]


def _pictures(
    case: Shown, own: str, template: Template, camera: Camera, top: float
) -> dict[str, Any]:
    outlines = {"reference": case.reference, "target": case.target, own: case.found[own]}
    apart = distances(case.found[own], case.target)
    return {
        "label": case.label,
        "case": case.case,
        "overlay": data_uri(overlay_figure(case.image, camera, template, outlines)),
        "still": data_uri(still_figure(case.found[own], template, apart, top)),
        "distances": {
            name: float(distances(vertices, case.target).mean())
            for name, vertices in {"reference": case.reference, **case.found}.items()
        },
    }


def distances(a: Float[np.ndarray, "v 3"], b: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, " v"]:
    """Of every vertex from the same one of the other surface, mm."""
    return np.linalg.norm(np.asarray(a, np.float64) - np.asarray(b, np.float64), axis=1)


def top_mm(found: list[Float[np.ndarray, " v"]]) -> float:
    """The end of the colour ramp: a round number of mm that 98 % of the distances do not reach."""
    finite = np.concatenate([np.zeros(1), *found])
    reached = max(float(np.quantile(finite[np.isfinite(finite)], 0.98)), 1e-2)
    decade = 10.0 ** np.floor(np.log10(reached))
    return float(next(n for n in (1, 2, 3, 5, 10) if n * decade >= reached * (1 - 1e-9)) * decade)


def _packed(array: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array, kind).tobytes()).decode("ascii")
