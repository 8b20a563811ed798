"""NeRP: the volume as a small network from coordinates to attenuation, fitted to this patient's X-rays.

    minimise 1/2 mean_pixels w (A mu - y)^2 over the network's weights,    mu(p) = mu_high f(features(p))

with p in [0, 1]^3 across the grid, features Fourier features of p, f a SIREN (or ReLU network), mu_high
the attenuation at the window's upper end, y the line integrals, w a pixel's weight (1 unless given). No
training data: an earlier scan of the patient, if there is one, is fitted first (the prior embedding) and the
X-rays change it from there.

Shen, Pauly & Xing, NeRP, IEEE TNNLS 2022 (whose sizes, rates and iterations are the defaults); Fourier
features: Tancik et al., NeurIPS 2020; SIREN: Sitzmann et al., NeurIPS 2020. A grid of several chunks is
evaluated chunk by chunk and once more in the backward pass, so memory goes with the chunk.

Measured at 80 x 96 x 112 voxels, two views of 128 x 128, on a CPU shared with other work, process time:

- The paper's settings: one iteration and the final evaluation 49 s, such an evaluation alone 24 s in another
  run; so 25 to 40 s an iteration and, EXTRAPOLATED, 14 to 22 CPU hours for 2000 without a prior.
- `QUICK`: 1.4 s an iteration (8 iterations less 2), EXTRAPOLATED 170 s for its 120.
- The projector, forward and back, 0.017 s: 1.2 % of an iteration of `QUICK`, below 0.1 % of the paper's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from jxrecon.drr.beam.attenuation import hu_to_mu
from jxrecon.drr.operator import dot, minus, norm
from jxrecon.methods.base.linear_system import linear_system
from jxrecon.methods.base.method import (
    Cameras,
    Images,
    Method,
    Problem,
    Progress,
    Reconstruction,
    Trace,
    tell,
    untrained,
)
from jxrecon.nn.optimise import descend
from jxrecon.types import InputError, Key, Terms

KEPT_BYTES = 2**28
"""Fourier features of a whole grid are kept from iteration to iteration if they take no more than this."""

W0 = 30.0
"""The frequency of SIREN: every hidden layer is sin(W0 (x W + b))."""

_EXACT = jax.lax.Precision.HIGHEST

Layers = tuple[tuple[Float[Array, "i o"], Float[Array, " o"]], ...]


class Network(NamedTuple):
    """A fresh network; only its layers are fitted."""

    frequencies: Float[Array, "m axes"]  # those of the Fourier features, in turns across the grid
    layers: Layers  # weights and biases, the linear output last


@dataclass(frozen=True)
class Settings:
    """Options of NeRP; the defaults are the paper's, meant for a GPU (see `QUICK`).

    Attributes:
        network: "siren", sines with a linear output, or "ffn", ReLU with a sigmoid at the end.
        features: number of frequencies m; the network sees 2 m numbers a voxel.
        scale: standard deviation of the frequencies, turns across the grid.
        width: channels of the hidden layers.
        depth: linear layers, the output's among them.
        iterations, learning_rate: of Adam on the X-rays, without a prior.
        prior_iterations, prior_learning_rate: of Adam on the prior volume.
        weight_decay: factor of the parameters that is added to the gradient in these steps.
        adapted_iterations, adapted_learning_rate: of Adam on the X-rays, from a prior.
        chunk: voxels that are evaluated together; memory goes with it.
        seen_by: which voxels are given: seen by "any" view or by "all"; the others are air.
    """

    network: str = "siren"
    features: int = 256
    scale: float = 4.0
    width: int = 256
    depth: int = 8
    iterations: int = 2000
    learning_rate: float = 1e-4
    prior_iterations: int = 2000
    prior_learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    adapted_iterations: int = 2000
    adapted_learning_rate: float = 1e-5
    chunk: int = 8192
    seen_by: str = "any"


QUICK = Settings(
    features=32,
    scale=0.35,
    width=32,
    depth=3,
    iterations=120,
    learning_rate=1e-3,
    prior_iterations=100,
    prior_learning_rate=2e-3,
    weight_decay=1e-6,
    adapted_iterations=20,
    adapted_learning_rate=1e-4,
    chunk=32768,
)
"""For CPUs; a grid of up to 32^3 voxels is one chunk.

Chosen on OpenKBP training cases at 32^3 with two views (x2ct_hn, tiny): frequencies, rate, depth, width and
kind of network from about 45 settings on two of four cases each; the weight decay is one that was tried once.
Then three training cases, one of them of those four; whole-volume PSNR in [-1024, 2000] HU, CPU seconds of
a compiled run (process time, machine shared, projector included):

- without a prior 23.2, 21.7, 21.0 dB, 5.0 s a case (mean of the training volumes: 21.7, 24.6, 21.9 dB);
- from a SIMULATED earlier scan (data/earlier_scans.py) 27.7, 27.7, 26.4 dB, 5.5 s a case; the scan
  itself: 26.8, 28.3, 25.7 dB. X-rays do not always win back what a small network loses of it.

Half the iterations, without a prior: one view 19.1, 19.1, 19.2 dB, eight 25.2, 24.3, 23.3 dB, 2.9 s. More
in experiments/README.md.
"""


def nerp(problem: Problem, settings: Settings | None = None) -> Method:
    """The Method of this file; it learns nothing. Voxels that no view sees are air (-1000 HU).

    Its state is the prior: () for none, or an earlier scan of this patient, aligned with the problem's
    grid, HU on it. Jit over it and the images: one program for all patients.

    The trace holds `objective`, as in the file's head, dimensionless, and `residual`, |A x - y| / |y|, both
    before each step; the volume is that of the lowest objective. SIREN may go below vacuum, and is left so.

    Args:
        problem: its grid and its window.
        settings: None is the paper's.

    Raises:
        InputError: an option is out of its range; in reconstruct: the prior lies on another grid.
    """
    chosen = settings or Settings()
    _check(chosen)
    return untrained(partial(reconstruct, (problem, chosen)))


def reconstruct(
    model: tuple[Problem, Settings],
    prior: Float[Array, "x y z"] | tuple[()],
    images: Images,
    cameras: Cameras,
    key: Key,
    progress: Progress = None,
    weights: Images | None = None,
) -> Reconstruction:
    """See `nerp`."""
    problem, settings = model
    frequencies, layers = initial(key, settings)
    f = evaluation(frequencies, problem.grid.shape, settings)
    rate, iterations = settings.learning_rate, settings.iterations
    if not isinstance(prior, tuple):
        layers = embed(f, layers, prior, problem, settings)
        rate, iterations = settings.adapted_learning_rate, settings.adapted_iterations

    system = linear_system(problem.grid, images, cameras, weights)
    a, y = system.a, system.y
    scale = jnp.maximum(norm(y), jnp.finfo(jnp.float32).tiny)
    pixels = sum(image.size for image in images)
    to_mu = system.inside * hu_to_mu(jnp.float32(problem.window.high))

    def volume(layers: Layers) -> Float[Array, "x y z"]:
        return to_mu * f(layers)

    def gradient(layers: Layers) -> tuple[Layers, Terms]:
        mu, pull = jax.vjp(volume, layers)
        r = minus(a.project(mu), y)
        trusted = system.weighted(r)
        (slope,) = pull(a.back(trusted) / pixels)
        return slope, {"objective": 0.5 * dot(r, trusted) / pixels, "residual": norm(r) / scale}

    layers, trace = _fit(layers, gradient, optax.adam(rate), iterations, progress)
    return system.reconstruction((volume(layers), trace), settings.seen_by)


def embed(
    volume: Callable[[Layers], Float[Array, "x y z"]],
    layers: Layers,
    prior: Float[Array, "x y z"],
    problem: Problem,
    settings: Settings,
) -> Layers:
    """The network fitted to a volume: NeRP's prior embedding.

    Args:
        volume: f, of `evaluation`.
        layers: to begin with.
        prior: HU on the problem's grid; clipped to what is between air and the window's upper end.
        problem: grid and window.
        settings: iterations, rate and weight decay.

    Returns:
        The layers of the lowest 1/2 mean (f - prior)^2, both in [0, 1] from vacuum to the window's
        upper end.

    Raises:
        InputError: the volume lies on another grid.
    """
    if tuple(prior.shape) != tuple(problem.grid.shape):
        raise InputError(
            f"NeRP's prior volume is {tuple(prior.shape)}, expected the grid's {problem.grid.shape}"
        )
    high = hu_to_mu(jnp.float32(problem.window.high))
    target = jnp.clip(hu_to_mu(jnp.asarray(prior, jnp.float32)) / high, 0.0, 1.0)

    def gradient(layers: Layers) -> tuple[Layers, Terms]:
        f, pull = jax.vjp(volume, layers)
        (slope,) = pull((f - target) / target.size)
        return slope, {"objective": 0.5 * jnp.mean(jnp.square(f - target))}

    optimiser = optax.chain(
        optax.add_decayed_weights(settings.weight_decay), optax.adam(settings.prior_learning_rate)
    )
    return _fit(layers, gradient, optimiser, settings.prior_iterations)[0]


def _fit(
    layers: Layers,
    gradient: Callable[[Layers], tuple[Layers, Terms]],
    optimiser: optax.GradientTransformation,
    iterations: int,
    progress: Progress = None,
) -> tuple[Layers, Trace]:
    """The layers of the lowest objective on Adam's way, and the terms of every step."""

    def step(carry: Any, iteration: Array) -> tuple[Any, Terms]:
        layers, state, best, lowest = carry
        slope, terms = gradient(layers)
        better = terms["objective"] < lowest
        best = jax.tree.map(partial(jnp.where, better), layers, best)
        lowest = jnp.where(better, terms["objective"], lowest)
        layers, state = descend(optimiser, slope, state, layers)
        tell(progress, iteration, lowest, iterations)
        return (layers, state, best, lowest), terms

    start = (layers, optimiser.init(layers), layers, jnp.full((), jnp.inf, layers[0][0].dtype))
    (_, _, best, _), trace = jax.lax.scan(step, start, jnp.arange(iterations))
    return best, trace


def initial(key: Key, settings: Settings) -> Network:
    """A fresh network for three axes.

    SIREN's weights are U(+-1/in) in the first layer and U(+-sqrt(6/in)/30) in the others, those of the
    ReLU network U(+-sqrt(6/in)); biases are U(+-1/sqrt(in)), frequencies N(0, scale^2).
    """
    sizes = [2 * settings.features, *[settings.width] * (settings.depth - 1), 1]
    ends = np.cumsum([n * o for i, o in pairwise(sizes) for n in (i, 1)])
    one, other = jax.random.split(key)
    # One draw for all: each draw of its own is a program to compile.
    drawn = jnp.split(jax.random.uniform(one, (int(ends[-1]),), jnp.float32, -1.0, 1.0), ends[:-1])
    layers = []
    for n, (i, o) in enumerate(pairwise(sizes)):
        limit = (6 / i) ** 0.5
        if settings.network == "siren":
            limit = limit / W0 if n else 1 / i
        layers.append((limit * drawn[2 * n].reshape(i, o), i**-0.5 * drawn[2 * n + 1]))
    frequencies = settings.scale * jax.random.normal(other, (settings.features, 3))
    return Network(frequencies, tuple(layers))


def coordinates(shape: tuple[int, ...]) -> Float[Array, "*shape axes"]:
    """Where each voxel lies from 0, the centre of the first along its axis, to 1, that of the last."""
    lines = [jnp.linspace(0.0, 1.0, n) for n in shape]
    return jnp.stack(jnp.meshgrid(*lines, indexing="ij"), -1)


def fourier_features(
    points: Float[Array, "n axes"], frequencies: Float[Array, "m axes"]
) -> Float[Array, "n 2m"]:
    """sin and cos of 2 pi p . b: all sines first."""
    angle = 2 * jnp.pi * jnp.matmul(points, frequencies.T, precision=_EXACT)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


def siren(layers: Layers, x: Float[Array, "n i"]) -> Float[Array, "n o"]:
    """sin(30 (x W + b)) of each layer, the last one linear."""
    for w, b in layers[:-1]:
        x = jnp.sin(W0 * _linear(x, w, b))
    return _linear(x, *layers[-1])


def ffn(layers: Layers, x: Float[Array, "n i"]) -> Float[Array, "n o"]:
    """ReLU of each layer, the sigmoid of the last."""
    for w, b in layers[:-1]:
        x = jax.nn.relu(_linear(x, w, b))
    return jax.nn.sigmoid(_linear(x, *layers[-1]))


_NETWORKS = {"siren": siren, "ffn": ffn}


def _linear(x: Array, w: Array, b: Array) -> Array:
    return jnp.matmul(x, w, precision=_EXACT) + b[None]


def evaluation(
    frequencies: Float[Array, "m axes"], shape: tuple[int, int, int], settings: Settings
) -> Callable[[Layers], Float[Array, "x y z"]]:
    """Layers -> the network at every voxel of a grid, chunk by chunk, and once more for gradients.

    Features are made once where `KEPT_BYTES` hold them; a grid that is one chunk keeps activations, too.
    """
    forward = _NETWORKS[settings.network]
    points = coordinates(shape).reshape(-1, 3)
    if len(points) <= settings.chunk:
        features = fourier_features(points, frequencies)
        return lambda layers: forward(layers, features).reshape(shape)
    chunks = -(-len(points) // settings.chunk)
    size = -(-len(points) // chunks)
    padded = jnp.pad(points, ((0, chunks * size - len(points)), (0, 0)))
    inputs = padded.reshape(chunks, size, 3)
    kept = 8 * chunks * size * len(frequencies) <= KEPT_BYTES
    if kept:
        inputs = jax.lax.map(partial(fourier_features, frequencies=frequencies), inputs)

    def volume(layers: Layers) -> Float[Array, "x y z"]:
        @jax.checkpoint
        def one(chunk: Float[Array, "n i"]) -> Float[Array, "n 1"]:
            return forward(layers, chunk if kept else fourier_features(chunk, frequencies))

        values = jax.lax.map(one, inputs)
        return values.reshape(-1)[: len(points)].reshape(shape)

    return volume


def _check(settings: Settings) -> None:
    if settings.network not in _NETWORKS:
        raise InputError(f"NeRP's network is {settings.network!r}, expected 'siren' or 'ffn'")
    counts = (settings.iterations, settings.prior_iterations, settings.adapted_iterations)
    if min(*counts, settings.features, settings.width, settings.chunk) < 1 or settings.depth < 2:
        raise InputError(
            f"NeRP with {settings}, expected counts from 1 on and at least two layers of depth"
        )
    rates = (settings.learning_rate, settings.prior_learning_rate, settings.adapted_learning_rate)
    if not min(*rates, settings.scale) > 0 or not settings.weight_decay >= 0:
        raise InputError(f"NeRP with {settings}, expected positive rates and a positive scale")
