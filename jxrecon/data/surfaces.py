"""The cases of a surface experiment: livers that have moved with breathing, and the X-rays that show them.

Every liver, real or synthetic, gets a body (`patients`) and a way of breathing of its own; each of its
states is drawn anew: amplitude, phase, power of Lujan's model. The X-ray shows the moved body, without
noise. The world's origin is where the reference liver's centroid lies, up to the patient's offset.
"""

from __future__ import annotations

import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int32
from scipy.spatial import cKDTree

from jxrecon import drr
from jxrecon.data.breathing_body import breathed, field_of, patient, sample_body
from jxrecon.deformation import shape_model
from jxrecon.deformation.breathing import draw_motion, lujan
from jxrecon.geometry import AnyCamera
from jxrecon.io.cache import fingerprint, load_arrays, save_arrays
from jxrecon.io.finding import by_case
from jxrecon.io.meshes import read_mesh
from jxrecon.mesh import Mesh, Template, template
from jxrecon.phantom.liver import liver, liver_template
from jxrecon.terminal import note, progress
from jxrecon.types import InputError, SurfaceBatch

POWERS = (0.8, 2.0)
"""Range of n of Lujan's model; 0.9 was measured on one patient, larger ones rest longer exhaled."""

STOUTNESS = 0.05
"""The body beside the liver's own size is scaled by up to this share, up or down."""

OFFSET_MM = 5.0
"""A patient lies off the isocentre by up to this much along each axis."""

EVERY = 5
"""Where no number is asked for, one liver in so many is held out."""

SAME_MM = 0.01
"""Root mean square of the vertices' distances up to which two surfaces are one liver."""

_CACHE_FORMAT = 1  # raised when a change of the code changes what is made


@dataclass(frozen=True)
class SurfacePopulation:
    """Which livers there are and how they breathe.

    Attributes:
        train: livers to learn from, evenly from the list; 0 is all that are not held out (of the
            synthetic ones: 32).
        validation: livers held out, evenly from the list; 0 is every fifth.
        states: states of breathing of each liver, one case each.
        amplitude_mm: between which the dome's descent at full inhalation is drawn.
        augment: livers drawn from the shape model of the training livers and added to them. [Wu 2019]
        spacing_mm: spacing of the body's voxels when it is imaged.
        seed: seed of all that is drawn.
    """

    train: int = 0
    validation: int = 0
    states: int = 8
    amplitude_mm: tuple[float, float] = (5.0, 25.0)
    augment: int = 0
    spacing_mm: float = 4.0
    seed: int = 0


class SurfaceSet(NamedTuple):
    """Cases of one split.

    Attributes:
        names: names of the n cases: LIVER_STATE.
        image: line integrals of the body with the moved liver.
        reference: the liver at the end of exhalation, world mm.
        target: the liver when the X-ray was taken, world mm.
        subject: which liver of the split it is.
    """

    names: tuple[str, ...]
    image: Float32[np.ndarray, "n rows columns"]
    reference: Float32[np.ndarray, "n v 3"]
    target: Float32[np.ndarray, "n v 3"]
    subject: Int32[np.ndarray, " n"]

    def batch(self, index: Int32[np.ndarray, " b"]) -> SurfaceBatch:
        """The cases of these numbers, on the host."""
        arrays = self.image[index], self.reference[index], self.target[index]
        return SurfaceBatch(*arrays, index)  # type: ignore[arg-type]


class SurfaceDataset(NamedTuple):
    """The splits of a surface experiment and where they come from.

    Attributes:
        train: what methods learn from.
        validation: what they are judged on: other livers.
        rule: where the data comes from and how it was cut, in a sentence or two to be printed.
        synthetic: whether the livers are made up.
        template: the topology of all surfaces, with the mean training reference as its vertices.
        test: the livers of a subfolder test/, where there is one.
    """

    train: SurfaceSet
    validation: SurfaceSet
    rule: str
    synthetic: bool
    template: Template
    test: SurfaceSet | None = None


class _Livers(NamedTuple):
    names: tuple[str, ...]
    surfaces: np.ndarray  # [n, V, 3] mm


def load(
    camera: AnyCamera,
    settings: SurfacePopulation,
    folder: Path | None = None,
    cache: Path | None = None,
) -> SurfaceDataset:
    """The cases of an experiment, made or from the cache.

    Args:
        camera: camera of the X-ray, its isocentre at the origin.
        settings: which livers, and how they breathe.
        folder: template.ply and NAME.ply of its topology, mm, RAS, as `jxrecon prepare meshes` writes
            them, and perhaps more NAME.ply in test/; None is synthetic livers.
        cache: where to keep what was made, for the next time; None keeps nothing.

    Raises:
        InputError: a setting is out of range, or the folder lacks livers of one topology.
    """
    _check(settings)
    if folder is None:
        livers, faces = _synthetic(settings)
        origin = f"SYNTHETIC livers, seed {settings.seed}"
    else:
        livers, faces = _read(Path(folder), settings)
        origin = f"Livers of {Path(folder).resolve().name}/"
    real = len(livers["train"].names)
    if settings.augment:
        livers["train"] = _augmented(livers["train"], settings)
    sets = {
        split: _cases(some, faces, camera, settings, split, cache) for split, some in livers.items()
    }
    low, high = settings.amplitude_mm
    drawn = f" and {settings.augment} drawn from their shape model" if settings.augment else ""
    tested = f" and {len(livers['test'].names)} for test" if "test" in livers else ""
    rule = (
        f"{origin}: {real} train{drawn}, {len(livers['validation'].names)} other livers for "
        f"validation{tested}, {settings.states} states of breathing each, {low:g} to {high:g} mm at the "
        "dome; X-rays of the sample chest CT reshaped to each liver, without noise."
    )
    mean = template(Mesh(sets["train"].reference.mean(0), faces))
    return SurfaceDataset(
        sets["train"], sets["validation"], rule, folder is None, mean, sets.get("test")
    )


def _check(settings: SurfacePopulation) -> None:
    low, high = settings.amplitude_mm
    if not 0 <= low <= high <= 45:
        raise InputError(
            f"amplitude_mm is {settings.amplitude_mm}, expected 0 <= low <= high <= 45"
        )
    if settings.states < 1:
        raise InputError(f"states is {settings.states}, expected at least 1")
    if min(settings.train, settings.validation, settings.augment) < 0:
        raise InputError(
            "train, validation and augment are numbers of livers, expected none below 0"
        )
    if not settings.spacing_mm > 0:
        raise InputError(f"spacing_mm is {settings.spacing_mm}, expected a positive number")


def _synthetic(settings: SurfacePopulation) -> tuple[dict[str, _Livers], np.ndarray]:
    train = settings.train or 32
    validation = settings.validation or train // (EVERY - 1) or 1

    def some(start: int, count: int) -> _Livers:
        subjects = range(start, start + count)
        names = tuple(f"synthetic_{n:04d}" for n in subjects)
        return _Livers(names, np.stack([liver(settings.seed, n) for n in subjects]))

    splits = {"train": some(0, train), "validation": some(train, validation)}
    return splits, liver_template().faces


def _read(folder: Path, settings: SurfacePopulation) -> tuple[dict[str, _Livers], np.ndarray]:
    """The splits of a folder, and the faces of all its livers."""
    topology = folder / "template.ply"
    if not topology.is_file():
        raise InputError(
            f"{folder}: no template.ply, expected the output of jxrecon prepare meshes"
        )
    common = template(read_mesh(topology), str(topology))
    splits = _split(_livers(folder, common, 2), settings)
    if (folder / "test").is_dir():
        splits["test"] = _livers(folder / "test", common, 1)
    _refuse_shared(splits, folder)
    return splits, common.faces


def _refuse_shared(splits: dict[str, _Livers], folder: Path) -> None:
    """Refuses a liver that is in two splits, under whatever name and wherever it lies."""
    items = [(split, name) for split, livers in splits.items() for name in livers.names]
    shapes = np.concatenate([livers.surfaces for livers in splits.values()])
    shapes = (shapes - shapes.mean(1, keepdims=True)).reshape(len(shapes), -1)
    same = cKDTree(shapes).query_pairs(SAME_MM * np.sqrt(shapes.shape[1] / 3))
    for (one, a), (other, b) in ((items[i], items[j]) for i, j in sorted(same)):
        if one != other:
            raise InputError(
                f"{folder}: {b} ({other}) is the same liver as {a} ({one}), expected no liver in two splits"
            )
        note(f"{folder}: {b} is the same liver as {a} ({one})")


def _livers(folder: Path, common: Template, least: int) -> _Livers:
    """All livers of a folder by sorted name."""
    listed = by_case(folder, (".ply",), lambda name: name.lower() != "template")
    paths = list(listed.values())
    if len(paths) < least:
        raise InputError(
            f"{folder}: {len(paths)} livers beside template.ply, expected at least {least}"
        )
    surfaces = []
    for path in paths:
        mesh = read_mesh(path)
        if mesh.vertices.shape != common.vertices.shape or not np.array_equal(
            mesh.faces, common.faces
        ):
            raise InputError(
                f"{path}: {len(mesh.vertices)} vertices and {len(mesh.faces)} faces, expected the "
                f"topology of template.ply ({len(common.vertices)} and {len(common.faces)})"
            )
        if not np.isfinite(mesh.vertices).all():
            raise InputError(f"{path}: a vertex is not finite, expected millimetres")
        surfaces.append(mesh.vertices)
    return _Livers(tuple(listed), np.stack(surfaces).astype(np.float32))


def _split(livers: _Livers, settings: SurfacePopulation) -> dict[str, _Livers]:
    """Train and validation: evenly from the sorted names, so that every source is in both."""
    total = len(livers.names)
    held = settings.validation or max(1, total // EVERY)
    wanted = settings.train or total - held
    if held + wanted > total:
        raise InputError(
            f"population: {wanted} train and {held} validation livers, expected at most {total}"
        )
    chosen = _evenly(total, held)
    rest = np.setdiff1d(np.arange(total), chosen)
    parts = {"train": rest[_evenly(len(rest), wanted)], "validation": chosen}
    return {
        split: _Livers(tuple(livers.names[n] for n in index), livers.surfaces[index])
        for split, index in parts.items()
    }


def _evenly(total: int, count: int) -> np.ndarray:
    return ((np.arange(count) + 0.5) * total / count).astype(int)


def _augmented(train: _Livers, settings: SurfacePopulation) -> _Livers:
    """The training livers and new ones of their shape model."""
    model = shape_model.fit(train.surfaces)
    random = np.random.default_rng([settings.seed, 1])
    names = tuple(f"drawn_{n:04d}" for n in range(settings.augment))
    placed = shape_model.aligned(train.surfaces)
    drawn = shape_model.draw(model, random, settings.augment)
    return _Livers(train.names + names, np.concatenate([placed, drawn]).astype(np.float32))


def _cases(
    livers: _Livers,
    faces: np.ndarray,
    camera: AnyCamera,
    settings: SurfacePopulation,
    split: str,
    cache: Path | None,
) -> SurfaceSet:
    """All states of some livers, from the cache where nothing they depend on has changed."""
    key = fingerprint(
        _CACHE_FORMAT,
        camera.to_dict(),
        asdict(settings),
        livers.names,
        zlib.crc32(livers.surfaces.tobytes()),
        zlib.crc32(faces.tobytes()),
    )
    kept = None if cache is None else Path(cache) / f"surfaces_{split}_{key[:16]}.npz"
    if kept is not None and (saved := load_arrays(kept, key)) is not None:
        return SurfaceSet(tuple(saved.pop("names").tolist()), **saved)
    body = sample_body()
    grid = field_of(body, settings.spacing_mm)
    image_of = jax.jit(lambda hu: drr.line_integrals(drr.hu_to_mu(hu), grid.affine, camera))
    cases = []
    count = len(livers.names)
    for n in progress(range(count), f"imaging livers ({split})", count):
        name = livers.names[n]
        random = np.random.default_rng([settings.seed, zlib.crc32(name.encode())])
        stoutness = 1 + random.uniform(-STOUTNESS, STOUTNESS)
        offset = tuple(random.uniform(-OFFSET_MM, OFFSET_MM, 3).tolist())
        who = patient(body, livers.surfaces[n], faces, grid, stoutness, offset)
        motion = draw_motion(random, who.reference)
        for state in range(settings.states):
            motion = motion._replace(amplitude_mm=float(random.uniform(*settings.amplitude_mm)))
            inhaled = float(lujan(random.uniform(), random.uniform(*POWERS)))
            hu, target = breathed(body, who, grid, motion, inhaled)
            image = np.asarray(image_of(jnp.asarray(hu)))
            cases.append((f"{name}_{state:02d}", image, who.reference, target, n))
    names, *arrays, subjects = zip(*cases)
    image, reference, target = (np.stack(one).astype(np.float32) for one in arrays)
    found = SurfaceSet(names, image, reference, target, np.array(subjects, np.int32))
    if kept is not None:
        save_arrays(kept, key, {**found._asdict(), "names": np.array(names, np.str_)})
    return found
