"""One template on many organs: it lies on their surface, over their holes, and is never folded."""

import numpy as np
import pytest

from jxrecon.correspondence import fit as registration
from jxrecon.correspondence.fit import Fixed, Settings, Stage, energy, fit, operators_of
from jxrecon.correspondence.likeness import check_like
from jxrecon.correspondence.mean_template import (
    build_template,
    frequency_of,
    geodesic_sphere,
    mean_shape,
)
from jxrecon.correspondence.organ import organ, sound, surface_of
from jxrecon.correspondence.pairing import pair
from jxrecon.correspondence.soundness import measured, repaired, tangled
from jxrecon.io.meshes import read_mesh
from jxrecon.mesh import Mesh, edges_of, enclosed_volume, flipped_faces
from jxrecon.mesh import template as template_of
from jxrecon.types import InputError

SETTINGS = Settings(
    stages=(Stage(3.0, 20.0, 0.1, 4), Stage(0.3, 5.0, 0.05, 4), Stage(0.03, 2.0, 0.02, 4)),
    steps=8,
    points=1200,
)


def bean(dent=0.0, frequency=8, radii=(90, 60, 50), centre=(20, -10, 5)):
    """An ellipsoid, bent and dented."""
    sphere = geodesic_sphere(frequency)
    x, y, z = sphere.vertices.T
    radius = 1 + dent * np.exp(-((y - 0.9) ** 2 + (x - 0.2) ** 2 + z**2) / 0.3)
    bent = np.stack([x, y, z + 0.5 * dent * x**2], 1) * radius[:, None]
    return Mesh(bent * radii + centre, sphere.faces)


def without(mesh, centre, reach):
    """The mesh with a hole."""
    near = np.linalg.norm(mesh.vertices[mesh.faces].mean(1) - centre, axis=1) < reach
    assert 0 < near.sum() < len(mesh.faces) / 4
    return Mesh(mesh.vertices, mesh.faces[~near])


@pytest.fixture(scope="module")
def template():
    return template_of(geodesic_sphere(4))


@pytest.fixture(scope="module")
def operators(template):
    return operators_of(template, SETTINGS)


def test_template_lies_on_organs_of_any_topology_after_one_compilation(template, operators):
    compiled = []
    for dent, frequency in ((0.0, 8), (-0.25, 9), (0.3, 7)):
        target = bean(dent, frequency)
        found = fit(template, target, SETTINGS, operators)
        report = found.report
        # Chords of a mesh of 162 vertices lie up to 2 mm within so large an organ.
        assert report.assd_mm < 1.0
        assert report.hd95_mm < 2.5
        assert report.assd_mm == pytest.approx((report.to_organ_mm + report.from_organ_mm) / 2)
        assert report.flipped_faces == report.self_intersecting_faces == 0
        assert not flipped_faces(template, found.vertices).any()
        assert report.organ_vertices == len(target.vertices)
        volume = enclosed_volume(found.vertices, template.faces)
        assert volume == pytest.approx(enclosed_volume(*target), rel=0.03)
        compiled.append(registration._program()._cache_size())
    assert len(set(compiled)) == 1


def test_holes_are_covered_as_if_they_were_not_there(template, operators):
    whole = bean(0.2)
    holed = without(whole, np.array([20, 45, 5]), 22)
    found = fit(template, holed, SETTINGS, operators)
    assert found.report.organ_rim_edges >= 10
    assert found.report.flipped_faces == 0
    truth = organ(whole, SETTINGS.points)
    against_whole = measured(template, found.vertices, truth, 0)
    assert against_whole.assd_mm < 1.2
    assert against_whole.largest_mm < 6


def test_fit_follows_the_organ_through_the_world(template, operators):
    target = bean(0.2)
    shift = np.array([300.0, -200.0, 1500.0])
    here = fit(template, target, SETTINGS, operators).vertices
    there = fit(template, Mesh(target.vertices + shift, target.faces), SETTINGS, operators).vertices
    np.testing.assert_allclose(there - shift, here, atol=0.2)


def test_stiffness_does_not_count_motion_of_the_whole(template, operators):
    rng = np.random.default_rng(0)
    found = organ(bean(), 50)
    pairs = pair(50 * template.vertices, template.faces, found, 10.0, 5.0)
    pairs = pairs._replace(
        weights=np.zeros_like(pairs.weights), vertex_weights=np.zeros_like(pairs.vertex_weights)
    )

    def stiff(vertices):
        numbers = np.float32(1), np.float32(0)
        fixed = Fixed(template.vertices, operators.bending, pairs, *numbers)
        return float(energy(vertices, fixed))

    assert stiff(template.vertices + np.float32(7)) == pytest.approx(0, abs=1e-3)
    bent = template.vertices + rng.normal(0, 1, template.vertices.shape).astype(np.float32)
    laplacian = np.eye(len(bent)) - operators.mean
    by_hand = np.sum((laplacian @ (bent - template.vertices)) ** 2) / len(bent)
    assert stiff(bent) == pytest.approx(by_hand, rel=1e-4)


def test_a_folded_surface_is_smoothed_until_nothing_folds(template, operators):
    folded = (50 * template.vertices).copy()
    a, b, c = template.faces[7]
    folded[a] += 2.5 * ((folded[b] + folded[c]) / 2 - folded[a])
    assert tangled(template, folded).any()
    vertices, moved = repaired(template, folded, operators.mean, 30)
    assert not tangled(template, vertices).any()
    assert 0 < moved < 40
    still = np.abs(vertices - folded).max(1) == 0
    assert still.sum() == len(vertices) - moved


def test_geodesic_spheres_have_ten_f_squared_plus_two_even_vertices():
    for frequency in (1, 3, 10):
        sphere = geodesic_sphere(frequency)
        shape = template_of(sphere)
        assert len(shape.vertices) == 10 * frequency**2 + 2
        assert sorted(set(shape.degree)) == ([5] if frequency == 1 else [5, 6])
        assert (shape.degree == 5).sum() == 12
        np.testing.assert_allclose(np.linalg.norm(sphere.vertices, axis=1), 1, atol=1e-12)
        assert len(edges_of(sphere.faces)) == 3 * len(sphere.vertices) - 6
        assert enclosed_volume(*sphere) > 0
    assert [frequency_of(n) for n in (92, 640, 1000, 1002, 2562)] == [3, 8, 10, 10, 16]
    with pytest.raises(InputError, match="7 vertices: expected"):
        frequency_of(7)


def test_a_template_of_too_many_vertices_is_refused():
    with pytest.raises(InputError, match="a template of 4412 vertices, expected at most 4000"):
        operators_of(template_of(geodesic_sphere(21)), SETTINGS)


def test_population_gives_its_mean_shape():
    organs = [bean(0.2, radii=r, centre=c) for r, c in (((90, 60, 50), (0, 0, 0)),
                                                        ((70, 60, 70), (30, 0, -20)))]  # fmt: skip
    mean = build_template(organs, 162, SETTINGS, rounds=1)
    assert len(mean.vertices) == 162
    extent = np.ptp(mean.vertices, axis=0)
    np.testing.assert_allclose(
        extent, np.mean([np.ptp(o.vertices, 0) for o in organs], 0), rtol=0.05
    )
    assert not tangled(mean, mean.vertices).any()
    same = bean(0.2)
    twin = mean_shape([same.vertices, same.vertices], same.faces)
    np.testing.assert_allclose(twin, same.vertices, rtol=1e-5, atol=1e-4)


def test_soups_inward_faces_crumbs_and_lone_vertices_are_put_right_and_told(capsys):
    whole = bean()
    vertices, faces = whole
    soup = Mesh(vertices[faces.ravel()], np.arange(faces.size).reshape(-1, 3))
    crumb = Mesh(np.concatenate([vertices, 5 * geodesic_sphere(1).vertices, [[1e4, 0, 0]]]),
                 np.concatenate([faces, geodesic_sphere(1).faces + len(vertices)]))  # fmt: skip
    mixed = faces.copy()
    mixed[::3] = mixed[::3, ::-1]
    told = {
        f"{faces.size - len(vertices)} vertices on rims joined": soup,
        "2 pieces, all but the largest left out": crumb,
        "its faces looked inwards": Mesh(vertices, faces[:, ::-1]),
        "": Mesh(vertices, mixed),  # the sense that it gets first may be inwards
    }
    sound(whole)
    assert not capsys.readouterr().err
    for words, broken in told.items():
        right = sound(broken, "a.ply")
        assert capsys.readouterr().err.startswith(f"note: a.ply: {words}")
        assert (len(right.vertices), len(right.faces)) == (len(vertices), len(faces))
        assert enclosed_volume(*right) == pytest.approx(enclosed_volume(*whole), rel=1e-5)


def test_sheets_that_touch_stay_apart():
    whole = bean()
    far = int(np.argmax(whole.vertices[:, 0]))
    near = whole.vertices.copy()
    near[far] = near[int(np.argmin(whole.vertices[:, 0]))]
    assert len(sound(Mesh(near, whole.faces)).vertices) == len(near)


def test_rims_are_joined_by_tolerance_in_a_part_of_a_surface_too():
    vertices, faces = bean()
    half = len(faces) // 2
    shaken = vertices[faces[half:].ravel()]
    shaken = shaken + np.random.default_rng(0).uniform(-2e-3, 2e-3, shaken.shape)  # of some 200 mm
    alone = len(vertices) + np.arange(len(shaken)).reshape(-1, 3)
    soup = Mesh(np.concatenate([vertices, shaken]), np.concatenate([faces[:half], alone]))
    right = sound(soup)
    assert (len(right.vertices), len(right.faces)) == (len(vertices), len(faces))
    assert enclosed_volume(*right) == pytest.approx(enclosed_volume(vertices, faces), rel=1e-3)


def test_pieces_are_told_and_large_ones_refused_unless_it_is_stated(capsys):
    vertices, faces = bean()

    def beside(size):
        twin = size * (vertices - vertices.mean(0)) + np.array([500.0, 0, 0])
        return Mesh(
            np.concatenate([vertices, twin]), np.concatenate([faces, faces + len(vertices)])
        )

    assert len(sound(beside(0.2), "a.ply").faces) == len(faces)  # 4 % of the area
    assert (
        "a.ply: 2 pieces, all but the largest left out: 3.85% of the area"
        in capsys.readouterr().err
    )
    with pytest.raises(
        InputError, match=r"a\.ply: 2 pieces, the largest with 94% .* --largest-piece"
    ):
        sound(beside(0.25), "a.ply")
    assert len(sound(beside(0.25), "a.ply", largest=True).faces) == len(faces)
    labels = np.zeros((20, 20, 20), int)
    labels[2:8, 2:8, 2:8] = labels[12:17, 12:17, 12:17] = 1
    with pytest.raises(InputError, match="2 pieces, the largest with 63% of the voxels"):
        surface_of(labels, np.eye(4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m._replace(vertices=m.vertices / 10), "measures .* state --units cm"),
        (
            lambda m: m._replace(vertices=m.vertices / 1000),
            "is 0.15 mm long, expected 5 to 2000 mm: .* --units",
        ),
        (lambda m: m._replace(vertices=m.vertices * [-1, -1, 1]), ".* state --lps"),
    ],
)
def test_an_organ_of_other_units_or_frame_than_the_others_is_refused(change, message):
    def organ_of(radii, centre):
        # Bent to the front, as no half turn leaves it.
        x, y, z = bean(radii=radii, centre=(0, 0, 0)).vertices.T
        return Mesh(np.stack([x, y + x**2 / 100, z], 1) + centre, bean().faces)

    like, other = organ_of((80, 60, 50), (0, 0, 0)), organ_of((75, 65, 55), (40, 10, -300))
    check_like(other, like, "a.stl")
    with pytest.raises(InputError, match=f"^a.stl: {message}"):
        check_like(change(other), like, "a.stl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, f: (v * np.nan, f), "vertex 0 is .*nan.* expected finite"),
        (lambda v, f: (v, f[:0]), r"faces of shape \(0, 3\)"),
        (lambda v, f: (v[:0], f), r"vertices of shape \(0, 3\)"),
        (lambda v, f: (v, f + 9), "names vertex 6.., expected 0 to 641"),
        (lambda v, f: (v, f - 1), "names vertex -1, expected 0 to 641"),
        (lambda v, f: (v * 0, f), "1280 faces without area"),
        (lambda v, f: (v, np.concatenate([f, [[f[0, 0], f[0, 1], 300]]])), "3 faces meet"),
    ],
)
def test_what_is_no_surface_is_refused_in_one_line(template, change, message):
    bad = Mesh(*change(*bean()))
    with pytest.raises(InputError, match=f"^bad.ply: .*{message}") as error:
        fit(template, bad, SETTINGS, origin="bad.ply")
    assert "\n" not in str(error.value)


def ball(shape=(40, 36, 30), radius_mm=24.0, centre_mm=(-30.0, 15.0, 40.0)):
    """A labelled ball in an oblique anisotropic volume whose x axis is mirrored; index -> world."""
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-2.0, 2.0, 2.5])
    affine[:3, 3] = centre_mm - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    places = np.stack(np.indices(shape), -1) @ affine[:3, :3].T + affine[:3, 3]
    return np.linalg.norm(places - np.array(centre_mm), axis=-1) < radius_mm, affine


def test_surface_of_a_labelled_ball_is_the_sphere_in_the_world(capsys):
    inside, affine = ball()
    label = np.where(inside, 5, 2).astype(np.uint8)
    label[0, :3, :3] = 5  # a crumb
    label[20, 18, 15] = 0  # and a cavity
    surface = surface_of(label, affine, 5)
    (line,) = capsys.readouterr().err.splitlines()
    assert "2 pieces, all but the largest left out" in line
    radius = np.linalg.norm(surface.vertices - np.array([-30.0, 15.0, 40.0]), axis=1)
    assert np.abs(radius - 24).max() < 1.2
    assert radius.mean() == pytest.approx(24, abs=0.3)
    assert enclosed_volume(*surface) == pytest.approx(4 / 3 * np.pi * 24**3, rel=0.03)
    assert organ(surface, 100).rim_edges == 0


def test_surface_stays_open_where_the_volume_cuts_the_organ_off():
    inside, affine = ball()
    cut = inside[:, :, 12:]
    affine[:3, 3] += 12 * affine[:3, 2]
    surface = surface_of(cut.astype(np.int16), affine)
    found = organ(surface, 500)
    assert found.rim_edges > 30
    assert 0 < found.on_rim.sum() < 200
    assert (found.points[found.on_rim, 2] < affine[2, 3] + 8).all()


def test_a_label_that_is_not_there_is_told_with_those_that_are():
    inside, affine = ball()
    with pytest.raises(InputError, match=r"^x.nii: no voxel has the value 7, it holds 0, 1$"):
        surface_of(inside.astype(np.int16), affine, 7, origin="x.nii")


def test_an_organ_without_a_surface_is_refused():
    _, affine = ball()
    for voxels in (np.ones((5, 5, 5), int), np.pad(np.ones((1, 1, 1), int), 4)):
        with pytest.raises(InputError, match=r"x.nii: the organ has \d+ of \d+ voxels, expected"):
            surface_of(voxels, affine, 1, origin="x.nii")


@pytest.mark.slow
def test_real_livers_are_fitted_within_a_millimetre_and_a_half(real_data):
    paths = sorted((real_data / "liver_meshes").glob("*.ply"))[::20]
    meshes = [read_mesh(path) for path in paths]
    mean = build_template(meshes[-3:] + meshes[:3], 1002)
    reports = [fit(mean, mesh).report for mesh in meshes]
    assert np.mean([report.assd_mm for report in reports]) < 1.0
    assert max(report.assd_mm for report in reports) < 1.5
    assert sum(report.flipped_faces for report in reports) == 0
    assert sum(report.self_intersecting_faces for report in reports) == 0
