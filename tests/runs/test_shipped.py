"""Weights that come with the package: whole, of this version, and read as they were written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jxrecon.runs import shipped
from jxrecon.runs.run import data_of, open_run, restore
from jxrecon.types import InputError

CONFIG = {"exp": "lift_hn", "cases": 3}


def state() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "kernel": rng.normal(size=(3, 3, 40, 2)).astype(np.float32),
        "steps": rng.integers(-127, 127, (5, 70)).astype(np.int8),
        "unit": rng.uniform(1e-7, 1e-6, 5).astype(np.float32),
    }


def test_weights_come_back_with_16_bits_where_they_are_many(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    shipped.write(path, state(), CONFIG, 7)
    shipped.write(tmp_path / "other.safetensors", state(), CONFIG, 8)
    assert shipped.read_config(path) == (CONFIG, 7)
    read, step = shipped.read(path, state())
    assert step == 7
    np.testing.assert_allclose(read["kernel"], state()["kernel"], rtol=1e-3, atol=1e-6)
    assert read["kernel"].dtype == np.float32
    np.testing.assert_array_equal(read["steps"], state()["steps"])
    np.testing.assert_array_equal(read["unit"], state()["unit"])
    assert path.stat().st_size < 3000


def test_a_changed_file_and_another_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    shipped.write(path, state(), CONFIG, 7)
    with pytest.raises(InputError, match=r"kernel'\] is \(3, 3, 40, 2\), expected \(3, 3, 40, 4\)"):
        shipped.read(path, {**state(), "kernel": np.zeros((3, 3, 40, 4), np.float32)})
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="not the file that SHA256SUMS names"):
        shipped.read_config(path)


def test_numbers_beyond_16_bits_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected what 16 bits hold"):
        shipped.write(tmp_path / "a.safetensors", {"a": np.full(1000, 1e6, np.float32)}, CONFIG, 1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", shipped.names())
def test_every_file_of_the_package_opens_and_has_its_card(name: str) -> None:
    run = open_run(name)
    found, step = restore(run)
    assert step > 0
    assert sum(leaf.size for leaf in jax.tree.leaves(found)) > 1e6
    card = (shipped.FOLDER / f"{name}.md").read_text()
    for word in ("Licence", "Patients", "Seed", "Must not be used"):
        assert word in card


def test_what_ships_of_patients_is_found_by_the_rule_of_runs_and_is_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    shipped.write(tmp_path / "some.safetensors", state(), {**CONFIG, "rule": "CT of a set"}, 7)
    path = tmp_path / "patients_some.safetensors"
    shipped.write(path, {"steps": state()["steps"]}, {"rule": "CT of a set"}, 0)
    assert shipped.names() == ["some"]
    assert shipped.patients_of("CT of a set") == path
    assert shipped.patients_of("CT of another set") is None
    [(name, steps)] = shipped.contents(path)[0].items()
    assert name == "['steps']"
    np.testing.assert_array_equal(steps, state()["steps"])


def test_all_weights_together_are_small() -> None:
    paths = list(shipped.FOLDER.glob("*.safetensors"))
    assert {"lift_hn", "lift_hn_single"} <= set(shipped.names())
    assert sum(path.stat().st_size for path in paths) < 25e6


def test_what_needs_the_training_patients_says_that_they_do_not_ship() -> None:
    with pytest.raises(InputError, match="lift_hn: the weights ship without the patients"):
        data_of(open_run("lift_hn"))


def test_shipped_weights_are_read_without_loading_what_reads_checkpoints() -> None:
    code = (
        "import sys; from jxrecon.runs.run import open_run, restore; "
        "restore(open_run('lift_hn_single')); assert 'orbax.checkpoint' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
