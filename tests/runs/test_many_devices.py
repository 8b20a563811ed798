"""Eight virtual devices, or two processes, train as one device does; and what they send each other."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
METHODS = {
    "x2vision_hn": (
        "small",
        "field.shape=[8,8,8]",
        "field.spacing_mm=[28.0,30.0,25.0]",
        "settings.prior.base=[4,4,4]",
        "settings.prior.channels=[8,6]",
        "settings.prior.w_dim=6",
        "settings.prior.mapping_layers=2",
        "settings.prior.warm_start_steps=1",
        "settings.eval_iterations=2",
    ),
    "lift_hn": (
        "tiny",
        "field.shape=[8,8,8]",
        "field.spacing_mm=[28.0,30.0,25.0]",
        "settings.widths=[4,6]",
        "settings.calibration=1",
    ),
    "x2ct_hn": (
        "tiny",
        "field.shape=[16,16,16]",
        "field.spacing_mm=[14.0,15.0,12.5]",
        "settings.width=0.1",
        "settings.discriminator=[16,32]",
    ),
}
"""Experiments, so small that only their compilation takes time; SYNTHETIC data."""
SHORT = (
    "views.pixels=16",
    "population.train=16",
    "population.validation=2",
    "schedule.batch_size=8",
    "schedule.steps=2",
    "schedule.log_every=1",
)
TRAIN_AND_COUNT = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import jax
from step_costs import Step
from jxrecon import train
for name, size, assignments, folder in json.loads(sys.argv[2]):
    flags = [word for assignment in assignments for word in ("--set", assignment)]
    start = ["--exp", name, "--size", size, "--workdir", folder, "--no-evaluate"]
    if code := train.command([*start, *flags, *sys.argv[3:]]):
        raise SystemExit(code)
    with Step(name, size, assignments, int(sys.argv[-1])) as step:
        found = step.costs() | step.compiled()
    if jax.process_index() == 0:
        Path(folder, "costs.json").write_text(json.dumps(found))
"""


def begin(
    folder: Path, names: list[str], devices: int, *flags: str, **more: str
) -> subprocess.Popen:
    """A process that trains these experiments, each in a folder of its name, and writes its costs there."""
    runs = [
        (name, METHODS[name][0], [*METHODS[name][1:], *SHORT], str(folder / name)) for name in names
    ]
    flags_of_xla = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN_AND_COUNT, str(REPOSITORY / "tools"), json.dumps(runs), *flags],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{flags_of_xla} --xla_backend_optimization_level=0",
            **more,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def finished(*processes: subprocess.Popen) -> None:
    told = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), told


def costs_of(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / name / "costs.json").read_text())


def terms_of(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    finished(begin(folder, list(METHODS), 1, "--model-axis", "1"))
    return folder


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eight")
    finished(begin(folder, list(METHODS), 8, "--model-axis", "1"))
    return folder


def assert_same_terms(one: Path, other: Path, name: str) -> None:
    for ours, theirs in zip(terms_of(other, name), terms_of(one, name), strict=True):
        assert ours.pop("split") == theirs.pop("split")
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("name", METHODS)
def test_eight_devices_give_the_losses_of_one(one: Path, eight: Path, name: str) -> None:
    assert_same_terms(one, eight, name)


@pytest.mark.parametrize("name", METHODS)
def test_eight_devices_send_each_other_gradients_alone(eight: Path, name: str) -> None:
    sent = costs_of(eight, name)["collectives"]
    print(name, sent)
    assert {one["kind"] for one in sent} == {"all-reduce"}


def test_two_processes_that_split_the_state_give_the_losses_of_one(
    one: Path, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    flags = "--distributed", "--model-axis", "2"
    finished(
        *(begin(tmp_path, ["lift_hn"], 2, *flags, **shared, JAX_PROCESS_ID=str(i)) for i in (0, 1))
    )
    assert_same_terms(one, tmp_path, "lift_hn")
    found = costs_of(tmp_path, "lift_hn")
    print(found)
    gathered = [one["bytes"] for one in found["collectives"] if one["kind"] == "all-gather"]
    assert found["state_gb_a_device"] < 0.6 * found["state_gb"]
    assert set(gathered) <= set(found["split_bytes"])
