"""What tests of methods share: the oracles' rule that makes tensors from names, an organ, and a ramp."""

import zlib
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.geometry import camera_at
from jxrecon.mesh import Mesh, template
from jxrecon.methods.base.method import SurfaceProblem
from jxrecon.types import SurfaceBatch


def _generator(name):
    return np.random.default_rng(zlib.crc32(name.encode()))


def _normal(name, shape, offset=0.0, mult=1.0):
    return np.asarray(offset + mult * _generator(name).standard_normal(shape)).astype(np.float32)


def _uniform(name, shape, lo=0.0, hi=1.0):
    return (lo + (hi - lo) * _generator(name).random(shape)).astype(np.float32)


def _sample(array, count=512):
    flat = np.asarray(array).reshape(-1)
    return flat[:: max(1, flat.size // count) | 1]


@pytest.fixture(scope="session")
def rule(oracles):
    """normal, uniform, sample; weights(file, net): official key -> tensor in the official layout."""

    def weights(file, net):
        found = {}
        for line in (oracles / f"{file}_keys.txt").read_text().splitlines()[1:]:
            owner, key, shape, offset, mult = line.split("\t")
            if owner == net and mult:
                size = () if shape == "scalar" else tuple(map(int, shape.split("x")))
                found[key] = _normal(key, size, float(offset), float(mult))
        return found

    return SimpleNamespace(normal=_normal, uniform=_uniform, sample=_sample, weights=weights)


@pytest.fixture(scope="session")
def p2m(oracles):
    with np.load(oracles / "pixel2mesh.npz") as numbers:
        return {key: numbers[key] for key in numbers.files}


@pytest.fixture(scope="session")
def organ(p2m):
    """(pixels, cases, seed) -> (problem, batch): ellipsoids of 162 vertices, seen before and after a breath.

    Images are the thickness of the moved ellipsoid, times 0.02 / mm, by the problem's camera.
    """
    sphere, faces = p2m["mesh/verts2"].astype(np.float64), p2m["mesh/faces2"]
    sphere = sphere / np.linalg.norm(sphere, axis=1, keepdims=True)

    def make(pixels=32, cases=4, seed=0):
        camera = camera_at(0.0, shape=(pixels, pixels), pixel_mm=450.0 / pixels)
        rays, source = (
            np.asarray(camera.pixels(), np.float64),
            np.asarray(camera.source, np.float64),
        )
        rays = (rays - source) / np.linalg.norm(rays - source, axis=-1, keepdims=True)
        random, images, references, targets = np.random.default_rng(seed), [], [], []
        for _ in range(cases):
            radii = np.array([90.0, 60.0, 70.0]) * random.uniform(0.85, 1.15, 3)
            centre, breath = random.normal(0, 5, 3), random.uniform(0, 1) * np.array([2, 4, -25])
            references.append(sphere * radii + centre)
            targets.append(references[-1] + breath)
            a, b = rays / radii, (source - centre - breath) / radii
            aa, ab = np.sum(a * a, -1), a @ b
            thick = 2 * np.sqrt(np.maximum(ab**2 - aa * (b @ b - 1), 0)) / aa
            images.append(0.02 * thick)
        parts = (jnp.asarray(np.stack(x), jnp.float32) for x in (images, references, targets))
        mean = template(Mesh(np.mean(references, axis=0), faces))
        return SurfaceProblem(mean, camera, cases), SurfaceBatch(*parts, jnp.arange(cases))

    return make


@pytest.fixture(scope="session")
def ramp():
    """(camera) -> line integrals that rise along the world's axes, whatever the detector's pixels."""

    def image(camera):
        x, y, z = np.moveaxis(np.asarray(camera.pixels()), -1, 0)
        return jnp.asarray(3.0 + x / 200 + y / 400 + z / 300)

    return image
