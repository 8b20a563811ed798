"""SYNTHETIC anatomy: bodies with exact line integrals, and a population of heads and necks.

The oracle of the projector's tests is a scene that adds up, `line_integrals` beside `rasterise`; the
built-in data is `population`, painted rather than added, with a `scene` about each subject's field.
"""

from jxrecon.phantom.primitives import (
    Primitives,
    box,
    cylinder,
    ellipsoid,
    line_integrals,
    rasterise,
    stack,
)
from jxrecon.phantom.subjects import Latents, anatomy, average, draw, population, scene, subject
