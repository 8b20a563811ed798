"""One method on one case after another: its volume, the metrics of it, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from jxrecon.compile import jit
from jxrecon.evaluation.setting import xrays
from jxrecon.geometry import Camera
from jxrecon.methods.base.method import Method, Problem
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


class Bench(NamedTuple):
    """What every method is given and measured by at one number of views, compiled once for all of them.

    Attributes:
        problem: grid, cameras and window.
        given: (truth in HU, key of the noise) -> (X-rays as methods get them, X-rays in unseen views).
        measure: (weights of LPIPS or None, truth, reconstruction, body mask, noise-free X-rays in unseen
            views, X-rays as given) -> the metrics that need JAX.
    """

    problem: Problem
    given: Callable[..., tuple[Any, Any]]
    measure: Callable[..., dict[str, Array]]


def make_bench(problem: Problem, unseen: Sequence[Camera], photons: float | None = None) -> Bench:
    """The bench of a problem.

    Args:
        problem: of the comparison.
        unseen: cameras whose X-rays no method is given, for `reprojection_unseen`.
        photons: see `setting.xrays`.
    """
    grid, cameras, window = problem.grid, problem.cameras, problem.window

    @jit
    def given(truth: Float[Array, "x y z"], noise: Key) -> tuple[Any, Any]:
        return xrays(truth, grid, cameras, noise, photons), xrays(truth, grid, unseen)

    @jit
    def measure(
        weights: Lpips | None, truth: Any, recon: Any, body: Any, others: Any, images: Any
    ) -> dict[str, Array]:
        ideal, again = (xrays(hu, grid, cameras) for hu in (truth, recon))
        return {
            **slices.case_metrics(weights, truth, recon, body, window, ideal, again),
            "reprojection_error": reprojection_error(recon, images, cameras, grid),
            "reprojection_unseen": reprojection_error(recon, others, unseen, grid),
        }

    return Bench(problem, given, measure)


def reconstructions(
    knowledge: Knowledge,
    bench: Bench,
    volumes: Any,
    places: Sequence[int],
    seed: int,
    weights: Lpips | None = None,
) -> Iterator[Found]:
    """Reconstructs cases from their own X-rays.

    Args:
        knowledge: the method.
        bench: of the problem.
        volumes: the VolumeSet of the truth.
        places: which cases.
        seed: of random starts and noise; those of a case are the same whatever the method.
        weights: of LPIPS (`slices.weights`); None leaves its metrics NaN.
    """
    problem, key = bench.problem, jax.random.key(seed)
    reconstruct: Any = jit(
        lambda state, images, start: (
            knowledge.method.reconstruct(state, images, problem.cameras, start).hu
        )
    )
    memory = float("nan")
    for count, place in enumerate(places):
        truth, body = np.asarray(volumes.hu[place], np.float32), volumes.body[place]
        noise = jax.random.fold_in(jax.random.fold_in(key, NOISE), place)
        images, others = bench.given(truth, noise)
        arguments = (knowledge.state(place), images, jax.random.fold_in(key, place))
        if count == 0:
            reconstruct = reconstruct.lower(*arguments).compile()
            memory = _working_memory(reconstruct)
        began = time.perf_counter()
        hu = jax.block_until_ready(reconstruct(*arguments))
        seconds = time.perf_counter() - began
        recon = np.rint(np.asarray(hu, np.float32))  # as in the file: the metrics are of that
        measured = bench.measure(weights, truth, recon, body, others, images)
        metrics = {
            **case_metrics(truth, recon, body, problem.window, problem.grid.spacing_mm),
            **{name: float(value) for name, value in measured.items()},
        }
        yield Found(place, recon, metrics, {"seconds": seconds, "memory_mb": memory})


def _working_memory(compiled: Any) -> float:
    """1e6 bytes of temporaries and results; NaN where the backend does not tell."""
    account = compiled.memory_analysis()
    if account is None:
        return float("nan")
    return (account.temp_size_in_bytes + account.output_size_in_bytes) / 1e6
