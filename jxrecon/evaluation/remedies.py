"""Remedies of an evaluation: with each of them every method takes part a second time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jxrecon.evaluation.bench import Bench, Remedy, Righted
from jxrecon.likelihood.pose import VERSION
from jxrecon.types import AnyArray

LEVELS = 257
"""Quantiles that a histogram is matched at."""


def style(translate: Callable[[np.ndarray], np.ndarray], folder: str, digest: int) -> Remedy:
    """X-rays in the style of `inference.styles.open_translation`, view by view."""

    def apply(images: Any, cameras: Any) -> Righted:
        return Righted(tuple(jnp.asarray(translate(np.asarray(y))) for y in images), cameras)

    return Remedy("style", lambda bench: apply, f"X-rays in the style that {folder} learnt", digest)


def histograms() -> Remedy:
    """The gray values of every view brought to the distribution that the training X-rays of the view have."""

    def learn(bench: Bench) -> Callable[[Any, Any], Righted]:
        levels = np.linspace(0.0, 1.0, LEVELS)
        known = [np.quantile(np.asarray(view), levels) for view in bench.training().images]

        def apply(images: Any, cameras: Any) -> Righted:
            return Righted(tuple(map(matched, images, known)), cameras)

        return apply

    note = "X-rays with the gray values of the training X-rays, matched by their histogram"
    return Remedy("histograms", learn, note)


def poses() -> Remedy:
    """X-rays as they would be if all but the first had been taken where they are told to be.

    Methods of `any_camera` get the field's share as it was taken, and the cameras found. The poses are found
    by the likelihood of the X-rays, `likelihood.pose`; for one X-ray there is none.
    """
    known: dict[bytes, Righted] = {}  # all methods are given the same X-rays

    def learn(bench: Bench) -> Callable[[Any, Any], Righted]:
        assert bench.search is not None  # volumes
        if bench.views < 2:
            return Righted
        search = bench.search()
        turn = search.turning(bench.problem.grid)

        def righted(images: Any, cameras: Any) -> Righted:
            found = search.refine(images)

            def turned(share: Any) -> tuple[Any, Any]:
                seen = images if share is None else turn(found, share)
                return tuple(jnp.asarray(y) for y in seen), found.cameras

            seen = tuple(jnp.asarray(y, jnp.float32) for y in found.images)
            return Righted(seen, cameras, turned)

        def apply(images: Any, cameras: Any) -> Righted:
            key = b"".join(np.asarray(image).tobytes() for image in images)
            if key not in known:
                known[key] = righted(images, cameras)
            return known[key]

        return apply

    note = "given the poses found by the likelihood of the X-rays, or X-rays brought to those told"
    return Remedy("pose found", learn, note, VERSION)


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
