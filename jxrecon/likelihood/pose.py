"""The pose of an X-ray that does not stand where it is told, by what both X-rays of a patient usually
look like.

The first X-ray is believed; the second one's camera is turned about the isocentre and shifted across its
rays until both together are likeliest. The components of the training patients (`modes`) are projected at the
pose told and a step to either side of it along each parameter; between these their X-rays are interpolated,

    Y(t) = Y_0 + sum_k t_k (Y_k+ - Y_k-) / 2 + t_k^2 (Y_k+ + Y_k- - 2 Y_0) / 2        t_k in steps

a sum of 11 matrices, so that the products Y Y', all that the likelihood needs, are found once for every
t. Patients differ by more than a normal distribution of few of them knows, so its curvature promises too
much: how far off the likeliest pose is, is measured on training patients who are left out, and the angles
believed are the mean of that error's distribution and of the prior N(0, PRIOR^2).

Methods need not know of it: with A the projection and x the likeliest scene of both X-rays,

    y + (A(told) - A(found)) x

is the X-ray that the camera would have taken where it is told to stand. X2Vision is told where the camera
stood instead, and loses nothing by what x lacks of the patient: of the field's share s of that X-ray it is
given s + (A(found) - A(told)) x_field.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import linalg, optimize

from jxrecon import drr
from jxrecon.compile import jit
from jxrecon.geometry import AnyCamera, Camera, Grid, vectors
from jxrecon.likelihood.model import FEWEST_PATIENTS, FOLDS, LEAST, NU, left_out, log_student
from jxrecon.likelihood.modes import RANK, Modes, Rows, modes_of
from jxrecon.likelihood.patients import Patients, averaged
from jxrecon.pose import Pose
from jxrecon.types import AnyArray, InputError

PARAMETERS = (
    "angle between the views (degrees)",
    "tilt out of their plane (degrees)",
    "turn in the detector's plane (degrees)",
    "shift along the rows (mm)",
    "shift along the columns (mm)",
)
"""Turns about the directions of the detector's columns and rows and about the ray through the isocentre;
shifts at the isocentre. The shift along the rays is not among them: hardly anything shows it."""

STEP = np.array([5.0, 5.0, 5.0, 8.0, 8.0])
"""To either side, for the interpolation: degrees, mm."""

PRIOR = np.array([5.0, 5.0, 1.0, 1.0, 1.0])
"""Standard deviation of what a pose told is off by: degrees, mm. How a tube is swung about the patient is
known less well than how its detector hangs."""

BELIEVED = 2
"""So many of the parameters, the first ones, are believed. What is found of the others is mostly how a
patient differs from those of the training, and a detector turned or shifted for nothing costs more than it
wins."""

TOGETHER = 8.0
"""Factor on s^2: what a patient has beside the components is alike in neighbouring pixels, so that they
say less than as many apart. Between 4 and 16 left-out training patients' poses are found equally well."""

FARTHEST = 1.5
"""Steps from the pose told up to which is looked."""

TRIED = 24
"""Training patients on whom the error is measured."""

VERSION = 2
"""Of what is done about a pose that is found: results by another one are computed anew."""

Images = tuple[Float[AnyArray, "rows columns"], ...]


class Refined(NamedTuple):
    """Where X-rays were taken from.

    Attributes:
        cameras: the first as told, the others where they are likeliest to have stood.
        motion: the `BELIEVED` of `PARAMETERS` of each other camera from where it was told to stand.
        deviation: their standard deviations.
        at_limit: whether the search ended at its limit, `FARTHEST` steps away, in some parameter of each.
        images: the X-rays as the cameras would have taken them where they are told to stand.
        weights: of the components in the likeliest scene by each other camera.
    """

    cameras: tuple[Camera, ...]
    motion: Float[np.ndarray, "others 2"]
    deviation: Float[np.ndarray, "others 2"]
    at_limit: tuple[bool, ...]
    images: Images
    weights: Float[np.ndarray, "others k"]


class Missed(NamedTuple):
    """What left-out training patients whose cameras stand right teach of one moved camera.

    Attributes:
        residual: s^2, the mean square of what their two X-rays have beside the components.
        errors: the poses that are found for them.
    """

    residual: float
    errors: Float[np.ndarray, "tried 5"]


class Search(NamedTuple):
    """All that the search for poses needs but the X-rays.

    Attributes:
        cameras: as told.
        modes: of the training patients.
        near: their X-rays about the poses told of all cameras but the first.
        missed: of the same cameras.
    """

    cameras: tuple[Camera, ...]
    modes: Modes
    near: tuple[_Interpolated, ...]
    missed: tuple[Missed, ...]

    def refine(self, images: Sequence[Float[AnyArray, "rows columns"]]) -> Refined:
        """The poses of these X-rays: line integrals, one a camera."""
        seen = [averaged(image).ravel() for image in images]
        cameras, shown, found = list(self.cameras), [np.asarray(y) for y in images], []
        for n, (near, missed) in enumerate(zip(self.near, self.missed), 1):
            products = near.products_with(seen[0], seen[n])
            likeliest, errors = near.likeliest(products), missed.errors[:, :BELIEVED]
            prior, spread = np.diag(PRIOR[:BELIEVED] ** 2), np.cov(errors.T)
            gain = prior @ np.linalg.inv(prior + spread)
            motion = gain @ (likeliest[:BELIEVED] - errors.mean(0))
            limit = bool((np.abs(likeliest) > 0.999 * FARTHEST * STEP).any())
            told, cameras[n] = cameras[n], move(cameras[n], motion)
            weights = near.weights(products, _all(motion) / STEP)
            found.append((motion, np.sqrt(np.diag(gain @ spread)), limit, weights))
            scene = self.modes.scene(weights)
            shown[n] = shown[n] + _between(scene, self.modes.grid, told, cameras[n], shown[n].shape)
        motions, deviations, limits, scenes = zip(*found)
        motion, deviation = np.stack(motions), np.stack(deviations)
        images = tuple(shown)
        return Refined(tuple(cameras), motion, deviation, limits, images, np.stack(scenes))

    def turning(self, grid: Grid) -> Callable[[Refined, Images], Images]:
        """(what was found, the field's share of its `images`) -> the field's share by its cameras.

        To the share is added what the likeliest scene's part in the field shows more by the cameras found
        than by those told. Compiled once.

        Args:
            grid: of the field, in the world of the cameras.
        """
        cut = jit(self.modes.cut(grid))

        def turn(found: Refined, share: Images) -> Images:
            first, *others = share
            moved = zip(others, found.weights, self.cameras[1:], found.cameras[1:])
            return first, *(
                y - _between(cut(self.modes.scene(z)), grid, told, there, y.shape)
                for y, z, told, there in moved
            )

        return turn


def _between(
    scene: Float[AnyArray, "x y z"],
    grid: Grid,
    told: Camera,
    found: Camera,
    shape: tuple[int, ...],
) -> Float[np.ndarray, "rows columns"]:
    """A(told) x - A(found) x, by the projector that blurs least."""
    rows, columns = shape
    told, found = (camera.resized((rows, columns)) for camera in (told, found))
    affine = grid.affine.astype(np.float32)
    return np.asarray(_difference(scene.astype(np.float32), affine, told, found))


@jit
def _difference(
    mu: Float[Array, "x y z"],
    affine: Float[Array, "4 4"],
    one: Camera,
    other: Camera,
) -> Float[Array, "rows columns"]:
    first, second = (drr.line_integrals(mu, affine, c, "joseph") for c in (one, other))
    return first - second


def search_of(patients: Patients, cameras: Sequence[AnyCamera]) -> Search:
    """The search for the poses of cameras that are told to stand so, about the isocentre.

    Raises:
        InputError: there is one camera alone, rays are parallel, or there are fewer than 8 patients.
    """
    points = _points(cameras)
    if len(patients.mu) < FEWEST_PATIENTS:
        raise InputError(
            f"{len(patients.mu)} training patients, expected at least {FEWEST_PATIENTS} to find a pose"
        )
    return search_by(modes_of(patients), points, missed_of(patients, points))


def search_by(modes: Modes, cameras: Sequence[AnyCamera], missed: Sequence[Missed]) -> Search:
    """The same by components that are known; errors as there.

    Args:
        modes: of the training patients.
        cameras: as told.
        missed: of all cameras but the first.
    """
    points = _points(cameras)
    return Search(points, modes, tuple(_around(modes, points, missed)), tuple(missed))


def _points(cameras: Sequence[AnyCamera]) -> tuple[Camera, ...]:
    if len(cameras) < 2:
        raise InputError("1 X-ray, expected two or more to find the pose of one from the other")
    points = tuple(camera for camera in cameras if isinstance(camera, Camera))
    if len(points) < len(cameras):
        raise InputError("parallel rays, expected X-rays from point sources to find a pose")
    return points


def _around(
    modes: Modes, cameras: Sequence[Camera], missed: Sequence[Missed]
) -> list[_Interpolated]:
    """The components about the poses told of all cameras but the first."""
    first = modes.xrays(cameras[0])
    return [
        _Interpolated.about(first, camera, modes, TOGETHER * one.residual)
        for camera, one in zip(cameras[1:], missed, strict=True)
    ]


def missed_of(
    patients: Patients, cameras: Sequence[Camera], rank: int = RANK
) -> tuple[Missed, ...]:
    """What is missed of training patients by the components of the others, a part left out at a time.

    Args:
        patients: of the training, where their cameras stand right.
        cameras: theirs.
        rank: number of components.
    """
    n = len(patients.mu)
    rows = [patients.xrays(camera)[:n].reshape(n, -1) for camera in cameras]
    tried = np.unique(np.linspace(0, n - 1, min(n, TRIED)).round().astype(int))
    unknown = [Missed(1.0, np.zeros((0, 5)))] * (len(cameras) - 1)
    parts = [left_out(n, fold) for fold in range(min(FOLDS, n))]
    nears = []
    for part in parts:
        others = np.setdiff1d(np.arange(n), part)
        known = modes_of(patients._replace(mu=patients.mu[others]), rank)
        nears.append(_around(known, cameras, unknown))
    found = []
    for view in range(len(cameras) - 1):
        pairs = [(near[view], i) for near, part in zip(nears, parts) for i in part]
        beside = [near.beside(rows[0][i], rows[view + 1][i]) for near, i in pairs]
        residual = max(float(np.mean(beside)), LEAST)
        errors = [
            near._replace(residual=TOGETHER * residual).find(rows[0][i], rows[view + 1][i])
            for near, i in pairs
            if i in tried
        ]
        found.append(Missed(residual, np.stack(errors)))
    return tuple(found)


def _all(motion: Float[np.ndarray, " k"]) -> Float[np.ndarray, "5"]:
    """All of `PARAMETERS`, those that are missing 0."""
    return np.pad(motion, (0, len(PARAMETERS) - len(motion)))


def move(camera: Camera, motion: Float[np.ndarray, " k"]) -> Camera:
    """The camera moved by the first k of `PARAMETERS` about the origin, its isocentre."""
    motion = _all(motion)
    _, _, u, v = vectors(camera)
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    turn = np.radians(-motion[0] * v + motion[1] * u + motion[2] * np.cross(u, v))
    shift = jnp.asarray(motion[3] * u + motion[4] * v, jnp.float32)
    return Pose(jnp.asarray(turn, jnp.float32), shift).apply(camera)


class _Interpolated(NamedTuple):
    """X-rays of mean and components about a pose as polynomials of five parameters, and their products.

    Attributes:
        first: by the first camera.
        parts: of the moved one: the value, derivatives and half second derivatives.
        products: of the parts; of the first camera's added to the first of them.
        residual: TOGETHER s^2.
    """

    first: Rows
    parts: Float[np.ndarray, "11 k1 pixels"]
    products: Float[np.ndarray, "11 11 k1 k1"]
    residual: float

    @classmethod
    def about(cls, first: Rows, camera: Camera, modes: Modes, residual: float) -> _Interpolated:
        """About where a camera is told to stand."""

        def at(motion: Float[np.ndarray, "5"]) -> Rows:
            return modes.xrays(move(camera, motion), near=camera)

        value = at(np.zeros(5))
        steps = [(at(d), at(-d)) for d in np.diag(STEP)]
        slopes = [(plus - minus) / 2 for plus, minus in steps]
        bends = [(plus + minus - 2 * value) / 2 for plus, minus in steps]
        parts = np.stack([value, *slopes, *bends])
        flat = parts.reshape(-1, parts.shape[-1])
        size = len(parts), len(first)
        products = (flat @ flat.T).reshape(*size, *size).swapaxes(1, 2).copy()
        products[0, 0] += first @ first.T
        return cls(first, parts, products, residual)

    def products_with(
        self, one: Float[np.ndarray, " p"], other: Float[np.ndarray, " p"]
    ) -> tuple[Float[np.ndarray, "11 k1"], float]:
        """(products of a patient's X-rays with every part, with themselves)."""
        along = self.parts @ other
        along[0] += self.first @ one
        return along, float(one @ one + other @ other)

    def beside(self, one: Float[np.ndarray, " p"], other: Float[np.ndarray, " p"]) -> float:
        """Mean square of what the X-rays have beside the components, at the pose told."""
        rows = np.concatenate([self.first, self.parts[0]], 1)
        apart = np.concatenate([one, other]) - rows[0]
        left = apart - np.linalg.lstsq(rows[1:].T, apart)[0] @ rows[1:]
        return float(np.mean(np.square(left)))

    def find(
        self, one: Float[np.ndarray, " p"], other: Float[np.ndarray, " p"]
    ) -> Float[np.ndarray, "5"]:
        """The likeliest `PARAMETERS` of these X-rays."""
        return self.likeliest(self.products_with(one, other))

    def likeliest(self, seen: tuple[Float[np.ndarray, "11 k1"], float]) -> Float[np.ndarray, "5"]:
        """The same by what `products_with` gives."""

        def cost(t: np.ndarray) -> tuple[float, np.ndarray]:
            """-log p(X-rays | t) p(t), up to a constant, and its gradient; t in steps."""
            value, slope = self.log_likelihood(seen, t)
            apart = t * STEP / PRIOR
            return 0.5 * float(apart @ apart) - value, apart * STEP / PRIOR - slope

        limits = [(-FARTHEST, FARTHEST)] * len(STEP)
        found = optimize.minimize(cost, np.zeros(5), jac=True, method="L-BFGS-B", bounds=limits)
        return found.x * STEP

    def log_likelihood(
        self, seen: tuple[Float[np.ndarray, "11 k1"], float], t: Float[np.ndarray, "5"]
    ) -> tuple[float, Float[np.ndarray, "5"]]:
        """log p(X-rays | t), up to a constant, and its gradient; t in steps."""
        b, k, square = self._at(seen, t)
        pixels = self.first.shape[1] + self.parts.shape[2]
        root = linalg.cho_factor(k[0], lower=True)
        x, inverse = linalg.cho_solve(root, b[0]), linalg.cho_solve(root, np.eye(len(k[0])))
        far = (square[0] - b[0] @ x) / self.residual
        spread = 2.0 * np.log(np.diag(root[0])).sum() + (pixels - len(x)) * np.log(self.residual)
        d_far = square[1:] - 2.0 * b[1:] @ x + np.einsum("i,kij,j->k", x, k[1:], x)
        d_spread = np.einsum("ij,kij->k", inverse, k[1:])
        slope = -0.5 * (d_spread + (NU + pixels) / (NU + far) * d_far / self.residual)
        return float(log_student(far, float(spread), pixels)), slope

    def weights(
        self, seen: tuple[Float[np.ndarray, "11 k1"], float], t: Float[np.ndarray, "5"]
    ) -> Float[np.ndarray, " k"]:
        """The likeliest weights of the components, the poses being t; in steps."""
        b, k, _ = self._at(seen, t)
        return np.linalg.solve(k[0], b[0])

    def _at(
        self, seen: tuple[Float[np.ndarray, "11 k1"], float], t: Float[np.ndarray, "5"]
    ) -> tuple[Float[np.ndarray, "6 k"], Float[np.ndarray, "6 k k"], Float[np.ndarray, "6"]]:
        """D (y - m), D D' + s^2 1 and |y - m|^2 at t, D the components' X-rays, and their derivatives."""
        powers = np.zeros((6, len(self.parts)))
        powers[0] = np.concatenate([[1.0], t, t * t])
        powers[1:, 1:6], powers[1:, 6:] = np.eye(5), np.diag(2.0 * t)
        half = np.tensordot(powers, self.products, 1)  # over the first part
        gram = np.tensordot(powers[0], half.swapaxes(0, 1), 1)  # over the second, at t
        gram = gram + gram.swapaxes(1, 2)
        gram[0] /= 2.0
        along = powers @ seen[0]
        k = gram[:, 1:, 1:].copy()
        k[0] += self.residual * np.eye(k.shape[1])
        square = gram[:, 0, 0] - 2.0 * along[:, 0]
        square[0] += seen[1]
        return along[:, 1:] - gram[:, 1:, 0], k, square
