"""What may be wrong with X-rays: one table of perturbations with their values, each a change of a machine.

The machine that takes the X-rays is changed, the method is told the one that it knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon.experiment import Machine, Views
from jxrecon.geometry import Camera
from jxrecon.pose import Pose
from jxrecon.types import InputError

Images = tuple[Float[Array, "rows columns"], ...]


def untouched(images: Images) -> Images:
    """The X-rays."""
    return images


class Taking(NamedTuple):
    """How the X-rays of a case are taken.

    Attributes:
        views: the experiment's, of which `cameras` are.
        cameras: where the machine really stands.
        machine: what it makes of line integrals.
        photons: a pixel of the unattenuated beam; None: no noise.
        stored: (X-rays) -> X-rays as somebody has stored them.
    """

    views: Views
    cameras: tuple[Camera, ...]
    machine: Machine
    photons: float | None
    stored: Callable[[Images], Images] = untouched


class Perturbation(NamedTuple):
    """One thing that is wrong, by how much.

    Attributes:
        name: as in tables.
        unit: of its values.
        what: what it is, in words.
        values: of the suite.
        nothing: the value at which nothing is wrong; None: there is none on this scale.
        change: (taking, value) -> the taking.
    """

    name: str
    unit: str
    what: str
    values: tuple[float, ...]
    nothing: float | None
    change: Callable[[Taking, float], Taking]


class Condition(NamedTuple):
    """A perturbation at one of its values; "none" at 0: X-rays as the method expects them."""

    perturbation: str
    value: float
    taking: Taking

    @property
    def key(self) -> tuple[str, str]:
        """As in a table."""
        return self.perturbation, f"{self.value:g}"


NONE = "none"


def _turned(out_of_plane: bool, taking: Taking, degrees: float) -> Taking:
    """The last view's source and detector turned about the isocentre."""
    *others, last = taking.cameras
    along = -last.u / jnp.linalg.norm(last.u)  # a positive angle raises the source
    axis = along if out_of_plane else jnp.array([0.0, 0.0, 1.0], jnp.float32)
    turn = Pose(jnp.deg2rad(jnp.float32(degrees)) * axis, jnp.zeros(3, jnp.float32))
    return taking._replace(cameras=(*others, turn.apply(last)))


def _farther(name: str, taking: Taking, percent: float) -> Taking:
    """All views with another distance; pixels and the other distance stay."""
    views = taking.views
    moved = replace(views, **{name: getattr(views, name) * (1.0 + percent / 100.0)})
    return taking._replace(cameras=moved.cameras)


def _shifted(axis: int, taking: Taking, mm: float) -> Taking:
    """The machine beside where the patient's isocentre is."""
    by, still = jnp.zeros(3, jnp.float32).at[axis].set(mm), jnp.eye(3, dtype=jnp.float32)
    return taking._replace(cameras=tuple(c.moved(still, by) for c in taking.cameras))


def _stored(change: Callable[[Images, float], Images], taking: Taking, value: float) -> Taking:
    return taking._replace(stored=lambda images: change(images, value))


def _truncated(images: Images, percent: float) -> Images:
    """Columns at either side of every view that show nothing, as air does."""

    def one(image: Array) -> Array:
        columns = image.shape[1]
        hidden = round(columns * percent / 100.0)
        seen = (np.arange(columns) >= hidden) & (np.arange(columns) < columns - hidden)
        return jnp.where(jnp.asarray(seen)[None], image, 0.0)

    return tuple(map(one, images))


def _inverted(images: Images, value: float) -> Images:
    """Bright for dark."""
    return tuple(jnp.max(image) + jnp.min(image) - image for image in images)


def _mirrored(images: Images, view: float) -> Images:
    """One view left for right."""
    return tuple(y[:, ::-1] if n == view else y for n, y in enumerate(images, start=1))


def _exposed(name: str, taking: Taking, value: float) -> Taking:
    return taking._replace(machine=replace(taking.machine, **{name: value}))


_ANGLES = (-10.0, -5.0, -2.0, -1.0, 1.0, 2.0, 5.0, 10.0)

PERTURBATIONS = (
    Perturbation("angle in plane", "°", "the last view turned about the patient's long axis", _ANGLES,
                 0.0, partial(_turned, False)),
    Perturbation("angle out of plane", "°", "the last view's source raised, its detector lowered",
                 _ANGLES, 0.0, partial(_turned, True)),
    Perturbation("source-detector distance", "%", "of all views; pixels and source stay", (-5.0, 5.0),
                 0.0, partial(_farther, "source_detector_mm")),
    Perturbation("source-axis distance", "%", "of all views; pixels and source-detector distance stay",
                 (-5.0, 5.0), 0.0, partial(_farther, "source_axis_mm")),
    Perturbation("isocentre left-right", "mm", "the machine moved to the patient's right",
                 (5.0, 10.0, 20.0), 0.0, partial(_shifted, 0)),
    Perturbation("isocentre back-front", "mm", "the machine moved to the patient's front",
                 (5.0, 10.0, 20.0), 0.0, partial(_shifted, 1)),
    Perturbation("isocentre foot-head", "mm", "the machine moved to the patient's head",
                 (5.0, 10.0, 20.0), 0.0, partial(_shifted, 2)),
    Perturbation("truncation", "% of the width", "columns at either side of all views that show nothing",
                 (5.0, 10.0, 20.0), 0.0, partial(_stored, _truncated)),
    Perturbation("photons", "a pixel", "noise of so many photons of the unattenuated beam",
                 (1e3, 1e4, 1e5, 1e6), None, lambda taking, n: taking._replace(photons=n)),
    Perturbation("scatter", "scatter / primary", "behind the body, 50 mm wide on the detector",
                 (0.25, 0.5, 1.0, 2.0), 0.0, partial(_exposed, "scatter")),
    Perturbation("blur", "mm", "standard deviation on the detector", (1.0, 2.0, 4.0), 0.0,
                 partial(_exposed, "blur_mm")),
    Perturbation("beam hardening", "kV", "a tube's spectrum behind 2.5 mm of aluminium, in place of one "
                 "energy", (60.0, 80.0, 100.0, 120.0), None, partial(_exposed, "kvp")),
    Perturbation("gamma", "", "line integrals stored as 8 (y / 8)^gamma", (0.7, 0.85, 1.15, 1.3), 1.0,
                 partial(_exposed, "gamma")),
    Perturbation("inverted", "", "all views, bright for dark", (1.0,), 0.0, partial(_stored, _inverted)),
    Perturbation("mirrored", "view", "one view left for right", (1.0, 2.0), None,
                 partial(_stored, _mirrored)),
)  # fmt: skip
"""The suite."""


def conditions_of(taking: Taking, names: Sequence[str] | None = None) -> list[Condition]:
    """No perturbation, then the values of each of these (None: all), as "gamma" or "gamma=0.7,1.3".

    Raises:
        InputError: there is no perturbation of such a name, or it has no such value.
    """
    asked = [_chosen(name) for name in names] if names is not None else PERTURBATIONS
    found = [Condition(NONE, 0.0, taking)]
    for one in asked:
        found += [Condition(one.name, value, one.change(taking, value)) for value in one.values
                  if not (one.name == "mirrored" and value > len(taking.cameras))]  # fmt: skip
    return found


def _chosen(asked: str) -> Perturbation:
    """The perturbation of this name, with the values behind "=" alone."""
    known = {perturbation.name.replace("-", " "): perturbation for perturbation in PERTURBATIONS}
    name, wanted, values = asked.partition("=")
    one = known.get(name.replace("-", " "))
    if one is None:
        told = ", ".join(perturbation.name for perturbation in PERTURBATIONS)
        raise InputError(f"--perturbations {asked}: expected some of {told}")
    own = {f"{value:g}": value for value in one.values}
    if not wanted:
        return one
    if not own.keys() >= set(values.split(",")):
        raise InputError(f"--perturbations {asked}: expected some of {','.join(own)}")
    return one._replace(values=tuple(own[value] for value in values.split(",")))
