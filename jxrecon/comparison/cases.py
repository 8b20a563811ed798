"""One method on one case after another: its volume, the metrics of it, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from jxrecon.comparison.setting import xrays
from jxrecon.compile import jit
from jxrecon.geometry import Camera
from jxrecon.methods.base import Method, Problem
from jxrecon.metrics import slices
from jxrecon.metrics.lpips import Lpips
from jxrecon.metrics.volume import case_metrics, reprojection_error
from jxrecon.types import Key, PyTree

NOISE = 1 << 30
"""Folded into the key for noise; the places of cases, folded in for random starts, lie below."""

COSTS = {
    "seconds": "time of one reconstruction, without compilation",
    "memory_mb": (
        "working memory of the compiled reconstruction beside its arguments, 1e6 bytes, as the compiler "
        "counts it; the Python process comes on top"
    ),
}
"""What a reconstruction costs, and how that is counted. Depends on the machine."""


class Found(NamedTuple):
    """A reconstruction of one case.

    Attributes:
        place: of the case in its split.
        hu: the volume, whole numbers as in a file, HU.
        metrics: under the keys of `metrics.volume.CONVENTIONS`, without time.
        costs: under the keys of `COSTS`.
    """

    place: int
    hu: Float[np.ndarray, "x y z"]
    metrics: dict[str, float]
    costs: dict[str, float]


class Knowledge(NamedTuple):
    """What a method goes by beside the X-rays.

    Attributes:
        method: fitted, for this problem.
        state: (place of a case) -> state: the same trained one, or something of this very patient.
    """

    method: Method
    state: Callable[[int], PyTree]


def reconstructions(
    knowledge: Knowledge,
    problem: Problem,
    unseen: Sequence[Camera],
    volumes: Any,
    places: Sequence[int],
    seed: int,
    photons: float | None = None,
    weights: Lpips | None = None,
) -> Iterator[Found]:
    """Reconstructs cases from their own X-rays.

    Args:
        knowledge: the method.
        problem: grid, cameras and window.
        unseen: cameras whose X-rays the method is not given, for `reprojection_unseen`.
        volumes: the VolumeSet of the truth.
        places: which cases.
        seed: of random starts and noise; those of a case are the same whatever the method.
        photons: see `setting.xrays`.
        weights: of LPIPS (`slices.weights`); None leaves its metrics NaN.
    """
    grid, cameras, window = problem.grid, problem.cameras, problem.window
    key = jax.random.key(seed)

    @jit
    def measure(
        weights: Lpips | None, truth: Any, recon: Any, body: Any, images: Any, others: Any
    ) -> dict[str, Array]:
        ideal, again = (xrays(hu, grid, cameras) for hu in (truth, recon))
        return {
            **slices.case_metrics(weights, truth, recon, body, window, ideal, again),
            "reprojection_error": reprojection_error(recon, images, cameras, grid),
            "reprojection_unseen": reprojection_error(recon, others, unseen, grid),
        }

    @jit
    def given(hu: Float[Array, "x y z"], noise: Key) -> tuple[Any, Any]:
        return xrays(hu, grid, cameras, noise, photons), xrays(hu, grid, unseen)

    reconstruct: Any = jit(
        lambda state, images, start: knowledge.method.reconstruct(state, images, cameras, start).hu
    )
    memory = float("nan")
    for count, place in enumerate(places):
        truth, body = np.asarray(volumes.hu[place], np.float32), volumes.body[place]
        images, others = given(truth, jax.random.fold_in(jax.random.fold_in(key, NOISE), place))
        arguments = (knowledge.state(place), images, jax.random.fold_in(key, place))
        if count == 0:
            reconstruct = reconstruct.lower(*arguments).compile()
            memory = _working_memory(reconstruct)
        began = time.perf_counter()
        hu = jax.block_until_ready(reconstruct(*arguments))
        seconds = time.perf_counter() - began
        recon = np.rint(np.asarray(hu, np.float32))  # as in the file: the metrics are of that
        measured = measure(weights, truth, recon, body, images, others)
        metrics = {
            **case_metrics(truth, recon, body, window, grid.spacing_mm),
            **{name: float(value) for name, value in measured.items()},
        }
        yield Found(place, recon, metrics, {"seconds": seconds, "memory_mb": memory})


def _working_memory(compiled: Any) -> float:
    """1e6 bytes of temporaries and results; NaN where the backend does not tell."""
    account = compiled.memory_analysis()
    if account is None:
        return float("nan")
    return (account.temp_size_in_bytes + account.output_size_in_bytes) / 1e6
