"""What X2Vision's prior has learnt: its samples beside training volumes and held-out patients.

    python tools/prior_quality.py RUN [--samples 32] [--checkpoint latest] [--data DIR] [--picture FILE]

RUN is a folder, also while it trains, or the name of weights that ship, with --data. Prints one JSON line,
which it also appends to the folder's quality.jsonl:

- swd, of projections averaged to 32 pixels: sliced Wasserstein distance of samples from validation patients,
  and the same of as many training patients from them, what a perfect prior would have;
- lpips_features: distance of mean AlexNet features of the projections, where LPIPS's weights are installed;
- diversity: mean distance of two samples over that of two training volumes; 1 is as varied as patients are;
- nearest_hu, held_out_nearest_hu: root mean square distance of samples, and of validation patients, from
  their nearest training volume, mean and least;
- memorised: the mean of the one over that of the other; far below 1, samples are copies.

--picture draws coronal slices of eight samples above their nearest training volumes. Patients can be
recognised by their heads: it is for those who hold the data.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jxrecon import drr
from jxrecon.compile import jit
from jxrecon.files import cache_folder
from jxrecon.metrics import populations
from jxrecon.metrics.slices import weights
from jxrecon.runs.run import open_run, restore

PIXELS = 32


def main() -> None:
    """Reads the flags, prints the line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--checkpoint", default="latest")
    parser.add_argument("--data", type=Path, help="of the training, where the run does not say")
    parser.add_argument("--picture", type=Path, help="PNG or SVG file")
    options = parser.parse_args()
    run = open_run(options.run)
    which: Any = int(options.checkpoint) if options.checkpoint.isdigit() else options.checkpoint
    state, step = restore(run, which)
    data = run.experiment.load(run.experiment, options.data or run.data, cache_folder("data"))
    window = run.problem.window
    one = jit(lambda key: run.method.sample(state, key, 1)[0])
    samples = np.stack([one(jax.random.key(n)) for n in range(options.samples)])
    train, held = (np.clip(s.hu, *window).astype(np.float32) for s in (data.train, data.validation))
    print(
        json.dumps(
            found := {"step": step, "samples": len(samples), **judged(run, samples, train, held)}
        )
    )
    if options.run.is_dir():
        with (options.run / "quality.jsonl").open("a") as stream:
            stream.write(json.dumps(found) + "\n")
    if options.picture:
        draw(options.picture, samples[:8], train)


def judged(run: Any, samples: np.ndarray, train: np.ndarray, held: np.ndarray) -> dict[str, float]:
    """The numbers of the file's head."""
    take = jit(
        lambda hu: drr.project(drr.hu_to_mu(hu), run.problem.grid.affine, run.problem.cameras)
    )

    def shown(volumes: np.ndarray) -> np.ndarray:
        views = [jnp.stack(take(hu)) for hu in volumes]
        n, v, rows, columns = (images := np.stack(views)).shape
        blocks = (rows // PIXELS or 1, columns // PIXELS or 1)
        cut = images.reshape(n, v, rows // blocks[0], blocks[0], columns // blocks[1], blocks[1])
        return cut.mean((3, 5))

    key, fewer = jax.random.key(0), train[: len(samples)]
    seen, real, known = map(shown, (samples, held, fewer))
    params = weights()
    sampled_near, held_near = (np.asarray(populations.nearest(x, train)) for x in (samples, held))
    flat = [x.reshape(-1, *x.shape[2:]) for x in (seen, real)]
    return {
        "swd": float(populations.sliced_wasserstein(seen, real, key)),
        "swd_of_training": float(populations.sliced_wasserstein(known, real, key)),
        "lpips_features": None
        if params is None
        else float(populations.feature_distance(params, *flat)),
        "diversity": float(populations.spread(samples) / populations.spread(fewer)),
        "nearest_hu": [float(sampled_near.mean()), float(sampled_near.min())],
        "held_out_nearest_hu": [float(held_near.mean()), float(held_near.min())],
        "memorised": float(sampled_near.mean() / held_near.mean()),
    }


def draw(path: Path, samples: np.ndarray, train: np.ndarray) -> None:
    """Coronal slices through the middle of samples, and below them of the nearest training volumes."""
    found = np.asarray(populations.distances(jnp.asarray(samples), jnp.asarray(train)))
    figure = Figure(figsize=(2 * len(samples), 4.4), layout="constrained")
    axes = figure.subplots(2, len(samples), squeeze=False)
    for above, below, sample, apart in zip(*axes, samples, found):
        near = int(apart.argmin())
        for ax, hu in ((above, sample), (below, train[near])):
            ax.imshow(hu[:, hu.shape[1] // 2].T, cmap="gray", vmin=-1000, vmax=1000, origin="lower")
            ax.set_axis_off()
        below.set_title(f"{apart[near]:.0f} HU away", fontsize=8)
    axes[0, 0].set_title("samples", fontsize=8)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
