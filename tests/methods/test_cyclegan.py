"""CycleGAN: layers of the paper, losses in closed form, the pool, a step, published checkpoints."""

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.interop.weights import (
    Buffer,
    Parameter,
    cyclegan_discriminator,
    cyclegan_generator,
    from_torch,
    to_torch,
)
from jxrecon.methods.base.method import StyleProblem
from jxrecon.methods.styles.cyclegan import losses
from jxrecon.methods.styles.cyclegan.method import (
    Model,
    Pair,
    Settings,
    build,
    crop,
    generator_objective,
)
from jxrecon.methods.styles.cyclegan.networks import Block, Discriminator, Generator
from jxrecon.nn.blocks import init_variables
from jxrecon.nn.optimise import falling_rate
from jxrecon.runs import config
from jxrecon.types import InputError

SIZE = 32
PROBLEM = StyleProblem((SIZE, SIZE), 4)


def jit(function):
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def parameters(network, channels, size=256):
    image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    shapes = jax.eval_shape(
        lambda x: init_variables(network, jax.random.key(0), x, std=0.02), image
    )
    return shapes, jax.eval_shape(network.apply, shapes, image)


def test_the_papers_networks_have_their_published_numbers_of_parameters():
    for network, count, shape in (
        (Generator(64, 9, 3), 11_378_179, (1, 256, 256, 3)),
        (Generator(64, 6, 3), 7_837_699, (1, 256, 256, 3)),
        (Discriminator(64), 2_764_737, (1, 30, 30, 1)),
    ):
        shapes, out = parameters(network, 3)
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
        assert out.shape == shape


def test_a_generator_that_changes_nothing_has_no_cycle_and_no_identity_loss():
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    assert float(losses.cycle(x, x)) == 0.0
    assert float(losses.identity(x, x)) == 0.0
    assert float(losses.cycle(x + 0.25, x)) == pytest.approx(0.25)


class Brighter(nn.Module):
    """Adds its one parameter: a generator, and a discriminator of pixels."""

    @nn.compact
    def __call__(self, x):
        return x + self.param("by", nn.initializers.zeros, ())


def test_the_generators_loss_is_the_sum_of_the_papers_terms_in_closed_form():
    settings = Settings(cycle_weight=3.0, identity_weight=0.25)
    model = Model(settings, PROBLEM, Brighter(), Brighter(), None)
    x, y = jnp.full((1, 2, 2, 1), 0.5), jnp.full((1, 2, 2, 1), -0.25)
    to_real, to_synthetic = 0.5, -0.125
    generators = Pair(real={"by": to_real}, synthetic={"by": to_synthetic})
    judges = Pair(real={"by": 2.0}, synthetic={"by": 1.0})
    total, (fakes, terms) = generator_objective(model, judges, x, y, generators)
    np.testing.assert_array_equal(fakes.synthetic, x + to_synthetic)
    np.testing.assert_array_equal(fakes.real, y + to_real)
    expected = {
        "L_GAN(G)": (0.375 + 1.0 - 1.0) ** 2,
        "L_GAN(F)": (0.25 + 2.0 - 1.0) ** 2,
        "L_cyc": 3.0 * (0.375 + 0.375),  # there and back makes both images brighter by 0.375
        "L_identity": 0.25 * 3.0 * (0.125 + 0.5),
    }
    expected["L(G,F)"] = sum(expected.values())
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(expected)
    assert float(total) == pytest.approx(expected["L(G,F)"])


def test_a_block_adds_what_its_convolutions_give_to_its_input():
    def norm(x):
        return (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-5)

    x = np.random.default_rng(0).normal(size=(1, 4, 5, 2)).astype(np.float32)
    unchanged = np.zeros((3, 3, 2, 2), np.float32)
    unchanged[1, 1] = np.eye(2)
    layer = {"kernel": unchanged, "bias": np.zeros(2, np.float32)}
    found = Block().apply({"params": {"conv_0": layer, "conv_1": layer}}, x)
    np.testing.assert_allclose(found, x + norm(np.maximum(norm(x), 0)), atol=1e-5)


def test_the_game_is_won_by_scores_of_one_for_real_and_nought_for_fake():
    ones, zeros = jnp.ones((1, 3, 3, 1)), jnp.zeros((1, 3, 3, 1))
    assert float(losses.telling_apart(ones, zeros)) == 0.0
    assert float(losses.telling_apart(zeros, ones)) == 1.0
    assert float(losses.fooling(ones)) == 0.0
    assert float(losses.fooling(zeros)) == 1.0


def test_the_pool_keeps_what_comes_until_full_then_swaps_half():
    pool, run = losses.empty_pool(3, (1, 1, 1)), jit(losses.exchange)
    shown, chances = [], np.random.default_rng(0).random((200, 1, 2), np.float32)
    for i in range(200):
        fake = jnp.full((1, 1, 1, 1), float(i))
        pool, seen = run(pool, fake, chances[i])
        shown.append(float(seen[0, 0, 0, 0]))
    assert shown[:3] == [0.0, 1.0, 2.0]
    assert int(pool.count) == 3
    new = sum(value == i for i, value in enumerate(shown[3:], start=3))
    assert 70 < new < 130
    held = np.asarray(pool.images).ravel().tolist()
    assert len(set(shown) | set(held)) == 200  # a fake is shown, or still held, never lost
    old = [v for i, v in enumerate(shown[3:], start=3) if v != i]
    assert len(set(old)) == len(old)  # those taken out are gone


def test_without_a_pool_every_fake_is_shown():
    fakes = jnp.arange(2.0).reshape(2, 1, 1, 1)
    pool = losses.empty_pool(0, (1, 1, 1))
    assert losses.exchange(pool, fakes, jnp.zeros((2, 2)))[1] is fakes


def test_the_rate_is_constant_then_falls_to_nothing():
    settings = Settings(constant_steps=10, decay_steps=10)
    rates = [float(falling_rate(settings, jnp.int32(s))) for s in (0, 10, 15, 20, 30)]
    np.testing.assert_allclose(rates, [2e-4, 2e-4, 1e-4, 0.0, 0.0], rtol=1e-6)


def test_crops_are_parts_of_their_images():
    images = jnp.arange(2.0 * 6 * 5).reshape(2, 6, 5)
    cut = np.asarray(crop(images, (4, 4), jnp.array([[0.0, 0.6], [0.999, 0.2]])))
    assert [float(c) for c in cut[:, 0, 0]] == [1.0, 30.0 + 10.0]  # corners (0, 1) and (2, 0)
    for one, image in zip(cut, np.asarray(images)):
        row, column = np.argwhere(image == one[0, 0])[0]
        np.testing.assert_array_equal(one, image[row : row + 4, column : column + 4])


@pytest.mark.parametrize(
    ("table", "network", "tensors"),
    [
        (cyclegan_generator, Generator(2, 9, 3), 48),
        (cyclegan_discriminator, Discriminator(2), 10),
    ],
)
def test_a_published_checkpoint_becomes_our_parameters_and_back_bit_for_bit(
    table, network, tensors
):
    shapes = parameters(network, 3, 32)[0]["params"]
    rows = table()
    assert len(rows) == tensors
    rng, state = np.random.default_rng(0), {}
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    state = to_torch({"params": params}, rows)  # raises unless the table names every parameter once
    back = from_torch(state, rows)["params"]
    assert jax.tree.structure(back) == jax.tree.structure(params)
    assert jax.tree.all(jax.tree.map(np.array_equal, back, params))
    again = to_torch({"params": back}, rows)
    assert all(again[key].tobytes() == state[key].tobytes() for key in state)
    # Checkpoints from before PyTorch 0.4 also hold running statistics.
    old = to_torch({"params": params}, table(statistics=True))
    assert jax.tree.all(
        jax.tree.map(np.array_equal, from_torch(old, table(statistics=True)), {"params": params})
    )
    assert any(isinstance(row, Buffer) for row in table(statistics=True))


def test_the_tables_say_the_published_names():
    generator = {row.torch: row.path for row in cyclegan_generator(9) if isinstance(row, Parameter)}
    assert generator["model.1.weight"] == ("stem", "kernel")
    assert generator["model.10.conv_block.1.weight"] == ("block_0", "conv_0", "kernel")
    assert generator["model.18.conv_block.5.bias"] == ("block_8", "conv_1", "bias")
    assert generator["model.19.weight"] == ("up_1", "kernel")
    assert generator["model.22.weight"] == ("up_0", "kernel")
    assert generator["model.26.bias"] == ("head", "bias")
    assert "model.23.bias" in {row.torch for row in cyclegan_generator(6)}
    discriminator = [row.torch for row in cyclegan_discriminator()]
    assert discriminator[::2] == [f"model.{i}.weight" for i in (0, 2, 5, 8, 11)]


@pytest.mark.parametrize("size", ["64", "128", "256"])
def test_every_size_of_cyclegan_xray_builds_its_state(size):
    experiment = config.find("cyclegan_xray", size)
    problem = experiment.kind.problem(experiment, 4, Path())
    state = jax.eval_shape(build(experiment.settings, problem).init, jax.random.key(0))
    assert state.pools.real.images.shape == (50, int(size), int(size), 1)
    assert (
        experiment.settings.constant_steps + experiment.settings.decay_steps
        == experiment.schedule.steps
    )
    with pytest.raises(InputError, match=r"jxrecon style --help"):
        experiment.load(experiment, None, None)


def test_sizes_that_cannot_be_halved_twice_are_refused():
    with pytest.raises(InputError, match="expected multiples of 4 from 32 on"):
        build(Settings(), PROBLEM._replace(shape=(34, 34)))
