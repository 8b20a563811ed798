"""The pose of an X-ray that does not stand where it is told, by what both X-rays of a patient usually
look like.

The first X-ray is believed; the second one's camera is turned about the isocentre and shifted across its
rays until both together are likeliest. Training patients are projected at the pose told and a step to
either side of it along each parameter; between these their X-rays are interpolated,

    Y(t) = Y_0 + sum_k t_k (Y_k+ - Y_k-) / 2 + t_k^2 (Y_k+ + Y_k- - 2 Y_0) / 2        t_k in steps

a sum of 11 matrices, so that the products Y Y', all that the likelihood needs, are found once for every
t. Patients differ by more than a normal distribution of few of them knows, so its curvature promises too
much: how far off the likeliest pose is, is measured on training patients who are left out, and the pose
believed is the mean of that error's distribution and of the prior N(0, PRIOR^2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import linalg, optimize

from jxrecon.geometry import AnyCamera, Camera, vectors
from jxrecon.likelihood.model import FEWEST_PATIENTS, FOLDS, NU, fit, left_out, log_student
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
known less well than how its detector hangs; and a detector shifted or turned for nothing costs more than
the pose found wins."""

TOGETHER = 8.0
"""Factor on s^2: what a patient has beside the components is alike in neighbouring pixels, so that they
say less than as many apart. Between 4 and 16 left-out training patients' poses are found equally well."""

FARTHEST = 1.5
"""Steps from the pose told up to which is looked."""

TRIED = 24
"""Training patients on whom the error is measured."""


class Refined(NamedTuple):
    """Where X-rays were taken from.

    Attributes:
        cameras: the first as told, the others where they are likeliest to have stood.
        motion: `PARAMETERS` of each other camera's motion from where it was told to stand.
        deviation: their standard deviations.
        at_limit: whether the search ended at its limit, `FARTHEST` steps away, in some parameter of each.
    """

    cameras: tuple[Camera, ...]
    motion: Float[np.ndarray, "others 5"]
    deviation: Float[np.ndarray, "others 5"]
    at_limit: tuple[bool, ...]


class Search(NamedTuple):
    """All that the search for poses needs but the X-rays.

    Attributes:
        cameras: as told.
        near: training X-rays about the poses told of all cameras but the first.
        errors: what is found for left-out training patients whose cameras stand right: [tried, 5] each.
    """

    cameras: tuple[Camera, ...]
    near: tuple[_Interpolated, ...]
    errors: tuple[Float[np.ndarray, "tried 5"], ...]

    def refine(self, images: Sequence[Float[AnyArray, "rows columns"]]) -> Refined:
        """The poses of these X-rays: line integrals, one a camera."""
        seen = [averaged(image).ravel() for image in images]
        cameras, found = list(self.cameras), []
        for n, (near, errors) in enumerate(zip(self.near, self.errors), 1):
            everybody = np.ones(len(near.first), bool)
            likeliest = near.likeliest(near.products_with(seen[0], seen[n]), everybody)
            prior, spread = np.diag(PRIOR**2), np.cov(errors.T)
            gain = prior @ np.linalg.inv(prior + spread)
            motion = gain @ (likeliest - errors.mean(0))
            limit = bool((np.abs(likeliest) > 0.999 * FARTHEST * STEP).any())
            found.append((motion, np.sqrt(np.diag(gain @ spread)), limit))
            cameras[n] = move(cameras[n], motion)
        motions, deviations, limits = zip(*found)
        return Refined(tuple(cameras), np.stack(motions), np.stack(deviations), limits)


def search_of(patients: Patients, cameras: Sequence[AnyCamera]) -> Search:
    """The search for the poses of cameras that are told to stand so, about the isocentre.

    Raises:
        InputError: there is one camera alone, rays are parallel, or there are fewer than 8 patients.
    """
    if len(cameras) < 2:
        raise InputError("1 X-ray, expected two or more to find the pose of one from the other")
    points = tuple(camera for camera in cameras if isinstance(camera, Camera))
    if len(points) < len(cameras):
        raise InputError("parallel rays, expected X-rays from point sources to find a pose")
    if len(patients.mu) < FEWEST_PATIENTS:
        raise InputError(
            f"{len(patients.mu)} training patients, expected at least {FEWEST_PATIENTS} to find a pose"
        )
    first = patients.xrays(cameras[0]).reshape(2 * len(patients.mu), -1)
    near = tuple(_Interpolated.about(first, camera, patients) for camera in points[1:])
    return Search(points, near, tuple(map(_errors, near)))


def refine(
    images: Sequence[Float[AnyArray, "rows columns"]],
    cameras: Sequence[AnyCamera],
    patients: Patients,
) -> Refined:
    """The cameras with the poses of all but the first found by the likelihood of the X-rays.

    Args:
        images: line integrals, one a camera.
        cameras: as told, about the isocentre.
        patients: of the training.

    Raises:
        InputError: as of `search_of`.
    """
    return search_of(patients, cameras).refine(images)


def move(camera: Camera, motion: Float[np.ndarray, "5"]) -> Camera:
    """The camera moved by `PARAMETERS` about the origin, its isocentre."""
    _, _, u, v = vectors(camera)
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    turn = np.radians(-motion[0] * v + motion[1] * u + motion[2] * np.cross(u, v))
    shift = jnp.asarray(motion[3] * u + motion[4] * v, jnp.float32)
    return Pose(jnp.asarray(turn, jnp.float32), shift).apply(camera)


def _errors(near: _Interpolated) -> Float[np.ndarray, "tried 5"]:
    """What is found for training patients where they lie, by those of other parts: all of it is error."""
    n = len(near.first) // 2
    found = []
    for i in np.unique(np.linspace(0, n - 1, min(n, TRIED)).round().astype(int)):
        others = left_out(n, int(i) % FOLDS)
        known = np.ones(2 * n, bool)
        known[[*others, *(others + n)]] = False
        found.append(near.likeliest(near.products_of(int(i)), known))
    return np.stack(found)


class _Interpolated(NamedTuple):
    """Training X-rays about a pose as polynomials of five parameters, and their products.

    Attributes:
        first: X-rays by the first camera, centred on their mean.
        parts: [11, n2, pixels] of the moved one: the value, derivatives and half second derivatives; the
        first
            of them centred.
        products: [11, 11, n2, n2] of the parts; of the first camera's added to the first of them.
        origin: the two means that are taken from every X-ray.
        residual: TOGETHER s^2.
    """

    first: np.ndarray
    parts: np.ndarray
    products: np.ndarray
    origin: tuple[np.ndarray, np.ndarray]
    residual: float

    @classmethod
    def about(
        cls, first: Float[np.ndarray, "n2 pixels"], camera: Camera, patients: Patients
    ) -> _Interpolated:
        """About where a camera is told to stand."""

        def at(motion: np.ndarray) -> np.ndarray:
            return patients.xrays(move(camera, motion), near=camera).reshape(len(first), -1)

        value = at(np.zeros(5))
        steps = [(at(d), at(-d)) for d in np.diag(STEP)]
        slopes = [(plus - minus) / 2 for plus, minus in steps]
        bends = [(plus + minus - 2 * value) / 2 for plus, minus in steps]
        origin = first.mean(0), value.mean(0)
        parts = np.stack([value - origin[1], *slopes, *bends])
        flat = parts.reshape(-1, parts.shape[-1])
        size = len(parts), len(first)
        products = (flat @ flat.T).reshape(*size, *size).swapaxes(1, 2).copy()
        centred = first - origin[0]
        products[0, 0] += centred @ centred.T
        residual = TOGETHER * fit(np.concatenate([first, value], 1)).whole.residual
        return cls(centred, parts, products, origin, residual)

    def products_with(self, one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, float]:
        """(products of a patient's X-rays with every part, with themselves)."""
        one, other = one - self.origin[0], other - self.origin[1]
        along = self.parts @ other
        along[0] += self.first @ one
        return along, float(one @ one + other @ other)

    def products_of(self, i: int) -> tuple[np.ndarray, float]:
        """The same of a training patient."""
        return self.products[:, 0, :, i], float(self.products[0, 0, i, i])

    def likeliest(
        self, seen: tuple[np.ndarray, float], known: np.ndarray
    ) -> Float[np.ndarray, "5"]:
        """The likeliest `PARAMETERS`.

        Args:
            seen: of `products_with`.
            known: which patients the distribution is made of.
        """
        a, b = np.triu_indices(len(self.parts))
        products = self.products[:, :, known][..., known]
        pairs = products[a, b] + products[b, a] * (a != b)[:, None, None]
        along = seen[0][:, known]

        def cost(t: np.ndarray) -> tuple[float, np.ndarray]:
            """-log p(X-rays | t) p(t), up to a constant, and its gradient; t in steps."""
            powers = np.zeros(
                (6, len(self.parts))
            )  # of t, and their derivatives by every parameter
            powers[0] = np.concatenate([[1.0], t, t * t])
            powers[1:, 1:6], powers[1:, 6:] = np.eye(5), np.diag(2.0 * t)
            of_pairs = powers[:, a] * powers[0, b] + powers[0, a] * powers[:, b]
            of_pairs[0] /= 2.0
            grams = np.tensordot(of_pairs, pairs, 1)
            value, slope = self._log_likelihood(grams, powers @ along, seen[1])
            apart = t * STEP / PRIOR
            return 0.5 * float(apart @ apart) - value, apart * STEP / PRIOR - slope

        limits = [(-FARTHEST, FARTHEST)] * len(STEP)
        found = optimize.minimize(cost, np.zeros(5), jac=True, method="L-BFGS-B", bounds=limits)
        return found.x * STEP

    def _log_likelihood(
        self, grams: Float[np.ndarray, "6 n n"], alongs: Float[np.ndarray, "6 n"], own: float
    ) -> tuple[float, Float[np.ndarray, "5"]]:
        """log p of X-rays by their products, and its gradient.

        With D the known X-rays, centred, over the root of their number: (s^2 1 + D D')^-1 by D'D alone.

        Args:
            grams: products of the known patients' X-rays with each other, and the derivatives.
            alongs: of theirs with the X-rays seen, and the derivatives.
            own: of the X-rays seen with themselves.
        """
        n, pixels = grams.shape[1], self.first.shape[1] + self.parts.shape[2]
        rows = grams.mean(1)
        all_of, mine = rows.mean(1), alongs.mean(1)
        own_of = all_of - 2.0 * mine
        own_of[0] += own
        b = (alongs - mine[:, None] - rows + all_of[:, None]) / np.sqrt(n)
        k = (grams - rows[:, None] - rows[:, :, None] + all_of[:, None, None]) / n
        k[0] += self.residual * np.eye(n)
        root = linalg.cho_factor(k[0], lower=True)
        x, inverse = linalg.cho_solve(root, b[0]), linalg.cho_solve(root, np.eye(n))
        square = (own_of[0] - b[0] @ x) / self.residual
        spread = 2.0 * np.log(np.diag(root[0])).sum() + (pixels - n) * np.log(self.residual)
        d_square = (
            own_of[1:] - 2.0 * b[1:] @ x + np.einsum("i,kij,j->k", x, k[1:], x)
        ) / self.residual
        d_spread = np.einsum("ij,kij->k", inverse, k[1:])
        slope = -0.5 * (d_spread + (NU + pixels) / (NU + square) * d_square)
        return float(log_student(square, float(spread), pixels)), slope
