"""Silhouettes and front maps by dense points: against a sphere's closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.geometry import camera_at
from jxrecon.mesh import Mesh, template
from jxrecon.nn.splatting import splatter

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def ball(camera, radius):
    """(distance of every pixel's ray from the origin, y where it enters a ball about it)."""
    source = np.asarray(camera.source, np.float64)
    rays = np.asarray(camera.pixels(), np.float64) - source
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    along = -rays @ source
    closest = np.linalg.norm(source + along[..., None] * rays, axis=-1)
    depth = along - np.sqrt(np.maximum(radius**2 - closest**2, 0))
    return closest, source[1] + depth * rays[..., 1]


@pytest.fixture(scope="module")
def seen(oracles):
    """(vertices of a ball of 80 mm, camera, what finds its silhouette and, as values, its front)."""
    with np.load(oracles / "pixel2mesh.npz") as numbers:
        sphere, faces = numbers["mesh/verts2"].astype(np.float64), numbers["mesh/faces2"]
    shape = template(Mesh(80.0 * sphere / np.linalg.norm(sphere, axis=1, keepdims=True), faces))
    camera = camera_at(0.0, shape=(64, 64), pixel_mm=450 / 64)
    points = splatter(shape, camera)
    find = jit(lambda v: (points.silhouette(v), points.front(v, v)))
    return jnp.asarray(shape.vertices)[None], camera, find


def test_silhouette_and_front_of_a_ball_are_its_own(seen):
    vertices, camera, find = seen
    hit, front = find(vertices)
    closest, entry = ball(camera, 80.0)
    pixel = 450 / 64 / 1.5
    # Flat faces lie up to 2 mm within the ball; a pixel of the outline may go either way.
    assert np.asarray(hit)[0][closest < 78 - pixel].all()
    assert not np.asarray(hit)[0][closest > 80 + pixel].any()
    inside = closest < 60
    assert np.abs(np.asarray(front)[0, inside, 1] - entry[inside]).max() < 4.0
    assert not np.asarray(front)[0, closest > 80 + pixel].any()


def test_what_misses_the_detector_leaves_no_trace(seen):
    vertices, _, find = seen
    hit, front = find(vertices + jnp.array([[[0.0, 0.0, 500.0]]]))
    assert not np.asarray(hit).any()
    assert not np.asarray(front).any()
