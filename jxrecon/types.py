"""The words that every module shares: array aliases, what a batch is, and the one error of bad input.

Importing them does not import JAX, so that a command answers --help at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

PyTree: TypeAlias = Any

if TYPE_CHECKING:
    import jax
    import numpy as np
    from jaxtyping import Array, Float, Int

    Key: TypeAlias = jax.Array
    """A typed or raw JAX random key."""

    AnyArray: TypeAlias = jax.Array | np.ndarray
    """On a device or in NumPy."""

    Terms: TypeAlias = dict[str, Float[Array, ""]]
    """Scalars of one step under the names of the paper, all of them logged."""
else:

    def __getattr__(name: str) -> Any:
        """The aliases above, made when they are first asked for."""
        if name not in ("Key", "AnyArray", "Terms"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import jax
        import numpy as np

        made = {"Key": jax.Array, "AnyArray": jax.Array | np.ndarray, "Terms": dict[str, jax.Array]}
        return globals().setdefault(name, made[name])


class VolumeBatch(NamedTuple):
    """Cases of one step with their X-rays.

    Attributes:
        hu: CT values in HU on the problem's grid, axes [batch, x, y, z] (RAS).
        index: position of each volume in the training set, so that a method may keep a code for it; n more
            for its mirror image, -1 for a case that is not in it.
        images: line integrals by the problem's cameras, one array a view; none before they are taken.
    """

    hu: Float[Array, "b x y z"]
    index: Int[Array, " b"]  # type: ignore[assignment]  # shadows tuple.index, never called
    images: tuple[Float[Array, "b rows columns"], ...] = ()


class SceneBatch(NamedTuple):
    """Cases of one step before their X-rays are taken.

    Attributes:
        hu: the field, as in `VolumeBatch`.
        index: as in `VolumeBatch`.
        scene: CT values in HU of the whole CT about the field.
        affine: of the scene, index -> mm in the frame of the field.
    """

    hu: Float[Array, "b x y z"]
    index: Int[Array, " b"]  # type: ignore[assignment]  # shadows tuple.index, never called
    scene: Int[Array, "b i j k"]
    affine: Float[Array, "b 4 4"]


class TrainingVolumes(NamedTuple):
    """All that is learnt from at once.

    Attributes:
        hu: CT values of the n training cases in whole HU.
        images: their noise-free X-rays, one array a view: first the n cases, then their mirror images
            (left for right).
    """

    hu: Int[Array, "n x y z"]
    images: tuple[Float[Array, "n2 rows columns"], ...]


class SurfaceBatch(NamedTuple):
    """Training cases of one step: an organ that has moved, and the X-ray that shows it.

    All surfaces of a problem share one topology: vertex n is the same place of every organ.

    Attributes:
        image: line integrals of the body with the moved organ, by the problem's camera.
        reference: the organ's known shape before it moved, world mm.
        target: its shape when the X-ray was taken, world mm.
        index: position of each case in the training set.
    """

    image: Float[Array, "b rows columns"]
    reference: Float[Array, "b v 3"]
    target: Float[Array, "b v 3"]
    index: Int[Array, " b"]  # type: ignore[assignment]  # shadows tuple.index, never called


class ImagePairBatch(NamedTuple):
    """Training images of one step in two styles; which stands beside which means nothing.

    Attributes:
        real: images in [-1, 1].
        synthetic: images in [-1, 1].
        index: position of each pair in the training set.
    """

    real: Float[Array, "b rows columns"]
    synthetic: Float[Array, "b rows columns"]
    index: Int[Array, " b"]  # type: ignore[assignment]  # shadows tuple.index, never called


class InputError(ValueError):
    """Bad input, told in one line that names the file, the value found and what was expected.

    Entry points print the line without a traceback and exit with status 2.
    """


def shown(value: Any, most: int = 100) -> str:
    """A value as Python writes it, for an error line: no longer than `most`, without NumPy's types."""
    text = repr(value.tolist() if hasattr(value, "tolist") else value)
    return text if len(text) <= most else f"{text[:most]}..."
