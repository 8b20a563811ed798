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
# # Two X-rays of your own to a CT
#
# Say where the camera stood, check that the X-rays are what you think, reconstruct, see how far the
# result can be trusted, and open it in a viewer. By `lift_hn`, the weights that ship, for **head and
# neck**.
#
# As it stands the X-rays are of a SYNTHETIC subject, so that the truth is known; with files in
# `XRAYS` they are yours. In Colab: clone the repository and run `%pip install -e .` in its folder
# first. No accelerator is needed: a CPU takes half a minute, most of it compilation. This is research
# software, no medical device.

# %%
XRAYS = []  # your own, as ["frontal.png", "lateral.png"]; empty: X-rays of a SYNTHETIC subject
GIVEN = {}  # of your own, what no tag or sidecar tells: {"source_axis_mm": 1000.0, ...}; see Given below
PATIENTS = None  # folder of CTs of patients, for the check of your own; None: SYNTHETIC subjects
SUBJECTS = 10  # SYNTHETIC subjects that the check learns from; a real one wants 70 and more
OUT = "your_xrays"

# %%
import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import jxrecon
from jxrecon import drr, phantom
from jxrecon.data import scenes
from jxrecon.io.radiographs import Given, Radiograph, table

run = jxrecon.open_run("lift_hn")
grid, cameras = run.problem.grid, run.problem.cameras
out = Path(OUT)
out.mkdir(exist_ok=True)
if not XRAYS:
    scene = scenes.painted([0], 0, grid)  # the whole subject, also what lies beside the field
    mu, affine = drr.hu_to_mu(scene.hu[0].astype(np.float32)), scene.affines[0]
    for name, camera in zip(("frontal", "lateral"), cameras):
        image = np.asarray(drr.line_integrals(mu, affine, camera))
        XRAYS.append(out / f"{name}.png")
        xray = Radiograph(image, camera, name, np.zeros(3))
        jxrecon.write_xray(XRAYS[-1], xray, source="SYNTHETIC subject 0")
print(*sorted(path.name for path in out.iterdir()))

# %% [markdown]
# ## Geometry
# Beside each picture lies a JSON sidecar with its camera. DICOM files tell most of it in their tags.
# What neither tells is said by `Given`, the flags of the command line: `view`, `source_axis_mm`,
# `source_detector_mm`, `pixel_mm`, ... Every value is printed with its origin; nothing is guessed but
# the view, from the file's name.

# %%
from jxrecon.report.cameras import draw_geometry

xrays = [jxrecon.read_xray(Path(path), Given(**GIVEN)) for path in XRAYS]
print(*map(table, xrays), sep="\n")

figure = plt.figure(figsize=(10, 3.4))
for place, xray in enumerate(xrays, start=1):
    axis = figure.add_subplot(1, 3, place)
    axis.imshow(xray.line_integrals, cmap="gray")
    axis.set_title(Path(xray.origin).name)
    axis.axis("off")
draw_geometry(figure.add_subplot(133, projection="3d"), grid, [xray.camera for xray in xrays])
plt.show()

# %% [markdown]
# ## Check
# Swapped views, mirrored or inverted pictures and wrong distances are the commonest mistakes.
# Training patients say how likely each is: see `experiments/check.md`. The weights ship without their
# patients, so the check learns here from SYNTHETIC subjects, as these X-rays are of one; for a
# patient's X-rays give `PATIENTS`. It cannot tell whether the *frontal* view is mirrored left-right:
# look for a marker.

# %%
import dataclasses

from jxrecon.experiment import Population
from jxrecon.inference.geometry import lines
from jxrecon.io.views import centred_view, common_isocentre
from jxrecon.likelihood.check import check_of, judge, shadows_of
from jxrecon.likelihood.patients import patients_of
from jxrecon.runs import config

learnt = dataclasses.replace(
    config.find("lift_hn", "tiny"), population=Population(train=SUBJECTS, validation=1, seed=1)
)
cases = learnt.load(learnt, None if PATIENTS is None else Path(PATIENTS), None).train
isocentre = common_isocentre(xrays)
views = [centred_view(xray, isocentre, cameras[0]) for xray in xrays]
check = check_of(shadows_of(patients_of(cases, learnt.field.grid), [view.camera for view in views]))
images = [np.asarray(view.image) for view in views]
found = judge(check, images)
print(*lines(found), sep="\n")

# %% [markdown]
# The same with a mistake: the lateral X-ray upside down.

# %%
mistaken = judge(check, [images[0], images[1][::-1]]) if len(images) > 1 else None
if mistaken is not None:
    print(*lines(mistaken)[:4], sep="\n")
    assert mistaken.doubted and not found.doubted

# %% [markdown]
# ## Reconstruct
# From a shell: `jxrecon reconstruct --run lift_hn frontal.png lateral.png --out out`. The
# re-projection error says how well the volume's projections agree with the X-rays; here they show all
# of the patient, the volume its field, so it is not small.

# %%
from jxrecon.report.preview import preview_png

volume = jxrecon.reconstruct(run, xrays)
print(
    f"{volume.hu.shape} voxels of {grid.spacing_mm} mm; {volume.hu.min():.0f} to {volume.hu.max():.0f} HU"
)
print(*volume.unexplained or ["the volume explains its X-rays"], sep="\n")
plt.figure(figsize=(6, 8))
plt.imshow(plt.imread(io.BytesIO(preview_png(volume))))
plt.axis("off")
plt.show()
assert not volume.unexplained

# %% [markdown]
# ## How far can it be trusted?
# `volume.deviation` is the standard deviation of every voxel as the network gives it. It was measured
# on left-out patients; a subject unlike them, as this SYNTHETIC one, is known less well than it says.

# %%
middle = grid.shape[0] // 2
panels = {
    "HU": (volume.hu, "gray", -1000, 1000),
    "standard deviation (HU)": (volume.deviation, "magma", 0, 400),
}
synthetic = Path(XRAYS[0]).parent == out
if synthetic:
    truth = np.asarray(phantom.population(grid, 0, 0, 1)[0], np.float32)
    panels["true error (HU)"] = (np.abs(volume.hu - truth), "magma", 0, 400)
figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.6))
for axis, (name, (shown, colours, low, high)) in zip(axes, panels.items()):
    aspect = grid.spacing_mm[2] / grid.spacing_mm[1]
    picture = axis.imshow(
        shown[middle].T, cmap=colours, vmin=low, vmax=high, origin="lower", aspect=aspect
    )
    figure.colorbar(picture, ax=axis, shrink=0.7)
    axis.set_title(name)
    axis.axis("off")
plt.show()

# %%
if synthetic:
    error = np.abs(np.clip(volume.hu, -1024, 2000) - np.clip(truth, -1024, 2000))
    body = truth > -300
    for factor in (1, 2):
        within = np.mean(error[body] <= factor * volume.deviation[body])
        print(f"within {factor} standard deviation(s): {within:.0%} of the tissue's voxels")
    rank = np.argsort(volume.deviation[body])
    tenth = len(rank) // 10
    sure, unsure = (error[body][part].mean() for part in (rank[:tenth], rank[-tenth:]))
    print(f"mean error where it is surest {sure:.0f} HU, where it is least sure {unsure:.0f} HU")
    assert unsure > 2 * sure

# %% [markdown]
# ## Viewer
# Volume and deviation as NIfTI, a picture, and a page with a viewer that needs no network: open
# `ct.html`.

# %%
from jxrecon.report.viewer import write_reconstruction

warnings = ["X-rays of a SYNTHETIC subject."] if synthetic else []
written = write_reconstruction(out, "ct", volume, warnings)
print(*(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB" for path in written), sep="\n")
back, affine = jxrecon.read_volume(written[0])[:2]
assert np.abs(back - volume.hu).max() <= 0.5 and np.allclose(affine, volume.affine, atol=1e-3)
