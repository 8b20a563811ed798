"""The loop: it resumes in the same bits, stops when told to, and refuses what it should."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from coordinated import coordinated

from jxrecon import train
from jxrecon.data.volumes import VolumeSet
from jxrecon.evaluate import command as evaluate
from jxrecon.files import locked
from jxrecon.reconstruct import command as reconstruct
from jxrecon.runs import batches, loop
from jxrecon.runs.run import Run, open_run, restore
from jxrecon.types import InputError

TOY = '''"""A linear layer that learns noise: the smallest thing with state, randomness and an optimiser."""

from dataclasses import dataclass
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jxrecon.experiment import Experiment, Field, Schedule, Views
from jxrecon.data.volumes import VolumeSet
from jxrecon.files import locked
from jxrecon.evaluate import command as evaluate
from jxrecon.reconstruct import command as reconstruct
from jxrecon.kinds import VOLUMES
from jxrecon.methods.base.method import Method


@dataclass(frozen=True)
class Settings:
    rate: float = 0.01
    nan_at: int = -1
    nan_in_state_at: int = -1


def build(settings, problem):
    optimiser = optax.sgd(settings.rate, momentum=0.9)
    voxels = int(np.prod(problem.grid.shape))

    def init(key):
        params = {"kernel": jax.random.normal(key, (voxels, 64)) * 0.01}
        return {"params": params, "momentum": optimiser.init(params), "count": jnp.int32(0)}

    def error(params, batch, noise):
        seen = problem.window.to_unit(batch.hu).reshape(batch.hu.shape[0], voxels)
        return jnp.mean((seen @ params["kernel"] - noise) ** 2)

    def train_step(state, batch, key):
        noise = jax.random.normal(key, (1, 64))
        loss, slope = jax.value_and_grad(error)(state["params"], batch, noise)
        updates, momentum = optimiser.update(slope, state["momentum"])
        params = optax.apply_updates(state["params"], updates)
        count = state["count"] + 1
        kernel = jnp.where(count == settings.nan_in_state_at, jnp.nan, params["kernel"])
        loss = jnp.where(count == settings.nan_at, jnp.nan, loss)
        terms = {"loss": loss, "norm": jnp.linalg.norm(state["params"]["kernel"])}
        return {"params": {"kernel": kernel}, "momentum": momentum, "count": count}, terms

    def eval_step(state, batch, key):
        noise = jax.random.normal(key, (1, 64))
        return {"psnr_db": -10 * jnp.log10(error(state["params"], batch, noise))}

    return Method(init, train_step, eval_step, reconstruct=None)


def load(experiment, folder, cache):
    def volumes(count, seed):
        hu = np.random.default_rng(seed).integers(-1000, 1000, (count, *experiment.field.shape))
        names = tuple(f"toy{i:02d}" for i in range(count))
        return VolumeSet(names, hu.astype(np.int16), hu > 0, np.stack([np.eye(4)] * count))

    train = volumes(experiment.population.train, 0)
    rule = "Made-up numbers."
    return SimpleNamespace(train=train, validation=volumes(5, 1), rule=rule, synthetic=True)


def get_config(size):
    return Experiment(
        name="toy",
        size=size or "tiny",
        field=Field((8, 8, 8), (4.0, 4.0, 4.0)),
        views=Views(pixels=8),
        schedule=Schedule(steps=10, batch_size=8, log_every=2, evaluate_every=5, save_every=5),
        settings=Settings(),
        build=build,
        load=load,
        kind=VOLUMES,
    )
'''


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("experiment") / "toy.py"
    path.write_text(TOY)
    return path


def run_toy(toy: Path, folder: Path, *arguments: str) -> int:
    return train.command(["--exp", str(toy), "--workdir", str(folder), "--no-evaluate", *arguments])


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def opened(folder: Path) -> Run:
    """A run of the test's own experiment."""
    return open_run(folder, trust=[json.loads((folder / "config.json").read_text())["exp"]])


def assert_same_run(a: Path, b: Path) -> None:
    """The same state in the same bits, and the same log."""
    (state_a, step_a), (state_b, step_b) = restore(opened(a)), restore(opened(b))
    assert step_a == step_b
    jax.tree.map(np.testing.assert_array_equal, state_a, state_b)
    assert (a / "metrics.jsonl").read_text() == (b / "metrics.jsonl").read_text()


@pytest.fixture(scope="module")
def finished(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of 10 steps with checkpoints at 5 and 10."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert run_toy(toy, folder) == 0
    return folder


def test_run_folder_tells_what_was_run(finished: Path, toy: Path) -> None:
    saved = json.loads((finished / "config.json").read_text())
    assert saved["experiment"]["schedule"]["steps"] == 10
    assert saved["exp"] == str(toy)
    assert saved["data"] is None
    assert saved["cases"] == 256
    assert saved["synthetic"] is True
    assert {"python", "jax", "jaxlib", "jxrecon"} <= saved["versions"].keys()
    assert "cpu" in saved["hardware"].lower()
    assert list((finished / "tensorboard").iterdir())


def test_terms_are_logged_every_so_many_steps(finished: Path) -> None:
    steps = {split: [line["step"] for line in logged(finished) if line["split"] == split]
             for split in ("train", "validation")}  # fmt: skip
    assert steps == {"train": [1, 2, 4, 6, 8, 10], "validation": [5, 10]}
    assert all(math.isfinite(line["loss"]) for line in logged(finished) if line["split"] == "train")


def test_stop_and_resume_equals_an_uninterrupted_run(
    finished: Path, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "resumed"
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "checkpoints" / "10")
    assert run_toy(toy, folder) == 0
    assert "at step 5 of 10" in capsys.readouterr().out
    assert_same_run(folder, finished)


def test_damaged_checkpoint_costs_steps_but_not_the_run(
    finished: Path, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(finished, folder)
    files = [p for p in (folder / "checkpoints" / "10").rglob("*") if p.is_file()]
    largest = max(files, key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    assert run_toy(toy, folder) == 0
    assert "step 10" in capsys.readouterr().err
    assert_same_run(folder, finished)


def test_finished_run_is_left_as_it_is(finished: Path, toy: Path) -> None:
    before = (finished / "metrics.jsonl").read_text()
    assert run_toy(toy, finished) == 0
    assert (finished / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_saves_the_step_in_hand(
    number: signal.Signals, code: int, finished: Path, toy: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder, batch_at = tmp_path / "signalled", loop.batch_at

    def signalling(volumes: Any, step: int, batch_size: int, seed: int) -> Any:
        if step == 7:
            os.kill(os.getpid(), number)
        return batch_at(volumes, step, batch_size, seed)

    monkeypatch.setattr(loop, "batch_at", signalling)
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert run_toy(toy, folder) == code
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    told = capsys.readouterr().out
    step = restore(opened(folder))[1]
    assert step in range(4, 9)  # batches are made ahead of the step
    assert f"{number.name}: step {step} is saved" in told
    assert f"resume with: jxrecon train --exp {toy} --workdir {folder}" in told
    monkeypatch.undo()
    assert run_toy(toy, folder) == 0
    assert_same_run(folder, finished)


def test_a_second_training_in_a_folder_is_refused_at_once(
    finished: Path, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(finished, "training"):
        assert run_toy(toy, finished) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {finished}: another training is under way there")
    assert error.count("\n") == 1


def test_a_folder_that_vanishes_ends_the_training(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, batch_at = tmp_path / "run", loop.batch_at

    def removing(volumes: Any, step: int, batch_size: int, seed: int) -> Any:
        if step == 7:
            folder.rename(tmp_path / "moved")
        return batch_at(volumes, step, batch_size, seed)

    monkeypatch.setattr(loop, "batch_at", removing)
    assert run_toy(toy, folder) == 2
    assert re.search(r"^error: .*(removed or replaced|not be written)", capsys.readouterr().err)
    # a save that was under way may have made its folder anew, no more
    assert {path.name for path in folder.glob("*")} <= {"checkpoints"}
    assert {path.name for path in tmp_path.iterdir()} <= {"moved", "run"}


def test_kill_in_mid_run_loses_no_more_than_the_unsaved_steps(toy: Path, tmp_path: Path) -> None:
    longer = [
        f"--set=schedule.{field}" for field in ("steps=150", "save_every=15", "evaluate_every=150")
    ]
    folder, whole = tmp_path / "killed", tmp_path / "whole"
    command = ["-m", "jxrecon.train", "--exp", str(toy), "--workdir", str(folder), "--no-evaluate"]
    with subprocess.Popen(
        [sys.executable, *command, *longer], stdout=subprocess.DEVNULL
    ) as process:
        until = time.monotonic() + 60
        while not (folder / "checkpoints" / "30").exists():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert 30 <= restore(opened(folder))[1] < 150
    assert run_toy(toy, folder, *longer) == 0
    assert run_toy(toy, whole, *longer) == 0
    assert_same_run(folder, whole)


@pytest.mark.slow
def test_kills_at_random_change_no_bit(toy: Path, tmp_path: Path) -> None:
    """SIGKILLs of one training, in steps, saves and while it resumes (JXRECON_KILLS: how many)."""
    random, count = np.random.default_rng(0), int(os.environ.get("JXRECON_KILLS", "12"))
    longer = [
        f"--set=schedule.{field}" for field in ("steps=100000", "save_every=3", "log_every=1")
    ]
    folder, whole = tmp_path / "killed", tmp_path / "whole"

    def steps_logged() -> int:
        return (folder / "metrics.jsonl").read_bytes().count(b"\n")

    for _ in range(count):
        with begin(toy, folder, *longer) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("first step"):
                    break
            else:
                pytest.fail(f"ended with {process.wait()}")
            enough = steps_logged() + random.integers(12)
            while steps_logged() < enough:  # so many whatever else the machine does
                assert process.poll() is None
                time.sleep(0.001)
            time.sleep(random.uniform(0.0, 0.02))
            process.kill()
    saved = [int(p.name) for p in (folder / "checkpoints").iterdir() if p.name.isdigit()]
    done = max(saved, default=0)
    longer[0] = f"--set=schedule.steps={done + 10}"
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"steps": 100000', f'"steps": {done + 10}'))
    assert run_toy(toy, folder, *longer) == 0
    assert run_toy(toy, whole, *longer) == 0
    assert_same_run(folder, whole)


FITTED = """def build(settings, problem):
    def train_step(state, batch, key):
        seen = state["seen"].at[batch.index].add(1)
        terms = {"loss": jnp.sum(seen).astype(jnp.float32), "pixel": jnp.mean(batch.images[0])}
        return {**state, "seen": seen}, terms

    def finish(state, batch):
        return {**state, "finished": state["finished"] + batch.index, "pixel": jnp.mean(batch.images[0])}

    def fit(state, all):
        return {**state, "fit": jnp.mean(all.hu.astype(jnp.float32)) + jnp.mean(all.images[1])}

    return Method(
        lambda key: {"fit": jnp.zeros(()), "seen": jnp.zeros(256, jnp.int32),
                     "finished": jnp.zeros(3, jnp.int32), "pixel": jnp.zeros(())},
        train_step, lambda state, batch, key: {"psnr_db": jnp.mean(batch.images[0])}, None,
        fit=fit, kept_out=3, finish=finish)
"""


def test_a_method_is_fitted_first_and_finished_last_on_cases_that_no_step_sees(
    toy: Path, tmp_path: Path
) -> None:
    text = toy.read_text()
    start, end = text.index("def build"), text.index("def load")
    exp = tmp_path / "fitted.py"
    exp.write_text(text[:start] + FITTED + text[end:])
    whole = tmp_path / "whole"
    assert run_toy(exp, whole, "--set", "schedule.steps=40") == 0
    state, _ = restore(opened(whole))
    np.testing.assert_array_equal(state["finished"], [42, 128, 213])
    assert (np.asarray(state["seen"])[[42, 128, 213]] == 0).all()
    assert (np.asarray(state["seen"]) > 0).sum() == 253
    assert float(state["fit"]) != 0.0
    assert float(state["pixel"]) > 0.0


WARMED = """def build(settings, problem):
    def step(name, state, batch, key):
        return {**state, name: state[name] + 1}, {"loss": jnp.mean(batch.images[0])}

    def whole(state, batch, key):
        assert settings.nan_at != 0, "compiled"
        return step("later", state, batch, key)

    return Method(
        lambda key: {"earlier": jnp.zeros((), jnp.int32), "later": jnp.zeros((), jnp.int32)},
        whole, lambda state, batch, key: {"psnr_db": jnp.mean(batch.images[0])}, None,
        warm_up=(6, lambda state, batch, key: step("earlier", state, batch, key)))
"""


def test_a_warm_up_has_a_program_of_its_own_and_the_whole_one_is_compiled_when_it_is_over(
    toy: Path, tmp_path: Path
) -> None:
    text = toy.read_text()
    exp = tmp_path / "warmed.py"
    exp.write_text(text[: text.index("def build")] + WARMED + text[text.index("def load") :])
    folder = tmp_path / "whole"
    assert run_toy(exp, folder) == 0
    assert {name: int(n) for name, n in restore(opened(folder))[0].items()} == {
        "earlier": 6,
        "later": 4,
    }
    shutil.rmtree(folder / "checkpoints" / "10")
    assert run_toy(exp, folder) == 0  # from step 5
    assert int(restore(opened(folder))[0]["later"]) == 4
    over = ("--set", "schedule.steps=6", "--set", "settings.nan_at=0")
    assert run_toy(exp, tmp_path / "short", *over) == 0


def test_nan_term_stops_and_keeps_the_last_good_step(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "nan"
    assert run_toy(toy, folder, "--set", "settings.nan_at=7") == 1
    line = capsys.readouterr().err
    assert line.count("error:") == 1
    assert "step 7: loss is nan on the cases" in line
    empty = np.zeros((256, 1, 1, 1), np.int16)
    volumes = VolumeSet(("",) * 256, empty, empty > 0, np.zeros((256, 4, 4)))
    index = batches.batch_at(volumes, 6, 8, 0).index
    assert f"on the cases {index[0]} (toy{index[0]:02d}), " in line
    assert "last good checkpoint: step 5" in line
    assert restore(opened(folder))[1] == 5
    assert max(entry["step"] for entry in logged(folder)) == 6


def test_nan_in_the_state_is_not_saved(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "nan"
    assert run_toy(toy, folder, "--set", "settings.nan_in_state_at=10") == 1
    assert "step 10: params/kernel holds NaN on the cases" in capsys.readouterr().err
    assert restore(opened(folder))[1] == 5


def test_best_checkpoint_is_kept(toy: Path, tmp_path: Path) -> None:
    """The toy learns noise, so the first evaluation after a step or two is the best of many."""
    folder = tmp_path / "best"
    each = ["--set=schedule.evaluate_every=1", "--set=schedule.steps=12", "--set=settings.rate=0.1"]
    assert run_toy(toy, folder, *each) == 0
    rated = {
        line["step"]: line["psnr_db"] for line in logged(folder) if line["split"] == "validation"
    }
    best = max(rated, key=lambda step: (rated[step], -step))
    assert best < 10
    assert restore(opened(folder), "best")[1] == best


def test_a_grown_run_begins_with_the_weights_of_the_other_and_counts_anew(
    finished: Path, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = ["--grow", str(finished), "--set", "settings.rate=0", "--set", "schedule.steps=1"]
    assert run_toy(toy, tmp_path / "grown", *still) == 0
    old, _ = restore(open_run(finished, [toy]))
    new, step = restore(open_run(tmp_path / "grown", [toy]))
    assert "65536 of 65537 numbers kept" in capsys.readouterr().out
    assert step == new["count"] == 1
    np.testing.assert_array_equal(new["params"]["kernel"], old["params"]["kernel"])
    assert run_toy(toy, tmp_path / "grown", *still[2:]) == 2  # another run: not grown
    assert "grow: " in capsys.readouterr().err
    smaller = ["--grow", str(finished), "--set", "field.shape=[4,4,4]"]
    assert run_toy(toy, tmp_path / "other", *smaller) == 2
    assert "no array of toy tiny has name and shape" in capsys.readouterr().err
    assert not (tmp_path / "other" / "config.json").exists()


def test_run_of_another_config_is_refused(
    finished: Path, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(finished.rglob("*"))
    arguments = ["--exp", str(toy), "--workdir", str(finished), "--set", "settings.rate=0.5"]
    assert train.command(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        f"error: {finished} holds another run (experiment.settings.rate: 0.01 -> 0.5)"
    )
    assert "--workdir" in error
    assert error.count("\n") == 1
    assert sorted(finished.rglob("*")) == before


def test_evaluation_follows_training(
    finished: Path, toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Stopped(Exception):
        """There is no more to see."""

    def noting(trained: Any, dataset: Any) -> None:
        seen.append((trained.run, trained.state, dataset))
        raise Stopped

    monkeypatch.setattr("jxrecon.evaluation.compare.evaluate_run", noting)
    with pytest.raises(Stopped):
        train.command(["--exp", str(toy), "--workdir", str(finished)])
    [(run, state, dataset)] = seen
    assert run.folder == finished
    assert int(state["count"]) == 10
    assert dataset.rule == "Made-up numbers."


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--exp", "nothing_like_it"], "--exp nothing_like_it: no such experiment"),
        (["--set", "schedule.stepps=3"], "--set schedule.stepps=3: no field schedule.stepps"),
        (["--data", "no/such/folder"], "--data no/such/folder: no such folder"),
        (["--model-axis", "7"], "--model-axis 7: expected a divisor"),
    ],
)
def test_wrong_arguments_end_in_one_line(
    arguments: list[str], line: str, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    default = ["--exp", str(toy), "--workdir", str(tmp_path / "run"), "--no-evaluate"]
    assert train.command([*default, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {line}")
    assert error.count("\n") == 1


def test_a_run_folder_runs_no_code_of_its_own(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = json.loads((finished / "config.json").read_text())
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    for exp in (str(tmp_path / "evil.py"), "../evil", "evil.py", "x2ct_hn.py", "os"):
        (tmp_path / "config.json").write_text(json.dumps({**saved, "exp": exp}))
        xray = ["--xray", "x.png", "--out", str(tmp_path / "out")]
        assert evaluate(["--run", str(tmp_path)]) == 2
        assert reconstruct(["--run", str(tmp_path), *xray]) == 2
        assert capsys.readouterr().err.count("\n") == 2
    with pytest.raises(InputError, match="give --trust FILE if you know that file"):
        open_run(finished, trust=[tmp_path / "other.py"])
    assert not (tmp_path / "ran").exists()


def test_damaged_run_folder_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json, expected the folder of a run"):
        open_run(tmp_path)
    trust = [json.loads((finished / "config.json").read_text())["exp"]]
    text = (finished / "config.json").read_text()
    for damaged, message in {
        text[: len(text) // 2]: "cannot be read as JSON",
        text.replace('"cases": 256', '"cases": "many"'): "no proper 'cases'",
        text.replace('"rate"', '"race"'): "expected the fields",
        text.replace('"cases": 256', '"cases": -1'): "no proper 'cases'",
        text.replace('"exp": "', '"exp": "\\u0000'): "no proper 'exp'",
        text.replace('"rate": 0.01', '"rate": NaN'): "expected a finite number",
        text.replace('"rate": 0.01', f'"rate": {10**400}'): "expected a finite number",
        text.replace('"rate": 0.01', '"rate": ' + "[" * 500 + "]" * 500): "levels deep",
        text.replace('"rate": 0.01', '"rate": ' + "[" * 9**6): "levels deep",
        text.replace('"size": "tiny"', '"size": {}'): "experiment.size is {}",
        text.replace('"pixels": 8', '"pixels": -8'): "views.pixels is -8, expected 1 to",
        re.sub(r'"shape": \[\s+8,', '"shape": [', text): "field.shape is (8, 8), expected three",
        text.replace('"detector_mm": 384.0', '"detector_mm": 0'): "views.detector_mm is 0.0",
    }.items():
        (tmp_path / "config.json").write_text(damaged)
        with pytest.raises(InputError, match=re.escape(message)) as error:
            open_run(tmp_path, trust)
        assert len(str(error.value)) < 600


def assert_close_runs(a: Path, b: Path) -> None:
    """The same log and, from checkpoints of any topology, the same state to 1e-5."""
    for ours, theirs in zip(logged(a), logged(b), strict=True):
        assert ours.pop("split") == theirs.pop("split")
        assert ours == pytest.approx(theirs, rel=1e-5)
    (state_a, step_a), (state_b, step_b) = restore(opened(a)), restore(opened(b))
    assert step_a == step_b
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), state_a, state_b)


def begin(toy: Path, folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The toy in a process of its own."""
    command = ["-m", "jxrecon.train", "--exp", str(toy), "--workdir", str(folder), "--no-evaluate"]
    return subprocess.Popen(
        [sys.executable, *command, *arguments],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def devices(count: int) -> str:
    return f"--xla_force_host_platform_device_count={count} --xla_backend_optimization_level=1"


def test_eight_devices_give_the_loss_of_one(finished: Path, toy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "eight"
    with begin(toy, folder, "--model-axis", "2", XLA_FLAGS=devices(8)) as process:
        told = process.communicate(timeout=120)[0]
    assert process.returncode == 0, told
    assert_close_runs(folder, finished)


@pytest.mark.slow
def test_two_processes_give_the_loss_of_one(finished: Path, toy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "two"
    arguments = ["--distributed", "--model-axis", "2"]
    processes = [
        begin(toy, folder, *arguments, **own, XLA_FLAGS=devices(2)) for own in coordinated(2)
    ]
    told = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert_close_runs(folder, finished)
