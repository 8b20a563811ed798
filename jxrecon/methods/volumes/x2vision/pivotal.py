"""Pivotal tuning: the generator's last levels follow this patient's X-rays around the w that was found.

    min_theta  lambda_2 sum_i |A_i G_theta(w, n) - I_i|  +  keep mean (G_theta(w, n) - G(w, n))^2

theta: convolutions, noise and output of the finest levels. After Roich et al., Pivotal Tuning (ACM TOG 2022),
whose locality term keeps other images; here the second term keeps this volume: two X-rays fix little of it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jxrecon.methods.volumes.x2vision.latent import Latents, LatentSettings, image_distance
from jxrecon.methods.volumes.x2vision.prior import Prior, synthesise
from jxrecon.methods.volumes.x2vision.stages import Level
from jxrecon.nn.optimise import descend
from jxrecon.types import PyTree


def tuned(
    prior: Prior, settings: LatentSettings, generator: PyTree, latents: Latents, level: Level
) -> PyTree:
    """The generator after `tuning_iterations` steps of Adam on its finest `tuning_levels` levels.

    Args:
        prior: of the whole generator.
        settings: of the objective and the tuning.
        generator: to begin with; not changed.
        latents: found, of one patient.
        level: the full grid, with the patient's X-rays.
    """
    levels = len(prior.settings.channels)
    names = [f"{part}{n}" for n in range(levels) for part in ("level", "output")]
    free = set(names[2 * max(levels - settings.tuning_levels, 0) :])
    synthesis = generator["synthesis"]
    moving = {name: part for name, part in synthesis.items() if name in free}
    show = partial(synthesise, ws=latents.ws, noise=latents.noise, local=latents.local)
    before = show(prior, generator)

    def moved(moving: PyTree) -> PyTree:
        return {**generator, "synthesis": {**synthesis, **moving}}

    def loss(moving: PyTree) -> Any:
        now = show(prior, moved(moving))
        shown = level.shown(now, latents.views)
        data = image_distance(shown, level.images, level.weights)
        return settings.lambda_2 * jnp.sum(data) + settings.tuning_keep * jnp.mean(
            (now - before) ** 2
        )

    adam = optax.adam(settings.tuning_rate)

    def step(carry: tuple, _: Any) -> tuple[tuple, None]:
        moving, state = carry
        moving, state = descend(adam, jax.grad(loss)(moving), state, moving)
        return (moving, state), None

    first = (moving, adam.init(moving))
    (moving, _), _ = jax.lax.scan(step, first, None, length=settings.tuning_iterations)
    return moved(moving)
