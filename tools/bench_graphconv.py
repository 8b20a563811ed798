"""Milliseconds of graph convolutions over a surface: our table of neighbours beside other aggregations.

    python tools/bench_graphconv.py [--vertices 500 2500 10000] [--channels 64 256] [--batch 8]
        [--rounds 7] [--threads 1] [--out bench.json]

Six layers 6 -> H -> H -> H -> H -> H -> 3 with ReLU between them and A = D^-1 (A + I), on a sphere of V
vertices with about six neighbours each; forward, and forward with the gradients of weights and input.
Rows: the matrix products alone (the floor), our table, jraph's segment sum in the same layers with the
same weights, and PyTorch's sparse CSR product and PyTorch Geometric's GCNConv where they are installed.
Every contender runs once a round, one after the other; the median over rounds of the process's CPU time
counts (wall time on an accelerator). On a CPU with other load, trust the ratios.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DEPTH = 6
TASKS = ("forward", "gradient")
Runs = dict[str, Callable[[], Any]]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default, what in (("vertices", [500, 2500, 10000], "vertices of the meshes"),
                                ("channels", [64, 256], "hidden channels H")):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, nargs="+", default=default, help=what)
    parser.add_argument("--batch", type=int, default=8, help="shapes at a time (8)")
    parser.add_argument("--rounds", type=int, default=7, help="repetitions of every contender (7)")
    parser.add_argument("--threads", type=int, default=1, help="CPU cores and threads (1)")
    parser.add_argument("--out", type=Path, help="JSON file for all of it")
    args = parser.parse_args()
    for name, least in (
        ("vertices", 12),
        ("channels", 3),
        ("batch", 1),
        ("rounds", 1),
        ("threads", 1),
    ):
        given = getattr(args, name)
        if min(given if isinstance(given, list) else [given]) < least:
            parser.error(f"argument --{name}: {given}, expected at least {least}")
    return args


def hold_to_threads(count: int) -> None:
    """As many cores and threads for everything that is imported from here on."""
    for name in ("OMP", "MKL", "OPENBLAS"):
        os.environ[f"{name}_NUM_THREADS"] = str(count)
    if count == 1:
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    if hasattr(os, "sched_setaffinity"):  # XLA sizes its thread pool by it
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[-count:]))


def sphere(count: int) -> Any:
    """A template of `count` vertices spread evenly over a ball of 70 mm radius (a golden spiral)."""
    import numpy as np
    from scipy.spatial import ConvexHull

    from jxrecon.mesh import Mesh, template

    n = np.arange(count) + 0.5
    height, angle = 1 - 2 * n / count, np.pi * (1 + 5**0.5) * n
    across = np.sqrt(1 - height**2)
    points = 70 * np.stack([across * np.cos(angle), across * np.sin(angle), height], axis=1)
    return template(Mesh(points, ConvexHull(points).simplices))


def scene(count: int, channels: int, batch: int) -> tuple[Any, list[Any], Any, Any]:
    """(template, weights of the layers, input [b, V, 6], what the output is multiplied with)."""
    import numpy as np

    rng, widths = np.random.default_rng(0), [6, *[channels] * (DEPTH - 1), 3]
    weights = [
        (rng.normal(size=shape) / shape[0] ** 0.5).astype(np.float32)
        for shape in itertools.pairwise(widths)
    ]
    x = rng.normal(size=(batch, count, 6)).astype(np.float32)
    return sphere(count), weights, x, rng.normal(size=(batch, count, 3)).astype(np.float32)


def ours(template: Any, weights: list[Any], x: Any, factor: Any) -> Iterator[tuple[str, Runs]]:
    """The contenders in JAX: one network, and three ways to aggregate."""
    import jax
    import jax.numpy as jnp

    from jxrecon.mesh.aggregation import mean_graph, normalised, segment_sum
    from jxrecon.nn.graph import GraphConvolution

    layers = [
        GraphConvolution(weight.shape[1], use_bias=False, activation=jax.nn.relu if n else _same)
        for n, weight in zip(range(len(weights) - 1, -1, -1), weights)
    ]
    params, x, factor = (
        [jnp.asarray(weight) for weight in weights],
        jnp.asarray(x),
        jnp.asarray(factor),
    )
    ways = {
        "matrix products alone": _same,
        "jxrecon table": normalised(template),
        "jraph segment_sum": segment_sum(mean_graph(template)),
    }
    for name, aggregate in ways.items():

        def network(params: Any, x: Any, aggregate: Any = aggregate) -> Any:
            for layer, kernel in zip(layers, params):
                x = layer.apply({"params": {"kernel": kernel}}, x, aggregate)
            return x

        def loss(params: Any, x: Any, network: Any = network) -> Any:
            return jnp.sum(network(params, x) * factor)

        forward = jax.jit(network)
        gradient = jax.jit(jax.value_and_grad(loss, (0, 1)))
        yield (
            name,
            {
                "forward": lambda run=forward: jax.block_until_ready(run(params, x)),
                "gradient": lambda run=gradient: jax.block_until_ready(run(params, x)),
            },
        )


def _same(x: Any) -> Any:
    return x


def torchs(
    template: Any, weights: list[Any], x: Any, factor: Any, threads: int
) -> Iterator[tuple[str, Runs]]:
    """PyTorch's CSR product over all shapes side by side, and GCNConv of PyTorch Geometric."""
    import torch

    from jxrecon.mesh.aggregation import mean_graph

    torch.set_num_threads(threads)
    graph, count, batch = mean_graph(template), x.shape[1], x.shape[0]
    places = torch.tensor([graph.receivers.tolist(), graph.senders.tolist()])
    entries = torch.tensor(graph.edges)
    # [b, V, c] -> [V, b c] costs copies; vertices of all shapes in one block diagonal operator do not.
    shifts = count * torch.arange(batch)[:, None]
    wide = torch.stack([(row[None] + shifts).reshape(-1) for row in places])
    operator = torch.sparse_coo_tensor(wide, entries.repeat(batch), [batch * count] * 2)
    operator = operator.coalesce().to_sparse_csr()
    flat = torch.tensor(x).reshape(batch * count, -1).requires_grad_()
    target = torch.tensor(factor).reshape(batch * count, -1)
    kernels = [torch.tensor(weight, requires_grad=True) for weight in weights]

    def csr(x: Any) -> Any:
        for n, kernel in enumerate(kernels):
            narrow = kernel.shape[1] < kernel.shape[0]
            x = operator @ (x @ kernel) if narrow else (operator @ x) @ kernel
            x = torch.relu(x) if n < DEPTH - 1 else x
        return x.reshape(batch, count, -1)

    yield "torch CSR", _torch_runs(csr, flat, target, kernels)
    if importlib.util.find_spec("torch_geometric") is None:
        return
    from torch_geometric.nn import GCNConv

    layers = [GCNConv(*kernel.shape, bias=False, normalize=False) for kernel in kernels]
    for layer, kernel in zip(layers, kernels):
        layer.lin.weight.data = kernel.detach().T.clone()
    senders, repeated = wide.flip(0), entries.repeat(batch)

    def gcn(x: Any) -> Any:
        for n, layer in enumerate(layers):
            x = layer(x, senders, repeated)
            x = torch.relu(x) if n < DEPTH - 1 else x
        return x.reshape(batch, count, -1)

    learned = [layer.lin.weight for layer in layers]
    yield "PyTorch Geometric GCNConv", _torch_runs(gcn, flat, target, learned)


def _torch_runs(network: Any, x: Any, target: Any, learned: list[Any]) -> Runs:
    import torch

    def forward() -> Any:
        with torch.no_grad():
            return network(x)

    def gradient() -> Any:
        loss = (network(x).reshape(target.shape) * target).sum()
        return loss, torch.autograd.grad(loss, [*learned, x])

    return {"forward": forward, "gradient": gradient}


def measure(field: dict[str, Runs], rounds: int, wall: bool) -> dict[str, dict[str, float]]:
    """Name -> task -> median ms; every task runs once before, so that compilation does not count."""
    runs = [(name, task, run) for name, tasks in field.items() for task, run in tasks.items()]
    taken: dict[tuple[str, str], list[float]] = {(name, task): [] for name, task, _ in runs}
    clock = time.perf_counter if wall else time.process_time
    for _, _, run in runs:
        run()
    for _ in range(rounds):
        for name, task, run in runs:
            gc.collect()
            start = clock()
            run()
            taken[name, task].append(1e3 * (clock() - start))
    return {
        name: {task: statistics.median(taken[name, task]) for task in tasks}
        for name, tasks in field.items()
    }


def largest_difference(field: dict[str, Runs]) -> dict[str, float]:
    """Name -> largest difference of its output from our table's, over the latter's largest value."""
    import numpy as np

    outputs = {name: np.asarray(runs["forward"]()) for name, runs in field.items()}
    mine = outputs["jxrecon table"]
    return {
        name: float(np.abs(out - mine).max() / np.abs(mine).max()) for name, out in outputs.items()
    }


def main() -> int:
    """Prints a table for every number of vertices and channels."""
    args = _arguments()
    hold_to_threads(args.threads)
    import jax

    with_torch = importlib.util.find_spec("torch") is not None
    wall = jax.default_backend() != "cpu"
    report: dict[str, Any] = {
        "device": jax.devices()[0].device_kind, "jax": jax.__version__, "batch": args.batch,
        "threads": args.threads, "rounds": args.rounds, "clock": "wall" if wall else "cpu", "ms": {},
    }  # fmt: skip
    for channels in args.channels:
        for count in args.vertices:
            given = scene(count, channels, args.batch)
            field = dict(ours(*given))
            if with_torch:
                field |= dict(torchs(*given, args.threads))
            differences = largest_difference(field)
            times = measure(field, args.rounds, wall)
            report["ms"][f"{channels}x{count}"] = times
            print(
                f"\nH = {channels}, V = {count}, batch {args.batch}: {report['clock']} ms, and our gain"
            )
            print(f"{'':28}{'forward':>10}{'':8}{'+ backward':>10}{'':8}{'difference':>12}")
            for name, tasks in times.items():
                cells = "".join(
                    f"{tasks[task]:10.1f}{tasks[task] / times['jxrecon table'][task]:7.2f}x"
                    for task in TASKS
                )
                told = "" if name.startswith("matrix") else f"{differences[name]:12.1e}"
                print(f"{name:28}{cells}{told}", flush=True)
    if args.out:
        from jxrecon.files import write_file

        write_file(args.out, (json.dumps(report, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
