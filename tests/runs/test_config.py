"""Experiments are found, changed, saved, read back and compared as plain data."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jxrecon.experiment import Experiment, Field, Rival, Schedule, Views
from jxrecon.kinds import VOLUMES
from jxrecon.runs import config
from jxrecon.types import InputError


@dataclass(frozen=True)
class Inner:
    channels: tuple[int, ...] = (8, 16)
    dtype: str = "float32"


@dataclass(frozen=True)
class Settings:
    rate: float = 1e-3
    mixing: bool = True
    inner: Inner = dataclasses.field(default_factory=Inner)
    stop: int | None = None


@pytest.fixture
def experiment() -> Experiment:
    return Experiment(
        name="toy",
        size="tiny",
        kind=VOLUMES,
        field=Field((8, 9, 10), (4.0, 4.0, 5.0)),
        views=Views(pixels=8),
        schedule=Schedule(steps=10, batch_size=2),
        settings=Settings(),
        build=lambda settings, problem: None,
        load=lambda experiment, folder, cache: None,
        rivals={"mean": Rival(lambda problem: None)},
    )


def test_saved_form_is_json_without_functions(experiment: Experiment) -> None:
    saved = config.to_dict(experiment)
    assert json.loads(json.dumps(saved)) == saved
    assert not {"build", "load", "rivals", "kind"} & saved.keys()
    assert saved["field"]["shape"] == [8, 9, 10]
    assert saved["settings"]["inner"]["channels"] == [8, 16]


def test_saved_form_reads_back_equal(experiment: Experiment) -> None:
    changed = config.override(experiment, ["settings.rate=0.5", "field.shape=[4,4,4]"])
    assert changed != experiment
    assert config.from_dict(experiment, json.loads(json.dumps(config.to_dict(changed)))) == changed
    assert changed.build is experiment.build


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("schedule.steps=500", "schedule.steps", 500),
        ("settings.rate=1e-4", "settings.rate", 1e-4),
        ("settings.rate=1", "settings.rate", 1.0),
        ("settings.mixing=false", "settings.mixing", False),
        ("settings.inner.dtype=bfloat16", "settings.inner.dtype", "bfloat16"),
        ("settings.inner.channels=[4,8,16]", "settings.inner.channels", (4, 8, 16)),
        ("field.spacing_mm=[1,2.5,3]", "field.spacing_mm", (1.0, 2.5, 3.0)),
        ("settings.stop=7", "settings.stop", 7),
    ],
)
def test_set_changes_one_field(
    experiment: Experiment, assignment: str, path: str, value: Any
) -> None:
    changed = config.override(experiment, [assignment])
    found = changed
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)
    [line] = config.differences(config.to_dict(experiment), config.to_dict(changed))
    assert line.startswith(f"{path}: ")


def test_later_assignments_win(experiment: Experiment) -> None:
    changed = config.override(experiment, ["schedule.steps=5", "schedule.steps=6"])
    assert changed.schedule.steps == 6


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("schedule.steps", "expected FIELD=VALUE"),
        ("schedule.stepz=3", "no field schedule.stepz, expected one of .*schedule.steps"),
        ("steps=3", "no field steps"),
        ("name.first=3", "no field name.first"),
        ("schedule.steps=many", "schedule.steps: found 'many', expected int such as 10"),
        ("schedule.steps=2.5", "found 2.5, expected int"),
        ("settings.mixing=1", "found 1, expected bool"),
        ("settings.rate=true", "found True, expected float"),
        ("field.shape=8", "found 8, expected a list such as"),
        ("field.shape=[8,8,0.5]", r"shape\[2\]: found 0.5, expected int"),
        ("settings.inner.channels=[]", r"found \[\], expected a list"),
        ("schedule=3", "found 3, expected the fields"),
    ],
)
def test_wrong_assignments_name_field_and_expectation(
    experiment: Experiment, assignment: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        config.override(experiment, [assignment])
    assert "\n" not in str(error.value)


def test_saved_config_of_other_fields_is_refused(experiment: Experiment) -> None:
    saved = config.to_dict(experiment)
    saved["settings"]["momentum"] = 0.9
    with pytest.raises(InputError, match=r"run\.json\.settings: found .*momentum"):
        config.from_dict(experiment, saved, "run.json")


def test_differences_name_every_changed_field(experiment: Experiment) -> None:
    changed = config.override(experiment, ["schedule.steps=5", "settings.inner.channels=[1]"])
    lines = config.differences(config.to_dict(experiment), config.to_dict(changed))
    assert lines == ["schedule.steps: 10 -> 5", "settings.inner.channels: [8, 16] -> [1]"]
    assert config.differences({"a": 1}, {"b": {"c": 2}}) == ["a: 1 -> None", "b: None -> {'c': 2}"]
    assert config.differences(config.to_dict(experiment), config.to_dict(experiment)) == []


def test_field_is_centred_in_the_world(experiment: Experiment) -> None:
    assert experiment.field.grid.shape == (8, 9, 10)
    assert experiment.field.grid.centre_mm == pytest.approx([0, 0, 0])
    assert experiment.field.window.range == 3024.0


def test_two_views_look_along_two_axes() -> None:
    cameras = Views(pixels=16, count=2).cameras
    directions = [camera.centre - camera.source for camera in cameras]
    assert abs(float(directions[0] @ directions[1])) < 1e-2 * 1500**2
    assert all(camera.shape == (16, 16) for camera in cameras)


def test_own_file_is_an_experiment(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def get_config(size):\n    return ('mine', size)\n")
    assert config.find(str(path), "large") == ("mine", "large")
    with pytest.raises(InputError, match=r"gone\.py: no such file"):
        config.find(str(tmp_path / "gone.py"))


def test_unknown_experiment_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="no such experiment, expected one of") as error:
        config.find("nothing_like_it")
    assert all(name in str(error.value) for name in config.names())


def test_an_experiment_file_that_fails_is_one_line(tmp_path):
    path = tmp_path / "old.py"
    path.write_text("\ndef get_config(size):\n    return Experiment(name='old')\n")
    with pytest.raises(
        InputError, match=r"old\.py, line 3: NameError: name 'Experiment'"
    ) as refusal:
        config.find(str(path))
    assert "\n" not in str(refusal.value)


def test_a_run_of_an_earlier_version_gets_the_defaults_of_newer_fields(
    experiment: Experiment,
) -> None:
    saved = config.to_dict(config.override(experiment, ["settings.rate=0.5"]))
    del saved["settings"]["inner"]["dtype"], saved["settings"]["mixing"]
    read = config.from_dict(experiment, config.completed(experiment, saved))
    assert read.settings == Settings(rate=0.5)
    del saved["schedule"]["steps"]  # has no default
    with pytest.raises(InputError, match="expected the fields"):
        config.from_dict(experiment, config.completed(experiment, saved))
