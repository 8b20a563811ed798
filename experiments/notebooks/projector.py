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
# # The projector
#
# X-ray line integrals of a CT: fast for whole images, exact where exactness is asked, with gradients by
# the volume and by the pose. This notebook draws the geometry, projects the real chest CT that ships with
# the package, reads it out like a detector, differentiates it, registers it to X-rays and reconstructs it.
#
# In Colab: clone the repository and run `%pip install -e .` in its folder first. Everything runs on a CPU in
# about two minutes; a GPU or TPU is used by itself where there is one.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jxrecon import drr
from jxrecon.data.sample import chest_ct
from jxrecon.drr import beam
from jxrecon.geometry import Grid, biplanar, camera_at, parallel_at
from jxrecon.report.cameras import draw_geometry

hu, affine = chest_ct()
grid = Grid(hu.shape, affine)
mu = drr.hu_to_mu(hu.astype(np.float32))
print(f"{hu.shape} voxels of {grid.spacing_mm.round(2)} mm, {hu.min()} to {hu.max()} HU")

# %% [markdown]
# ## Geometry
# The world is RAS in millimetres. A camera is a source, a detector's centre, and the steps `u` to the next
# column and `v` to the next row. `camera_at(angle, elevation)` turns one about the body; `biplanar` is the
# frontal and the lateral view; `jxrecon.interop` brings cameras from DiffDRR, nanodrr, ASTRA, RTK and DICOM.

# %%
view = {"shape": (192, 192), "pixel_mm": 2.6, "isocentre_mm": tuple(grid.centre_mm)}
frontal, lateral = biplanar(**view)
oblique = camera_at(35.0, 20.0, **view)
figure = plt.figure(figsize=(7, 6))
draw_geometry(figure.add_subplot(projection="3d"), grid, [frontal, lateral, oblique])

# %% [markdown]
# ## Projections
# `choose` tells which method "auto" takes: a detector along the volume's axes needs no warp, any other view
# through the volume is summed onto a virtual detector and warped once. Parallel rays work the same way.

# %%
parallel = parallel_at(
    35.0, 20.0, shape=(192, 192), pixel_mm=1.8, isocentre_mm=tuple(grid.centre_mm)
)
cameras = {"frontal": frontal, "lateral": lateral, "oblique": oblique, "parallel": parallel}
figure, axes = plt.subplots(1, 4, figsize=(14, 4))
for axis, (name, camera) in zip(axes, cameras.items()):
    image = drr.line_integrals(mu, affine, camera)
    axis.imshow(image, cmap="gray")
    axis.set_title(f"{name}: {drr.choose(affine, camera, hu.shape)}")
    axis.axis("off")

# %% [markdown]
# Siddon is exact for voxels that are constant in their boxes; the others interpolate. That is another model
# of a voxel, not an error of either.

# %%
exact = drr.line_integrals(mu, affine, oblique, "siddon")
for method in ("joseph", "shear_warp"):
    other = drr.line_integrals(mu, affine, oblique, method)
    print(
        f"{method} differs from siddon by {jnp.linalg.norm(other - exact) / jnp.linalg.norm(exact):.2%}"
    )

# %% [markdown]
# ## What a detector reads
# The same projector gives the thickness of water and of bone; a tungsten-like spectrum, scatter, blur and
# photon noise follow as pure functions with units.

# %%
parts = beam.split(hu.astype(np.float32))
thickness = jnp.stack([drr.line_integrals(part, affine, frontal) for part in parts])
settings = beam.Settings(
    spectrum=beam.kramers(100.0),
    scatter_ratio=0.3,
    scatter_mm=40.0,
    blur_mm=1.0,
    pixel_mm=(2.6, 2.6),
    dose=2e4,
)
noisy = beam.radiograph(thickness, jax.random.key(0), settings)
figure, axes = plt.subplots(1, 3, figsize=(12, 4))
for axis, image, title in zip(
    axes, (thickness[0], thickness[1], noisy), ("water (mm)", "bone (mm)", "read at 100 kV, log")
):
    figure.colorbar(axis.imshow(image, cmap="gray"), ax=axis, shrink=0.8)
    axis.set_title(title)
    axis.axis("off")

# %% [markdown]
# ## Gradients
# By the volume the gradient is the matched backprojection. For a camera that moves, a `plan` fixes what is
# compiled once; the camera itself stays free, and the gradient by all its vectors is that of the image.

# %%
plan = drr.plan(affine, oblique, hu.shape)
print(plan)


@jax.jit
def brightness(camera):
    image = drr.line_integrals(mu, affine, camera, plan)
    return (image * jnp.linspace(0, 1, 192)[None]).mean()


gradient = jax.grad(brightness)(oblique)
step = jnp.array([0.0, 0.0, 1.0])
ends = [brightness(oblique.replace(source=oblique.source + sign * step)) for sign in (1, -1)]
print("by the source's height:", gradient.source[2], "finite difference:", (ends[0] - ends[1]) / 2)

# %% [markdown]
# ## Registration
# Two SYNTHETIC X-rays of the chest in a hidden pose; its projections are made similar to them by gradient
# ascent on multi-scale gradient correlation, from several starts. The command line does the same for files:
# `jxrecon register --ct CT.nii.gz --xray a.png --xray b.png --out DIR`.

# %%
from jxrecon.pose import Pose, pose_error
from jxrecon.registration import cameras_at_rest, random_poses, register

hidden = Pose(jnp.array([0.08, -0.05, 0.1]), jnp.array([12.0, -9.0, 15.0]))
about = jnp.asarray(grid.centre_mm, jnp.float32)
images = [
    np.asarray(drr.line_integrals(mu, affine, camera, "siddon"))
    for camera in cameras_at_rest((frontal, lateral), hidden, about)
]
found = register(
    mu, affine, images, (frontal, lateral), random_poses(jax.random.key(1), 8, 10.0, 20.0)
)
error = pose_error(found.pose, hidden, about_mm=about)
print(f"error {float(error.rotation_deg):.3f} degrees, {float(error.translation_mm):.3f} mm")

before = drr.line_integrals(mu, affine, frontal)
after = drr.line_integrals(mu, affine, cameras_at_rest((frontal,), found.pose, about)[0])
figure, axes = plt.subplots(1, 2, figsize=(9, 4.5))
for axis, image, title in zip(axes, (before, after), ("before", "after")):
    stack = np.stack([images[0], image, image], -1)
    axis.imshow(np.clip(stack / images[0].max(), 0, 1))
    axis.set_title(f"{title}: X-ray red, projection cyan")
    axis.axis("off")
