"""How cases come by their X-rays: projected anew for every step, of the whole patient or the field alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jxrecon.compile import jit
from jxrecon.data.machine import check, developed, exposure_of, recorded
from jxrecon.data.openkbp import samples_of
from jxrecon.data.scene_xrays import Axes, Images, axes_of, field_of, samples_in, varied, xrays_of
from jxrecon.data.scenes import mirrored
from jxrecon.data.surround import Surround, fit, reach_of
from jxrecon.data.volumes import VolumeSet
from jxrecon.devices import each_case
from jxrecon.drr import beam, project
from jxrecon.experiment import Xrays
from jxrecon.geometry import AnyCamera, Grid
from jxrecon.types import InputError, Key, SceneBatch, TrainingVolumes, VolumeBatch


class Acquisition(NamedTuple):
    """Cases as methods learn from them.

    Attributes:
        cases: a split.
        grid: of the field.
        cameras: that take the X-rays.
        xrays: what they show.
        axes: of `scene_xrays.axes_of`, for scenes, their mirror images and these cameras.
        samples: points along each axis of a voxel whose mean it is, where a field is cut anew.
    """

    cases: VolumeSet
    grid: Grid
    cameras: Sequence[AnyCamera]
    xrays: Xrays
    axes: Axes
    samples: tuple[int, int, int]

    def observe(self, batch: VolumeBatch | SceneBatch, key: Key) -> VolumeBatch:
        """A training batch with X-rays: moved, projected and exposed anew; pure, for jit."""
        if not self.xrays.variety.amount:
            return self.observe_still(batch, key)

        cut = partial(field_of, grid=self.grid, samples=self.samples)
        move = partial(
            varied,
            cameras=self.cameras,  # type: ignore[arg-type]  # point sources
            take=partial(xrays_of, axes=self.axes, machine=self.xrays.machine),
            variety=self.xrays.variety,
            cut=cut,
        )

        def one(_: None, item: tuple[SceneBatch, Key]) -> VolumeBatch:
            case, key = item
            other, last = jax.random.split(key)
            seen = move(case.scene, case.affine, other)
            index = case.index + len(self.cases.names) * seen.mirrored
            return VolumeBatch(seen.hu, index, self._exposed(seen.images, last))

        return each_case(one, None, (batch, jax.random.split(key, batch.index.shape[0])))

    def observe_still(self, batch: VolumeBatch | SceneBatch, key: Key) -> VolumeBatch:
        """The cases as they are, with X-rays by the cameras as they stand and the noise of the step."""

        def one(_: None, item: tuple[VolumeBatch | SceneBatch, Key]) -> Images:
            case, key = item
            return self._exposed(self.projected(case), key)

        keys = jax.random.split(key, batch.index.shape[0])
        return VolumeBatch(batch.hu, batch.index, each_case(one, None, (batch, keys)))

    def projected(self, case: VolumeBatch | SceneBatch) -> Images:
        """The line integrals of one case as the machine has them, without noise and tone curve."""
        if isinstance(case, SceneBatch):
            return self._of_scene(case.scene, case.affine)
        return self._of_field(case.hu)

    def _of_scene(self, hu: Array, affine: Array) -> Images:
        return xrays_of(hu, affine, self.cameras, self.axes, self.xrays.machine)

    def _of_field(self, hu: Array) -> Images:
        machine = self.xrays.machine
        parts = exposure_of(machine).volumes(hu)
        through = [project(part, self.grid.affine, self.cameras) for part in parts]
        views = zip(self.cameras, zip(*through))
        return tuple(developed(jnp.stack(view), camera, machine) for camera, view in views)

    def _exposed(self, images: Images, key: Key) -> Images:
        """As they are stored: with the noise of a dose, or without."""
        machine = self.xrays.machine
        clean = [recorded(y, machine) for y in images]
        if not self.xrays.noisy:
            return tuple(clean)
        drawn = jax.random.uniform(key, (2,), jnp.float32)
        fewest, most = self.xrays.photons
        photons = fewest * (most / fewest) ** drawn[0]
        keys = jax.random.split(jax.random.fold_in(key, 1), len(images))
        spoilt = [recorded(y, machine, photons, k) for y, k in zip(images, keys)]
        return tuple(jnp.where(drawn[1] < self.xrays.noisy, a, b) for a, b in zip(spoilt, clean))

    def everything(self) -> TrainingVolumes:
        """All cases, and the X-rays of them and of their mirror images, without noise."""
        return TrainingVolumes(jnp.asarray(self.cases.hu), self.all_images())

    def all_images(self) -> tuple[Float[Array, "n2 rows columns"], ...]:
        """The machine's X-rays of the cases without noise, then of their mirror images, one array a view."""
        scenes, machine = self.cases.scenes, self.xrays.machine
        way = self._of_field if scenes is None else self._of_scene
        take = jit(lambda *case: tuple(recorded(y, machine) for y in way(*case)))
        if scenes is None:
            volumes = [hu.astype(np.float32) for hu in self.cases.hu]
            taken = [take(hu) for hu in (*volumes, *(hu[::-1] for hu in volumes))]
        else:
            affines = np.concatenate([scenes.affines, mirrored(scenes.affines)]).astype(np.float32)
            items = zip((*scenes.hu, *scenes.hu), affines, strict=True)
            taken = [take(np.asarray(hu), affine) for hu, affine in items]
        return tuple(jnp.stack(view) for view in zip(*taken))

    def field_images(self) -> tuple[Float[Array, "n2 rows columns"], ...]:
        """Line integrals of the fields alone, by the projector that methods use."""

        @jit
        def take(hu: Float[Array, "x y z"]) -> Images:
            return tuple(project(beam.hu_to_mu(hu), self.grid.affine, self.cameras))

        volumes = [hu.astype(np.float32) for hu in self.cases.hu]
        taken = [take(hu) for hu in (*volumes, *(hu[::-1] for hu in volumes))]
        return tuple(jnp.stack(view) for view in zip(*taken))

    def surround(self) -> Surround | None:
        """What the surround adds to these X-rays, learnt from the cases; None where there is none."""
        if self.cases.scenes is None or not self.cases.scenes.beyond:
            return None
        reach = [reach_of(camera, self.grid.centre_mm) for camera in self.cameras]
        return jit(fit)(self.all_images(), self.field_images(), reach)

    def share_without(self, places: Sequence[int]) -> Callable[[Images], Any]:
        """X-rays -> (the field's share, weights of its pixels), learnt without the cases at these places."""
        kept = np.delete(np.arange(len(self.cases.names)), places)
        surround = self._replace(cases=self.cases.some(kept)).surround()
        return (lambda images: (images, None)) if surround is None else surround.share


def acquisition(
    cases: VolumeSet, grid: Grid, cameras: Sequence[AnyCamera], xrays: Xrays
) -> Acquisition:
    """The acquisition of these cases by these cameras.

    Raises:
        InputError: cases shall be moved, but only their fields are known; or a number is out of its range.
    """
    check(xrays.machine)
    fewest, most = xrays.photons
    if not 0 < fewest <= most < 1e8 or not 0 <= xrays.noisy <= 1:
        raise InputError(
            f"xrays.photons {fewest:g} to {most:g} in a share of {xrays.noisy:g}: expected 0 < fewest <= "
            "most < 1e8 and a share from 0 to 1"
        )
    if cases.scenes is None:
        if xrays.variety.amount:
            raise InputError("xrays.variety.amount moves whole patients, expected xrays.of=patient")
        return Acquisition(cases, grid, cameras, xrays, (), (1, 1, 1))
    affines = cases.scenes.affines
    axes = axes_of([*affines, *mirrored(affines)], cameras)
    spacing = np.median([np.linalg.norm(affine[:3, :3], axis=0) for affine in affines], 0)
    samples = samples_of(grid) or samples_in(grid.spacing_mm, spacing)
    return Acquisition(cases, grid, cameras, xrays, axes, samples)


class AsStored(NamedTuple):
    """Cases that hold all that methods learn from: surfaces with their X-rays, images of two styles."""

    cases: object

    def observe(self, batch: object, key: Key) -> object:
        """The batch."""
        return batch

    def observe_still(self, batch: object, key: Key) -> object:
        """The batch."""
        return batch

    def everything(self) -> object:
        """All of them in one batch."""
        return jax.tree.map(jnp.asarray, self.cases.batch(np.arange(len(self.cases.names))))  # type: ignore[attr-defined]

    def share_without(self, places: Sequence[int]) -> Callable[[object], tuple[object, None]]:
        """Images as they are."""
        return lambda images: (images, None)
