"""Tables of experiments/check.md: what the check names, and how far off the poses found are.

    python tools/bench_check.py check --data ../shared/data/openkbp_hn
    python tools/bench_check.py check --data ../shared/data/openkbp_hn --weights lift_hn
    python tools/bench_check.py pose --data ../shared/data/openkbp_hn

X-rays of the validation patients are projected exactly from their whole CTs, 64 x 64 pixels, with
20,000 photons a pixel (seed 0), by cameras that stand right or wrong. About three minutes of one core each.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jxrecon.compile import jit
from jxrecon.data.machine import noisy
from jxrecon.data.scene_xrays import axes_of, xrays_of
from jxrecon.data.scenes import mirrored
from jxrecon.data.volumes import Dataset, Scenes
from jxrecon.files import cache_folder
from jxrecon.geometry import Camera
from jxrecon.inference.geometry import check_for
from jxrecon.likelihood.check import Check, check_of, judge, shadows_of
from jxrecon.likelihood.hypotheses import stances
from jxrecon.likelihood.patients import Patients, patients_of
from jxrecon.likelihood.pose import BELIEVED, move, search_of
from jxrecon.runs import config
from jxrecon.runs.run import open_run

PHOTONS = 2e4
TAKEN = 64, 64
TURNED = {
    "nothing": [0.0] * 5,
    **{f"angle {x:+g}": [x, 0, 0, 0, 0] for x in (-5.0, -2.0, 2.0, 5.0)},
    **{f"tilt {x:+g}": [0, x, 0, 0, 0] for x in (-5.0, -2.0, 2.0, 5.0)},
}
Pair = list[np.ndarray]


class Machine:
    """Takes noisy X-rays of validation patients by one view's camera, wherever it stands."""

    def __init__(self, scenes: Scenes, cameras: Sequence[Camera]) -> None:
        self._scenes, self._cameras = scenes, cameras
        axes = [axes_of([*scenes.affines, *mirrored(scenes.affines)], [c]) for c in cameras]

        def taken(hu: Any, affine: Any, camera: Camera, key: Any, view: int) -> Any:
            return noisy(xrays_of(hu, affine, [camera], axes[view])[0], PHOTONS, key)

        self._take = jit(taken, static_argnums=4)

    def __call__(self, view: int, camera: Camera) -> list[np.ndarray]:
        """One image a patient."""
        affines = self._scenes.affines.astype(np.float32)
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), view), len(affines))
        items = zip(self._scenes.hu, affines, keys)
        return [np.asarray(self._take(np.asarray(h), a, camera, k, view)) for h, a, k in items]


def spoilt() -> dict[str, Callable[[Pair], Pair]]:
    """What is done to right X-rays, and by which name it should be found."""
    return {
        "as given": lambda p: p,
        "frontal and lateral exchanged": lambda p: p[::-1],
        "lateral mirrored left-right": lambda p: [p[0], p[1][:, ::-1]],
        "frontal mirrored left-right": lambda p: [p[0][:, ::-1], p[1]],
        "all X-rays upside down": lambda p: [y[::-1] for y in p],
        "frontal upside down": lambda p: [p[0][::-1], p[1]],
        "lateral upside down": lambda p: [p[0], p[1][::-1]],
        "all X-rays turned by 90 degrees clockwise": lambda p: [np.rot90(y, -1) for y in p],
        "intensities inverted": lambda p: [y.max() - y for y in p],
        "raw intensities, not their logarithm": lambda p: [np.exp(-y) for y in p],
    }


def check_table(data: Dataset, check: Check, cameras: Sequence[Camera]) -> None:
    """Rows: what was done; columns: how often the right name is the likeliest, and how often the check
    doubts."""
    machine = Machine(data.validation.scenes, cameras)
    taken = cache(lambda view, name: machine(view, stances(cameras[view])[name]))
    print(f"margin {check.margin:.0f} nats; {len(check.distances)} training patients")
    print(
        "| done to the X-rays | likeliest | doubted | unlike the training | what else was the likeliest |"
    )
    print("|---|---|---|---|---|")
    right = dict.fromkeys(spoilt(), ("as given", "as given"))
    wrong = [
        n for n in stances(cameras[0]) if n != "as given" and "down" not in n and "right" not in n
    ]
    for name in wrong:
        if name.startswith("shifted"):
            right[f"frontal {name}"] = name, "as given"
            right[f"lateral {name}"] = "as given", name
        else:
            right[name] = name, name
    acts = spoilt()
    for name, (one, other) in right.items():
        pairs = zip(taken(0, one), taken(1, other))
        found = [judge(check, acts.get(name, list)(list(pair))) for pair in pairs]
        first = Counter(f.names[0] for f in found)
        hits = first.pop(name, 0)
        rest = ", ".join(f"{other} {n}" for other, n in first.most_common(3))
        doubted, strange = sum(f.doubted for f in found), sum(f.strange for f in found)
        print(f"| {name} | {hits} | {doubted} | {strange} | {rest} |", flush=True)


def pose_table(data: Dataset, patients: Patients, cameras: Sequence[Camera]) -> None:
    """How far off the poses found are, and how far off they are told to be."""
    machine, search = Machine(data.validation.scenes, cameras), search_of(patients, cameras)
    missed = np.sqrt(np.square(search.missed[0].errors).mean(0))
    print("error of left-out training patients", missed.round(2))
    still = machine(0, cameras[0])
    print("| off by | error, RMS | mean | deviation told | X-ray off before, after |")
    print("|---|---|---|---|---|")
    for name, motion in TURNED.items():
        seen = machine(1, move(cameras[1], np.array(motion)))
        right = machine(1, cameras[1])
        found = [search.refine(list(pair)) for pair in zip(still, seen)]
        errors = np.array([f.motion[0] - motion[:BELIEVED] for f in found])
        deviation = np.mean([f.deviation[0] for f in found], 0).round(1)
        rms, mean = np.sqrt(np.square(errors).mean(0)).round(1), errors.mean(0).round(1)
        apart = [
            np.mean([np.linalg.norm(y - z) / np.linalg.norm(z) for y, z in zip(ys, right)])
            for ys in (seen, [f.images[1] for f in found])
        ]
        told = " | ".join(str(x.tolist()) for x in (rms, mean, deviation))
        print(f"| {name} | {told} | {apart[0]:.3f}, {apart[1]:.3f} |", flush=True)


def main() -> None:
    """Prints one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=("check", "pose"))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", help="the check of these weights that ship, such as lift_hn")
    options = parser.parse_args()
    experiment = config.find("x2vision_hn", "coarse")  # of one field of view with lift_hn
    data = experiment.load(experiment, options.data, cache_folder("data"))
    print(data.rule, f"n = {len(data.validation.names)}", sep="\n")
    cameras = [camera.resized(TAKEN) for camera in experiment.views.cameras]
    if options.table == "check" and options.weights is not None:
        return check_table(data, check_for(open_run(options.weights), cameras, print), cameras)
    patients = patients_of(data.train, experiment.field.grid)
    if options.table == "pose":
        return pose_table(data, patients, cameras)
    return check_table(data, check_of(shadows_of(patients, cameras)), cameras)


if __name__ == "__main__":
    main()
