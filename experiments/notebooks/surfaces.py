# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # An organ's surface from one X-ray
#
# A patient's liver is known from an earlier CT. Then the patient breathes in, and one X-ray is taken:
# where is the liver now? IGCN moves every vertex of the known surface by what the image shows at the
# place where it is projected.
#
# The livers here are SYNTHETIC and few, the pictures small and the training is short, so that a CPU
# is through in half a minute: a **toy**. With `REAL = True` it is the experiment as it stands (ten
# minutes on two cores), whose numbers are in `experiments/surfaces.md`. An accelerator is used by
# itself where there is one. In Colab: clone the repository and run `%pip install -e .` in its folder
# first.

# %%
REAL = False
DATA = None  # a folder that `jxrecon prepare meshes SRC DATA` wrote; None: SYNTHETIC livers
RUN = "igcn_run"

TOY = [
    "views.pixels=48",
    "population.train=5",
    "population.validation=1",
    "population.states=4",
    "population.spacing_mm=6.0",
    "settings.width=4",
    "settings.decay_steps=60",
    "schedule.steps=60",
    "schedule.batch_size=4",
    "schedule.evaluate_every=60",
    "schedule.save_every=60",
]

# %% [markdown]
# ## A breath
# The liver at the end of exhalation, and when the X-ray is taken. It moves with the diaphragm
# (Lujan's model: a form measured on one 4D-CT, a range from the literature), and with it the chest CT
# that it was put into, which ships with the package (LIDC-IDRI, CC BY 3.0).

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import jxrecon
from jxrecon.files import cache_folder
from jxrecon.mesh import Mesh
from jxrecon.report.outlines import overlay_figure
from jxrecon.runs import config

settings = [] if REAL else TOY
experiment = config.override(config.find("igcn_liver", "small"), settings)
data = experiment.load(experiment, None if DATA is None else Path(DATA), cache_folder("data"))
print(data.rule)
camera = experiment.views.cameras[0]
cases = data.validation
moved = np.linalg.norm(cases.target - cases.reference, axis=-1).mean(-1)
case = int(np.argmax(moved))
print(f"case {cases.names[case]}: moved by {moved[case]:.1f} mm on average")
overlay_figure(
    cases.image[case],
    camera,
    data.template,
    {"reference": cases.reference[case], "truth": cases.target[case]},
)
plt.show()

# %% [markdown]
# ## Train
# From a shell: `jxrecon train --exp igcn_liver`. The loss is the paper's: position, mapping and
# Laplacian, weighed
# 1, 10 and 1.

# %%
from jxrecon.train import command as train

arguments = ["--exp", "igcn_liver", "--size", "small", "--workdir", RUN, "--no-evaluate"]
arguments += [] if DATA is None else ["--data", DATA]
arguments += [word for one in settings for word in ("--set", one)]
assert train(arguments) == 0

# %% [markdown]
# ## Find it
# Livers and breaths that training never saw, each from one X-ray.

# %%
run = jxrecon.open_run(RUN)
found = [
    jxrecon.reconstruct(run, [image], [camera], mesh=Mesh(reference, data.template.faces))
    for image, reference in zip(cases.image, cases.reference)
]
error = np.array(
    [np.linalg.norm(f.vertices - t, axis=1).mean() for f, t in zip(found, cases.target)]
)
print("case        moved  IGCN off by (mm, mean over vertices)")
for name, before, after in zip(cases.names, moved, error):
    print(f"{name:<20}{before:5.1f}  {after:5.1f}")
print(f"mean: zero motion {moved.mean():.2f} mm, IGCN {error.mean():.2f} mm")
overlay_figure(
    cases.image[case],
    camera,
    data.template,
    {"reference": cases.reference[case], "truth": cases.target[case], "IGCN": found[case].vertices},
)
plt.show()
assert error.mean() < moved.mean()

# %% [markdown]
# ## Your own organ
# A mesh of one's own has other vertices than the run's template: it is fitted by the template first.
# Here a liver with four times as many faces stands for it, written as STL and read back as any file
# would be. From a shell: `jxrecon reconstruct --run RUN --xray XRAY.png --mesh OWN.stl --out out`.
# For a folder of meshes of *another* organ to train on: `jxrecon prepare meshes SRC OUT`, which fits
# one template to all of them.

# %%
import trimesh

finer = trimesh.Trimesh(cases.reference[case], data.template.faces, process=False).subdivide()
jxrecon.write_mesh(Path("own.stl"), Mesh(np.asarray(finer.vertices), np.asarray(finer.faces)))
own = jxrecon.read_mesh(Path("own.stl"))
print(f"own mesh: {len(own.vertices)} vertices, the template: {len(data.template.vertices)}")
answer = jxrecon.reconstruct(run, [cases.image[case]], [camera], mesh=own)
print(
    f"fitted to {answer.facts['template_fitted_mm']} mm; moved by {answer.moved_mm.mean():.1f} mm on average"
)
paths = answer.write(Path("."), "moved", formats=("ply", "stl"))
print(*paths)
assert len(answer.mesh.vertices) == len(data.template.vertices)
assert answer.vertices[:, 2].mean() < answer.reference[:, 2].mean()  # inhaled: towards the feet
