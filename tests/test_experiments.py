"""The experiments that ship: each size fits together, and the paper's size is the paper's."""

import jax
import pytest

from jxrecon import config
from jxrecon.methods.base import Problem
from jxrecon.methods.x2vision import prior
from jxrecon.types import InputError

SIZES = ("small", "medium", "paper")


def _problem(experiment):
    return Problem(experiment.field.grid, experiment.views.cameras, experiment.field.window, 3)


def _parameters(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("size", SIZES)
def test_every_size_of_x2vision_hn_builds_its_state(size):
    experiment = config.find("x2vision_hn", size)
    assert experiment.size == size
    method = experiment.build(experiment.settings, _problem(experiment))
    state = jax.eval_shape(method.init, jax.random.key(0))
    assert state.codes.shape == (6, experiment.settings.prior.w_dim)
    assert experiment.views.count == 2
    assert experiment.field.grid.extent_mm == pytest.approx([224.0, 240.0, 201.6])


def test_the_papers_size_has_its_parameters_and_style_vectors():
    experiment = config.find("x2vision_hn", "paper")
    model = prior.make_prior(experiment.settings.prior, _problem(experiment))
    state = jax.eval_shape(lambda key: prior.init(model, key), jax.random.key(0))
    assert round(_parameters(state.generator) / 1e6, 2) == 2.43
    assert model.synthesis.num_ws == 10
    assert len(model.synthesis.noise_shapes) == 9
    assert model.synthesis.shape == (80, 96, 112)


def test_without_a_size_a_cpu_gets_the_small_one():
    expected = "small" if jax.default_backend() == "cpu" else "medium"
    assert config.find("x2vision_hn").size == expected


def test_an_unknown_size_is_told_with_those_there_are():
    with pytest.raises(InputError, match="small, medium, paper"):
        config.find("x2vision_hn", "huge")
