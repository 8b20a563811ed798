"""SYNTHETIC balls in scenes, a method that counts how often it is asked, and who takes part: for tests."""

import jax
import jax.numpy as jnp
import numpy as np

from jxrecon.data.volumes import Dataset, Scenes, VolumeSet
from jxrecon.evaluation.contenders import choose
from jxrecon.evaluation.perturbations import conditions_of
from jxrecon.evaluation.robustness import Party, nominal
from jxrecon.evaluation.setting import Terms, make_setting
from jxrecon.experiment import Experiment, Field, Rival, Schedule, Views
from jxrecon.geometry import centred_grid
from jxrecon.kinds import VOLUMES
from jxrecon.methods.base.method import Method, Reconstruction, no_step, no_terms
from jxrecon.methods.volumes.linear_prior import linear_prior
from jxrecon.methods.volumes.mean_volume import mean_volume

FIELD = Field((8, 9, 10), (20.0, 20.0, 20.0))
AROUND = centred_grid((14, 14, 16), (20.0, 20.0, 20.0))
CALLS = []


def counted(problem):
    """The mean of the X-rays as a volume; notes how often it is asked, and by which cameras."""

    def reconstruct(state, images, cameras, key, progress=None):
        jax.debug.callback(lambda: CALLS.append(float(cameras[-1].source[0])))
        return Reconstruction(jnp.full(problem.grid.shape, 100.0 * jnp.mean(images[0])), {})

    return Method(lambda key: (), no_step, no_terms, reconstruct)


EXPERIMENT = Experiment(
    name="toy",
    size="tiny",
    field=FIELD,
    views=Views(pixels=12),
    schedule=Schedule(steps=30, batch_size=2),
    settings=None,
    kind=VOLUMES,
    rivals={
        "mean volume": Rival(mean_volume),
        "linear prior": Rival(linear_prior),
        "counted": Rival(counted, slow=True),
    },
)


def volume_set(count, seed):
    """SYNTHETIC balls of varying size and place around bone, in scenes with a block beside the field."""
    rng = np.random.default_rng(seed)
    volumes = []
    for size, shift in zip(rng.uniform(50, 75, count), rng.uniform(-15, 15, (count, 3))):
        places = np.stack(np.meshgrid(*(np.arange(n) for n in AROUND.shape), indexing="ij"), -1)
        centre = (np.array(AROUND.shape) - 1) / 2
        radius = np.linalg.norm((places - centre) * 20.0 - shift, axis=-1)
        hu = np.clip(60 - 40 * (radius - size), -1000, 60)
        hu = np.where(radius < size / 2, 700, hu)
        hu[:2] = 40
        volumes.append(hu.astype(np.int16))
    scenes = np.stack(volumes)
    cut = tuple(slice((a - n) // 2, (a - n) // 2 + n) for a, n in zip(AROUND.shape, (8, 8, 10)))
    hu = np.full((count, *FIELD.shape), -1000, np.int16)
    hu[:, :, :8] = scenes[(slice(None), *cut)]
    names = tuple(f"case_{seed}_{i}" for i in range(count))
    affines = np.stack([FIELD.grid.affine] * count)
    around = Scenes(scenes, np.stack([AROUND.affine] * count), 0.5)
    return VolumeSet(names, hu, hu > -500, affines, around)


DATASET = Dataset(volume_set(6, 0), volume_set(3, 1), "Balls of tissue in air.", True)
SETTING = make_setting(EXPERIMENT, DATASET, Terms(counts=(2,)))


def party(methods=("linear prior", "counted"), **terms):
    setting = make_setting(EXPERIMENT, DATASET, Terms(counts=(2,), **terms))
    return Party(setting, choose(setting, methods))


def condition(name, value):
    return next(
        c for c in conditions_of(nominal(SETTING)) if (c.perturbation, c.value) == (name, value)
    )
