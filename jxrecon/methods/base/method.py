"""What a method is: four pure functions over one state, so that one loop serves them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
from jaxtyping import Array, Float, Int

from jxrecon.geometry import AnyCamera, Camera, Grid
from jxrecon.mesh import Template
from jxrecon.types import Key, PyTree, Terms
from jxrecon.units import Window

Images: TypeAlias = Sequence[Float[Array, "rows columns"]]
"""X-rays of one patient as line integrals, one a camera."""

Share: TypeAlias = Callable[[Images], tuple[Images, Images | None]]
"""X-rays as they were taken -> (the field's share of them, how much each pixel is to be trusted)."""

Cameras: TypeAlias = Sequence[AnyCamera]
"""Their cameras, with values, not traced: the projector picks its path once."""

Trace: TypeAlias = dict[str, Float[Array, " iterations"]]
"""Objective terms under their paper names, one number an iteration; may be empty."""

Progress: TypeAlias = Callable[[int, float], None] | None
"""Called with (iteration, objective) now and then while a reconstruction runs; None: not at all."""


class Problem(NamedTuple):
    """Which volume is to be reconstructed from which X-rays: the same for every method of an experiment.

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


class SurfaceProblem(NamedTuple):
    """Which organ is to be found in which X-ray: the same for every method of an experiment.

    Attributes:
        template: the topology that all surfaces share, and the mean shape of the training references
            as its vertices, world mm.
        camera: the X-ray's.
        cases: number of training cases.
    """

    template: Template
    camera: Camera
    cases: int


class StyleProblem(NamedTuple):
    """Which images are to be brought to another style.

    Attributes:
        shape: rows and columns of an image.
        cases: number of training pairs.
    """

    shape: tuple[int, int]
    cases: int


class Reconstruction(NamedTuple):
    """A volume and the course of its computation.

    Attributes:
        hu: [x, y, z] in HU on the problem's grid.
        trace: objective terms per iteration.
        deviation: standard deviation of hu in every voxel, HU, where the method knows one.
    """

    hu: Float[Array, "x y z"]
    trace: Trace
    deviation: Float[Array, "x y z"] | None = None


class Method(NamedTuple):
    """A reconstruction method as pure functions; the loop owns jit, sharding, checkpoints and logs.

    A classical baseline is a Method too: `fit` is all that it learns.

    Attributes:
        init: (key) -> state, a pytree that holds all that outlives a step.
        train_step: (state, batch, key) -> (state, terms); the batch is a `VolumeBatch` with its X-rays.
        eval_step: (state, batch, key) -> terms on held-out volumes.
        reconstruct: (state, images, cameras, key, progress=None, weights=None) -> Reconstruction; jit over
            the other arguments than the cameras, unless `any_camera`. Weights of the images' pixels, of mean
            1, are for a `field_model` alone.
        sample: (state, key, count) -> [count, x, y, z] in HU from the prior, where there is one.
        own_views: whether it takes the X-rays of the problem's own cameras alone, one each; else any
            number from anywhere.
        field_model: whether it takes X-rays for line integrals of the field alone, y = A x, so that what
            lies about the field has to be taken from them first.
        any_camera: of a `field_model`, whether the cameras may be traced, so that one program serves all; it
            is told poses that are found, others are given X-rays drawn anew where the cameras are told to be.
        fit: (state, `TrainingVolumes`) -> state: what is learnt at once, before the first step.
        kept_out: training cases, evenly spread, that no step learns from, for `finish`.
        finish: (state, batch of the cases kept out) -> state, after the last step; a `field_model` is also
            given the `Share` of their X-rays, learnt without them.
        ship: (state) -> what of it reconstructs, small enough to be handed on; pure.
        posed: as `reconstruct`, but the poses of the views are found with the volume.
        slow: whether a reconstruction takes seconds to minutes, so that it is not done a thousand times.
        deviates: whether its reconstructions come with a standard deviation.
        free: settings, as "settings.latent", that act on reconstruction alone: a trained run may change them.
        hints: what else `reconstruct` takes by name: "whole", the X-rays with what lies about the field;
            "start", a volume in HU to start from; "earlier", an earlier scan of the patient, HU.
        warm_up: (n, a step that does what `train_step` does while fewer than n steps are done), where that is
            a smaller program: the loop compiles the whole one when it comes to it.
        once: whether its steps are compiled as programs that run once, see `compile.jit`: sooner, for methods
            whose steps were measured to be as fast then.
    """

    init: Callable[[Key], PyTree]
    train_step: Callable[[PyTree, Any, Key], tuple[PyTree, Terms]]
    eval_step: Callable[[PyTree, Any, Key], Terms]
    reconstruct: Callable[..., Reconstruction]
    sample: Callable[[PyTree, Key, int], Float[Array, "b x y z"]] | None = None
    own_views: bool = False
    field_model: bool = False
    any_camera: bool = False
    fit: Callable[[PyTree, Any], PyTree] | None = None
    kept_out: int = 0
    finish: Callable[..., PyTree] | None = None
    ship: Callable[[PyTree], PyTree] | None = None
    posed: Callable[..., Reconstruction] | None = None
    slow: bool = False
    deviates: bool = False
    free: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    warm_up: tuple[int, Callable[[PyTree, Any, Key], tuple[PyTree, Terms]]] | None = None
    once: bool = False


class SurfaceMethod(NamedTuple):
    """A method that deforms an organ's surface to what one X-ray shows; trained by the same loop.

    Attributes:
        init: see `Method`.
        train_step: see `Method`; the batch is a `SurfaceBatch`.
        eval_step: see `Method`; its terms hold md_vertex_mm.
        reconstruct: (state, image [rows, columns], reference [v, 3] mm) -> vertices [v, 3] mm. The
            image is line integrals by the problem's camera.
        fit: see `Method`; from a `SurfaceBatch` of all training cases.
    """

    init: Callable[[Key], PyTree]
    train_step: Callable[[PyTree, Any, Key], tuple[PyTree, Terms]]
    eval_step: Callable[[PyTree, Any, Key], Terms]
    reconstruct: Callable[
        [PyTree, Float[Array, "rows columns"], Float[Array, "v 3"]], Float[Array, "v 3"]
    ]
    fit: Callable[[PyTree, Any], PyTree] | None = None


class Translator(NamedTuple):
    """A method that brings images to another style; trained by the same loop.

    Attributes:
        init: see `Method`.
        train_step: see `Method`; the batch is an `ImagePairBatch`.
        eval_step: see `Method`.
        translate: (state, image [rows, columns] in [-1, 1]) -> the image in the other style.
    """

    init: Callable[[Key], PyTree]
    train_step: Callable[[PyTree, Any, Key], tuple[PyTree, Terms]]
    eval_step: Callable[[PyTree, Any, Key], Terms]
    translate: Callable[[PyTree, Float[Array, "rows columns"]], Float[Array, "rows columns"]]


def no_step(state: PyTree, batch: Any, key: Key) -> tuple[PyTree, Terms]:
    """The training step of a method that learns nothing from single batches."""
    return state, {}


def no_terms(state: PyTree, batch: Any, key: Key) -> Terms:
    """The look at held-out cases of a method that is judged by its reconstructions alone."""
    return {}


def untrained(reconstruct: Callable[..., Reconstruction]) -> Method:
    """The Method that has nothing to learn: its state is empty, it knows the field's X-rays alone."""
    return Method(lambda key: (), no_step, no_terms, reconstruct, field_model=True)


def tell(
    progress: Progress,
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
