"""One published net as ours: its parameters, the way to a state dict and back, and how it is tried out.

Families of networks derive from `Weights`: tools/x2ct_weights.py and tools/cyclegan_weights.py. What only
the published file needs - running statistics of the norms, epoch, learning rate - is kept beside the
parameters, so that the way back gives every bit again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from tensor_files import import_torch

from jxrecon.compile import jit
from jxrecon.interop import weights as convert
from jxrecon.types import InputError


class Start(NamedTuple):
    """The run that a net belongs into.

    Attributes:
        exp: name of the experiment.
        size: one of its sizes.
        assignments: what to set in it, as `--set` takes it.
    """

    exp: str
    size: str
    assignments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Weights(ABC):
    """One net.

    Attributes:
        net: as the published file names it: "G", "D"; "G_A", "G_B", "D_A", "D_B".
        field: where it lies in a training state and in our parameter files, such as "generator".
        params: our tree of NumPy arrays below "params".
        buffers: official name -> running statistics of the norms, as the file had them.
        facts: what else the file said: epoch, and iters and lr where it has them.
        FAMILY: whose nets these are.
        FIELDS: each field -> the net that it is of, if nothing else is said; the first one is what a run
            cannot do without.
        EPOCH: in the names of files, if nothing else is said.
        EXAMPLE: name of a published file.
    """

    net: str
    field: str
    params: dict[str, Any]
    buffers: dict[str, np.ndarray]
    facts: dict[str, Any]

    FAMILY: ClassVar[str]
    FIELDS: ClassVar[Mapping[str, str]]
    EPOCH: ClassVar[int | str]
    EXAMPLE: ClassVar[str]

    @classmethod
    @abstractmethod
    def recognises(cls, state: convert.State) -> bool:
        """Whether a state dict looks like one of this family's."""

    @classmethod
    @abstractmethod
    def from_state(
        cls, state: convert.State, facts: dict[str, Any], net: str = "", real: str = "A"
    ) -> Self:
        """The weights of a state dict.

        Args:
            state: name -> array.
            facts: as of the file.
            net: which one it is, by the name of the file or the user's word; empty: not said.
            real: "A" or "B", the domain of the real images, where there are two.

        Raises:
            InputError: a tensor is missing or unknown, or it is not that net.
        """

    @abstractmethod
    def to_state(self) -> dict[str, np.ndarray]:
        """The state dict that the published code loads strictly."""

    def pack(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """What a .pth of the published code holds, around or instead of the state dict."""
        return tensors

    @property
    @abstractmethod
    def described(self) -> str:
        """What kind of net it is, in some words."""

    @property
    @abstractmethod
    def start(self) -> Start:
        """The run that it belongs into."""

    @property
    @abstractmethod
    def inputs(self) -> list[tuple[int, ...]]:
        """Shapes [1, channels, *space] of what it is tried on."""

    @abstractmethod
    def module(self, dtype: Any = jnp.float32) -> Any:
        """Our module.

        Raises:
            InputError: the parameters are of no such module.
        """

    @abstractmethod
    def torch_module(self) -> Any:
        """PyTorch's, with tensors of the published names."""

    def arguments(self, inputs: list[Any]) -> list[Any]:
        """Inputs as our module takes them: channels last."""
        return [jnp.moveaxis(x, 1, -1) for x in inputs]

    def output(self, y: Any) -> Any:
        """The channels-last array of what our module gives."""
        return y

    def trial(self) -> Self:
        """The net at a size that it can be tried at."""
        return self

    @property
    def count(self) -> int:
        """Number of parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))

    def with_facts(self, **facts: Any) -> Self:
        """The same with these facts in place of or beside its own."""
        return replace(self, facts={**self.facts, **facts})


def split(
    state: convert.State, table: convert.Table
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A state dict -> our parameters, and all else that it holds: statistics of the norms.

    Raises:
        InputError: a tensor is missing or unknown.
    """
    params = convert.from_torch(state, table)
    known = {row.torch for row in table if isinstance(row, convert.Parameter)}
    return params, {name: np.asarray(value) for name, value in state.items() if name not in known}


def check(weights: Weights, origin: Path | str) -> None:
    """That the shapes fit each other.

    Raises:
        InputError: they do not; the line begins with `origin`.
    """
    try:
        module = weights.module()
        inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in weights.inputs]
    except InputError as error:
        raise InputError(f"{origin}: {error}") from None
    expected = jax.eval_shape(
        lambda *x: module.init(jax.random.key(0), *weights.arguments(list(x))), *inputs
    )
    compare(weights.params, expected, str(origin))


def compare(params: Any, expected: Any, origin: str) -> None:
    """That two trees have the same names and shapes.

    Raises:
        InputError: they do not; the line begins with `origin`.
    """
    found, wanted = (
        {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
            for path, leaf in leaves
        }
        for leaves in map(jax.tree.leaves_with_path, (params, expected))
    )
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise InputError(
                f"{origin}: {name} has shape {found.get(name, 'none')},"
                f" expected {wanted.get(name, 'none')}"
            )


# Trying them out.


def trial_inputs(weights: Weights) -> list[np.ndarray]:
    """Made-up inputs in [0, 1], always the same, [1, channels, *space] in float64."""
    rng = np.random.default_rng(0)
    return [rng.random(shape) for shape in weights.inputs]


def outputs(weights: Weights, *others: Weights, dtype: str = "float32") -> list[np.ndarray]:
    """What our network gives for the trial inputs with these and other parameters.

    Returns:
        A volume, an image or a map of scores [1, channels, *space] for each.
    """
    trials = [one.trial() for one in (weights, *others)]
    with jax.enable_x64(dtype == "float64"):
        first = trials[0]
        arguments = first.arguments([jnp.asarray(x, dtype) for x in trial_inputs(first)])
        apply = jit(first.module(jnp.dtype(dtype)).apply)
        given = []
        for one in trials:
            params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), one.params)
            y = np.asarray(first.output(apply(params, *arguments)))
            given.append(np.moveaxis(y, -1, 1))
    return given


def outputs_of_torch(weights: Weights) -> np.ndarray:
    """The same of the PyTorch module, into which the state dict is loaded strictly, in float64."""
    torch = import_torch()
    weights = weights.trial()
    with torch.no_grad():
        return loaded(weights).double()(*map(torch.from_numpy, trial_inputs(weights))).numpy()


def loaded(weights: Weights) -> Any:
    """The PyTorch module with the state dict, loaded strictly."""
    torch, state = import_torch(), weights.to_state()
    module = weights.torch_module()
    module.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()}, strict=True)
    return module.eval()


def proof(weights: Weights, tolerance: float = 1e-5) -> str:
    """A line on how far our network and PyTorch's are apart, relative to the largest value, in float64.

    Raises:
        InputError: by more than the tolerance.
    """
    (ours,), theirs = outputs(weights, dtype="float64"), outputs_of_torch(weights)
    largest = np.abs(ours - theirs).max()
    relative = largest / np.abs(theirs).max()
    line = (
        f"{weights.net}: largest difference between PyTorch's output and ours {largest:.2e},"
        f" {relative:.2e} of the largest value (float64, one input)"
    )
    if not relative <= tolerance:
        raise InputError(f"{line}, expected at most {tolerance:g}")
    return line
