"""Milliseconds of every projection method and of other projects' projectors, side by side in one run.

    python tools/bench_drr.py [--sizes 128 256-oblique] [--methods siddon shear_warp] [--peers nanodrr rtk]
        [--rounds 5] [--tasks volume] [--noise] [--by-view] [--check] [--memory] [--out bench.json]

Three tasks: the images (forward); images and volume gradient (volume); images and pose gradient (pose:
source, centre, u and v of every camera). Every contender runs once a round, one after the other, and the
median over rounds counts. On a CPU everything is held to one core, and the figures are the process's
CPU time; on an accelerator they are wall time, beside the bytes a second that the method achieves.
Peers are optional: those that can be imported take part.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drr_peers import Contender, Scene

METHODS = ("siddon", "joseph", "aligned", "shear_warp", "auto")
"""Ours. The first is what --check measures against; "auto" is what a plain call takes."""

SIZES: dict[str, tuple[Any, Any, Any, Any]] = {
    # name: voxels, mm a voxel, (rows, columns, mm a pixel), (angle, elevation) of each view in degrees
    "tiny": ((16, 16, 16), (20.0, 20.0, 20.0), (16, 16, 32.0), ((0, 0), (90, 0))),
    "128": ((128, 128, 128), (2.5, 2.5, 2.5), (128, 128, 4.0), ((0, 0), (90, 0))),
    "128-oblique": ((128, 128, 128), (2.5, 2.5, 2.5), (128, 128, 4.0), ((25, 10),)),
    "128-oblique-2": ((128, 128, 128), (2.5, 2.5, 2.5), (128, 128, 4.0), ((25, 10), (110, -8))),
    "80": ((80, 96, 112), (3.0, 2.5, 2.0), (100, 120, 3.5), ((0, 0), (90, 0))),
    "256": ((256, 256, 256), (1.25, 1.25, 1.25), (256, 256, 2.0), ((0, 0),)),
    "256-oblique": ((256, 256, 256), (1.25, 1.25, 1.25), (256, 256, 2.0), ((25, 10),)),
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    everything = [name for name in SIZES if name != "tiny"]
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=everything, metavar="SIZE",
                        help=f"of {', '.join(SIZES)}; all but tiny by default")  # fmt: skip
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="ours")
    parser.add_argument("--peers", nargs="*", metavar="PEER",
                        help="importable ones by default; none after an empty --peers")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5, help="repetitions of every contender (5)")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", default=("forward", "volume", "pose"),
                        help="of forward, volume and pose")  # fmt: skip
    parser.add_argument("--noise", action="store_true", help="a volume of noise, not a torso")
    parser.add_argument("--by-view", action="store_true",
                        help="ours: a call for every view, not one for all")  # fmt: skip
    parser.add_argument("--check", action="store_true",
                        help="relative L2 difference of every image from our first method's")  # fmt: skip
    parser.add_argument("--memory", action="store_true",
                        help="also peak extra memory, each contender in a process of its own, at the "
                        "last of the largest sizes")  # fmt: skip
    parser.add_argument("--out", type=Path, help="JSON file for all of it")
    parser.add_argument("--probe", help=argparse.SUPPRESS)  # the process that --memory starts
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error(f"argument --rounds: {args.rounds} is not positive")
    return args


def hold_to_one_thread() -> None:
    """One core and one thread for everything that is imported from here on."""
    for name in ("OMP", "MKL", "OPENBLAS", "NUMBA", "VECLIB_MAXIMUM"):
        os.environ[f"{name}_NUM_THREADS"] = "1"
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    os.environ["MBIRJAX_NUM_CPU_DEVICES"] = "1"
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_multi_thread_eigen" not in flags:
        flags += " --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ["XLA_FLAGS"] = flags.strip()
    if hasattr(os, "sched_setaffinity"):  # XLA sizes its thread pool by it
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def scene_of(size: str, noise: bool = False) -> Scene:
    """A torso of ellipsoids before the cameras of this size; source at 1000 mm, detector at 1500 mm.

    Or a volume of uniform noise, which no method can pass over.
    """
    import numpy as np
    from drr_peers import Scene

    from jxrecon.geometry import camera_at, centred_grid

    shape, spacing, (rows, columns, pixel_mm), angles = SIZES[size]
    grid = centred_grid(shape, spacing)
    x, y, z = np.meshgrid(
        *(np.linspace(-1, 1, count, dtype=np.float32) * (1 - 1 / count) for count in shape),
        indexing="ij", sparse=True,
    )  # fmt: skip
    mu = np.zeros(shape, np.float32)
    for value, (a, b, c), (p, q, r) in (
        (0.020, (0, 0, 0), (0.90, 0.62, 0.88)),
        (-0.014, (-0.40, 0.03, 0.06), (0.30, 0.44, 0.62)),
        (-0.014, (0.40, 0.03, 0.06), (0.30, 0.44, 0.62)),
        (0.012, (0.12, -0.12, -0.12), (0.28, 0.25, 0.31)),
        (0.025, (0, 0.42, 0), (0.11, 0.11, 0.80)),
    ):
        mu += np.float32(value) * (
            ((x - a) / p) ** 2 + ((y - b) / q) ** 2 + ((z - c) / r) ** 2 <= 1
        )
    if noise:
        mu = np.random.default_rng(0).random(shape, np.float32) * np.float32(0.02)
    cameras = tuple(
        camera_at(angle, elevation, shape=(rows, columns), pixel_mm=pixel_mm)
        for angle, elevation in angles
    )
    r, c = np.linspace(0, 3, rows), np.linspace(0, 3, columns)
    weights = np.stack([np.sin(r + n)[:, None] * np.cos(c + n) for n in range(len(angles))])
    return Scene(size, mu, grid.affine, cameras, weights.astype(np.float32))


def ours(scene: Scene, method: str, by_view: bool = False) -> Contender | None:
    """`drr.line_integrals` by one method; None where the method does not fit the cameras."""
    import jax
    import numpy as np
    from drr_peers import Contender

    from jxrecon.types import InputError

    parts = [slice(n, n + 1) for n in range(len(scene.cameras))] if by_view else [slice(None)]
    try:
        calls = [_tasks(scene, method, part) for part in parts]
        jax.eval_shape(lambda: [call["forward"]() for call in calls])
    except InputError:
        return None

    def run(task: str) -> Any:
        return jax.block_until_ready([call[task]() for call in calls])

    tasks = {task: partial(run, task) for task in calls[0]}
    return Contender(f"jxrecon/{method}", lambda: np.concatenate(run("forward")), tasks)


def _tasks(scene: Scene, method: str, part: slice) -> dict[str, Callable[[], Any]]:
    """The tasks for some of the views, compiled for all of them together."""
    import jax
    import jax.numpy as jnp

    from jxrecon import drr

    mu, cameras = jnp.asarray(scene.mu), scene.cameras[part]
    named: list[Any] = [method] * len(cameras)
    moving = named
    if method in ("aligned", "shear_warp"):  # a camera that moves is traced and needs their plan
        moving = [drr.plan(scene.affine, c, scene.mu.shape, method) for c in cameras]

    def images(mu: Any, cameras: Any, methods: Any) -> Any:
        if method == "auto":
            return jnp.stack(drr.project(mu, scene.affine, cameras))
        views = zip(cameras, methods, strict=True)
        return jnp.stack([drr.line_integrals(mu, scene.affine, view, how) for view, how in views])

    forward = jax.jit(lambda mu: images(mu, cameras, named))

    @jax.jit
    def volume(mu: Any, weights: Any) -> Any:
        views, back = jax.vjp(lambda mu: images(mu, cameras, named), mu)
        return views, back(weights)

    @jax.jit
    def pose(cameras: Any, mu: Any, weights: Any) -> Any:
        views, back = jax.vjp(lambda cameras: images(mu, cameras, moving), cameras)
        return views, back(weights)

    weights = jnp.asarray(scene.weights[part])
    tasks: dict[str, Callable[[], Any]] = {
        "forward": lambda: forward(mu),
        "volume": lambda: volume(mu, weights),
    }
    if method != "aligned":  # it is for detectors that stay along the volume's axes
        tasks["pose"] = lambda: pose(cameras, mu, weights)
    return tasks


def contenders(
    scene: Scene, methods: list[str], peers: list[str], by_view: bool = False
) -> Iterator[Contender]:
    """All that fit the scene, ours first; a peer that fails says why and is left out."""
    from drr_peers import PEERS

    for method in methods:
        contender = ours(scene, method, by_view)
        if contender is not None:
            yield contender
    for name in peers:
        try:
            contender = PEERS[name][1](scene)
            if contender is not None:
                contender.tasks["forward"]()
        except Exception as error:  # a peer's own failure must not end the run
            print(f"{name}: left out, {type(error).__name__}: {error}", file=sys.stderr)
            continue
        if contender is not None:
            yield contender


def time_rounds(field: list[Contender], rounds: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Name -> task -> cpu_ms and wall_ms (medians) and the rounds they come from.

    Every task runs once before the rounds: compilation does not count.
    """
    runs = [(entry.name, task, run) for entry in field for task, run in entry.tasks.items()]
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for name, task, run in runs:
        run()
        taken[name, task] = []
    for _ in range(rounds):
        for name, task, run in runs:
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            taken[name, task].append(
                (1e3 * (time.process_time() - cpu), 1e3 * (time.perf_counter() - wall))
            )
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for (name, task), times in taken.items():
        cpu_ms, wall_ms = zip(*times, strict=True)
        table.setdefault(name, {})[task] = {
            "cpu_ms": statistics.median(cpu_ms),
            "wall_ms": statistics.median(wall_ms),
            "cpu_ms_rounds": cpu_ms,
            "wall_ms_rounds": wall_ms,
        }
    return table


def ratios(times: dict[str, Any], clock: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Peer -> method of ours -> task -> the peer's time over ours: (median, least, largest) of rounds."""

    def over(theirs: Any, mine: Any) -> tuple[float, float, float]:
        rounds = [a / b for a, b in zip(theirs[f"{clock}_rounds"], mine[f"{clock}_rounds"])]
        return statistics.median(rounds), min(rounds), max(rounds)

    mine = {name: tasks for name, tasks in times.items() if name.startswith("jxrecon/")}
    return {
        peer: {
            name.removeprefix("jxrecon/"): {
                task: over(theirs[task], tasks[task]) for task in tasks if task in theirs
            }
            for name, tasks in mine.items()
        }
        for peer, theirs in times.items()
        if peer not in mine
    }


def differences(field: list[Contender]) -> dict[str, float]:
    """Name -> relative L2 difference of its images from the first contender's."""
    import numpy as np

    images = {entry.name: np.asarray(entry.images(), np.float64) for entry in field}
    first = next(iter(images.values()))
    return {
        name: float(np.linalg.norm(image - first) / np.linalg.norm(first))
        for name, image in images.items()
    }


def copy_bytes_per_s() -> float:
    """Bytes read and written a second when the device copies 1 GiB; the best of ten."""
    import jax
    import jax.numpy as jnp

    block = jnp.zeros(2**28, jnp.float32)
    copy = jax.jit(lambda block: block + 1)
    copy(block).block_until_ready()
    best = math.inf
    for _ in range(10):
        began = time.perf_counter()
        copy(block).block_until_ready()
        best = min(best, time.perf_counter() - began)
    return 2 * block.nbytes / best


def least_bytes(scene: Scene) -> dict[str, int]:
    """What a task must move: the volume once a view (twice with a pose gradient) and its gradient once."""
    forward = scene.mu.nbytes * len(scene.cameras) + scene.weights.nbytes
    return {
        "forward": forward,
        "volume": forward + scene.weights.nbytes + scene.mu.nbytes,
        "pose": 2 * forward,
    }


def probe(contender: Contender) -> dict[str, float]:
    """Task -> MiB of resident memory at its peak beyond what stood before it, its results included."""
    peaks = {}
    for task, run in contender.tasks.items():
        run()
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        before = _resident_mib("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        result = run()
        peaks[task] = _resident_mib("VmHWM") - before
        del result
    return peaks


def _resident_mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"this system does not tell {field}: --memory needs Linux")


def measure_memory(size: str, names: list[str]) -> dict[str, dict[str, float]]:
    """Name -> task -> MiB, each contender probed in a fresh process."""
    # Blocks go back to the system when freed, so that what one call leaves does not hide the next one's.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    peaks = {}
    for name in names:
        command = [sys.executable, __file__, "--sizes", size, "--probe", name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        lines = done.stdout.splitlines()
        if done.returncode or not lines:
            reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            print(f"{name}: no memory figure, {reason[0]}", file=sys.stderr)
            continue
        peaks[name] = json.loads(lines[-1])
    return peaks


def _print_table(title: str, rows: dict[str, dict[str, Any]], form: Callable[[Any], str]) -> None:
    from drr_peers import TASKS

    print(f"\n{title}")
    print(" " * 34 + "".join(f"{task:>20}" for task in TASKS))
    for name, row in rows.items():
        cells = (form(row[task]) if task in row else "-" for task in TASKS)
        print(f"  {name:<32}" + "".join(f"{cell:>20}" for cell in cells), flush=True)


def _bench(size: str, args: argparse.Namespace, peers: list[str], copied: float | None) -> Any:
    """Times one size, prints its tables and returns what goes into the JSON."""
    scene = scene_of(size, args.noise)
    field = [
        entry._replace(tasks={task: run for task, run in entry.tasks.items() if task in args.tasks})
        for entry in contenders(scene, args.methods, peers, args.by_view)
    ]
    clock = "wall_ms" if copied else "cpu_ms"
    report: dict[str, Any] = {}
    if args.check:
        report["difference"] = differences(field)
        print(f"\n{size}: relative L2 difference from {field[0].name}")
        for name, value in report["difference"].items():
            print(f"  {name:<32}{value:10.2e}")
    report["times"] = times = time_rounds(field, args.rounds)
    _print_table(
        f"{size}: {clock.removesuffix('_ms')} time in ms, median of {args.rounds}",
        times,
        lambda cell: f"{cell[clock]:.1f}",
    )
    report["ratios"] = ratios(times, clock)
    if report["ratios"]:
        rows = {
            f"{peer} / {method}": tasks
            for peer, methods in report["ratios"].items()
            for method, tasks in methods.items()
        }
        _print_table(
            f"{size}: the peer's time over ours, median (least to most)",
            rows,
            lambda ratio: "{:.0f}x ({:.0f} to {:.0f})".format(*ratio),
        )
    if copied:
        least = least_bytes(scene)
        report["bytes_per_s"] = {
            name: {task: 1e3 * least[task] / cell[clock] for task, cell in tasks.items()}
            for name, tasks in times.items()
        }
        _print_table(
            f"{size}: bytes a second of the least traffic, in % of a copy's {copied / 1e9:.0f} GB/s",
            report["bytes_per_s"],
            lambda rate: f"{100 * rate / copied:.1f}%",
        )
    return report


def main() -> int:
    """Prints the tables; exit code 2 for a peer that is unknown or cannot be imported."""
    args = _arguments()
    hold_to_one_thread()
    from drr_peers import PEERS, installed

    peers = [name for name in PEERS if installed(name)] if args.peers is None else args.peers
    for name in peers:
        if name not in PEERS or not installed(name):
            reason = "not installed" if name in PEERS else f"not one of {', '.join(PEERS)}"
            print(f"error: peer {name!r} is {reason}", file=sys.stderr)
            return 2
    if args.probe:
        project, _, method = args.probe.partition("/")
        scene = scene_of(args.sizes[0])
        chosen = ([method], []) if project == "jxrecon" else ([], [args.probe])
        for contender in contenders(scene, *chosen):
            print(json.dumps(probe(contender)))
        return 0
    import jax

    device = jax.devices()[0]
    copied = None if jax.default_backend() == "cpu" else copy_bytes_per_s()
    report: dict[str, Any] = {
        "device": device.device_kind,
        "machine": platform.platform(),
        "jax": jax.__version__,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "rounds": args.rounds,
        "copy_bytes_per_s": copied,
        "sizes": {},
    }
    print(f"{device.device_kind}, jax {jax.__version__}, peers: {', '.join(peers) or 'none'}")
    for size in args.sizes:
        report["sizes"][size] = _bench(size, args, peers, copied)
    if args.memory:
        largest = max(
            args.sizes, key=lambda size: (math.prod(SIZES[size][0]), list(SIZES).index(size))
        )
        names = list(report["sizes"][largest]["times"])
        report["memory_mib"] = {largest: measure_memory(largest, names)}
        _print_table(
            f"{largest}: peak extra memory in MiB, results included",
            report["memory_mib"][largest],
            lambda mib: f"{mib:.0f}",
        )
    if args.out:
        from jxrecon.files import write_file

        write_file(args.out, (json.dumps(report, indent=1) + "\n").encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
