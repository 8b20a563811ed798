"""What one training step costs: arithmetic, traffic, memory, seconds, and what devices send each other.

    python tools/step_costs.py lift_hn --size full --set population.train=8
    python tools/step_costs.py lift_hn --set schedule.batch_size=8 --compile --devices 8 --model-axis 2
    python tools/step_costs.py x2vision_hn --size medium --time 20

The step is the loop's own: X-rays taken, networks, optimisers. Convolutions and matrix products are counted
in the form that accelerators take: operations, and the bytes of what they read and write, as if all else
were fused into them. Of a `cond` the costlier branch counts, and each is listed; scans count as often as
they run. With --compile the memory and the collectives of the compiled program are told, on a CPU also for
--devices virtual ones. With --time it runs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import resource
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

_SENT = re.compile(
    r" = (?P<shapes>\S.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
    r"(?:-start)?\("
)
_SHAPE = re.compile(r"\b(?:pred|[a-z]+(?P<bits>\d+))\[(?P<sizes>[\d,]*)\]")


def main() -> None:
    """Prints the costs, and writes them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("exp", help="an experiment, or a Python file of one's own")
    add("--size")
    add("--set", action="append", default=[], metavar="FIELD=VALUE")
    add("--compile", action="store_true", help="for memory and collectives")
    add("--time", type=int, default=0, metavar="STEPS", help="run so many, after the first two")
    add("--devices", type=int, default=1, help="virtual ones")
    add("--model-axis", type=int, default=1, help="devices a copy of the state is split over")
    add("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    flags = f"--xla_force_host_platform_device_count={options.devices}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    with Step(options.exp, options.size, options.set, options.model_axis) as step:
        found = step.costs()
        if options.compile:
            found |= step.compiled()
        if options.time:
            found |= step.timed(options.time)
    print(json.dumps(found, indent=2))
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")


class Step:
    """The step of an experiment on built-in data; a context, for it has a run folder while it lasts."""

    def __init__(
        self, exp: str, size: str | None, assignments: list[str], model_axis: int = 1
    ) -> None:
        import jax

        from jxrecon.files import cache_folder
        from jxrecon.runs import config, loop, run, sharding

        self._folder = tempfile.TemporaryDirectory()
        self.experiment = config.override(config.find(exp, size), assignments)
        data = self.experiment.load(self.experiment, None, cache_folder("data"))
        self.run = run.start(Path(self._folder.name), self.experiment, exp, None, data)
        mesh = sharding.make_mesh(model_axis)
        self.state = run.abstract_state(self.run, mesh)
        acquire = self.experiment.kind.acquire
        self.train = acquire(self.experiment, data.train)
        whole = self.run.method.train_step
        self.step = loop.compiled_step(self.run, whole, self.train, self.state, mesh)
        self.cases = data.train
        self._spread = sharding.batch_sharding(mesh, self.experiment.schedule.batch_size)
        self.batch = jax.tree.map(
            lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=self._spread),
            self._batch_at(0),
        )

    def __enter__(self) -> Step:
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.cleanup()

    def costs(self) -> dict[str, Any]:
        """Operations, traffic and size of the state: nothing is compiled."""
        import numpy as np

        branches: list[list[Cost]] = []
        program = self.step.trace(self.state, self.batch, np.uint32(0)).jaxpr.jaxpr
        whole = counted(program, branches)
        return {
            "experiment": f"{self.experiment.name} {self.experiment.size}",
            "batch": self.experiment.schedule.batch_size,
            **whole.told(),
            "branches": [[branch.told() for branch in pair] for pair in branches],
            **_held(self.state),
        }

    def compiled(self) -> dict[str, Any]:
        """Memory beside state and batch, and the collectives."""
        import numpy as np

        program = self.step.lower(self.state, self.batch, np.uint32(0)).compile()
        return {
            "temporary_gb": program.memory_analysis().temp_size_in_bytes / 1e9,
            "collectives": collectives(program.as_text()),
        }

    def timed(self, count: int) -> dict[str, Any]:
        """Seconds a step, cases a second and peak memory."""
        import jax
        import numpy as np

        from jxrecon.runs import loop, sharding

        began = time.perf_counter()
        state = loop.fresh_state(self.run, self.state, self.train)
        for number in range(count + 2):
            if number == 2:  # the first compiles, the second may wait for memory
                jax.block_until_ready(state)
                first, began = time.perf_counter() - began, time.perf_counter()
            batch = sharding.place(self._batch_at(number), self._spread)
            state, _ = self.step(state, batch, np.uint32(number))
        jax.block_until_ready(state)
        seconds = (time.perf_counter() - began) / count
        device = jax.devices()[0]
        stats = device.memory_stats() or {}
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {
            "device": device.device_kind,
            "start_s": first,
            "step_s": seconds,
            "cases_per_s": self.experiment.schedule.batch_size / seconds,
            "peak_gb": stats.get("peak_bytes_in_use", resident) / 1e9,
        }

    def _batch_at(self, number: int) -> Any:
        from jxrecon.runs.batches import batch_at

        schedule = self.experiment.schedule
        return batch_at(self.cases, number, schedule.batch_size, schedule.seed)


def _held(state: Any) -> dict[str, Any]:
    """Size of the state, and of what a device holds of it; the bytes of every array that is split."""
    import jax
    import jax.numpy as jnp

    leaves = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.number)]
    whole = [leaf.size * leaf.dtype.itemsize for leaf in leaves]
    held = [
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves
    ]
    return {
        "state_gb": sum(whole) / 1e9,
        "state_gb_a_device": sum(held) / 1e9,
        "split_bytes": [a for a, b in zip(whole, held) if a != b],
    }


class Cost(NamedTuple):
    """Operations and bytes of convolutions and matrix products."""

    operations: float = 0.0
    traffic: float = 0.0

    def plus(self, other: Cost, times: int = 1) -> Cost:
        return Cost(
            self.operations + times * other.operations, self.traffic + times * other.traffic
        )

    def told(self) -> dict[str, float]:
        return {"gflop": self.operations / 1e9, "gbyte": self.traffic / 1e9}


def counted(program: Any, branches: list[list[Cost]]) -> Cost:
    """The cost of a jaxpr; what its `cond`s may cost is added to `branches`."""
    total = Cost()
    for line in program.eqns:
        name, parts = line.primitive.name, line.params
        if name in ("conv_general_dilated", "dot_general"):
            total = total.plus(_product(line))
        elif name == "cond":
            total = total.plus(_costlier(line, branches))
        else:
            times = parts["length"] if name == "scan" else 1
            if name == "shard_map":  # the program of one device
                times = parts["mesh"].shape["data"]
            for inner in _inside(parts.values()):
                total = total.plus(counted(inner, branches), times)
    return total


def _costlier(line: Any, branches: list[list[Cost]]) -> Cost:
    """Of a choice by platform, that of accelerators, which comes last."""
    inside = list(_inside([line.params["branches"]]))
    if line.params.get("branches_platforms"):
        return counted(inside[-1], branches)
    found = [counted(inner, branches) for inner in inside]
    if max(found) > Cost():
        branches.append(found)
    return max(found)


def _inside(parts: Any) -> Any:
    """The programs among a primitive's parameters."""
    for part in parts:
        if isinstance(part, list | tuple):
            yield from _inside(part)
        elif hasattr(part, "jaxpr"):
            yield part.jaxpr
        elif hasattr(part, "eqns"):
            yield part


def _product(line: Any) -> Cost:
    """Of one convolution or matrix product, its zeros included."""
    left, right, out = (v.aval for v in (*line.invars, *line.outvars))
    if line.primitive.name == "dot_general":
        (summed, _), _ = line.params["dimension_numbers"]
        terms = math.prod(left.shape[axis] for axis in summed)
    else:
        terms = right.size // right.shape[line.params["dimension_numbers"].rhs_spec[0]]
    traffic = sum(array.size * array.dtype.itemsize for array in (left, right, out))
    return Cost(2.0 * out.size * terms, traffic)


def collectives(program: str) -> list[dict[str, Any]]:
    """What devices send each other: kind, arrays and bytes of each, from the text of a compiled program."""
    found = []
    for sent in _SENT.finditer(program):
        shapes = list(_SHAPE.finditer(sent["shapes"]))
        size = sum(_bytes(shape["bits"], shape["sizes"]) for shape in shapes)
        found.append({"kind": sent["kind"], "arrays": len(shapes), "bytes": size})
    return found


def _bytes(bits: str | None, sizes: str) -> int:
    return math.prod(int(size) for size in sizes.split(",") if size) * int(bits or 8) // 8


if __name__ == "__main__":
    main()
