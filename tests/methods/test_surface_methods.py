"""Methods that move an organ's surface: where they start, that they learn, what they cannot work with."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.geometry import camera_at
from jxrecon.methods.base.surface_regression import LENGTH_MM, STEP_MM, check_view
from jxrecon.methods.surfaces import displacement_field, xray2shape
from jxrecon.methods.surfaces.igcn import losses, method, plus
from jxrecon.methods.surfaces.mean_shape import mean_shape
from jxrecon.methods.surfaces.nearest_shape import nearest_shape
from jxrecon.methods.surfaces.pixel2mesh import method as pixel2mesh
from jxrecon.methods.surfaces.zero_motion import zero_motion
from jxrecon.types import InputError

# Compile quickly: each function here runs a few times.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

SMALL = {"width": 2, "hidden": 4, "pairs": 1}
TINY = {**SMALL, "stages": (1, 1, 1)}
LEARNED = {
    "igcn": (method, TINY),
    "igcn_silhouette": (method, {**TINY, "silhouette": True}),
    "igcn_plus": (plus, {"channels": (2, 2, 4), "hidden": 4, "pairs": 1}),
    "pixel2mesh": (pixel2mesh, SMALL),
    "xray2shape": (xray2shape, TINY),
    "displacement_field": (
        displacement_field,
        {"width": 2, "hidden": 4, "layers": 1, "nodes": 4, "stages": (1, 1)},
    ),
}
KEY = jax.random.key(0)


def build(name, problem, **settings):
    module, tiny = LEARNED[name]
    return module.build(module.Settings(**{**tiny, **settings}), problem)


@pytest.fixture(scope="module")
def tiny(organ):
    return organ(pixels=32, cases=2)


@pytest.fixture(scope="module")
def compiled(tiny):
    """name -> (the method, its functions compiled): each once."""

    @functools.cache
    def make(name):
        rate = 1e-3 if name == "igcn_plus" else 1e-2
        built = build(name, tiny[0], learning_rate=rate, decay_steps=100)

        def evaluate(state, batch):
            find = jax.vmap(built.reconstruct, in_axes=(None, 0, 0))
            return built.eval_step(state, batch, KEY), find(state, batch.image, batch.reference)

        return jit(built.init), jit(built.train_step), jit(evaluate)

    return make


SLOW = pytest.mark.slow
FIRST = [
    "igcn",
    *(pytest.param(name, marks=SLOW) for name in LEARNED if name != "igcn"),
]


@pytest.mark.parametrize("name", LEARNED)
def test_a_step_keeps_the_shapes_of_the_state_and_all_terms_are_scalars(tiny, name):
    problem, batch = tiny
    built = build(name, problem)
    state = jax.eval_shape(built.init, KEY)
    after, terms = jax.eval_shape(built.train_step, state, batch, KEY)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert {value.shape for value in terms.values()} == {()}
    assert "L_total" in terms


@pytest.mark.parametrize("name", FIRST)
def test_a_network_starts_from_the_known_shape_and_steps_bring_it_nearer(tiny, compiled, name):
    problem, batch = tiny
    init, step, evaluate = compiled(name)
    state, errors = init(KEY), []
    _, found = evaluate(state, batch)
    start = problem.template.vertices[None] if name == "xray2shape" else batch.reference
    np.testing.assert_allclose(found, np.broadcast_to(start, found.shape), atol=2e-4)
    for _ in range(8):
        state, terms = step(state, batch, KEY)
        errors.append(float(terms["L_chamfer" if name == "pixel2mesh" else "L_pos"]))
        parts = sum(float(value) for key, value in terms.items() if key != "L_total")
        assert parts == pytest.approx(float(terms["L_total"]), rel=1e-5)
    assert errors[-1] < 0.9 * errors[0]
    terms, found = evaluate(state, batch)
    distance = np.linalg.norm(np.asarray(found) - batch.target, axis=-1)
    assert float(terms["md_vertex_mm"]) == pytest.approx(distance.mean(), rel=1e-3)
    rmse = np.sqrt((distance**2).mean(1)).mean()
    assert float(terms["rmse_vertex_mm"]) == pytest.approx(rmse, rel=1e-3)


@pytest.mark.slow
def test_igcn_by_jraphs_message_passing_takes_the_step_that_the_table_takes(tiny):
    problem, batch = tiny
    states = []
    for aggregation in ("table", "jraph"):
        built = build("igcn", problem, aggregation=aggregation)
        state = jit(built.init)(KEY)
        for _ in range(2):  # the heads start at zero: the second step moves the graph's layers
            state, _ = jit(built.train_step)(state, batch, KEY)
        states.append(state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=3e-4), *states)


@pytest.mark.parametrize("name", FIRST)
def test_an_organ_beside_the_detector_gives_numbers(tiny, compiled, name):
    _, batch = tiny
    away = jnp.array([[[600.0, 0.0, 0.0]]])
    batch = batch._replace(reference=batch.reference + away, target=batch.target + away)
    init, step, _ = compiled(name)
    state, terms = step(init(KEY), batch, KEY)
    assert all(np.isfinite(value) for value in terms.values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


@pytest.mark.slow
def test_igcn_learns_four_breaths_by_heart(organ):
    problem, batch = organ(pixels=64, cases=4)
    settings = method.Settings(width=8, hidden=32, learning_rate=2e-3, decay_steps=300)
    built = method.build(settings, problem)
    state, step = jax.jit(built.init)(KEY), jax.jit(built.train_step)
    for _ in range(300):
        state, _ = step(state, batch, KEY)
    terms = jax.jit(built.eval_step)(state, batch, KEY)
    unmoved = jnp.mean(jnp.linalg.norm(batch.target - batch.reference, axis=-1))
    assert float(unmoved) > 8.0
    assert float(terms["md_vertex_mm"]) < 1.0


@pytest.mark.parametrize("name", LEARNED)
def test_a_camera_that_misses_the_organ_is_told_in_one_line(tiny, name):
    problem, _ = tiny
    aside = camera_at(0.0, shape=(32, 32), pixel_mm=2.0, isocentre_mm=(300.0, 0.0, 0.0))
    with pytest.raises(InputError, match=r"^\S+ X-ray shows 0% of the organ.*past it$"):
        build(name, problem._replace(camera=aside))


@pytest.mark.parametrize("name", LEARNED)
def test_an_image_that_cannot_be_halved_is_told_in_one_line(tiny, name):
    problem, _ = tiny
    odd = camera_at(0.0, shape=(33, 32), pixel_mm=14.0)
    with pytest.raises(InputError, match=r"33 x 32 pixels, expected multiples of"):
        build(name, problem._replace(camera=odd))


def test_wrong_settings_are_told_in_one_line(tiny):
    problem, _ = tiny
    with pytest.raises(InputError, match="laplacian is 'beltrami', expected one of uniform, cot"):
        build("igcn", problem, laplacian="beltrami")
    with pytest.raises(InputError, match="1 nodes over 300"):
        build("displacement_field", problem, nodes=1)


def test_losses_are_what_their_equations_say():
    found = jnp.array([[[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]]])
    zero = jnp.zeros_like(found)
    assert float(losses.position(found, zero)) == 4.5
    assert float(losses.mapping(found[..., :2], zero[..., :2])) == 2.5
    # L swaps the two vertices and subtracts: (1, 2, 2) and its opposite.
    assert float(losses.laplacian(found, zero, lambda v: v - v[:, ::-1])) == 9.0


def test_mesh_loss_of_igcn_plus_does_not_depend_on_the_unit_of_length(tiny):
    _, batch = tiny

    def operator(v):
        return v - jnp.mean(v, axis=1, keepdims=True)

    loss = jit(lambda found, target: losses.plus_mesh(found, target, operator))
    in_mm = loss(batch.reference, batch.target)
    in_m = loss(batch.reference / 1000, batch.target / 1000)
    for name, value in in_mm.items():
        assert float(in_m[name]) == pytest.approx(float(value), rel=1e-4)


def test_trilinear_sampling_of_a_linear_field_is_exact():
    x, y, z = np.meshgrid(*(np.arange(4.0),) * 3, indexing="ij")
    field = jnp.asarray(np.stack([x + 2 * y, z], axis=-1), jnp.float32)
    place = jnp.array([[0.5, 1.25, 2.0], [3.0, 0.0, 2.75]])
    found = jit(displacement_field.trilinear)(field, place)
    np.testing.assert_allclose(found, [[3.0, 2.0], [3.0, 2.75]], rtol=1e-6)
    assert float(displacement_field.roughness(field[None])) == pytest.approx((1 + 4 + 1) / 3)


class Echo(nn.Module):
    """A network that says that everything moves by its own place, as it is told of it."""

    def __call__(self, image, place, coordinates, aggregate=None):
        return coordinates


def test_networks_see_places_in_their_unit_and_move_vertices_in_theirs(tiny):
    problem, batch = tiny
    reference, share = batch.reference, STEP_MM / LENGTH_MM
    shape = xray2shape.Model(xray2shape.Settings(), problem, Echo(), None, None)
    (found,) = xray2shape.predict(shape, {}, batch.image, reference)
    mean = np.broadcast_to(problem.template.vertices, found.shape)
    np.testing.assert_allclose(found, (1 + share) * mean, rtol=1e-5, atol=1e-4)

    class Nowhere:
        def silhouette(self, vertices):
            return jnp.zeros(batch.image.shape)

    # Between its nodes a field that is linear is known exactly.
    settings = displacement_field.Settings(nodes=5)
    axis = jnp.linspace(-150.0, 150.0, 5)
    offsets = jnp.stack(jnp.meshgrid(axis, axis, axis, indexing="ij"), -1)
    space = displacement_field.Model(settings, problem, Echo(), Nowhere(), offsets)
    found, field = displacement_field.predict(space, {}, batch.image, reference)
    np.testing.assert_allclose(found, (1 + share) * reference, rtol=1e-5, atol=1e-3)
    middle = jnp.mean(reference, axis=1)
    np.testing.assert_allclose(field[:, 2, 2, 2], share * middle, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("side", [(-1, 0), (1, 0), (0, -1), (0, 1)])
def test_a_detector_shows_what_lies_on_its_pixels_to_their_outer_edges(tiny, side):
    problem, _ = tiny
    camera = problem.camera

    def check(pixels):
        """All vertices so far from the detector's middle, in its plane, where they are seen."""
        row, column = pixels * np.array(side)
        point = np.asarray(camera.centre + column * camera.u + row * camera.v)
        vertices = np.broadcast_to(point, problem.template.vertices.shape)
        moved = problem.template._replace(vertices=vertices)
        check_view("this", problem._replace(template=moved), 1)

    check(15.8)  # of 16
    with pytest.raises(InputError, match="shows 0% of the organ"):
        check(16.2)


def test_zero_motion_gives_the_reference_and_its_distance(tiny):
    problem, batch = tiny
    built = zero_motion(problem)
    found = built.reconstruct(built.init(KEY), batch.image[0], batch.reference[0])
    np.testing.assert_array_equal(found, batch.reference[0])
    distance = np.linalg.norm(batch.target - batch.reference, axis=-1).mean()
    terms = built.eval_step((), batch, KEY)
    assert float(terms["md_vertex_mm"]) == pytest.approx(distance, rel=1e-5)


def test_mean_shape_is_the_mean_of_the_moved_organs_and_the_template_before(tiny):
    problem, batch = tiny
    built = mean_shape(problem)
    state = built.init(KEY)
    np.testing.assert_array_equal(state.vertices, problem.template.vertices)
    state = built.fit(state, batch)
    found = built.reconstruct(state, batch.image[0], batch.reference[0])
    np.testing.assert_allclose(found, np.mean(batch.target, axis=0), rtol=1e-5, atol=1e-4)
    assert float(built.eval_step(state, batch, KEY)["md_vertex_mm"]) > 0


def test_nearest_shape_finds_each_training_case_by_its_image_whatever_the_exposure(tiny):
    problem, batch = tiny
    built = nearest_shape(problem)
    state = jit(built.fit)(built.init(KEY), batch)
    reconstruct = jit(built.reconstruct)
    for case in range(2):
        found = reconstruct(state, 0.5 * batch.image[case] + 1.0, batch.reference[0])
        np.testing.assert_array_equal(found, batch.target[case])
    assert float(jit(built.eval_step)(state, batch, KEY)["md_vertex_mm"]) == 0.0
