"""Methods to compare with: what every experiment of one field stands beside.

A method that does not pass the linear prior has not earned its weights; a surface that does not pass zero
motion has found nothing.
"""

from __future__ import annotations

from functools import partial

import jax

from jxrecon.experiment import Rival
from jxrecon.methods.surfaces.mean_shape import mean_shape
from jxrecon.methods.surfaces.nearest_shape import nearest_shape
from jxrecon.methods.surfaces.zero_motion import zero_motion
from jxrecon.methods.volumes.cgls import cgls
from jxrecon.methods.volumes.earlier_scan import earlier_scan
from jxrecon.methods.volumes.fdk import fdk
from jxrecon.methods.volumes.linear_prior import linear_prior
from jxrecon.methods.volumes.mean_volume import mean_volume
from jxrecon.methods.volumes.nearest import nearest
from jxrecon.methods.volumes.nerp import QUICK, nerp
from jxrecon.methods.volumes.sirt import sirt
from jxrecon.methods.volumes.tv import tv


def volume_rivals() -> dict[str, Rival]:
    """Name -> method that finds CT volumes; NeRP `QUICK` on a CPU, where the paper's takes hours a case."""
    fit = QUICK if jax.default_backend() == "cpu" else None
    return {
        "mean volume": Rival(mean_volume, default=True),
        "nearest volume": Rival(nearest, default=True),
        "linear prior": Rival(linear_prior, default=True),
        "fdk": Rival(fdk, untrained=True),
        "sirt": Rival(sirt, untrained=True, slow=True),
        "cgls": Rival(cgls, untrained=True, slow=True),
        "tv": Rival(tv, untrained=True, slow=True),
        "nerp": Rival(partial(nerp, settings=fit), untrained=True, slow=True),
        "earlier scan": Rival(earlier_scan, needs_earlier=True),
        "nerp with prior": Rival(partial(nerp, settings=fit), needs_earlier=True, slow=True),
    }


SURFACE_RIVALS = {
    "zero motion": Rival(zero_motion, default=True),
    "mean shape": Rival(mean_shape, default=True),
    "nearest shape": Rival(nearest_shape, default=True),
}
"""Name -> method that finds an organ's surface."""
