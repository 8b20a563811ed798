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
# # Train X2Vision on Colab's TPU
#
# A 3-D StyleGAN2 learns what CT looks like; a patient's CT is then found among what it can draw. This
# notebook trains on all devices that JAX finds, from a folder of CT or of a Google Drive, goes on
# after Colab has stopped the session, draws samples and reconstructs a subject from two X-rays.
#
# As it stands it is a **toy**: sixteen SYNTHETIC subjects, voxels of 25 mm, a few steps, so that it
# runs on two CPU cores in two minutes and shows nothing but that every part works. `REAL = True`
# trains the size `medium` (80 x 96 x 112 voxels); **nothing was measured on a TPU yet**, neither
# speed nor results.

# %% [markdown]
# ## Install
# Only on Colab, with *Runtime, Change runtime type* set to a TPU. Elsewhere this cell does nothing.
# jax is upgraded where Colab's is older than `pyproject.toml` allows; then restart the session and
# begin again.

# %%
import subprocess
import sys

if "google.colab" in sys.modules:
    SOURCE = "https://github.com/OWNER/jxrecon"  # where your clone comes from
    subprocess.run(["git", "clone", "--depth", "1", SOURCE], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "./jxrecon[tpu]"], check=True)

# %% [markdown]
# ## Settings

# %%
REAL = False  # True: size medium, for a TPU or GPU
DATA = None  # a folder with train/*_ct.nii.gz and validation/*_ct.nii.gz; None: SYNTHETIC subjects
RUN = "x2vision_run"  # on Drive, as /content/drive/MyDrive/x2vision_run, it outlives the session
MODEL_AXIS = 1  # devices that share one copy of the state, where it does not fit on one

TOY = [
    "field.shape=[10,12,14]",
    "field.spacing_mm=[22.4,20.0,14.4]",
    "views.pixels=16",
    "population.train=16",
    "population.validation=2",
    "xrays.of=field",  # X-rays of the whole patient make this cell's compilation twice as long
    "settings.prior.channels=[16,8]",
    "settings.prior.w_dim=16",
    "settings.prior.dtype=float32",
    "settings.prior.warm_start_steps=40",
    "settings.latent.iterations=30",
    "settings.latent.starts=1",
    "schedule.steps=40",
    "schedule.batch_size=4",
    "schedule.log_every=4",
    "schedule.evaluate_every=40",
    "schedule.save_every=20",
]
settings = [] if REAL else [word for one in TOY for word in ("--set", one)]
size = "medium" if REAL else "small"

if "google.colab" in sys.modules and RUN.startswith("/content/drive"):
    from google.colab import drive

    drive.mount("/content/drive")

# %% [markdown]
# ## The devices
# The batch is spread over the axis `data` of this mesh, so the batch size has to be a multiple of it.
# Without an accelerator the mesh is one CPU.

# %%
import jax

from jxrecon.runs.sharding import make_mesh

mesh = make_mesh(MODEL_AXIS)
print(f"jax {jax.__version__} on {jax.device_count()} x {jax.devices()[0].device_kind}")
print("mesh:", dict(mesh.shape))
if jax.default_backend() == "cpu":
    print("no accelerator: size medium would take weeks here")

# %% [markdown]
# ## Train
# The same command begins a run and goes on with it. From a shell it is `jxrecon train --exp
# x2vision_hn
# --size medium --data DIR --workdir RUN`; here it runs in this process, which holds the TPU.

# %%
from jxrecon.train import command as train

arguments = ["--exp", "x2vision_hn", "--size", size, "--workdir", RUN, "--no-evaluate", *settings]
arguments += ["--model-axis", str(MODEL_AXIS)]
arguments += [] if DATA is None else ["--data", DATA]
assert train(arguments) == 0

# %% [markdown]
# ## What was learnt
# The generator begins at the straight axes along which the training subjects differ (principal
# components), and learns to bend them: so the error of its projections is small from the first step
# on. How near does it come to subjects that training never saw? `encoded`: with the code that suits
# each best, the prior's limit. `guessed`: with the code that its encoder reads from the X-rays, where
# an optimisation may start.

# %%
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

log = [json.loads(line) for line in (Path(RUN) / "metrics.jsonl").read_text().splitlines()]
steps = [entry for entry in log if entry["split"] == "train"]
figure, axes = plt.subplots(figsize=(6, 2.6))
axes.plot([entry["step"] for entry in steps], [entry["L_projection"] for entry in steps])
axes.set(xlabel="step", ylabel="L_projection")
plt.show()
held_out = next(entry for entry in reversed(log) if entry["split"] == "validation")
for name in ("encoded", "guessed"):
    print(f"{name}: {held_out[f'psnr_{name}_db']:.1f} dB")
assert held_out["psnr_encoded_db"] > held_out["psnr_guessed_db"]

# %% [markdown]
# ## When Colab stops the session
# Every `schedule.save_every` steps the whole state is written with its checksum. Here the last
# checkpoint is lost, as if the session had died before it; the same command goes on from the one
# before and, on a CPU, ends in the same bits.

# %%
import shutil

import jxrecon
from jxrecon.runs.run import restore

if not REAL:
    first, last = restore(jxrecon.open_run(RUN))
    shutil.rmtree(Path(RUN) / "checkpoints" / str(last))
    assert restore(jxrecon.open_run(RUN))[1] < last
    assert train(arguments) == 0
    again, step = restore(jxrecon.open_run(RUN))
    same = jax.tree.map(lambda a, b: bool((np.asarray(a) == np.asarray(b)).all()), first, again)
    print(
        f"step {step} again; all {len(jax.tree.leaves(same))} arrays equal: {all(jax.tree.leaves(same))}"
    )
    assert step == last
    if jax.default_backend() == "cpu":
        assert all(jax.tree.leaves(same))

# %% [markdown]
# ## Samples
# What the prior takes for a head and neck.

# %%
run = jxrecon.open_run(RUN)
state, _ = restore(run)
samples = np.asarray(run.method.sample(state, jax.random.key(0), 4))
figure, axes = plt.subplots(1, 4, figsize=(9, 3))
for axis, hu in zip(axes, samples):
    picture = hu[
        ::-1, hu.shape[1] // 2
    ].T  # the middle coronal plane, the patient's right on the left
    spacing = run.problem.grid.spacing_mm
    axis.imshow(
        picture, cmap="gray", vmin=-1000, vmax=1000, origin="lower", aspect=spacing[2] / spacing[0]
    )
    axis.axis("off")
plt.show()
window = run.problem.window
assert samples.min() >= window.low and samples.max() <= window.high
assert np.abs(samples[0] - samples[1]).mean() > 1  # HU: they are not all one volume

# %% [markdown]
# ## A reconstruction
# Two X-rays of a subject that training never saw. Latents are optimised until the volume's
# projections are the X-rays.

# %%
if not REAL and DATA is None:
    from jxrecon import drr, phantom

    grid = run.problem.grid
    truth = np.asarray(phantom.population(grid, 0, 1000, 1)[0], np.float32)
    images = [
        np.asarray(drr.line_integrals(drr.hu_to_mu(truth), grid.affine, c))
        for c in run.problem.cameras
    ]
    found = jxrecon.reconstruct(run, images, run.problem.cameras)
    mean = samples.mean(0)
    error, guess = (np.sqrt(np.mean((hu - truth) ** 2)) for hu in (found.hu, mean))
    print(f"root mean square error {error:.0f} HU, of the mean of four samples {guess:.0f} HU")
    print("re-projection error |Ax - y| / |y|:", *(f"{e:.3f}" for e in found.errors))
    assert error < guess
