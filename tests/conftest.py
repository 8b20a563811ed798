"""Strict JAX, one compilation cache for all tests, and where the real data lies."""

import os
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

_QUICKLY = "--xla_backend_optimization_level=0"
"""Compile time rules the default suite on CPU: so it is a third, and such small programs run fast anyhow."""
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
    # jaxlib 0.12 lacks this flag, and ends a process that is given one it does not know.
    _QUICKLY += " --xla_cpu_use_fusion_emitters=false"
_REPOSITORY = Path(__file__).resolve().parents[1]
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_REPOSITORY / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # in the workers: their threads would wait for each other
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # else the CPU cache warns at every load

import jax  # noqa: E402
import jaxtyping  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from jxrecon.geometry import Grid  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_configure(config: pytest.Config) -> None:
    """XLA's flags, before anything is compiled; slow tests compute for longer than they compile."""
    if config.option.markexpr == "not slow":
        os.environ["XLA_FLAGS"] = f"{_QUICKLY} {os.environ.get('XLA_FLAGS', '')}".strip()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The whole default suite runs in several processes, where pytest-xdist is there (`-n 0`: in one)."""
    whole = (
        config.args_source is config.ArgsSource.TESTPATHS and config.option.markexpr == "not slow"
    )
    worker = hasattr(config, "workerinput")  # or each process would start its own
    if whole and not worker and getattr(config.option, "numprocesses", 0) is None:
        config.option.numprocesses = min(os.cpu_count() or 1, 4)
        config.option.dist = "loadfile"  # what a file's tests share is made once


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Annotations are not checked: for input that they forbid and that the function itself refuses."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def run_command() -> Callable[..., int]:
    """run_command(module, *arguments): the exit code of a command, as a user's shell sees it."""

    def run(module: ModuleType, *arguments: object) -> int:
        code: int = module.command([str(argument) for argument in arguments])
        return code

    return run


@pytest.fixture(scope="session")
def jacobian() -> Callable[[np.ndarray, Grid], np.ndarray]:
    """jacobian(field, nodes): det of the derivative of y -> y + d(y); 0 or less where space folds.

    The axes of the lattice are those of the world.
    """

    def determinants(field: np.ndarray, nodes: Grid) -> np.ndarray:
        step = np.diagonal(nodes.affine)[:3]
        rows = [np.stack(np.gradient(field[..., c], *step), -1) for c in range(3)]
        return np.linalg.det(np.stack(rows, axis=-2) + np.eye(3))

    return determinants


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real data: JXRECON_DATA or ../shared/data; tests that need it skip without it."""
    folder = Path(os.environ.get("JXRECON_DATA", _REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set JXRECON_DATA)")
    return folder


@pytest.fixture(scope="session")
def oracles() -> Path:
    """Folder of numbers computed with the authors' own code."""
    return Path(__file__).resolve().parent / "oracles"
