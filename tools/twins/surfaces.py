"""The twins of networks that move an organ's vertices."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from jxrecon.compile import jit
from jxrecon.interop.layouts import table_of
from jxrecon.interop.tensorflow import Names
from jxrecon.mesh.aggregation import normalised
from jxrecon.runs.run import Run
from jxrecon.types import PyTree

from .base import Trial, Twin, camera_buffers, plain


def surface(
    network: str,
    names: tuple[str, ...],
    sees: bool = False,
    self_loop: bool | None = True,
    tensorflow: Callable[[Any], Names | None] = lambda settings: None,
) -> Callable[[Run, PyTree], Twin]:
    """The twin of a network and its settings.

    Args:
        network: name in `torch_modules`.
        names: of the settings that are arguments.
        sees: whether it is given the reference's silhouette.
        self_loop: of the graph; None: the network has none.
        tensorflow: settings -> names of the released TensorFlow code.
    """

    def make(run: Run, state: PyTree) -> Twin:
        regression = run.method.init.args[0]
        settings, problem = run.experiment.settings, run.problem
        template, camera = problem.template, problem.camera
        constants = {"vertices": template.vertices, "faces": template.faces}
        scene = {
            "pixels": list(camera.shape),
            "vertices": len(template.vertices),
            "faces": len(template.faces),
        }
        if self_loop is not None:
            graph = normalised(template, self_loop)
            constants |= {"table": graph.table, "weights": graph.weights}
            scene["neighbours"] = len(graph.table)
        kinds = {name: np.int32 if name in ("faces", "table") else np.float32 for name in constants}
        buffers = {f"scene.{name}": np.asarray(a, kinds[name]) for name, a in constants.items()}
        buffers |= camera_buffers(camera, "scene.camera.")
        rows = table_of(regression.network, regression.inputs, {"params": ("params",)})
        arguments = {name: plain(getattr(settings, name)) for name in names}
        inputs = 1 if network == "xray2shape" else 2
        if sees or getattr(settings, "silhouette", False):
            inputs = 3
        trials = partial(_trials, regression, problem, inputs)
        table = tensorflow(settings)
        return Twin(network, {"scene": scene, **arguments}, rows, buffers, trials, table)

    return make


def _trials(regression: Any, problem: Any, inputs: int) -> tuple[Trial, ...]:
    """With an X-ray; and a reference; and its silhouette."""
    vertices = np.asarray(problem.template.vertices, np.float32)
    moved = vertices + 5.0 * np.random.default_rng(1).standard_normal((2, 1, 3))
    reference = moved.astype(np.float32)
    image = 5.0 * np.random.default_rng(2).random((2, *problem.camera.shape), np.float32)
    given = [image, reference]
    if inputs == 3:
        splatter = regression.predict.args[0].splatter
        given.append(np.asarray(jit(splatter.silhouette)(reference), np.float32))

    def ours(state: PyTree, image: Any, reference: Any = reference, *_: Any) -> Any:
        return regression.predict(state.params, image, reference)[0]

    return (Trial("", tuple(given[:inputs]), ours),)
