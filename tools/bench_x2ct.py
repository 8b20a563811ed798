"""CPU seconds and peak memory of one full X2CT-GAN step, G then D, ours beside plain PyTorch.

    python tools/bench_x2ct.py [--sizes 64 128] [--threads 2] [--rounds 5] [--dtype bfloat16] [--out FILE]

Both take the paper's biplanar networks, batch 1, dropout, losses and Adam, on the same number of cores, and
step in turn, see `in_turn`. What counts is the median over rounds of the process's CPU time, on an
accelerator of the wall time. bfloat16 is that of activations, in PyTorch by autocast. --tiny takes a toy
network, for tests.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import in_turn

CONTENDERS = ("jxrecon", "torch")
_FEATURES = ((64, 128, 256, 512), (2, 4))  # of the discriminator, the paper's and the toy's


def main() -> None:
    """Prints a table, and writes it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 128], help="64 and 128")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--remat", action="store_true", help="ours keeps what norms give alone")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--tiny", action="store_true", help="a toy network at 4^3")
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        _work(args.worker, args)
        return
    report: dict[str, Any] = {"threads": args.threads, "dtype": args.dtype, "sizes": {}}
    for size in [4] if args.tiny else args.sizes:
        report["sizes"][size] = _compare(size, args)
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n")


def _compare(size: int, args: argparse.Namespace) -> dict[str, Any]:
    """Both contenders at one size, in turn."""
    command = [sys.executable, __file__, "--sizes", str(size), "--threads", str(args.threads)]
    command += ["--dtype", args.dtype, *(["--tiny"] if args.tiny else [])]
    command += ["--remat"] if args.remat else []
    commands = {name: [*command, "--worker", name] for name in args.contenders}
    return in_turn.compare(commands, args.rounds, f"{size}^3, {args.threads} thread(s)")


def _work(name: str, args: argparse.Namespace) -> None:
    way = _ours if name == "jxrecon" else _torch
    in_turn.work(partial(way, args.sizes[0], args), args.threads)


def _architecture(size: int, tiny: bool) -> Any:
    from jxrecon.methods.volumes.x2ct.networks import Architecture

    if tiny:
        return Architecture(size, stem=4, growth=2, layers=(1,), decoder=(2, 4))
    return Architecture(size)


def _ours(size: int, args: argparse.Namespace) -> in_turn.Contender:
    import jax
    import jax.numpy as jnp
    import optax

    from jxrecon.compile import jit
    from jxrecon.methods.volumes.x2ct.discriminator import Discriminator
    from jxrecon.methods.volumes.x2ct.layers import INIT_STD
    from jxrecon.methods.volumes.x2ct.losses import discriminator_loss, generator_loss
    from jxrecon.methods.volumes.x2ct.networks import Generator
    from jxrecon.nn.blocks import init_variables
    from jxrecon.nn.optimise import descend

    dtype = jnp.dtype(args.dtype)
    architecture = dataclasses.replace(
        _architecture(size, args.tiny), remat=args.remat, dtype=dtype
    )
    g, d = Generator(architecture), Discriminator(_FEATURES[args.tiny], dtype)
    adam = optax.adam(2e-4, 0.5, 0.99)
    key = jax.random.key(0)
    views = [jax.random.uniform(jax.random.fold_in(key, k), (1, size, size)) for k in (1, 2)]
    real = jax.random.uniform(jax.random.fold_in(key, 3), (1, size, size, size, 1))

    def score(params, volume):
        return d.apply(params, volume, views).astype(jnp.float32)

    def train_step(state, key, real, views):
        generator, discriminator, of_g, of_d = state

        def generator_objective(params):
            fake = g.apply(params, views, False, rngs={"dropout": key}).volume.astype(jnp.float32)
            loss, _ = generator_loss(score(discriminator, fake), fake, real)
            return loss, fake

        def discriminator_objective(params, fake):
            return discriminator_loss(score(params, real), score(params, fake))[0]

        (loss, fake), gradient = jax.value_and_grad(generator_objective, has_aux=True)(generator)
        generator, of_g = descend(adam, gradient, of_g, generator)
        gradient = jax.grad(discriminator_objective)(discriminator, fake)
        discriminator, of_d = descend(adam, gradient, of_d, discriminator)
        return (generator, discriminator, of_g, of_d), loss

    start = partial(init_variables, std=INIT_STD)
    generator = jit(lambda key: start(g, key, views))(jax.random.fold_in(key, 4))
    discriminator = jit(lambda key: start(d, key, real, views))(jax.random.fold_in(key, 5))
    state = [(generator, discriminator, adam.init(generator), adam.init(discriminator))]
    compiled = jit(train_step, donate_argnums=0)

    def step() -> float:
        state[0], loss = compiled(state[0], key, real, views)
        return float(jax.block_until_ready((state[0], loss))[1])

    device = jax.devices()[0]

    def peak() -> float | None:
        return (device.memory_stats() or {}).get("peak_bytes_in_use")

    return in_turn.Contender(step, device.platform, peak)


def _torch(size: int, args: argparse.Namespace) -> in_turn.Contender:
    import torch
    from torch_x2ct_training import Training

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        training = Training(_architecture(size, args.tiny), features=_FEATURES[args.tiny])
        views = [torch.rand(1, 1, size, size) for _ in range(2)]
        real = torch.rand(1, 1, size, size, size)

    def step() -> float:
        half = args.dtype == "bfloat16"
        with torch.device(device), torch.autocast(device, torch.bfloat16, enabled=half):
            return training.step(real, *views)

    peak = torch.cuda.max_memory_allocated if device == "cuda" else lambda: None
    return in_turn.Contender(step, device, peak)


if __name__ == "__main__":
    main()
