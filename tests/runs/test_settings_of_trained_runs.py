"""What of a trained run may still be set: what acts on reconstruction alone; and settings that came later."""

import json
from types import SimpleNamespace

import pytest

from jxrecon.experiment import MACHINES, Machine
from jxrecon.runs import config
from jxrecon.runs.run import continues, open_run, start
from jxrecon.types import InputError

TOY = """
from dataclasses import dataclass, field

from jxrecon.experiment import Experiment, Field, Schedule, Views
from jxrecon.kinds import VOLUMES
from jxrecon.methods.base.method import Method, no_step, no_terms


@dataclass(frozen=True)
class Latent:
    pose: bool = False
    iterations: int = 10


@dataclass(frozen=True)
class Settings:
    width: int = 4
    latent: Latent = field(default_factory=Latent)


def build(settings, problem):
    def reconstruct(*arguments):
        return settings

    return Method(lambda key: (), no_step, no_terms, reconstruct, free=("settings.latent",))


def get_config(size=None):
    box, views = Field((4, 4, 4), (20.0, 20.0, 20.0)), Views(pixels=8)
    return Experiment(name="toy", size="tiny", field=box, views=views, schedule=Schedule(1, 1),
                      settings=Settings(), build=build, kind=VOLUMES)
"""


@pytest.fixture
def folder(tmp_path):
    """The folder of a run of the toy, which is not trained."""
    (tmp_path / "toy.py").write_text(TOY)
    experiment = config.find(str(tmp_path / "toy.py"))
    dataset = SimpleNamespace(train=SimpleNamespace(names=("a",)), rule="Nothing.", synthetic=True)
    start(tmp_path / "run", experiment, str(tmp_path / "toy.py"), None, dataset)
    return tmp_path / "run"


def opened(folder, *assignments):
    return open_run(folder, [folder.parent / "toy.py"], assignments)


def test_settings_of_reconstruction_are_set_when_a_run_is_opened(folder):
    assert opened(folder).method.reconstruct().latent.pose is False
    run = opened(folder, "settings.latent.pose=true", "settings.latent.iterations=3")
    assert run.experiment.settings.latent.pose is True
    assert run.method.reconstruct().latent.iterations == 3
    assert run.assignments == ("settings.latent.pose=true", "settings.latent.iterations=3")


@pytest.mark.parametrize("assignment", ["settings.width=8", "settings.latents.pose=true", "x=1"])
def test_what_training_has_fixed_is_refused(folder, assignment):
    with pytest.raises(InputError, match=r"was trained already, .*: settings\.latent\.\*"):
        opened(folder, assignment)


def test_a_run_of_before_a_setting_opens_and_continues_with_its_default(folder):
    path = folder / "config.json"
    saved = json.loads(path.read_text())
    del saved["experiment"]["xrays"]["machine"], saved["experiment"]["settings"]["latent"]["pose"]
    path.write_text(json.dumps(saved))
    run = opened(folder)
    assert run.experiment.xrays.machine == Machine()
    assert run.experiment.settings.latent.pose is False
    assert continues(folder, run.experiment, None)
    other = config.override(run.experiment, ["xrays.machine.kvp=80"])
    with pytest.raises(InputError, match=r"xrays\.machine\.kvp: 0\.0 -> 80"):
        continues(folder, other, None)


def test_machines_have_names_and_take_xrays_of_volumes():
    volumes, livers = config.find("x2ct_hn", "tiny"), config.find("igcn_liver")
    assert config.machine("ideal", volumes) == Machine()
    assert config.machine("room", volumes) == MACHINES["room"]
    with pytest.raises(InputError, match="--machine rom: expected one of ideal, room"):
        config.machine("rom", volumes)
    with pytest.raises(InputError, match="--machine room: igcn_liver finds organs' surfaces"):
        config.machine("room", livers)
