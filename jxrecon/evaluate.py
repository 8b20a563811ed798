"""Evaluation of a run: every case by every method, as volumes, tables and a report.

    python -m jxrecon.evaluate --run DIR [--split validation] [--limit N] [--also fdk tv]

The X-rays are line integrals of the true volume, without noise and by the projector that the methods
use themselves: an easier problem than a hospital's, and said so wherever the numbers stand. What is
done is kept: killed and started again, it goes on with the case where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon import config
from jxrecon.cli import cache_folder, entry
from jxrecon.compile import jit
from jxrecon.data.nifti import write_volume
from jxrecon.drr import beam, project
from jxrecon.geometry import Camera
from jxrecon.logs import CaseBar
from jxrecon.methods.base import Method, Problem
from jxrecon.metrics.volume import case_metrics, reprojection_error
from jxrecon.report import write_report
from jxrecon.results import CaseTable, print_summary, replace_text, summarise
from jxrecon.run import Run, open_run, restore
from jxrecon.types import InputError, PyTree

SPLITS = ("train", "validation")


class Contender(NamedTuple):
    """A method that takes part.

    Attributes:
        name: as in the tables.
        fit: () -> (method, state): trained, or fitted when first asked.
        fingerprint: of all that its reconstructions depend on.
        folder: where its volumes are written; None for nowhere.
    """

    name: str
    fit: Callable[[], tuple[Method, PyTree]]
    fingerprint: str
    folder: Path | None


def evaluate(
    run: Run,
    state: PyTree,
    dataset: Any,
    split: str = "validation",
    out: Path | None = None,
    limit: int | None = None,
    step: int | None = None,
    all_volumes: bool = False,
    beside: Sequence[Run] = (),
) -> None:
    """Reconstructs every case by the baselines and the run's method; writes recon/, tables, report.

    Args:
        run: whose method and problem.
        state: of the run's method.
        dataset: what `experiment.load` gave; baselines are fitted on `dataset.train` in one step.
        split: "train" or "validation".
        out: folder of the results; None is the run folder.
        limit: only the first so many cases.
        step: of the checkpoint; None is the last of the schedule.
        all_volumes: write the baselines' volumes too, to recon/<method>/.
        beside: other runs on the same data that take part; of surfaces.

    Raises:
        InputError: there is no such split, it is empty, or the results cannot be written.
    """
    if run.experiment.kind:
        run.experiment.kind.evaluate(run, state, dataset, split, out, limit, step, beside)
        return
    if beside:
        raise InputError(
            f"--beside: {run.experiment.name} finds volumes, expected a run of surfaces"
        )
    if split not in SPLITS:
        raise InputError(f"--split {split}: expected one of {', '.join(SPLITS)}")
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: expected at least 1 case")
    volumes = getattr(dataset, split)
    names = volumes.names[:limit]
    if not names:
        raise InputError(f"--split {split}: no volumes in {run.data or 'the built-in data'}")
    out = run.folder if out is None else out
    contenders = _contenders(run, state, dataset, out / "recon", all_volumes)
    try:
        out.mkdir(parents=True, exist_ok=True)
        fingerprints = {c.name: c.fingerprint for c in contenders}
        with CaseTable(out / "cases.csv", fingerprints) as table, CaseBar(len(names)) as bar:
            for contender in contenders:
                _run_cases(run, contender, volumes, split, names, table, bar)
            rows = [table.rows[c.name, split, name] for c in contenders for name in names]
        step = run.experiment.schedule.steps if step is None else step
        summary = summarise(run, rows, split, step)
        replace_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")
        write_report(run, state, volumes, rows, summary, out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written to ({error.strerror or error})") from error
    print_summary(summary)
    print(f"report: {out / 'report.html'}")


def _contenders(
    run: Run, state: PyTree, dataset: Any, recon: Path, all_volumes: bool
) -> list[Contender]:
    """The baselines in the experiment's order, then the run's own method."""
    data = zlib.crc32(json.dumps(config.to_dict(run.experiment.field)).encode())
    data = zlib.crc32(json.dumps(config.to_dict(run.experiment.views)).encode(), data)
    for volumes in (dataset.train, dataset.validation):
        data = zlib.crc32(json.dumps(volumes.names).encode(), data)
        for array in (volumes.hu, volumes.body, volumes.affines):
            data = zlib.crc32(np.ascontiguousarray(array).tobytes(), data)
    mine = digest(run, state, data)

    def baseline(build: Callable[[Problem], Method]) -> Callable[[], tuple[Method, PyTree]]:
        return lambda: fitted(build(run.problem), dataset.train)

    baselines = [
        Contender(name, baseline(build), f"{data:08x}", recon / name if all_volumes else None)
        for name, build in run.experiment.baselines.items()
    ]
    own = Contender(run.experiment.name, lambda: (run.method, state), f"{mine:08x}", recon)
    return [*baselines, own]


def digest(run: Run, state: PyTree, data: int) -> int:
    """A number of the run's settings and weights, and of the data's own number."""
    mine = zlib.crc32(json.dumps(config.to_dict(run.experiment.settings)).encode(), data)
    for leaf in jax.tree.leaves(state):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        mine = zlib.crc32(np.asarray(leaf).tobytes(), mine)
    return mine


def fitted(method: Any, cases: Any) -> tuple[Any, PyTree]:
    """A baseline after its one step on the whole training set."""
    batch = jax.tree.map(jnp.asarray, cases.batch(np.arange(len(cases.names), dtype=np.int32)))
    key = jax.random.key(0)
    return method, jit(method.train_step)(method.init(key), batch, key)[0]


def _run_cases(
    run: Run,
    contender: Contender,
    volumes: Any,
    split: str,
    names: tuple[str, ...],
    table: CaseTable,
    bar: CaseBar,
) -> None:
    """Reconstructs the cases of one method that are not done yet."""

    def volume(case: str) -> Path | None:
        return None if contender.folder is None else contender.folder / f"{case}.nii.gz"

    def done(case: str) -> bool:
        path = volume(case)
        return (contender.name, split, case) in table.rows and (path is None or path.exists())

    missing = [i for i, name in enumerate(names) if not done(name)]
    bar.begin(contender.name, len(names) - len(missing))
    if not missing:
        return
    method, state = contender.fit()
    problem, key = run.problem, jax.random.key(run.experiment.schedule.seed)
    unseen = _unseen_camera(problem.cameras)

    @jit
    def xrays(hu: Float[Array, "x y z"]) -> list[Float[Array, "rows columns"]]:
        mu = beam.hu_to_mu(hu)
        return list(project(mu, problem.grid.affine, (*problem.cameras, unseen)))

    @jit
    def errors(hu: Float[Array, "x y z"], images: Any, other: Any) -> dict[str, Float[Array, ""]]:
        return {
            "reprojection_error": reprojection_error(hu, images, problem.cameras, problem.grid),
            "reprojection_unseen": reprojection_error(hu, [other], [unseen], problem.grid),
        }

    reconstruct: Any = jit(
        lambda state, images, key: method.reconstruct(state, images, problem.cameras, key).hu
    )
    for count, i in enumerate(missing):
        truth = np.asarray(volumes.hu[i], np.float32)
        *images, other = xrays(truth)
        arguments = (state, tuple(images), jax.random.fold_in(key, i))
        if count == 0:
            reconstruct = reconstruct.lower(*arguments).compile()
        began = time.perf_counter()
        hu = jax.block_until_ready(reconstruct(*arguments))
        seconds = time.perf_counter() - began
        recon = np.rint(np.asarray(hu, np.float32))  # as in the file: the metrics are of that
        metrics = {
            **case_metrics(truth, recon, volumes.body[i], problem.window),
            **{name: float(value) for name, value in errors(recon, images, other).items()},
            "seconds": seconds,
        }
        if path := volume(names[i]):
            write_volume(path, recon, volumes.affines[i])
        table.add(contender.name, split, names[i], metrics)
        bar.advance()


def with_optional(run: Run, names: list[str]) -> Run:
    """The run with these of the experiment's optional baselines beside the others.

    Raises:
        InputError: the experiment has no such one.
    """
    optional = run.experiment.optional
    for name in names:
        if name not in optional:
            known = ", ".join(optional) or "none in this experiment"
            raise InputError(f"--also {name}: expected one of {known}")
    baselines = {**run.experiment.baselines, **{name: optional[name] for name in names}}
    return run._replace(experiment=dataclasses.replace(run.experiment, baselines=baselines))


def _unseen_camera(cameras: tuple[Camera, ...]) -> Camera:
    """The first camera turned half-way to the second of evenly spaced views: 45 degrees for two."""
    angle = np.pi / (2 * len(cameras))
    c, s = np.cos(angle), np.sin(angle)
    rotation = jnp.asarray([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], jnp.float32)
    return cameras[0].moved(rotation, jnp.zeros(3, jnp.float32))


def main(argv: list[str] | None = None) -> int:
    """Evaluates a checkpoint of a run.

    Raises:
        InputError: an argument, the run or its data is not as it should be.
    """
    parser = argparse.ArgumentParser(
        prog="python -m jxrecon.evaluate",
        description="Evaluates a trained run beside its baselines: volumes, tables and a report.",
    )
    add = parser.add_argument
    add("--run", type=Path, required=True, metavar="DIR", help="folder of a trained run")
    add("--data", type=Path, metavar="DIR", help="folder of CT volumes; default: the run's own")
    add("--split", default="validation", choices=SPLITS, help="which cases; default validation")
    add("--limit", type=int, metavar="N", help="only the first N cases")
    add("--checkpoint", default="latest", choices=("latest", "best"), help="default latest")
    add("--out", type=Path, metavar="DIR", help="folder of the results; default: the run folder")
    add("--all", action="store_true", help="write the baselines' volumes too")
    add("--also", nargs="+", default=[], metavar="NAME", help="more baselines, as fdk and tv")
    add("--beside", nargs="+", type=Path, default=[], metavar="RUN", help="other runs on the same "
        "data that take part; of surfaces")  # fmt: skip
    args = parser.parse_args(argv)
    run = with_optional(open_run(args.run), args.also)
    if args.data is not None and not args.data.is_dir():
        raise InputError(f"--data {args.data}: no such folder")
    state, step = restore(run, args.checkpoint)
    cache = cache_folder()
    folder = args.data or run.data
    dataset = run.experiment.load(run.experiment, folder, cache / "data" if cache else None)
    run = run._replace(data=folder, rule=dataset.rule, synthetic=dataset.synthetic)
    beside = [open_run(folder) for folder in args.beside]
    evaluate(run, state, dataset, args.split, args.out, args.limit, step, args.all, beside)
    return 0


if __name__ == "__main__":
    raise SystemExit(entry(main))
