"""CPU seconds and peak memory of one full X2CT-GAN step, G then D, ours beside plain PyTorch.

    python tools/bench_x2ct.py [--sizes 64 128] [--threads 2] [--rounds 3] [--out bench.json]

Both take the paper's biplanar networks, batch 1, float32, dropout, losses and Adam, on the same number of
cores, each in a process of its own; they step in turn, one waits while the other works. What counts is the
median over rounds of the process's CPU time; compiling and two steps are done before. Peak memory is the
process's largest resident set, compiling included. --tiny takes a toy network, for the tests of this file.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

CONTENDERS = ("jxrecon", "torch")
WARM_UP = 2  # steps before the first that counts
_FEATURES = ((64, 128, 256, 512), (2, 4))  # of the discriminator, the paper's and the toy's


def main() -> None:
    """Prints a table, and writes it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 128], help="64 and 128")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument(
        "--remat", action="store_true", help="ours recomputes its blocks' activations"
    )
    parser.add_argument("--tiny", action="store_true", help="a toy network at 4^3")
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        _work(args.worker, args.sizes[0], args.threads, args.tiny, args.remat)
        return
    report: dict[str, Any] = {"threads": args.threads, "sizes": {}}
    for size in [4] if args.tiny else args.sizes:
        report["sizes"][size] = _compare(size, args)
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n")


def _compare(size: int, args: argparse.Namespace) -> dict[str, Any]:
    """Both contenders at one size, in turn."""
    workers = {name: _Worker(name, size, args) for name in args.contenders}
    results: dict[str, Any] = {}
    for name, worker in workers.items():
        ready = worker.answer()
        if "skipped" in ready:
            print(f"{name:8} {size}^3: {ready['skipped']}")
        else:
            results[name] = {**ready, "rounds": []}
    for _ in range(args.rounds):
        for name in results:
            results[name]["rounds"].append(workers[name].step())
    for name, result in results.items():
        result["peak_gb"] = workers[name].stop()
        for unit in ("cpu_s", "wall_s"):
            result[unit] = statistics.median(r[unit] for r in result["rounds"])
        print(
            f"{name:8} {size}^3, {args.threads} thread(s): {result['cpu_s']:8.2f} CPU-s a step,"
            f" {result['wall_s']:8.2f} s wall, peak {result['peak_gb']:.2f} GB,"
            f" {result['start_s']:.0f} s to start, loss {result['rounds'][-1]['loss']:.4f}"
        )
    if len(results) == 2:
        ratio = results["jxrecon"]["cpu_s"] / results["torch"]["cpu_s"]
        print(f"ratio    {size}^3: jxrecon takes {ratio:.2f} of PyTorch's CPU seconds")
    return results


class _Worker:
    """A contender's process: it steps when told to."""

    def __init__(self, name: str, size: int, args: argparse.Namespace) -> None:
        command = [sys.executable, __file__, "--worker", name, "--sizes", str(size)]
        command += ["--threads", str(args.threads), *(["--tiny"] if args.tiny else [])]
        command += ["--remat"] if args.remat else []
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with status {self._process.wait()}")
        return dict(json.loads(line))

    def step(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        return self.answer()

    def stop(self) -> float:
        """Ends the process; gives its peak memory in GB."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        peak = float(self.answer()["peak_gb"])
        self._process.wait()
        return peak


def _work(name: str, size: int, threads: int, tiny: bool, remat: bool) -> None:
    """Steps whenever a line comes in; one JSON object a line goes out."""
    cores = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, cores)  # before the pools of threads are made
    began = time.perf_counter()
    try:
        step = (
            _ours(size, threads, tiny, remat) if name == "jxrecon" else _torch(size, threads, tiny)
        )
    except ImportError as error:
        _say(skipped=str(error))
        return
    for _ in range(WARM_UP):
        step()
    _say(start_s=time.perf_counter() - began)
    for _ in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        loss = step()
        _say(cpu_s=time.process_time() - cpu, wall_s=time.perf_counter() - wall, loss=loss)
    _say(peak_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9)


def _say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def _architecture(size: int, tiny: bool) -> Any:
    from jxrecon.methods.volumes.x2ct.networks import Architecture

    if tiny:
        return Architecture(size, stem=4, growth=2, layers=(1,), decoder=(2, 4))
    return Architecture(size)


def _ours(size: int, threads: int, tiny: bool, remat: bool) -> Callable[[], float]:
    import jax
    import optax

    from jxrecon.compile import jit
    from jxrecon.methods.volumes.x2ct.discriminator import Discriminator
    from jxrecon.methods.volumes.x2ct.layers import INIT_STD
    from jxrecon.methods.volumes.x2ct.losses import discriminator_loss, generator_loss
    from jxrecon.methods.volumes.x2ct.networks import Generator
    from jxrecon.nn.blocks import init_variables
    from jxrecon.nn.optimise import descend

    architecture = dataclasses.replace(_architecture(size, tiny), remat=remat)
    g, d = Generator(architecture), Discriminator(_FEATURES[tiny])
    adam = optax.adam(2e-4, 0.5, 0.99)
    key = jax.random.key(0)
    views = [jax.random.uniform(jax.random.fold_in(key, k), (1, size, size)) for k in (1, 2)]
    real = jax.random.uniform(jax.random.fold_in(key, 3), (1, size, size, size, 1))

    def train_step(state, key, real, views):
        generator, discriminator, of_g, of_d = state

        def generator_objective(params):
            fake = g.apply(params, views, False, rngs={"dropout": key}).volume
            loss, _ = generator_loss(d.apply(discriminator, fake, views), fake, real)
            return loss, fake

        def discriminator_objective(params, fake):
            return discriminator_loss(d.apply(params, real, views), d.apply(params, fake, views))[0]

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

    return step


def _torch(size: int, threads: int, tiny: bool) -> Callable[[], float]:
    import torch
    from torch_x2ct_training import Training

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    training = Training(_architecture(size, tiny), features=_FEATURES[tiny])
    views = [torch.rand(1, 1, size, size) for _ in range(2)]
    real = torch.rand(1, 1, size, size, size)
    return lambda: training.step(real, *views)


if __name__ == "__main__":
    main()
