"""What a method is: four pure functions over one state, so that one loop serves them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Int

from jxrecon.geometry import Camera, Grid
from jxrecon.mesh import Template
from jxrecon.types import Key, PyTree, Terms
from jxrecon.units import Window

Progress = Callable[[int, float], None]
"""Called with (iteration, objective) now and then while a reconstruction runs."""


class Problem(NamedTuple):
    """What is to be reconstructed from what: the same for every method of an experiment.

    Attributes:
        grid: voxels of the volume, world mm.
        cameras: the standard views: those of training and of the evaluation.
        window: HU range of the networks and of the metrics.
        cases: number of training volumes.
    """

    grid: Grid
    cameras: tuple[Camera, ...]
    window: Window
    cases: int


class Reconstruction(NamedTuple):
    """A volume and how it was come by.

    Attributes:
        hu: [x, y, z] in HU on the problem's grid.
        trace: objective terms per iteration under their paper names, [iterations] each; may be empty.
    """

    hu: Float[Array, "x y z"]
    trace: dict[str, Float[Array, " iterations"]]


class Method(NamedTuple):
    """A reconstruction method as pure functions; the loop owns jit, sharding, checkpoints and logs.

    A classical baseline is a Method too: one `train_step` on the whole training set is its fit.

    Attributes:
        init: (key) -> state, a pytree that holds all that outlives a step.
        train_step: (state, batch, key) -> (state, terms).
        eval_step: (state, batch, key) -> terms on held-out volumes.
        reconstruct: (state, images, cameras, key, progress=None) -> Reconstruction. `images` are line
            integrals, one [rows, columns] a camera; the cameras are concrete, so that the projector
            picks its path once: jit over the other arguments.
        sample: (state, key, count) -> [count, x, y, z] in HU from the prior, where there is one.
        own_views: whether it takes the X-rays of the problem's own cameras alone, one each; else any
            number from anywhere.
    """

    init: Callable[[Key], PyTree]
    train_step: Callable[[PyTree, Any, Key], tuple[PyTree, Terms]]
    eval_step: Callable[[PyTree, Any, Key], Terms]
    reconstruct: Callable[..., Reconstruction]
    sample: Callable[[PyTree, Key, int], Float[Array, "b x y z"]] | None = None
    own_views: bool = False


class SurfaceProblem(NamedTuple):
    """Which organ is to be found in which X-ray: the same for every method of an experiment.

    Attributes:
        template: the topology that all surfaces share, and the mean shape of the training references
            as its vertices, world mm.
        camera: of the X-ray.
        cases: number of training cases.
    """

    template: Template
    camera: Camera
    cases: int


class SurfaceMethod(NamedTuple):
    """A method that deforms an organ's surface to what one X-ray shows; trained by the same loop.

    Attributes:
        init: as of a `Method`.
        train_step: as of a `Method`, on a `SurfaceBatch`.
        eval_step: as of a `Method`; its terms hold md_vertex_mm.
        reconstruct: (state, image [rows, columns], reference [v, 3] mm) -> vertices [v, 3] mm. The
            image is line integrals by the problem's camera.
    """

    init: Callable[[Key], PyTree]
    train_step: Callable[[PyTree, Any, Key], tuple[PyTree, Terms]]
    eval_step: Callable[[PyTree, Any, Key], Terms]
    reconstruct: Callable[
        [PyTree, Float[Array, "rows columns"], Float[Array, "v 3"]], Float[Array, "v 3"]
    ]


def untrained(reconstruct: Callable[..., Reconstruction]) -> Method:
    """The Method that has nothing to learn: its state is empty, X-rays are all it goes by."""
    return Method(
        init=lambda key: (),
        train_step=lambda state, batch, key: (state, {}),
        eval_step=lambda state, batch, key: {},
        reconstruct=reconstruct,
    )


def tell(
    progress: Progress | None,
    iteration: Int[Array, ""],
    objective: Float[Array, ""],
    iterations: int,
) -> None:
    """Calls `progress` about twenty times in a compiled loop; not at all where there is none."""
    if progress is not None:
        jax.lax.cond(
            iteration % max(1, iterations // 20) == 0,
            lambda: jax.debug.callback(progress, iteration, objective),
            lambda: None,
        )


class Translator(NamedTuple):
    """A method that makes images of another style instead of volumes; trained by the same loop.

    Attributes:
        init: as of a `Method`.
        train_step: as of a `Method`.
        eval_step: as of a `Method`.
        translate: (state, image [rows, columns] in [-1, 1]) -> the image in the other style.
    """

    init: Callable[[Key], PyTree]
    train_step: Callable[[PyTree, Any, Key], tuple[PyTree, Terms]]
    eval_step: Callable[[PyTree, Any, Key], Terms]
    translate: Callable[[PyTree, Float[Array, "rows columns"]], Float[Array, "rows columns"]]
