"""Draws the pictures of experiments/conventions.md and your_own_machine.md from the chest CT that ships.

python tools/convention_pictures.py        # writes experiments/pictures/*.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patheffects import withStroke
from PIL import Image

from jxrecon import drr
from jxrecon.data.sample import chest_ct
from jxrecon.geometry import Grid, camera_at, places_of, vectors
from jxrecon.report.viewer import WINDOWS

PICTURES = Path(__file__).resolve().parents[1] / "experiments" / "pictures"
ARROW = {"arrowstyle": "->", "color": "tab:orange", "lw": 2}
OUTLINED = {"weight": "bold", "path_effects": [withStroke(linewidth=2, foreground="black")]}
COLOURS = 64


def main() -> None:
    """Writes the pictures."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    hu, affine = chest_ct()
    hu, grid = hu.astype(np.float32), Grid(hu.shape, affine)
    for name, draw in (("frames", frames), ("angles", angles), ("pixels", pixels), ("hu", windows)):
        save(draw(hu, grid), name)
    save(machine(), "machine")


def save(figure: plt.Figure, name: str) -> None:
    """Writes a figure in few colours."""
    path = PICTURES / f"{name}.png"
    figure.savefig(path, dpi=80, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    Image.open(path).convert("RGB").quantize(COLOURS).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def frames(hu: np.ndarray, grid: Grid) -> plt.Figure:
    """The middle slices in the world, with its axes."""
    low, high = grid.corners_mm.min(0), grid.corners_mm.max(0)
    middle = [n // 2 for n in hu.shape]
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    for axis, across, (one, other) in zip(axes, (2, 1, 0), ((0, 1), (0, 2), (1, 2))):
        extent = [low[one], high[one], low[other], high[other]]
        axis.imshow(
            hu.take(middle[across], across).T,
            cmap="gray", vmin=-1000, vmax=800, origin="lower", extent=extent,
        )  # fmt: skip
        axis.invert_xaxis()  # the patient's right, or the front, on the picture's left
        place = np.array([(low[one] + high[one]) / 2, (low[other] + high[other]) / 2])
        for number, name in enumerate((one, other)):
            tip = place + 90 * np.eye(2)[number]
            axis.annotate("", tip, place, arrowprops=ARROW)
            text = ("+x, right", "+y, front", "+z, head")[name]
            axis.text(*tip, text, color="tab:orange", ha="center", va="bottom", **OUTLINED)
        axis.set(xlabel=f"{'xyz'[one]} (mm)", ylabel=f"{'xyz'[other]} (mm)")
        axis.set_title(("sagittal, [:, j, k]", "coronal, [i, :, k]", "axial, [i, j, :]")[across])
    return figure


def angles(hu: np.ndarray, grid: Grid) -> plt.Figure:
    """Views by angle, and their sources as an axial slice is shown: seen from the feet."""
    figure, axes = plt.subplots(1, 5, figsize=(14, 3), layout="constrained")
    mu, centre = drr.hu_to_mu(hu), tuple(grid.centre_mm)
    for axis, angle in zip(axes[1:], (0, 45, 90, 180)):
        camera = camera_at(angle, shape=(160, 160), pixel_mm=3.2, isocentre_mm=centre)
        axis.imshow(drr.line_integrals(mu, grid.affine, camera), cmap="gray")
        axis.set_title(f"camera_at({angle})")
        axis.axis("off")
        source = vectors(camera)[0] - grid.centre_mm
        axes[0].plot(*source[:2], "*", color="tab:orange", markersize=12)
        axes[0].annotate(
            f"{angle}°", source[:2], xytext=(0, 8), textcoords="offset points", ha="center"
        )
    extent = [*(sign * grid.extent_mm[0] / 2 for sign in (-1, 1))]
    extent += [*(sign * grid.extent_mm[1] / 2 for sign in (-1, 1))]
    slice_ = hu[:, :, hu.shape[2] // 2].T
    axes[0].imshow(slice_, cmap="gray", vmin=-1000, vmax=800, origin="lower", extent=extent)
    axes[0].set(xlim=(1300, -1300), ylim=(-1300, 1300), xlabel="x (mm)", ylabel="y (mm)")
    axes[0].set_title("sources, from the feet")
    axes[0].set_aspect("equal")
    return figure


def pixels(hu: np.ndarray, grid: Grid) -> plt.Figure:
    """A frontal X-ray, the order of its pixels and where three voxels fall."""
    camera = camera_at(0, shape=(96, 128), pixel_mm=4.2, isocentre_mm=tuple(grid.centre_mm))
    figure, axis = plt.subplots(figsize=(6, 4.4), layout="constrained")
    axis.imshow(drr.line_integrals(drr.hu_to_mu(hu), grid.affine, camera), cmap="gray")
    for tip, text in (((40, 0), "u: columns, [:, c]"), ((0, 40), "v: rows, [r, :]")):
        axis.annotate("", tip, (0, 0), arrowprops=ARROW, annotation_clip=False)
        axis.text(tip[0] + 2, tip[1] + 5, text, color="tab:orange", **OUTLINED)
    axis.plot(0, 0, "s", color="tab:orange", clip_on=False)
    axis.text(3, 6, "[0, 0]", color="tab:orange", **OUTLINED)
    right = grid.centre_mm + np.array([60.0, 0.0, 0.0])
    for point, text, up in (
        (grid.centre_mm, "isocentre", -4),
        (right, "60 mm to the patient's right", 7),
    ):
        row, column = places_of(camera, point)
        axis.plot(column, row, "+", color="tab:cyan", markersize=12)
        axis.text(column, row + up, text, color="tab:cyan", ha="center", **OUTLINED)
    axis.set(xlabel="column", ylabel="row")
    return figure


def windows(hu: np.ndarray, grid: Grid) -> plt.Figure:
    """A slice in the viewer's windows, and HU against attenuation."""
    figure, axes = plt.subplots(1, 5, figsize=(14, 3), layout="constrained")
    slice_ = hu[::-1, :, hu.shape[2] // 2].T  # the patient's right on the left
    for axis, (name, low, high) in zip(axes, WINDOWS):
        axis.imshow(slice_, cmap="gray", vmin=low, vmax=high, origin="lower")
        axis.set_title(f"{name}: {low} to {high} HU")
        axis.axis("off")
    line = np.linspace(-1500, 2000, 50).astype(np.float32)
    axes[-1].plot(line, drr.hu_to_mu(line))
    axes[-1].set(xlabel="HU", title="attenuation (1/mm)")
    axes[-1].grid()
    return figure


def machine() -> plt.Figure:
    """Source, isocentre and detector from the side, with what has to be measured."""
    figure, axis = plt.subplots(figsize=(9, 3), layout="constrained")
    sad, sid, half = 1000.0, 1500.0, 200.0
    axis.plot(0, 0, "*", color="tab:orange", markersize=16)
    axis.plot([sid, sid], [-half, half], color="tab:blue", linewidth=4)
    for end in (-half, half):
        axis.plot([0, sid], [0, end], color="gray", linewidth=0.7)
    axis.plot([0, sid], [0, 0], color="gray", linestyle=":")
    axis.add_patch(plt.matplotlib.patches.Ellipse((sad, 0), 260, 180, alpha=0.3, color="tab:gray"))
    axis.plot(sad, 0, "+", color="black", markersize=14)
    for end, height, text in (
        (sad, -250, "source to isocentre: --sad"),
        (sid, -330, "source to detector: --sid"),
    ):
        axis.annotate("", (end, height), (0, height), arrowprops={"arrowstyle": "<->"})
        axis.text(end / 2, height + 10, text, ha="center", va="bottom")
    axis.text(0, 40, "source: --view says\nwhere it stands", ha="center")
    axis.text(sad, 110, "isocentre: --isocentre", ha="center")
    axis.text(sid + 20, 0, "detector:\n--pixel-mm\nbetween its pixels", va="center")
    axis.set(xlim=(-220, 1900), ylim=(-360, 240), aspect="equal")
    axis.axis("off")
    return figure


if __name__ == "__main__":
    main()
