"""Remedies of an evaluation: with each of them every method takes part a second time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jxrecon.evaluation.bench import Bench, Remedy
from jxrecon.types import AnyArray

LEVELS = 257
"""Quantiles that a histogram is matched at."""


def style(translate: Callable[[np.ndarray], np.ndarray], folder: str, digest: int) -> Remedy:
    """X-rays in the style of `inference.styles.open_translation`, view by view."""

    def apply(images: Any, cameras: Any) -> tuple[Any, Any]:
        return tuple(jnp.asarray(translate(np.asarray(y))) for y in images), cameras

    return Remedy("style", lambda bench: apply, f"X-rays in the style that {folder} learnt", digest)


def histograms() -> Remedy:
    """The gray values of every view brought to the distribution that the training X-rays of the view have."""

    def learn(bench: Bench) -> Callable[[Any, Any], tuple[Any, Any]]:
        levels = np.linspace(0.0, 1.0, LEVELS)
        known = [np.quantile(np.asarray(view), levels) for view in bench.training().images]

        def apply(images: Any, cameras: Any) -> tuple[Any, Any]:
            return tuple(map(matched, images, known)), cameras

        return apply

    note = "X-rays with the gray values of the training X-rays, matched by their histogram"
    return Remedy("histograms", learn, note)


def poses() -> Remedy:
    """X-rays as they would be if all but the first had been taken where they are told to be.

    The poses are found by the likelihood of the X-rays, `likelihood.pose`; for one X-ray there is none.
    """
    found: dict[bytes, tuple[Any, ...]] = {}  # all methods are given the same X-rays

    def learn(bench: Bench) -> Callable[[Any, Any], tuple[Any, Any]]:
        assert bench.search is not None  # volumes
        search = bench.search() if bench.views > 1 else None

        def apply(images: Any, cameras: Any) -> tuple[Any, Any]:
            if search is None:
                return images, cameras
            key = b"".join(np.asarray(image).tobytes() for image in images)
            if key not in found:
                found[key] = tuple(
                    jnp.asarray(y, jnp.float32) for y in search.refine(images).images
                )
            return found[key], cameras

        return apply

    note = "X-rays brought to the poses told from those found by the likelihood of the X-rays"
    return Remedy("pose found", learn, note)


def matched(
    image: Float[AnyArray, "rows columns"], quantiles: Float[np.ndarray, " levels"]
) -> Float[AnyArray, "rows columns"]:
    """The image whose quantiles are these, evenly spaced from the least to the largest."""
    levels = np.linspace(0.0, 1.0, len(quantiles))
    own = np.quantile(np.asarray(image), levels)
    # Ties of many equal pixels, as air has, keep their middle level.
    own, start = np.unique(own, return_index=True)
    last = np.append(start[1:], len(levels)) - 1
    at = np.interp(np.asarray(image), own, (levels[start] + levels[last]) / 2)
    return jnp.asarray(np.interp(at, levels, quantiles), jnp.float32)
