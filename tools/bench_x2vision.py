"""CPU seconds and peak memory of X2Vision's steps, ours beside the same layers in plain PyTorch.

    python tools/bench_x2vision.py [--sizes finer full] [--steps warm_start r1] [--threads 1] [--rounds 5]

Both take the networks, the weights' number, the losses and Adam of the size's settings, float32, and step in
turn, see `in_turn`. Projections are means along two axes in both, as no projector is to be compared here
(`bench_drr.py` does that), and nothing is augmented.

| step | what is computed |
|---|---|
| warm_start | G(f(z), noise) towards volumes in voxels and projections, Adam on mapping and synthesis |
| adversarial | G against D, then D on volumes and the same fakes, Adam on both |
| r1 | the gradient of D's gradient by the volume, Adam on D |
| path_length | the gradient of G's gradient by the styles, of half the batch, Adam on G |
| latent | one iteration of the inversion of one case: by all styles and noise maps, Adam on these |
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import in_turn

CONTENDERS = ("jxrecon", "torch")
STEPS = ("warm_start", "adversarial", "r1", "path_length", "latent")
RATE = 0.002


def main() -> None:
    """Prints a table, and writes it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=["finer", "full"], help="of x2vision_hn")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        way = _ours if args.worker == "jxrecon" else _torch
        step, batch = args.steps[0], args.batch
        make = partial(way, step, args.sizes[0], batch, args.threads)
        in_turn.work(lambda: in_turn.Contender(make()), args.threads)
        return
    report: dict[str, Any] = {"threads": args.threads, "batch": args.batch}
    common = [sys.executable, __file__, "--batch", str(args.batch), "--threads", str(args.threads)]
    for size in args.sizes:
        for step in args.steps:
            command = [*common, "--sizes", size, "--steps", step, "--worker"]
            commands = {name: [*command, name] for name in args.contenders}
            report[f"{size} {step}"] = in_turn.compare(commands, args.rounds, f"{size} {step}")
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n")


def _settings(size: str) -> Any:
    from jxrecon.runs import config

    return config.find("x2vision_hn", size).settings.prior


def _ours(step: str, size: str, batch: int, threads: int) -> Callable[[], float]:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from jxrecon.compile import jit
    from jxrecon.methods.volumes.x2vision.networks import Discriminator, Mapping, Synthesis
    from jxrecon.nn.optimise import improve

    s = _settings(size)
    mapping = Mapping(s.w_dim, s.mapping_layers)
    synthesis = Synthesis(s.base, s.channels, s.w_dim, architecture=s.architecture)
    critic = Discriminator(s.base, s.channels)
    key = jax.random.key(0)
    count = 1 if step == "latent" else batch
    real = jax.random.uniform(key, (count, *synthesis.shape, 1), minval=-1.0)
    z = jax.random.normal(key, (count, s.w_dim))
    ws = jax.random.normal(key, (count, synthesis.num_ws, s.w_dim))

    def start(network: Any, x: Any) -> Any:
        shapes = jax.eval_shape(network.init, key, x)["params"]
        draw = np.random.default_rng(0).standard_normal
        return jax.tree.map(lambda leaf: jnp.asarray(draw(leaf.shape, np.float32)), shapes)

    generator = {"mapping": start(mapping, z), "synthesis": start(synthesis, ws)}
    networks = (mapping, synthesis, critic)
    terms, first = _terms(step, networks, generator, start(critic, real), ws)
    adam = optax.adam(RATE, 0.0, 0.99)
    state = [(first, tuple(map(adam.init, first)), key)]

    @partial(jit, donate_argnums=0)
    def train(state: Any, real: Any, z: Any) -> Any:
        params, optimisers, key = state
        key, mine = jax.random.split(key)
        kept = None

        def objective(own: Any, k: int, params: Any, kept: Any) -> Any:
            return terms[k]((*params[:k], own, *params[k + 1 :]), real, z, mine, kept)

        for k in range(len(terms)):
            loss = partial(objective, k=k, params=params, kept=kept)
            new, optimiser, (value, kept) = improve(adam, loss, params[k], optimisers[k])
            params = (*params[:k], new, *params[k + 1 :])
            optimisers = (*optimisers[:k], optimiser, *optimisers[k + 1 :])
        return (params, optimisers, key), value

    def once() -> float:
        state[0], loss = train(state[0], real, z)
        return float(jax.block_until_ready((state[0], loss))[1])

    return once


def _terms(step: str, networks: Any, generator: Any, critic_params: Any, ws: Any) -> Any:
    """(terms of the step, the params to begin with); the k-th term is minimised by the k-th of the params.

    A term is (params, real, z, key, what the term before gave) -> (loss, (loss, what it gives)).
    """
    import jax
    import jax.numpy as jnp

    from jxrecon.methods.volumes.x2vision import losses
    from jxrecon.methods.volumes.x2vision.networks import draw_noise
    from jxrecon.nn.blocks import apply

    mapping, synthesis, critic = networks
    game = losses.ADVERSARIAL["non_saturating"]

    def styled(params: Any, z: Any) -> Any:
        w = apply(mapping, params["mapping"], z)
        return jnp.repeat(w[:, None], synthesis.num_ws, axis=1)

    def made(params: Any, styles: Any, key: Any) -> Any:
        noise = draw_noise(key, synthesis.noise_shapes, styles.shape[0])
        return apply(synthesis, params["synthesis"], styles, noise)

    def seen(x: Any, y: Any) -> Any:
        return sum(jnp.mean((jnp.mean(x, a) - jnp.mean(y, a)) ** 2) for a in (1, 2))

    def warm_start(params: Any, real: Any, z: Any, key: Any, kept: Any) -> Any:
        fake = made(params[0], styled(params[0], z), key)
        loss = jnp.mean((fake - real) ** 2) + seen(fake, real)
        return loss, (loss, None)

    def of_generator(params: Any, real: Any, z: Any, key: Any, kept: Any) -> Any:
        fake = made(params[0], styled(params[0], z), key)
        loss = game.generator(apply(critic, params[1], fake))
        return loss, (loss, fake)

    def of_critic(params: Any, real: Any, z: Any, key: Any, fake: Any) -> Any:
        scores = apply(critic, params[1], jnp.concatenate([real, fake]))
        loss = game.discriminator(*jnp.split(scores, 2))
        return loss, (loss, None)

    def r1(params: Any, real: Any, z: Any, key: Any, kept: Any) -> Any:
        loss = jnp.mean(losses.r1_penalty(lambda x: apply(critic, params[0], x), real))
        return loss, (loss, None)

    def path_length(params: Any, real: Any, z: Any, key: Any, kept: Any) -> Any:
        styles = styled(params[0], z[: max(1, z.shape[0] // 2)])
        lengths = losses.path_lengths(lambda x: made(params[0], x, key), styles, key)
        loss = jnp.mean((lengths - 1.0) ** 2)
        return loss, (loss, None)

    def latent(params: Any, real: Any, z: Any, key: Any, kept: Any) -> Any:
        loss = seen(apply(synthesis, generator["synthesis"], *params[0]), real)
        return loss, (loss, None)

    noise = draw_noise(jax.random.key(1), synthesis.noise_shapes, 1)
    return {
        "warm_start": ([warm_start], (generator,)),
        "adversarial": ([of_generator, of_critic], (generator, critic_params)),
        "r1": ([r1], (critic_params,)),
        "path_length": ([path_length], (generator,)),
        "latent": ([latent], ((ws, noise),)),
    }[step]


def _torch(step: str, size: str, batch: int, threads: int) -> Callable[[], float]:
    import torch
    from torch.nn.functional import softplus
    from torch_modules.x2vision import Discriminator, Generator

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    s = _settings(size)
    g = Generator(s.base, s.channels, s.w_dim, s.mapping_layers, s.architecture)
    d = Discriminator(s.base, s.channels)
    levels = len(s.channels)
    shapes = [[n * 2**k for n in s.base] for k in range(levels) for _ in range(2)][1:]
    count = 1 if step == "latent" else batch
    real = 2 * torch.rand(count, 1, *shapes[-1]) - 1
    z, ws = torch.randn(count, s.w_dim), torch.randn(1, 2 * levels, s.w_dim, requires_grad=True)
    maps = [torch.randn(1, 1, *shape, requires_grad=True) for shape in shapes]
    latents = [ws, *maps]
    trained = {"latent": latents, "r1": list(d.parameters())}.get(step, list(g.parameters()))
    adam = torch.optim.Adam(trained, RATE, (0.0, 0.99))
    adam_d = torch.optim.Adam(d.parameters(), RATE, (0.0, 0.99))

    def noise(n: int) -> list[Any]:
        return [torch.randn(n, 1, *shape) for shape in shapes]

    def seen(x: Any, y: Any) -> Any:
        return sum((x.mean(a) - y.mean(a)).square().mean() for a in (2, 3))

    def down(optimiser: Any, loss: Any) -> float:
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    def warm_start() -> float:
        fake = g(z, *noise(count))
        return down(adam, (fake - real).square().mean() + seen(fake, real))

    def adversarial() -> float:
        fake = g(z, *noise(count))
        d.requires_grad_(False)
        down(adam, softplus(-d(fake)).mean())
        d.requires_grad_(True)
        on_real, on_fake = d(torch.cat([real, fake.detach()])).chunk(2)
        return down(adam_d, softplus(on_fake).mean() + softplus(-on_real).mean())

    def r1() -> float:
        x = real.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(d(x).sum(), x, create_graph=True)
        return down(adam, slope.square().sum() / count)

    def path_length() -> float:
        half = max(1, count // 2)
        styles = g.mapping(z[:half])[:, None].expand(-1, 2 * levels, -1)
        volume = g.synthesis(styles, *noise(half))
        y = torch.randn_like(volume) / volume[0].numel() ** 0.5
        (slope,) = torch.autograd.grad((volume * y).sum(), styles, create_graph=True)
        lengths = (slope.square().sum(2).mean(1) + 1e-12).sqrt()
        return down(adam, (lengths - 1).square().mean())

    def latent() -> float:
        return down(adam, seen(g.synthesis(ws, *maps), real))

    if step == "latent":
        g.requires_grad_(False)
    return {f.__name__: f for f in (warm_start, adversarial, r1, path_length, latent)}[step]


if __name__ == "__main__":
    main()
