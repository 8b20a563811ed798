"""Rigid poses: exponential and logarithm against closed forms, gradients at zero, how cameras move."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jxrecon import geometry
from jxrecon.pose import Pose, pose_error, rotation_matrix, rotation_vector, still

GENERATORS = np.array(
    [
        [[0, 0, 0], [0, 0, -1], [0, 1, 0]],
        [[0, 0, 1], [0, 0, 0], [-1, 0, 0]],
        [[0, -1, 0], [1, 0, 0], [0, 0, 0]],
    ],
    np.float32,
)
"""d exp([v]x) / d v_i at 0."""

exponential = jax.jit(jax.vmap(rotation_matrix))
logarithm = jax.jit(jax.vmap(rotation_vector))
again = jax.jit(jax.vmap(lambda vector: rotation_vector(rotation_matrix(vector))))
apply = jax.jit(Pose.apply)
compose = jax.jit(Pose.compose)
inverse = jax.jit(Pose.inverse)
points = jax.jit(Pose.points)
errors = jax.jit(pose_error)


def derivatives(function):
    """(second, first) derivatives: forward over reverse, and the reverse ones."""

    def first(vector):
        value = jax.jacrev(function)(vector)
        return value, value

    return jax.jit(jax.jacfwd(first, has_aux=True))


def _vectors(count=40, most=np.pi - 1e-3):
    random = np.random.default_rng(0)
    axes = random.normal(size=(count, 3))
    angles = most * np.geomspace(1e-9, 1.0, count)
    return (axes / np.linalg.norm(axes, axis=1, keepdims=True) * angles[:, None]).astype(np.float32)


def test_exponential_and_logarithm_equal_scipys_at_every_angle():
    vectors = _vectors()
    matrices = Rotation.from_rotvec(vectors.astype(np.float64)).as_matrix()
    np.testing.assert_allclose(exponential(vectors), matrices, atol=1e-6)
    found = logarithm(matrices.astype(np.float32))
    np.testing.assert_allclose(found, vectors, atol=3e-6)


def test_small_rotations_come_back_to_float32s_relative_precision():
    vectors = _vectors(20, 1e-3)
    error = np.linalg.norm(np.asarray(again(vectors)) - vectors, axis=1) / np.linalg.norm(
        vectors, axis=1
    )
    assert error.max() < 1e-6


def test_half_turns_come_back_up_to_the_axis_sign():
    random = np.random.default_rng(1)
    axes = np.concatenate([np.eye(3), random.normal(size=(20, 3))])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    for angle in (np.pi, np.pi - 1e-6, np.pi - 1e-4):
        matrices = Rotation.from_rotvec(axes * angle).as_matrix().astype(np.float32)
        found = np.asarray(logarithm(matrices), np.float64)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), angle, atol=2e-6)
        np.testing.assert_allclose(Rotation.from_rotvec(found).as_matrix(), matrices, atol=2e-6)


def test_first_and_second_derivatives_of_the_exponential_at_zero_are_the_closed_forms():
    second, first = derivatives(rotation_matrix)(jnp.zeros(3))
    np.testing.assert_allclose(first, GENERATORS.transpose(1, 2, 0), atol=1e-7)
    products = np.einsum("iab,jbc->acij", GENERATORS, GENERATORS)
    expected = (products + products.swapaxes(2, 3)) / 2
    np.testing.assert_allclose(second, expected, atol=1e-6)


def test_derivatives_of_logarithm_after_exponential_are_those_of_the_identity():
    def identity(vector):
        return rotation_vector(rotation_matrix(vector))

    vectors = np.concatenate([np.zeros((1, 3)), _vectors(9, 1.2)[3:], _vectors(3, 3.0)[-1:]])
    vectors = jnp.asarray(vectors, jnp.float32)
    second, first = jax.vmap(derivatives(identity))(vectors)
    np.testing.assert_allclose(first, np.tile(np.eye(3), (len(vectors), 1, 1)), atol=5e-6)
    np.testing.assert_allclose(second, np.zeros(second.shape), atol=2e-4)


def test_gradients_of_a_posed_cameras_pixels_at_the_still_pose_are_the_lever_arms():
    camera, about = geometry.camera_at(30.0, shape=(2, 3)), jnp.asarray([5.0, -3.0, 8.0])

    def corner(pose):
        return pose.apply(camera, about).pixels()[1, 2]

    by_pose = jax.jit(jax.jacrev(corner))(still())
    arm = np.asarray(camera.pixels())[1, 2] - np.asarray(about)
    np.testing.assert_allclose(by_pose.rotation, (GENERATORS @ arm).T, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(by_pose.translation_mm, np.eye(3), atol=1e-6)


POSE = Pose(jnp.asarray([0.3, -0.4, 0.9]), jnp.asarray([7.0, -2.0, 4.0]))
OTHER = Pose(jnp.asarray([-1.1, 0.2, 0.5]), jnp.asarray([1.0, 20.0, -6.0]))
ABOUT = (3.0, -4.0, 5.0)


@pytest.mark.parametrize("build", [geometry.camera_at, geometry.parallel_at])
def test_a_pose_turns_a_camera_about_its_point_then_shifts_it(build):
    camera = build(20.0, 10.0, shape=(3, 4))
    moved = apply(POSE, camera, ABOUT)
    turn = Rotation.from_rotvec(np.asarray(POSE.rotation, np.float64)).as_matrix()
    pixels = (np.asarray(camera.pixels()) - ABOUT) @ turn.T + ABOUT + [7.0, -2.0, 4.0]
    np.testing.assert_allclose(moved.pixels(), pixels, atol=1e-3)
    np.testing.assert_allclose(points(POSE, camera.pixels(), ABOUT), pixels, atol=1e-3)
    assert type(moved) is type(camera)
    if isinstance(camera, geometry.ParallelCamera):
        np.testing.assert_allclose(moved.direction, turn @ camera.direction, atol=1e-6)
    else:
        np.testing.assert_allclose(moved.source, points(POSE, camera.source, ABOUT), atol=1e-3)


def test_the_isocentre_moves_by_the_translation_alone():
    np.testing.assert_allclose(
        points(POSE, ABOUT, ABOUT), np.add(ABOUT, POSE.translation_mm), rtol=1e-6
    )


def test_composing_poses_is_applying_one_after_the_other():
    camera = geometry.camera_at(20.0, 10.0, shape=(3, 4))
    both = apply(compose(POSE, OTHER), camera, ABOUT)
    in_turn = apply(POSE, apply(OTHER, camera, ABOUT), ABOUT)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), both, in_turn)


def test_a_pose_and_its_inverse_cancel_either_way_round():
    for nothing in (compose(POSE, inverse(POSE)), compose(inverse(POSE), POSE)):
        np.testing.assert_allclose(nothing.rotation, np.zeros(3), atol=1e-6)
        np.testing.assert_allclose(nothing.translation_mm, np.zeros(3), atol=1e-5)


def test_pose_errors_are_the_angle_between_and_the_distance_at_the_isocentre():
    nudge = Pose(jnp.asarray([0.0, 1e-4, 0.0]), jnp.asarray([3.0, 4.0, 0.0]))
    error = errors(compose(nudge, POSE), POSE, ABOUT, ABOUT)
    np.testing.assert_allclose(error.rotation_deg, np.rad2deg(1e-4), rtol=5e-3)
    away = errors(nudge, still(), ABOUT, ABOUT)
    np.testing.assert_allclose(away.translation_mm, 5.0, rtol=1e-6)
    lever = errors(
        Pose(jnp.asarray([0.0, 0.0, np.pi / 2]), jnp.zeros(3)),
        still(),
        (10.0, 0.0, 7.0),
        (0.0, 0.0, 0.0),
    )
    np.testing.assert_allclose(lever.rotation_deg, 90.0, rtol=1e-6)
    np.testing.assert_allclose(lever.translation_mm, np.hypot(10, 10), rtol=1e-6)


def test_equal_poses_have_no_error_and_a_finite_gradient():
    error, gradient = jax.jit(jax.value_and_grad(lambda pose: sum(pose_error(pose, POSE))))(POSE)
    assert float(error) < 1e-4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_poses_stack_and_batch_under_jit():
    poses = jax.tree.map(lambda a, b: jnp.stack([a, b]), POSE, OTHER)
    camera = geometry.camera_at(0.0, shape=(3, 4))
    moved = jax.jit(jax.vmap(lambda pose: pose.apply(camera, ABOUT)))(poses)
    np.testing.assert_allclose(moved.u[1], apply(OTHER, camera, ABOUT).u, atol=1e-6)
    back = jax.jit(jax.vmap(lambda one, other: one.compose(other.inverse())))(poses, poses)
    np.testing.assert_allclose(back.translation_mm, np.zeros((2, 3)), atol=1e-5)


def test_float64_is_kept_when_given():
    with jax.enable_x64(True):
        vectors = _vectors(12).astype(np.float64)
        found = again(jnp.asarray(vectors))
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, vectors, rtol=1e-12, atol=1e-15)
        pose = Pose(jnp.asarray(vectors[5]), jnp.zeros(3, jnp.float64))
        moved = apply(pose, geometry.camera_at(10.0, shape=(2, 2)), ABOUT)
        assert moved.source.dtype == jnp.float64
