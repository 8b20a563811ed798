"""X-rays in another style: CycleGAN makes real ones look like those that reconstruction learnt from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jxrecon.compile import jit
from jxrecon.data.unpaired import from_unit, resized, to_unit
from jxrecon.io.radiographs import Radiograph
from jxrecon.methods.base.method import Translator
from jxrecon.runs.run import open_run, restore
from jxrecon.types import InputError

Image = Float[np.ndarray, "rows columns"]


def open_translation(folder: Path, trust: Sequence[Path] = ()) -> Callable[[Image], Image]:
    """The function that gives the line integrals of a real X-ray the synthetic style.

    The X-ray passes the network at the size of the training, and is changed by what changes there: a
    larger one keeps its detail. It comes back as line integrals: on their own scale if the synthetic images
    were line integrals, else between the X-ray's own ends.

    Args:
        folder: of a run of `jxrecon style`.
        trust: as of `open_run`.

    Raises:
        InputError: the folder holds no run of this program, or one without a checkpoint.
    """
    run = open_run(folder, trust)
    if not isinstance(run.method, Translator):
        raise InputError(f"{folder}: a run of {run.experiment.name}, expected one of jxrecon style")
    settings, shape = run.experiment.settings, run.problem.shape
    (state, _), translate = restore(run), jit(run.method.translate)

    def apply(image: Image) -> Image:
        unit = to_unit(image, settings.real_scale)
        small = resized(unit, shape)
        change = resized(np.asarray(translate(state, jnp.asarray(small))) - small, image.shape)
        return from_unit(np.clip(unit + change, -1.0, 1.0), settings.synthetic_scale, image)

    return apply


def open_style(folder: Path, trust: Sequence[Path] = ()) -> Callable[[Radiograph], Radiograph]:
    """`open_translation` of X-rays with cameras, which stay as they are; arguments and errors as there."""
    translate, line = open_translation(folder, trust), ("style", "real to synthetic", str(folder))

    def apply(xray: Radiograph) -> Radiograph:
        styled = translate(xray.line_integrals)
        return xray._replace(line_integrals=styled, resolved=(*xray.resolved, line))

    return apply
