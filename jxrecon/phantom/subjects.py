"""A SYNTHETIC head-and-neck population: sixteen latents move one blueprint, subject by subject.

Subject i of a seed depends on nothing but (seed, i), and its anatomy and texture are functions of the
world: the same subject can be painted on any grid. The deformation, in order: sizes about anchors, the
mouth opens about the jaw's joint, the head turns on the atlas, the neck bends and stretches below it, the
shoulders rise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Float64, Int16

from jxrecon.geometry import Grid, centred_grid
from jxrecon.phantom import chest, head_neck, paint
from jxrecon.phantom.blueprint import JAW, JAW_JOINT, NECK, SHOULDER, SKULL_BASE, Blueprint
from jxrecon.phantom.primitives import Primitives
from jxrecon.types import InputError, Key
from jxrecon.units import HU_AIR

_WAVES = 48
_FINE_MM = 6.0  # coarser grids are painted at half their spacing and averaged


class Latents(NamedTuple):
    """What varies between SYNTHETIC subjects, each standard normal and cut at 2.2; beside each, what 1 is."""

    head_size: Float[Array, ""]  # all of the head, 3.5%
    head_length: Float[Array, ""]  # longer and narrower, 3%
    jaw_size: Float[Array, ""]  # mandible and chin about the joint, 6%
    jaw_opening: Float[Array, ""]  # 3 degrees about 2.5
    pitch: Float[Array, ""]  # the head nods, 3.5 degrees
    yaw: Float[Array, ""]  # the head turns, 2 degrees
    bend: Float[Array, ""]  # the neck leans to a side, 2.5 degrees
    neck_length: Float[Array, ""]  # 7%
    tilt: Float[Array, ""]  # the neck leans to the front, 5 degrees
    lordosis: Float[Array, ""]  # the neck's curve, 5 mm
    build: Float[Array, ""]  # girth of the neck, 9%, and width of the shoulders, 6%
    fat: Float[Array, ""]  # thickness under the skin, by a factor of e^0.45
    shoulder_height: Float[Array, ""]  # 9 mm at the arms
    shoulder_difference: Float[Array, ""]  # right up and left down, 4 mm
    bone: Float[Array, ""]  # density 10%, size of the vertebrae 5%
    airway: Float[Array, ""]  # calibre, 16%


def average() -> Latents:
    """The SYNTHETIC subject in the middle of the population; it is symmetric, left to right."""
    return Latents(*(jnp.zeros(()) for _ in Latents._fields))


def draw(key: Key) -> tuple[Latents, Float[Array, "waves 4"]]:
    """Latents and texture waves of the SYNTHETIC subject with this key: one draw, cut into pieces."""
    numbers = jax.random.normal(key, (len(Latents._fields) + 4 * _WAVES,), jnp.float32)
    latents = jnp.clip(numbers[: len(Latents._fields)], -2.2, 2.2)
    return Latents(*latents), numbers[len(Latents._fields) :].reshape(_WAVES, 4)


def _rotation(radians: Float[Array, " n"], axis: int) -> Float[Array, "n 3 3"]:
    """Rotations about one world axis: those about x, their axes renamed."""
    c, s = jnp.cos(radians), jnp.sin(radians)
    zero, one = jnp.zeros_like(c), jnp.ones_like(c)
    rows = (one, zero, zero), (zero, c, -s), (zero, s, c)
    return jnp.roll(jnp.stack([jnp.stack(row, -1) for row in rows], -2), axis, (-2, -1))


def _resize(bodies: Primitives, anchor: ArrayLike, factor: Float[Array, "n 3"]) -> Primitives:
    """World x, y, z scaled about an anchor; a semi-axis by the factor along its own direction."""
    anchor = jnp.asarray(anchor, jnp.float32)
    stretch = jnp.sqrt(jnp.einsum("nij,ni->nj", bodies.rotation**2, factor**2))
    centre = anchor + factor * (bodies.centre - anchor)
    return bodies._replace(centre=centre, axes=bodies.axes * stretch)


def _turn(bodies: Primitives, anchor: ArrayLike, matrix: Float[Array, "n 3 3"]) -> Primitives:
    """Bodies turned about an anchor."""
    anchor = jnp.asarray(anchor, jnp.float32)
    exact = jax.lax.Precision.HIGHEST
    centre = anchor + jnp.einsum("nij,nj->ni", matrix, bodies.centre - anchor, precision=exact)
    rotation = jnp.matmul(matrix, bodies.rotation, precision=exact)
    return bodies._replace(centre=centre, rotation=rotation)


def deform(blueprint: Blueprint, z: Latents) -> Primitives:
    """The bodies of the blueprint in the SYNTHETIC subject with these latents."""
    bodies = jax.tree.map(jnp.asarray, blueprint.bodies)
    region, bone = blueprint.region, blueprint.bone > 0
    height = blueprint.bodies.centre[:, 2]
    vertebra = bone & (region == NECK)

    def grown(chosen: np.ndarray, x: Array, y: Array, up: Array) -> Float[Array, "n 3"]:
        """exp of three changes for the chosen bodies, 1 for the others."""
        return jnp.exp(jnp.stack([x, y, up])[None] * jnp.asarray(chosen[:, None], jnp.float32))

    # Sizes: the head about the skull's base, the jaw about its joint, the rest about the spine.
    size, longer, none = 0.035 * z.head_size, 0.03 * z.head_length, jnp.zeros(())
    head = grown(region <= JAW, size - longer, size + longer, size)
    bodies = _resize(bodies, SKULL_BASE[None], head)
    jaw = grown(region == JAW, 0.03 * z.jaw_size, 0.05 * z.jaw_size, 0.07 * z.jaw_size)
    bodies = _resize(bodies, JAW_JOINT[None], jaw)
    soft = (region == NECK) & ~bone & (blueprint.airway == 0)
    girth = grown(soft, 0.09 * z.build, 0.09 * z.build, none)
    girth = girth * grown(region == SHOULDER, 0.06 * z.build, 0.05 * z.build, none)
    spine = np.stack([0 * height, np.vectorize(head_neck.cord_y_mm)(height) + 8, height], 1)
    bodies = _resize(bodies, spine, girth)
    vertebrae = grown(vertebra, 0.05 * z.bone, 0.05 * z.bone, 0.02 * z.bone)
    bodies = _resize(bodies, blueprint.vertebra, vertebrae)
    across = jnp.asarray(blueprint.airway[:, None] * np.array([[1, 1, 0]]), jnp.float32)
    bodies = bodies._replace(axes=bodies.axes * (1 + 0.16 * z.airway * across))

    # Joints: the mouth opens, the head turns and takes the upper neck with it.
    opening = jnp.deg2rad(-(2.5 + 2.0 * z.jaw_opening)) * jnp.asarray(region == JAW, jnp.float32)
    bodies = _turn(bodies, JAW_JOINT[None], _rotation(opening, 0))
    ease = np.clip((height - 30) / 36, 0, 1)
    turning = np.where(region == NECK, ease**2 * (3 - 2 * ease), 0.0)
    share = jnp.asarray(np.where(region <= JAW, 1.0, turning), jnp.float32)
    nod = _rotation(jnp.deg2rad(3.5 * z.pitch) * share, 0)
    lean = _rotation(jnp.deg2rad(1.2 * z.bend) * share, 1)
    yaw = _rotation(jnp.deg2rad(2.0 * z.yaw) * share, 2)
    bodies = _turn(bodies, SKULL_BASE[None], jnp.matmul(yaw, jnp.matmul(lean, nod)))

    # The neck below the skull's base: s mm down the spine it stretches, leans and curves.
    s = jnp.asarray(np.where(region >= NECK, np.maximum(62 - height, 0), 0), jnp.float32)
    moves = jnp.asarray((region >= NECK) & (height < 62), jnp.float32)
    curve = jnp.pi * jnp.minimum(s, 150.0) / 150.0
    dx = jnp.tan(jnp.deg2rad(2.5 * z.bend)) * s
    dy = -jnp.tan(jnp.deg2rad(5.0 * z.tilt)) * s + 5.0 * z.lordosis * jnp.sin(curve)
    dy_ds = -jnp.tan(jnp.deg2rad(5.0 * z.tilt)) + 5.0 * z.lordosis * jnp.pi / 150 * jnp.cos(curve)
    follow = _rotation(jnp.arctan(dy_ds) * moves, 0)
    follow = jnp.matmul(_rotation(-jnp.deg2rad(2.5 * z.bend) * moves, 1), follow)
    bodies = _turn(bodies, bodies.centre, follow)

    # The shoulders rise towards the arms.
    x = blueprint.bodies.centre[:, 0]
    arm = jnp.asarray(np.clip((np.abs(x) - 25) / 80, 0, 1) * (region == SHOULDER), jnp.float32)
    raised = 9.0 * z.shoulder_height + 4.0 * z.shoulder_difference * jnp.asarray(np.sign(x))
    offset = jnp.stack([dx, dy, -0.07 * z.neck_length * s + raised * arm], 1)
    denser = 1 + 0.1 * z.bone * jnp.asarray(blueprint.bone)
    return bodies._replace(centre=bodies.centre + offset, value=bodies.value * denser)


_blueprint, _whole_blueprint = cache(head_neck.blueprint), cache(chest.blueprint)


def anatomy(grid: Grid, z: Latents, whole: bool = False) -> Float[Array, "x y z"]:
    """The SYNTHETIC subject with these latents, without texture, in HU; -1000 exactly outside it.

    Args:
        grid: any grid with orthogonal axes, world mm; one coarser than 6 mm is painted at half its
            spacing and averaged.
        z: scalars.
        whole: with chest and arms, which the standard field does not show.
    """
    refine = 2 if grid.spacing_mm.max() > _FINE_MM else 1
    step = np.diag([*3 * [1 / refine], 1.0])
    step[:3, 3] = (1 / refine - 1) / 2
    affine = jnp.asarray(grid.affine @ step, jnp.float32)
    x, y, up = grid.shape
    shape = (refine * x, refine * y, refine * up)
    blueprint, stages = _whole_blueprint() if whole else _blueprint()
    bodies = deform(blueprint, z)
    parts = {n: Primitives(*(leaf[s.bodies] for leaf in bodies)) for n, s in stages.items()}
    fat_mm = parts["outline"].value * jnp.exp(0.45 * z.fat)
    shell, lean = paint.skin(parts["outline"]._replace(value=fat_mm), affine, shape)
    hu = shell
    for name in ("large", "medium", "small"):
        patch = paint.patch_for(stages[name].extent_mm, shape, grid.spacing_mm / refine)
        hu = paint.paint(hu, parts[name], affine, patch)
        if name == "medium":  # what reaches out of the body so far is cut off
            hu = shell + lean * (hu - shell)
    return hu.reshape(x, refine, y, refine, up, refine).mean((1, 3, 5))


def _subject(grid: Grid, whole: bool, key: Key) -> Float[Array, "x y z"]:
    z, noise = draw(key)
    hu = anatomy(grid, z, whole)
    waves = paint.texture(noise, jnp.asarray(grid.affine, jnp.float32), grid.shape)
    return jnp.clip(paint.textured(hu, waves), HU_AIR, 3000.0)


@cache
def _compiled(shape: tuple[int, int, int], affine: bytes, whole: bool) -> Callable[[Key], Array]:
    """One program a grid and a number of keys: subject after subject, so memory holds a few volumes."""
    grid = Grid(shape, np.frombuffer(affine).reshape(4, 4))
    return jax.jit(lambda keys: jax.lax.map(partial(_subject, grid, whole), keys))


def subject(grid: Grid, key: Key, whole: bool = False) -> Float[Array, "x y z"]:
    """The SYNTHETIC subject of this key in HU, with texture; -1000 exactly outside it.

    Args:
        grid: as `anatomy`.
        key: draws latents and texture; the same key is the same person on every grid.
        whole: as `anatomy`.
    """
    affine = np.asarray(grid.affine, np.float64)
    return _compiled(tuple(grid.shape), affine.tobytes(), whole)(key[None])[0]


def population(grid: Grid, seed: int, start: int, count: int) -> np.ndarray:
    """SYNTHETIC volumes start, start + 1, ... of the population of this seed.

    Args:
        grid: as `anatomy`.
        seed: names the population; a training and a validation set are two ranges of one seed.

    Returns:
        np.int16 [count, x, y, z] in HU. A volume depends on (grid, seed, its number) only.

    Raises:
        InputError: start or count is negative.
    """
    if start < 0 or count < 0:
        raise InputError(f"subjects from {start}, {count} of them: expected numbers from 0 on")
    key = jax.random.key(seed)
    volumes = np.empty((count, *grid.shape), np.int16)
    for i in range(count):
        hu = subject(grid, jax.random.fold_in(key, start + i))
        volumes[i] = np.rint(np.asarray(hu)).astype(np.int16)
    return volumes


def scene(
    seed: int, number: int, voxel_mm: float = 6.0
) -> tuple[Int16[np.ndarray, "i j k"], Float64[np.ndarray, "4 4"]]:
    """The same SYNTHETIC subject as `population`'s, head to chest: what the X-rays of its field show.

    Args:
        seed: of the population.
        number: of the subject.
        voxel_mm: edge of the voxels. At 6 a subject takes a tenth of a second.

    Returns:
        HU, and index -> world mm, the world in which the standard field is centred.
    """
    low, high = np.array(chest.BOX_MM).T
    x, y, z = np.ceil((high - low) / voxel_mm).astype(int).tolist()
    grid = centred_grid((x, y, z), (voxel_mm,) * 3, tuple((low + high) / 2))
    hu = subject(grid, jax.random.fold_in(jax.random.key(seed), number), whole=True)
    return np.rint(np.asarray(hu)).astype(np.int16), grid.affine
