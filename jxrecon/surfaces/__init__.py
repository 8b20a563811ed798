"""Organs' surfaces instead of volumes: what the entry points do for methods that deform a mesh."""

from jxrecon.config import Kind
from jxrecon.surfaces.evaluation import evaluate
from jxrecon.surfaces.inference import reconstruct
from jxrecon.surfaces.problem import keep, problem

SURFACES = Kind(keep, problem, evaluate, reconstruct)
"""The kind of an experiment whose methods are `methods.base.SurfaceMethod`."""

__all__ = ["SURFACES", "evaluate", "keep", "problem", "reconstruct"]
