"""Tables of experiments/check.md: what the check names, and what finding the second view's pose wins back.

    python tools/bench_check.py check --data ../shared/data/openkbp_hn
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
import jax.numpy as jnp
import numpy as np

from jxrecon.compile import jit
from jxrecon.data.scene_xrays import axes_of, noisy, xrays_of
from jxrecon.data.scenes import mirrored
from jxrecon.data.volumes import Dataset, Scenes
from jxrecon.files import cache_folder
from jxrecon.geometry import Camera
from jxrecon.likelihood.check import check_of, judge, shadows_of
from jxrecon.likelihood.hypotheses import stances
from jxrecon.likelihood.patients import Patients, averaged, patients_of
from jxrecon.likelihood.pose import move, search_of
from jxrecon.methods.base import linear_posterior
from jxrecon.runs import config

PHOTONS = 2e4
TAKEN = 64, 64
EVERY = 2
"""Voxels along each axis of which one is reconstructed: dB of every eighth voxel, in less time."""
TURNED = {
    "angle +5": [5.0, 0, 0, 0, 0],
    "tilt +5": [0, 5.0, 0, 0, 0],
    "nothing": [0.0] * 5,
    "angle -5": [-5.0, 0, 0, 0, 0],
    "tilt -5": [0, -5.0, 0, 0, 0],
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


def check_table(data: Dataset, patients: Patients, cameras: Sequence[Camera]) -> None:
    """Rows: what was done; columns: how often the right name is the likeliest, and how often the check
    doubts."""
    shadows = shadows_of(patients, cameras)
    check = check_of(shadows)
    machine = Machine(data.validation.scenes, cameras)
    taken = cache(lambda view, name: machine(view, stances(cameras[view])[name]))
    print(f"margin {check.margin:.0f} nats; {shadows.patients} training patients")
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


class Prior:
    """The linear prior from X-rays averaged to 32 x 32 pixels, for any cameras."""

    def __init__(self, data: Dataset, patients: Patients, told: Sequence[Camera]) -> None:
        hu = data.train.hu[:, ::EVERY, ::EVERY, ::EVERY]
        self._hu, self._patients, self._told = jnp.asarray(hu), patients, told
        self._first = patients.xrays(told[0])
        sigma = jit(lambda hu, y: linear_posterior.fit(hu, y).sigma)(
            self._hu, self._columns(told[1])
        )
        self._sigma = sigma

    def _columns(self, camera: Camera) -> jax.Array:
        second = self._patients.xrays(camera, near=self._told[1])
        both = np.stack([self._first, second], 1).reshape(len(second), -1)
        return jnp.asarray(both.T, jnp.float32)

    def for_(self, camera: Camera) -> Callable[[Pair], np.ndarray]:
        """X-rays -> the MAP in HU, with this camera as the second."""
        basis, weights = _fitted(self._columns(camera), self._sigma)

        def reconstruct(images: Pair) -> np.ndarray:
            y = jnp.asarray(np.concatenate([averaged(y).ravel() for y in images]), jnp.float32)
            return np.asarray(_volume(self._hu, weights.of(basis.coordinates(y))))

        return reconstruct


@jit
def _fitted(columns: jax.Array, sigma: jax.Array) -> tuple[Any, Any]:
    basis = linear_posterior.basis_of(columns, sigma)
    everybody = jnp.ones(columns.shape[1], jnp.float32)
    return basis, linear_posterior.weights_of(basis, everybody)


_volume = jit(linear_posterior.volume_of)


def pose_table(data: Dataset, patients: Patients, cameras: Sequence[Camera]) -> None:
    """dB of the linear prior with the second view's pose as told, found and true; error of the pose
    found."""
    machine, search = Machine(data.validation.scenes, cameras), search_of(patients, cameras)
    print(
        "error of left-out training patients", np.sqrt(np.square(search.errors[0]).mean(0)).round(2)
    )
    prior = Prior(data, patients, cameras)
    truths = data.validation.hu[:, ::EVERY, ::EVERY, ::EVERY]
    told, still = prior.for_(cameras[1]), machine(0, cameras[0])
    print(
        "| off by | dB as told | refined | true pose | won back | error RMS: angle, tilt | deviation |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, motion in TURNED.items():
        stood = move(cameras[1], np.array(motion))
        true = prior.for_(stood)
        decibels, errors, deviations = [], [], []
        for pair, truth in zip(zip(still, machine(1, stood)), truths):
            images = list(pair)
            found = search.refine(images)
            three = told, prior.for_(found.cameras[1]), true
            decibels.append([psnr(one(images), truth) for one in three])
            errors.append(found.motion[0] - motion)
            deviations.append(found.deviation[0])
        a, b, c = np.mean(decibels, 0)
        off = np.sqrt(np.mean(np.square(errors), 0)).round(1)
        deviation = np.mean(deviations, 0).round(1)
        won = f"{(b - a) / (c - a):.0%}" if motion[0] or motion[1] else "-"
        print(
            f"| {name} | {a:.2f} | {b:.2f} | {c:.2f} | {won} | {off.tolist()} | {deviation.tolist()} |",
            flush=True,
        )


def psnr(hu: np.ndarray, truth: np.ndarray) -> float:
    """In [-1024, 2000] HU, peak 3024."""
    a, b = (np.clip(x.astype(np.float32), -1024, 2000) for x in (hu, truth))
    return float(20 * np.log10(3024) - 10 * np.log10(np.mean(np.square(a - b))))


def main() -> None:
    """Prints one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", choices=("check", "pose"))
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    experiment = config.find("lift_hn", "full")
    data = experiment.load(experiment, options.data, cache_folder("data"))
    print(data.rule, f"n = {len(data.validation.names)}", sep="\n")
    patients = patients_of(data.train, experiment.field.grid)
    table = check_table if options.table == "check" else pose_table
    table(data, patients, [camera.resized(TAKEN) for camera in experiment.views.cameras])


if __name__ == "__main__":
    main()
