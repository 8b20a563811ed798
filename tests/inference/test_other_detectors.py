"""Every method that reconstructs takes X-rays of another detector than it was trained with."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxrecon.geometry import camera_at
from jxrecon.inference import volumes
from jxrecon.io import radiographs
from jxrecon.io.nifti import read_volume
from jxrecon.reconstruct import command
from jxrecon.runs import config
from jxrecon.runs.run import start

EXPERIMENTS = ("x2ct_hn", "x2ct_hn_single", "cnn2d", "henzler", "lift_hn", "lift_hn_single")


def xrays(folder: Path) -> list[str]:
    """A frontal and a lateral one on 90 x 100 pixels of 5 mm, from another distance."""
    words = []
    for angle in (0.0, 90.0):
        camera = camera_at(
            angle, shape=(90, 100), pixel_mm=5.0, source_axis_mm=900.0, source_detector_mm=1400.0
        )
        image = np.full((90, 100), 1.5, np.float32)
        image[30:60, 40:70] = 3.0
        path = folder / f"x_{angle:.0f}.npz"
        radiographs.write(path, radiographs.Radiograph(image, camera, "x", np.zeros(3)))
        words += ["--xray", str(path)]
    return words


def run_of(name: str, folder: Path) -> Any:
    experiment = config.find(name, None if name.startswith("lift") else "tiny")
    dataset = SimpleNamespace(
        train=SimpleNamespace(names=("a", "b", "c", "d")), rule="None.", synthetic=True
    )
    return start(folder, experiment, name, None, dataset)


def traced(function: Any, **arguments: Any) -> Any:
    """`jit` that computes shapes alone: what does not trace fails all the same."""

    def call(*values: Any) -> Any:
        shapes = jax.eval_shape(function, *values)
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    return call


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_run_takes_x_rays_of_another_detector(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(name, tmp_path / "run")
    state = jax.eval_shape(run.method.init, jax.random.key(0))
    monkeypatch.setattr(volumes, "restore", lambda run, which: (state, 0))
    monkeypatch.setattr(volumes, "jit", traced)
    out = tmp_path / "out"
    arguments = ["--run", str(tmp_path / "run"), *xrays(tmp_path), "--out", str(out)]
    assert command(arguments) in (0, 3)  # of nothing, which explains no X-ray
    hu, _ = read_volume(out / "x_recon.nii.gz")
    assert hu.shape == run.problem.grid.shape
