"""FDK, SIRT, CGLS and TV: closed-form bodies come back, in their place and with their attenuation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon import phantom
from jxrecon.drr import hu_to_mu, mu_to_hu
from jxrecon.drr.operator import field_of_view, operator, shadow, shadow_matrix
from jxrecon.geometry import camera_at, centred_grid, parallel_at
from jxrecon.methods.base.method import Problem
from jxrecon.methods.volumes.cgls import Settings as CglsSettings
from jxrecon.methods.volumes.cgls import cgls
from jxrecon.methods.volumes.fdk import Settings as FdkSettings
from jxrecon.methods.volumes.fdk import bilinear, fdk, filtered_backprojection, shares
from jxrecon.methods.volumes.sirt import Settings as SirtSettings
from jxrecon.methods.volumes.sirt import sirt
from jxrecon.methods.volumes.tv import Settings as TvSettings
from jxrecon.methods.volumes.tv import denoised, differences, divergence, tv
from jxrecon.types import InputError, VolumeBatch
from jxrecon.units import HU_AIR, Window

GRID = centred_grid((20, 20, 16), (10.0, 10.0, 10.0))
KEY = jax.random.key(0)
MU = 0.02
BALL = phantom.ellipsoid((10, -20, 0), (60, 60, 60), MU)
PIXELS = {"shape": (28, 36), "pixel_mm": 10.0}
line_integrals = jax.jit(phantom.line_integrals)
TRUTH = np.asarray(phantom.rasterise(BALL, GRID, 4))
ANGLES = (0.0, 40.0, 100.0, 150.0, 200.0)  # neither even nor within a half circle


def views(angles, **geometry):
    return tuple(camera_at(angle, **{**PIXELS, **geometry}) for angle in angles)


MIXED = (*views(ANGLES), parallel_at(70.0, shape=(9, 11), pixel_mm=20.0))


def problem(cameras, grid=GRID):
    return Problem(grid, cameras, Window(), 1)


def exact(bodies, cameras):
    return tuple(line_integrals(bodies, camera) for camera in cameras)


def parallel_exact(bodies, camera):
    """Parallel rays as those of a source 10 km away through the same pixels, in float32 well enough."""
    far = camera_at(0.0, **PIXELS).replace(
        source=camera.centre - 2e4 * camera.direction,
        centre=camera.centre + 2e4 * camera.direction,
        u=2 * camera.u,
        v=2 * camera.v,
        shape=camera.shape,
    )
    return line_integrals(bodies, far)


def run(build, settings, images, cameras, grid=GRID):
    method = build(problem(cameras, grid), settings)
    return jax.jit(lambda y: method.reconstruct((), y, cameras, KEY))(images)


def backprojected(images, cameras):
    """FDK without its residual, which takes longer to compile."""
    settings = FdkSettings()
    return np.asarray(
        jax.jit(lambda y: filtered_backprojection(y, cameras, GRID, settings))(images)
    )


def mu_of(result):
    return np.asarray(result.hu / 1000 + 1) * 0.0192


def centre_of_mass(mu, grid=GRID):
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
    mass = np.clip(mu, 0, None)
    middle = (index * mass[..., None]).sum((0, 1, 2)) / mass.sum()
    return grid.affine[:3, :3] @ middle + grid.affine[:3, 3]


# The operator.


@pytest.mark.parametrize("kind", ["alone", "scanned"])
def test_a_and_its_transpose_are_a_pair(kind):
    cameras = views((0.0,)) if kind == "alone" else MIXED
    a = operator(GRID, cameras)
    x = jax.random.normal(KEY, GRID.shape)
    shapes = jax.eval_shape(a.project, x)
    y = tuple(jax.random.normal(jax.random.fold_in(KEY, n), s.shape) for n, s in enumerate(shapes))
    ax, back = jax.jit(lambda x, y: (a.project(x), a.back(y)))(x, y)
    left = sum(np.vdot(np.asarray(p, np.float64), q) for p, q in zip(ax, y))
    size = np.sqrt(sum(np.vdot(p, p) for p in ax) * sum(np.vdot(q, q) for q in y))
    assert abs(left - np.vdot(np.asarray(back, np.float64), x)) < 1e-6 * size
    assert sorted(n for group in a.groups for n in group.members) == list(range(len(cameras)))


def test_a_subset_of_views_projects_as_the_whole_does():
    a = operator(GRID, views((0.0, 20.0, -20.0)), separately=False)
    x = jax.random.normal(KEY, GRID.shape)
    ((place, real),) = a.subsets(2)
    whole, *parts = jax.jit(
        lambda x, p: [a.project(x)[0], *(a.only([p[n]]).project(x)[0] for n in (0, 1))]
    )(x, place)
    for part, places in zip(parts, place):
        np.testing.assert_allclose(part, whole[places], rtol=1e-4, atol=1e-2)
    assert sorted(place[real]) == [0, 1, 2]


@pytest.mark.parametrize("make", [camera_at, parallel_at])
def test_shadow_is_where_the_ray_through_a_voxel_meets_the_detector(make):
    camera = make(33.0, 8.0, shape=(7, 9), pixel_mm=(30.0, 20.0), isocentre_mm=(5.0, -3.0, 9.0))
    matrix = shadow_matrix(GRID.affine, camera).astype(np.float32)
    column, row, depth = shadow(matrix, GRID.shape)
    at = (3, 17, 5)
    pixel = np.asarray(
        camera.centre + (column[at] - 4) * camera.u + (row[at] - 3) * camera.v, np.float64
    )
    point = GRID.affine[:3, :3] @ at + GRID.affine[:3, 3]
    if make is camera_at:
        start = np.asarray(camera.source, np.float64)
        np.testing.assert_allclose(start + depth[at] * (pixel - start), point, atol=1e-2)
    else:
        across = np.cross(point - pixel, np.asarray(camera.direction))
        np.testing.assert_allclose(across, 0, atol=1e-2)


def test_field_of_view_of_a_truncated_detector_is_its_cone():
    camera = camera_at(0.0, shape=(200, 6), pixel_mm=15.0)  # 90 mm wide: 60 mm at the isocentre
    mask = np.asarray(field_of_view(GRID, (camera,)))
    x = GRID.affine[0, 0] * np.arange(20) + GRID.affine[0, 3]
    y = GRID.affine[1, 1] * np.arange(20) + GRID.affine[1, 3]
    half_width = 45 * (1000 - y) / 1500  # the source stands at y = 1000
    expected = np.abs(x)[:, None] <= half_width[None]
    np.testing.assert_array_equal(mask, np.repeat(expected[:, :, None], 16, axis=2))
    side = camera_at(90.0, shape=(200, 6), pixel_mm=15.0)
    either, both = (np.asarray(field_of_view(GRID, (camera, side), by)) for by in ("any", "all"))
    other = np.asarray(field_of_view(GRID, (side,)))
    np.testing.assert_array_equal(either, mask | other)
    np.testing.assert_array_equal(both, mask & other)


def test_matter_beyond_the_detector_is_not_in_the_field_of_view():
    camera = camera_at(0.0, source_detector_mm=1000.001, shape=(60, 60), pixel_mm=10.0)
    mask = np.asarray(field_of_view(GRID, (camera,)))
    assert mask[:, 10:].all()
    assert not mask[:, :10].any()


# FDK.


def test_fdk_of_a_ball_has_its_attenuation_place_and_size():
    cameras = views(np.arange(60) * 6.0)
    result = run(fdk, FdkSettings(), exact(BALL, cameras), cameras)
    mu = mu_of(result)
    inside = TRUTH > 0.999 * MU
    assert mu[inside].mean() == pytest.approx(MU, rel=0.02)
    assert mu[10, 7, 7] == pytest.approx(MU, rel=0.04)  # at (5, -25, -5) mm
    np.testing.assert_allclose(centre_of_mass(np.where(mu > MU / 2, mu, 0)), (10, -20, 0), atol=1.0)
    volume = 4 / 3 * np.pi * 60**3
    assert (mu > MU / 2).sum() * 1000 == pytest.approx(volume, rel=0.05)
    assert float(result.trace["residual"][0]) < 0.1


def test_fdk_takes_detectors_whose_rows_run_along_the_axis():
    cameras = views(np.arange(24) * 15.0)
    images = exact(BALL, cameras)
    turned = tuple(c.replace(u=c.v, v=c.u, shape=(c.shape[1], c.shape[0])) for c in cameras)
    found = backprojected(tuple(image.T for image in images), turned)
    np.testing.assert_allclose(found, backprojected(images, cameras), atol=1e-3 * MU)


def test_parallel_filtered_backprojection_has_the_balls_attenuation():
    cameras = tuple(
        parallel_at(angle, shape=(24, 32), pixel_mm=8.0) for angle in np.arange(45) * 4.0
    )
    images = tuple(parallel_exact(BALL, camera) for camera in cameras)
    mu = backprojected(images, cameras)
    inside = TRUTH > 0.999 * MU
    assert mu[inside].mean() == pytest.approx(MU, rel=0.02)
    np.testing.assert_allclose(centre_of_mass(np.where(mu > MU / 2, mu, 0)), (10, -20, 0), atol=1.0)


def test_an_image_is_read_between_its_pixels_and_to_their_outer_edges_but_not_beyond():
    image = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    row, column = np.meshgrid(np.arange(-0.8, 3, 0.2), np.arange(-0.8, 4, 0.2), indexing="ij")
    tents = (
        np.maximum(0, 1 - abs(np.clip(x, 0, n - 1)[..., None] - np.arange(n)))
        for x, n in zip((row, column), image.shape)
    )
    expected = np.einsum("rcn,rcm,nm->rc", *tents, image)
    seen = (abs(row - 1) < 1.5) & (abs(column - 1.5) < 2)
    found = bilinear(jnp.asarray(image), jnp.asarray(row), jnp.asarray(column))
    np.testing.assert_allclose(found, np.where(seen, expected, 0), atol=1e-5)


def test_uneven_angles_count_by_their_gaps():
    def lines(*degrees):
        a = np.deg2rad(degrees)
        return np.stack([np.cos(a), np.sin(a), 0 * a], 1)

    axis = np.array([0.0, 0.0, 1.0])
    np.testing.assert_allclose(shares(lines(0), axis), np.pi)
    np.testing.assert_allclose(shares(lines(0, 90), axis), np.pi / 2)
    np.testing.assert_allclose(shares(lines(0, 90, 180, 270), axis), np.pi / 4, rtol=1e-5)
    uneven = np.rad2deg(shares(lines(100, 0, 20, 60), axis))
    np.testing.assert_allclose(uneven, [60, 50, 30, 40], atol=1e-4)
    arc = shares(lines(*range(60)), axis)  # a third of the half circle: no view counts for the rest
    np.testing.assert_allclose(arc, np.pi / 60, rtol=1e-4)


def test_fdk_of_uneven_angles_still_has_the_balls_attenuation():
    rng = np.random.default_rng(3)
    angles = np.sort(360 * rng.uniform(size=60))
    cameras = views(angles)
    mu = backprojected(exact(BALL, cameras), cameras)
    inside = TRUTH > 0.999 * MU
    assert mu[inside].mean() == pytest.approx(MU, rel=0.03)


# The iterations.

ITERATIVE = {
    "sirt": (sirt, SirtSettings(iterations=12), "residual"),
    "cgls": (cgls, CglsSettings(iterations=8), "residual"),
    "tv": (tv, TvSettings(weight_mm=2.0, iterations=50), "objective"),
}


@pytest.fixture(scope="module")
def found():
    """Every iterative method's reconstruction of the ball from five views."""
    cameras = views(ANGLES)
    images = exact(BALL, cameras)
    results = {}
    for name in ("sirt", "tv"):
        results[name] = run(*ITERATIVE[name][:2], images, cameras)
    heard = []

    def hear(iteration, residual):
        heard.append((int(iteration), float(residual)))

    method = cgls(problem(cameras), ITERATIVE["cgls"][1])
    listened = jax.jit(lambda y: method.reconstruct((), y, cameras, KEY, hear))
    results["cgls"] = jax.block_until_ready(listened(images))
    jax.effects_barrier()
    return results | {"heard": heard}


@pytest.mark.parametrize("name", ITERATIVE)
def test_iterations_never_make_it_worse(name, found):
    trace = np.asarray(found[name].trace[ITERATIVE[name][2]])
    assert len(trace) == ITERATIVE[name][1].iterations
    assert (np.diff(trace) <= 1e-4 * trace[:-1]).all()
    assert np.asarray(found[name].trace["residual"])[-1] < 0.12  # what 10 mm voxels can do


@pytest.mark.parametrize("name", ITERATIVE)
def test_the_ball_lies_where_it_is(name, found):
    mu = mu_of(found[name])
    np.testing.assert_allclose(centre_of_mass(np.where(mu > MU / 2, mu, 0)), (10, -20, 0), atol=4.0)


@pytest.mark.slow
def test_ordered_subsets_come_nearer_in_as_many_sweeps(found):
    cameras = views(ANGLES)
    settings = SirtSettings(iterations=12, subsets=3)
    result = run(sirt, settings, exact(BALL, cameras), cameras)
    errors = [np.linalg.norm(mu_of(r) - TRUTH) for r in (result, found["sirt"])]
    assert errors[0] < errors[1]
    assert (mu_of(result) >= -1e-6).all()


@pytest.mark.parametrize("name", ["fdk", "sirt", "cgls", "tv"])
def test_one_view_is_enough_to_run_and_unseen_voxels_are_air(name):
    cameras = views((0.0,), shape=(12, 12))  # 80 mm at the isocentre: truncated on all sides
    builds = {name: (b, s) for name, (b, s, _) in ITERATIVE.items()} | {"fdk": (fdk, FdkSettings())}
    build, settings = builds[name]
    result = run(build, settings, exact(BALL, cameras), cameras)
    hu = np.asarray(result.hu)
    mask = np.asarray(field_of_view(GRID, cameras))
    assert np.isfinite(hu).all()
    assert all(np.isfinite(term).all() for term in result.trace.values())
    np.testing.assert_array_equal(hu[~mask], HU_AIR)
    assert 0 < mask.mean() < 0.5
    assert hu[mask].mean() > HU_AIR + 100


def test_cgls_solves_an_overdetermined_system_exactly():
    grid = centred_grid((4, 5, 3), (20.0, 20.0, 20.0))
    cameras = tuple(
        camera_at(20.0 * n, (-1) ** n * 15.0, shape=(9, 13), pixel_mm=16.0) for n in (-2, -1, 1, 2)
    )
    hu = np.random.default_rng(0).uniform(-500, 500, grid.shape).astype(np.float32)
    a = operator(grid, cameras)
    stacks = jax.jit(a.project)(hu_to_mu(hu))
    images = {n: s[i] for g, s in zip(a.groups, stacks) for i, n in enumerate(g.members)}
    images = tuple(images[n] for n in range(len(cameras)))
    settings = CglsSettings(iterations=150, tolerance=1e-7, noise=1e-5)
    result = run(cgls, settings, images, cameras, grid)
    np.testing.assert_allclose(result.hu, hu, atol=5.0)
    trace = np.asarray(result.trace["residual"])
    stopped = int((trace > 1e-5).sum())
    assert stopped < 149
    np.testing.assert_array_equal(trace[stopped:], trace[stopped])


def test_divergence_is_minus_the_transpose_of_differences():
    x = np.asarray(jax.random.normal(KEY, (4, 5, 6)))
    p = tuple(jax.random.normal(jax.random.fold_in(KEY, n), x.shape) for n in range(3))
    spacing = (1.0, 2.0, 0.5)
    slopes, spread = jax.jit(lambda x, p: (differences(x, spacing), divergence(p, spacing)))(x, p)
    left = sum(np.vdot(d, q) for d, q in zip(slopes, p))
    assert left == pytest.approx(-np.vdot(x, spread), rel=1e-4)


def test_denoising_a_step_has_its_closed_form_long_before_plain_gradient_steps_would():
    g = jnp.repeat(jnp.array([0.0, 1.0]), 8).reshape(16, 1, 1)
    rest, weight = (jnp.zeros_like(g),) * 3, jnp.float32(2.0)
    found, _ = denoised(g, rest, weight, (1.0, 1.0, 1.0), 150, lambda x: x)
    # Each side of 8 voxels moves by weight / 8; without momentum 150 steps are still 0.2 off.
    np.testing.assert_allclose(found, 0.25 + 0.5 * g, atol=0.02)


def test_total_variation_lowers_a_ball_by_its_weight_over_its_radius(found):
    # d/dc of the data term, (mean over views) c 2 pi r^4, balances that of the weight, 4 pi r^2.
    lowered = MU - 2 * ITERATIVE["tv"][1].weight_mm / 60**2
    assert mu_of(found["tv"])[TRUTH > 0.999 * MU].mean() == pytest.approx(lowered, rel=0.03)


def test_progress_hears_of_the_iterations(found):
    heard = [residual for _, residual in sorted(found["heard"])]
    np.testing.assert_allclose(heard, found["cgls"].trace["residual"], rtol=1e-5)


@pytest.mark.parametrize("build", [fdk, sirt, cgls, tv])
def test_untrained_methods_learn_nothing(build):
    method = build(problem(views((0.0,))))
    state = method.init(KEY)
    batch = VolumeBatch(jnp.zeros((2, *GRID.shape)), jnp.arange(2))
    assert jax.jit(method.train_step)(state, batch, KEY) == ((), {})
    assert method.eval_step(state, batch, KEY) == {}


@pytest.mark.parametrize(
    ("build", "settings"),
    [
        (fdk, FdkSettings(window="none")),
        (fdk, FdkSettings(cutoff=0.0)),
        (sirt, SirtSettings(relaxation=2.0)),
        (cgls, CglsSettings(iterations=0)),
        (tv, TvSettings(weight_mm=-1.0)),
    ],
)
def test_options_out_of_range_are_refused(build, settings):
    with pytest.raises(InputError, match="expected"):
        build(problem(views((0.0,))), settings)


def test_no_xrays_and_unknown_fields_of_view_are_refused():
    with pytest.raises(InputError, match="at least one"):
        operator(GRID, ())
    with pytest.raises(InputError, match="'any' or 'all'"):
        field_of_view(GRID, views((0.0,)), "some")


@pytest.mark.slow
def test_sirt_reaches_35_db_with_180_views():
    # Exact projections of SYNTHETIC closed-form bodies; PSNR with a peak of 3024 HU, the standard window.
    grid = centred_grid((32, 32, 32), (7.0, 7.0, 7.0))
    cameras = tuple(camera_at(float(n), shape=(48, 48), pixel_mm=8.0) for n in range(180))
    bodies = phantom.stack(
        [
            phantom.ellipsoid((0, 0, 0), (70, 90, 95), MU),
            phantom.ellipsoid((20, 10, 0), (14, 14, 14), MU / 2),
            phantom.ellipsoid((-30, 10, 30), (20, 30, 10), -MU / 3),
        ]
    )
    result = run(sirt, SirtSettings(iterations=30), exact(bodies, cameras), cameras, grid)
    truth = np.asarray(mu_to_hu(phantom.rasterise(bodies, grid, 4)))
    reached = 10 * np.log10(3024**2 / np.mean((np.asarray(result.hu) - truth) ** 2))
    print(f"{reached:.2f} dB")
    assert reached > 35
