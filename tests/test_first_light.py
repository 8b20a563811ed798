"""X2Vision from the command line on a toy field: killed, and to the end."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jxrecon.runs.run import open_run, restore

pytestmark = pytest.mark.slow

EXPERIMENT = '''
"""X2Vision so small that only its compilation takes time; SYNTHETIC data."""
import jax
from jxrecon.experiment import Experiment, Field, Population, Schedule, Views
from jxrecon.data import volumes
from jxrecon.kinds import VOLUMES
from jxrecon.methods.volumes.x2vision.latent import LatentSettings
from jxrecon.methods.volumes.x2vision.method import Settings, build
from jxrecon.methods.volumes.x2vision.prior import PriorSettings
from jxrecon.rivals import volume_rivals


def get_config(size=None):
    prior = PriorSettings(
        base=(4, 4, 4), channels=(8, 6), w_dim=6, mapping_layers=2, warm_start_steps=2, r1_every=2
    )
    return Experiment(
        name="tiny",
        size="tiny",
        field=Field((8, 8, 8), (28.0, 30.0, 25.0)),
        views=Views(pixels=16),
        schedule=Schedule(steps=8, batch_size=4, log_every=1, evaluate_every=4, save_every=2),
        population=Population(train=16, validation=3),
        settings=Settings(prior, LatentSettings(iterations=10, starts=2), eval_iterations=2),
        build=build,
        load=volumes.load,
        kind=VOLUMES,
        rivals=volume_rivals(),
    )
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first_light")
    (folder / "tiny.py").write_text(EXPERIMENT)
    return folder


def _environment(folder):
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
    }


def _command(folder, run, *flags):
    experiment = str(folder / "tiny.py")
    return [
        sys.executable,
        "-m",
        "jxrecon.train",
        "--exp",
        experiment,
        "--workdir",
        str(run),
        *flags,
    ]


@pytest.fixture(scope="module")
def whole(folder):
    """The run that nothing disturbed, evaluation included."""
    run = folder / "whole"
    subprocess.run(_command(folder, run), env=_environment(folder), check=True)
    return run


def _log(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_command_ends_with_volumes_tables_and_a_report(whole):
    assert len(list((whole / "recon" / "tiny" / "2 views").glob("*.nii.gz"))) == 3
    summary = json.loads((whole / "summary.json").read_text())
    methods = ["mean volume", "nearest volume", "linear prior", "tiny"]
    assert [result["method"] for result in summary["results"]] == methods
    page = (whole / "report.html").read_text()
    assert "SYNTHETIC" in page.upper()
    assert 'src="http' not in page


def test_a_killed_run_resumes_to_the_same_bits(folder, whole):
    run = folder / "killed"
    flags = ("--no-evaluate",)
    process = subprocess.Popen(_command(folder, run, *flags), env=_environment(folder))
    try:
        while not any((run / "checkpoints").glob("4*")) and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finally:
        process.wait()
    subprocess.run(_command(folder, run, *flags), env=_environment(folder), check=True)
    (one, step), (other, same) = (
        restore(open_run(r, trust=[folder / "tiny.py"])) for r in (whole, run)
    )
    assert step == same == 8
    leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
    assert len(leaves) == len(others)
    for a, b in zip(leaves, others):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert _log(whole) == _log(run)
