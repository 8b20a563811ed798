"""The SYNTHETIC phantom: exact line integrals, and a population that is seeded and looks like one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon import phantom
from jxrecon.data import scene_xrays
from jxrecon.geometry import camera_at, centred_grid, evenly_spaced
from jxrecon.phantom import chest, head_neck, paint, subjects
from jxrecon.phantom.primitives import turned
from jxrecon.types import InputError

COARSE = centred_grid((20, 24, 28), (11.2, 10.0, 7.2))
project = jax.jit(phantom.line_integrals)
FINE = centred_grid((80, 96, 112), (2.8, 2.5, 1.8))


@pytest.fixture(scope="module")
def painted():
    """Latents -> the SYNTHETIC anatomy on the fine grid, compiled once for this file."""
    return jax.jit(lambda z: phantom.anatomy(FINE, z))


@pytest.fixture(scope="module")
def average(painted):
    return np.asarray(painted(phantom.average()))


@pytest.fixture(scope="module")
def coarse():
    """The first SYNTHETIC subjects of seed 3 on the coarse grid."""
    return phantom.population(COARSE, seed=3, start=0, count=12)


def near(volume: np.ndarray, point_mm: tuple[float, float, float], reach: int = 1) -> np.ndarray:
    """The voxels of a volume on the fine grid about a point of the world."""
    index = np.linalg.inv(FINE.affine) @ [*point_mm, 1.0]
    return volume[tuple(slice(round(i) - reach, round(i) + reach + 1) for i in index[:3])]


# Closed forms.


def sampled(scene: phantom.Primitives, camera, samples: int = 20_000) -> np.ndarray:
    """Line integrals by brute force in float64: midpoints from the source to each pixel."""
    source = np.asarray(camera.source, np.float64)
    out = np.zeros(camera.shape)
    t = (np.arange(samples) + 0.5) / samples
    rays = np.asarray(camera.pixels(), np.float64) - source
    for at in np.ndindex(camera.shape):
        ray = rays[at]
        points = source + t[:, None] * ray
        for c, a, r, flat, value in zip(*scene[:4], scene.value):
            u = np.abs((points - c) @ r.astype(np.float64) / a)
            inside = ((u * (1 - flat)) ** 2).sum(1) <= 1
            inside &= (u * flat).max(1) <= 1
            out[at] += value * np.linalg.norm(ray) * inside.mean()
    return out


def scene() -> phantom.Primitives:
    turn = turned(25, "x") @ turned(-40, "z")
    return phantom.stack(
        [
            phantom.ellipsoid((10, -20, 5), (60, 45, 80), 0.02, turn),
            phantom.ellipsoid((0, 10, 0), (20, 30, 12), -0.01),
            phantom.box((-40, 20, 30), (15, 25, 40), 0.03, turn.T),
            phantom.cylinder((20, 0, -40), (18, 9, 50), 0.015, turn),
        ]
    )


@pytest.mark.parametrize(("angle", "elevation"), [(0.0, 0.0), (90.0, 0.0), (33.0, 12.0)])
def test_line_integrals_match_dense_sampling(angle, elevation):
    camera = camera_at(angle, elevation, shape=(5, 4), pixel_mm=40.0)
    exact = np.asarray(project(scene(), camera))
    # A boundary is placed to one of 20,000 samples of 1.5 m, 0.08 mm, twice a body.
    np.testing.assert_allclose(exact, sampled(scene(), camera), atol=4 * 0.03 * 0.08)
    assert exact.max() > 1.0


def test_rays_along_the_axes_measure_the_axes():
    """Through the middle: two semi-axes of an ellipsoid, of a box and of a cylinder's side and length."""
    for make in (phantom.ellipsoid, phantom.box, phantom.cylinder):
        body = make((0, 0, 0), (30, 40, 50), 0.02)
        for angle, elevation, axis in ((0, 0, 40), (90, 0, 30), (0, 90, 50)):
            camera = camera_at(angle, elevation, shape=(1, 1))
            length = project(body, camera)[0, 0] / 0.02
            assert float(length) == pytest.approx(2 * axis, rel=1e-5)


def test_rays_beside_a_box_and_parallel_to_its_faces_miss_it():
    camera = camera_at(0.0, shape=(1, 1))
    for make in (phantom.box, phantom.cylinder):
        assert float(project(make((0, 0, 60), (30, 40, 50), 1.0), camera)[0, 0]) == 0
        assert float(project(make((31, 0, 0), (30, 40, 50), 1.0), camera)[0, 0]) == 0


def test_bodies_behind_source_or_detector_do_not_count():
    camera = camera_at(0.0, shape=(1, 1))
    for y in (1100.0, -600.0):
        body = phantom.ellipsoid((0, y, 0), (30, 40, 50), 0.02)
        assert float(project(body, camera)[0, 0]) == 0
    half = phantom.ellipsoid((0, 1000.0, 0), (30, 40, 50), 0.02)
    assert float(project(half, camera)[0, 0]) == pytest.approx(0.8, rel=1e-5)


def test_rasterised_scene_keeps_its_mass():
    grid = centred_grid((20, 18, 22), (12.0, 12.0, 12.0))
    volume = phantom.rasterise(scene(), grid, supersample=4)
    mass = float(volume.sum()) * 12.0**3
    ball, rod = 4 / 3 * np.pi, 2 * np.pi
    expected = 0.02 * ball * 60 * 45 * 80 - 0.01 * ball * 20 * 30 * 12
    expected += 0.03 * 8 * 15 * 25 * 40 + 0.015 * rod * 18 * 9 * 50
    assert mass == pytest.approx(expected, rel=5e-3)
    centres = phantom.rasterise(scene(), grid)
    assert set(np.unique(np.round(centres, 6))) >= {0.0, np.float32(0.02)}


def test_a_body_without_thickness_is_refused():
    with pytest.raises(InputError, match="semi-axes"):
        phantom.ellipsoid((0, 0, 0), (1, 0, 1), 1.0)
    with pytest.raises(InputError, match="supersample"):
        phantom.rasterise(scene(), COARSE, supersample=0)


# The population.


def test_a_subject_depends_on_its_seed_and_number_only(coarse):
    assert coarse.dtype == np.int16
    assert coarse.shape == (12, 20, 24, 28)
    np.testing.assert_array_equal(phantom.population(COARSE, 3, 7, 2), coarse[7:9])
    assert np.abs(phantom.population(COARSE, 4, 7, 1)[0] - coarse[7]).max() > 100
    for number in range(2):
        hu = phantom.subject(COARSE, jax.random.fold_in(jax.random.key(3), number))
        np.testing.assert_array_equal(np.rint(np.asarray(hu)).astype(np.int16), coarse[number])


def test_negative_numbers_of_subjects_are_refused():
    with pytest.raises(InputError, match="from -1"):
        phantom.population(COARSE, 0, -1, 2)


def test_subjects_lie_in_the_range_of_ct_with_plain_air_around(coarse):
    assert coarse.min() == -1000
    assert 800 < coarse.max() <= 3000
    corner = coarse[:, :3, -4:, :10]  # in front of the shoulder
    assert (corner == -1000).mean() > 0.99


def test_subjects_vary_as_much_as_patients_do(coarse):
    """A subject's PSNR against the mean of the others, in the window of 3024 HU: 18 to 26 dB."""
    hu = coarse.astype(np.float64).clip(-1024, 2000)
    for i, own in enumerate(hu):
        others = np.delete(hu, i, 0).mean(0)
        assert 18 < 10 * np.log10(3024**2 / ((own - others) ** 2).mean()) < 26


def test_every_latent_changes_the_anatomy():
    """One standard deviation of each moves some body by a millimetre, or changes its size or value."""
    blueprint, _ = head_neck.blueprint()
    deform = jax.jit(lambda z: subjects.deform(blueprint, z))
    middle = deform(phantom.average())
    for name in phantom.Latents._fields:
        if name == "fat":  # acts on the outline's values, in `anatomy`
            continue
        moved = deform(phantom.average()._replace(**{name: jnp.ones(())}))
        shift = np.abs(np.asarray(moved.centre - middle.centre)).max()
        size = np.abs(np.asarray(moved.axes / middle.axes) - 1).max()
        assert shift > 1.0 or size > 0.1, name


@pytest.mark.parametrize("plan", [head_neck.blueprint, chest.blueprint])
def test_bodies_keep_to_the_patch_they_are_painted_in(plan):
    blueprint, stages = plan()
    deform = jax.jit(lambda z: subjects.deform(blueprint, z))
    boxed = blueprint.bodies.flat.any(1)[:, None]
    for draw in np.random.default_rng(0).standard_normal((40, len(phantom.Latents._fields))):
        latents = draw.clip(-2.2, 2.2).astype(np.float32)
        bodies = deform(phantom.Latents(*(jnp.asarray(x) for x in latents)))
        edges = np.abs(np.asarray(bodies.rotation)) * np.asarray(bodies.axes)[:, None]
        extent = 2 * np.where(boxed, edges.sum(-1), np.sqrt((edges**2).sum(-1)))
        for name in ("medium", "small"):
            assert (extent[stages[name].bodies].max(0) <= stages[name].extent_mm).all(), name


def test_a_coarse_volume_is_the_mean_of_the_fine_one(painted, coarse):
    key = jax.random.fold_in(jax.random.key(3), 0)
    fine = np.asarray(painted(phantom.draw(key)[0]))
    blocks = fine.reshape(20, 4, 24, 4, 28, 4).mean((1, 3, 5))
    difference = coarse[0] - blocks
    assert np.abs(difference).mean() < 10
    assert 10 * np.log10(3024**2 / (difference**2).mean()) > 38


def test_texture_of_a_coarse_grid_is_the_mean_of_the_fine_one():
    noise = jax.random.normal(jax.random.key(0), (48, 4))
    coarse, fine = (
        centred_grid((5, 6, 7), (8.0, 6.0, 4.0)),
        centred_grid((10, 12, 14), (4.0, 3.0, 2.0)),
    )
    big = paint.texture(noise, jnp.asarray(coarse.affine, jnp.float32), coarse.shape)
    small = paint.texture(noise, jnp.asarray(fine.affine, jnp.float32), fine.shape)
    mean = np.asarray(small).reshape(5, 2, 6, 2, 7, 2).mean((1, 3, 5))
    np.testing.assert_allclose(big, mean, atol=1e-4)
    assert 0.4 < np.asarray(small).std() < 1.1


# The scene about the field.


def test_the_fields_bodies_are_those_of_the_scene_in_the_same_order():
    """So what the field shows did not change when it got a surround."""
    (field, own), (whole, all_of) = head_neck.blueprint(), chest.blueprint()
    for name, stage in own.items():
        start, count = all_of[name].bodies.start, stage.bodies.stop - stage.bodies.start
        pairs = zip(jax.tree.leaves(field), jax.tree.leaves(whole))
        for some, more in pairs:
            np.testing.assert_array_equal(some[stage.bodies], more[start : start + count])


def test_chest_and_arms_lie_all_but_outside_the_field():
    field = centred_grid((37, 40, 34), (6.0, 6.0, 6.0))
    whole = jax.jit(lambda z: phantom.anatomy(field, z, True))
    alone = jax.jit(lambda z: phantom.anatomy(field, z))
    np.testing.assert_array_equal(whole(phantom.average()), alone(phantom.average()))
    for number in range(12):
        z = phantom.draw(jax.random.fold_in(jax.random.key(0), number))[0]
        changed = np.abs(np.asarray(whole(z) - alone(z)))
        assert changed.mean() < 0.2, number
        assert (changed > 1).mean() < 2e-3, number


@pytest.fixture(scope="module")
def whole():
    """HU and affine of a SYNTHETIC scene."""
    return phantom.scene(3, 2)


def test_a_scene_goes_from_the_top_of_the_head_to_the_chest(whole):
    hu, affine = whole
    assert hu.shape == (80, 54, 70)
    assert hu.dtype == np.int16
    assert hu.min() == -1000
    assert (hu[:, :, -1] == -1000).all()
    assert (hu[:, -1] == -1000).all()
    assert (hu[:, :, 0] > -900).mean() > 0.3

    def at(*point_mm):
        return hu[tuple(np.rint(np.linalg.inv(affine) @ [*point_mm, 1.0]).astype(int)[:3])]

    assert 0 < at(0, -20, 130) < 80  # brain
    assert -130 < at(200, -54, -160) < 120  # upper arm
    assert at(75, -50, -170) < -700  # lung
    assert -130 < at(-20, -30, -180) < 120  # heart


VIEWS = evenly_spaced(2, shape=(24, 24), pixel_mm=16.0)


def xrays(hu: np.ndarray, affine: np.ndarray) -> list[np.ndarray]:
    axes = scene_xrays.axes_of([affine], VIEWS)
    place = jnp.asarray(affine, jnp.float32)
    return [np.asarray(y) for y in scene_xrays.xrays_of(jnp.asarray(hu), place, VIEWS, axes)]


def test_a_scene_cut_to_the_field_has_the_fields_xrays(whole):
    cut = scene_xrays.field_of(jnp.asarray(whole[0]), jnp.asarray(whole[1], jnp.float32), FINE)
    field = phantom.population(FINE, 3, 2, 1)[0]
    for one, other in zip(xrays(np.asarray(cut), FINE.affine), xrays(field, FINE.affine)):
        assert np.linalg.norm(one - other) < 0.06 * np.linalg.norm(other)
        assert one.sum() == pytest.approx(other.sum(), rel=0.04)


def test_xrays_of_a_scene_go_through_the_shoulders(whole, coarse):
    """Within the lower end of the field's shadow: the field holds nearly all but what lies to the sides."""
    shadows = [
        (one[17:20] * (other[17:20] > 0.3)).sum() / other[17:20].sum()
        for one, other in zip(xrays(*whole), xrays(coarse[2], COARSE.affine))
    ]
    assert 0.95 < shadows[0] < 1.2  # frontal
    assert 1.5 < shadows[1] < 2.5  # lateral


# Anatomy of the average subject.


def test_the_average_subject_is_symmetric(average):
    mirrored = average[::-1]
    assert np.abs(average - mirrored).mean() < 0.05
    assert np.abs(average - mirrored).max() < 40


def test_air_fills_the_airway_and_the_sinuses(average):
    # nasopharynx, pharynx, trachea, maxillary sinus, lung
    for point in ((0, 3, 62), (0, -1, 22), (0, 2, -50), (31, 37, 82), (-46, -58, -98)):
        assert near(average, point).max() < -600, point


def test_bone_is_where_bones_are(average):
    assert near(average, (26, 57, 19), 2).max() > 900  # mandible
    assert near(average, (0, 71, 49), 2).max() > 1200  # teeth
    assert near(average, (0, -104, 92), 3).max() > 700  # occiput
    assert near(average, (108, -34, -64), 3).max() > 400  # clavicle
    assert near(average, (0, -60, 96)).std() < 5  # and none within the brain
    assert 20 < near(average, (0, -60, 96)).mean() < 50


def test_vertebrae_are_separate_and_have_a_canal(average):
    """Down the middle of the bodies bone and disc alternate; behind them the cord is free of bone."""
    blueprint, _ = head_neck.blueprint()
    middles = np.unique(
        blueprint.vertebra[(blueprint.vertebra != blueprint.bodies.centre).any(1)], axis=0
    )
    middles = middles[np.argsort(-middles[:, 2])]
    assert len(middles) == len(head_neck.VERTEBRAE)
    seen = middles[(middles[:, 2] > -95) & (middles[:, 2] < 55)]
    assert len(seen) >= 7  # C2 to T2
    bodies = [near(average, tuple(p), 0).item() for p in seen]
    discs = [near(average, tuple(p), 0).item() for p in (seen[:-1] + seen[1:]) / 2]
    assert min(bodies) > 250
    assert max(discs) < 150
    canal = [(0, head_neck.cord_y_mm(z), z) for z in np.linspace(-90, 40, 60)]
    assert max(near(average, point, 0).item() for point in canal) < 60


def test_shoulders_widen_below_the_neck(average):
    body = average > -300

    def width(z):
        return int(body[:, :, round((z + 99.9) / 1.8)].any(1).sum()) * 2.8

    assert width(-80) == 80 * 2.8
    assert 100 < width(-5) < 150
    assert width(85) > width(-5) + 20


def test_fat_lies_under_the_skin(painted, average):
    thicker = np.asarray(painted(phantom.average()._replace(fat=jnp.float32(2.0))))

    def fat_voxels(hu):
        return ((hu > -130) & (hu < -60)).sum()

    assert fat_voxels(thicker) > 1.5 * fat_voxels(average)
    assert (thicker > -300).sum() > (average > -300).sum()
