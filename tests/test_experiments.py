"""The experiments that ship: each size fits together, and the paper's size is the paper's."""

import json

import jax
import pytest

from jxrecon.methods.base.method import Problem
from jxrecon.methods.volumes.x2ct import method as x2ct
from jxrecon.methods.volumes.x2vision import prior
from jxrecon.runs import config
from jxrecon.types import InputError

SIZES = ("small", "full", "medium", "paper")


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
    w_dim = experiment.settings.prior.w_dim
    if experiment.settings.prior.codes == "table":
        assert state.codes.shape == (6, w_dim)
    else:
        assert state.ema["axes"].rows.shape == (w_dim, 20 * 24 * 28)
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


X2CT_HN = {
    "x2ct_hn": (2, True),
    "x2ct_hn_single": (1, True),
    "x2ct_cnn_hn": (2, False),
    "x2ct_cnn_hn_single": (1, False),
}
X2CT_LIDC = {"x2ct_lidc": (2, True), "x2ct_lidc_single": (1, True), "x2ct_cnn_lidc": (2, False)}
X2CT = {**X2CT_HN, **X2CT_LIDC}


@pytest.mark.parametrize("name", X2CT)
def test_x2ct_experiments_differ_in_views_and_adversary_and_save_as_plain_values(name):
    for size, edge in (("tiny", 32), ("small", 64), ("paper", 128)):
        experiment = config.find(name, size)
        assert (experiment.name, experiment.size) == (name, size)
        views, adversary = X2CT[name]
        model = x2ct.make_model(experiment.settings, _problem(experiment))
        assert (model.generator.arch.size, model.generator.arch.views) == (edge, views)
        assert bool(experiment.settings.adversarial_weight) == adversary
        assert json.loads(json.dumps(config.to_dict(experiment))) == config.to_dict(experiment)
        s = experiment.settings
        assert s.constant_steps + s.decay_steps == experiment.schedule.steps
        extent = [224.0, 240.0, 201.6] if name in X2CT_HN else [320.0] * 3
        assert experiment.field.grid.extent_mm == pytest.approx(extent)


def test_x2ct_experiments_at_the_papers_size_have_the_authors_training():
    experiment = config.find("x2ct_lidc", "paper")
    s = experiment.settings
    assert (s.architecture, s.width, s.dropout, s.learning_rate) == ("paper", 1.0, 0.5, 2e-4)
    assert (s.betas, experiment.schedule.batch_size, s.warmup_steps) == ((0.5, 0.99), 4, 0)
    assert (s.adversarial_weight, s.reconstruction_weight, s.projection_weight) == (0.1, 10, 10)
    assert experiment.field.window_hu == (-1024.0, 1476.0)
    assert experiment.views.cameras[0].source.tolist() == [0.0, 541.0, 0.0]


def test_without_a_size_a_cpu_gets_the_small_one():
    expected = "small" if jax.default_backend() == "cpu" else "medium"
    assert config.find("x2vision_hn").size == expected


def test_an_unknown_size_is_told_with_those_there_are():
    with pytest.raises(InputError, match="small, cube, half, coarse, finer, full, medium, paper"):
        config.find("x2vision_hn", "huge")
