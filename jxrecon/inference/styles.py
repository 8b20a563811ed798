"""X-rays in another style: CycleGAN makes real ones look like those that reconstruction learnt from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jxrecon.compile import jit
from jxrecon.data.unpaired import from_unit, resized, to_unit
from jxrecon.io.radiographs import Radiograph
from jxrecon.methods.base.method import Translator
from jxrecon.runs.run import open_run, restore
from jxrecon.types import InputError


def open_style(folder: Path, trust: Sequence[Path] = ()) -> Callable[[Radiograph], Radiograph]:
    """The function that gives a real X-ray the synthetic style: same camera, same pixels, new values.

    The X-ray passes the network at the size of the training. It comes back as line integrals: on their
    own scale if the synthetic images were line integrals, else between the X-ray's own ends.

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

    def apply(xray: Radiograph) -> Radiograph:
        image = xray.line_integrals
        unit = resized(to_unit(image, settings.real_scale), shape)
        unit = resized(np.asarray(translate(state, jnp.asarray(unit))), image.shape)
        styled = from_unit(unit, settings.synthetic_scale, image)
        line = ("style", "real to synthetic", str(folder))
        return xray._replace(line_integrals=styled, resolved=(*xray.resolved, line))

    return apply
