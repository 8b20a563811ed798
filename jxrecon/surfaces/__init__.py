"""Organs' surfaces instead of volumes: what the entry points do for methods that deform a mesh."""

from typing import Any

from jxrecon.config import Kind
from jxrecon.surfaces.inference import reconstruct
from jxrecon.surfaces.problem import keep, problem


def evaluate(*arguments: Any) -> None:
    """See `evaluation.evaluate`; imported when called, for its statistics take half a second."""
    from jxrecon.surfaces import evaluation

    evaluation.evaluate(*arguments)


SURFACES = Kind(keep, problem, evaluate, reconstruct)
"""The kind of an experiment whose methods are `methods.base.SurfaceMethod`."""

__all__ = ["SURFACES", "evaluate", "keep", "problem", "reconstruct"]
