"""Makes one small mutation of the package at a time and counts those that its tests notice.

    python tools/mutate.py --count 150 --seed 0 --out mutants.csv

A mutation exchanges a comparison, an arithmetic sign, `and` with `or`, True with False, drops a `not` or a
minus, or adds one to a number, in a random place of jxrecon/methods, metrics, data and evaluation. Left out
are text, annotations, what is said in errors and notes, and numbers given to a name at the top of a module or
class: those are choices, which a test would only repeat. Each is tried in a copy of the repository by the
test files that import its module: those of its package first, then the smallest, four at most, until a test
fails. A mutant survives where all pass; one that takes over `SECONDS` of CPU counts as killed. The table
names the test that failed and goes on where it ended; the first rows of one seed are a random sample
themselves.
"""

from __future__ import annotations

import argparse
import ast
import csv
import os
import random
import resource
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]

PACKAGES = ("methods", "metrics", "data", "evaluation")

FILES = 4
"""Test files of a module that are run, at most."""

SECONDS = 300
"""CPU time of the tests of one mutant, at most."""

_SURVIVED = "survived"

ELSEWHERE = {
    "jxrecon.data.ct_sources": ("tests/test_prepare_sets.py", "tests/test_prepare.py"),
    "jxrecon.data.head_neck_folder": ("tests/test_prepare_sets.py",),
    "jxrecon.data.splits": ("tests/test_prepare_sets.py",),
    "jxrecon.methods.base.linear_system": ("tests/methods/test_classical.py",),
}
"""Tests of modules that no test file imports."""

_SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.MatMult: ast.Add, ast.And: ast.Or,
    ast.Or: ast.And,
}  # fmt: skip
_QUIET = (
    "note",
    "InputError",
    "cast",
    "TypeVar",
    "NewType",
)  # calls whose arguments are told or types


class Mutation(NamedTuple):
    """One change of a file.

    Attributes:
        path: of the file in the repository.
        line: from 1.
        before, after: the expression.
        start, stop: its place in the file's bytes.
    """

    path: str
    line: int
    before: str
    after: str
    start: int
    stop: int

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").replace("/", ".")


def mutations(path: str) -> Iterator[Mutation]:
    """All of a file."""
    content = (REPOSITORY / path).read_bytes()
    starts = [0]
    for line in content.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in _expressions(ast.parse(content), top=True):
        if (changed := _changed(node)) is None:
            continue
        start = starts[node.lineno - 1] + node.col_offset
        stop = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        before = " ".join(content[start:stop].decode().split())
        yield Mutation(path, node.lineno, before, ast.unparse(changed), start, stop)


def _expressions(node: ast.AST, top: bool) -> Iterator[ast.expr]:
    """The expressions that are computed; `top`: outside of a function."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert):
        return
    if isinstance(node, ast.Call) and ast.unparse(node.func) in _QUIET:
        return
    if isinstance(node, ast.Assign | ast.AnnAssign) and top:
        return
    if isinstance(node, ast.expr):
        yield node
    inside = isinstance(node, ast.FunctionDef | ast.Lambda)
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _expressions(child, top and not inside)


def _changed(node: ast.expr) -> ast.expr | None:
    """The expression after a small change; None where there is none for it."""
    match node:
        case ast.Compare(left, [operator, *more], comparators):
            return ast.Compare(left, [_SWAPS[type(operator)](), *more], comparators)
        case ast.BoolOp(operator, values):
            return ast.BoolOp(_SWAPS[type(operator)](), values)
        case ast.BinOp(left, operator, right) if type(operator) in _SWAPS:
            return ast.BinOp(left, _SWAPS[type(operator)](), right)
        case ast.UnaryOp(ast.Not() | ast.USub(), operand):
            return operand
        case ast.Constant(bool() as value):
            return ast.Constant(not value)
        case ast.Constant(int() | float() as value):
            return ast.Constant(value + 1)
    return None


def tests_of(module: str) -> list[str]:
    """The test files of a module, as paths in the repository: its package's first, then the smallest."""
    importing = [path for path, names in _imported().items() if module in names]
    own = REPOSITORY / "tests" / module.split(".")[1]
    importing.sort(key=lambda path: (own not in path.parents, path.stat().st_size))
    found = [str(path.relative_to(REPOSITORY)) for path in importing[:FILES]]
    return found or list(ELSEWHERE[module])


@cache
def _imported() -> dict[Path, set[str]]:
    """What each test file imports."""
    found = {}
    for path in (REPOSITORY / "tests").rglob("test_*.py"):
        names = found[path] = set()
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
                names.add(node.module or "")
    return found


class Tester:
    """Runs tests in a copy of the repository, each time in a fork that has the libraries imported."""

    def __init__(self, copy: Path) -> None:
        self._copy = copy
        cache = REPOSITORY / ".jax_cache"
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
        os.environ |= {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.path.insert(0, str(copy))
        sys.dont_write_bytecode = True  # a mutant of the same second and size would go unnoticed
        # no module of the package, which would start JAX: it does not survive a fork then
        import flax.linen  # noqa: F401
        import matplotlib.pyplot  # noqa: F401
        import nibabel  # noqa: F401
        import orbax.checkpoint  # noqa: F401
        import pydicom  # noqa: F401
        import pytest  # noqa: F401
        import skimage.measure  # noqa: F401
        import trimesh.creation  # noqa: F401

    def failed(self, mutation: Mutation, files: list[str]) -> str:
        """The first test that fails; empty where all pass."""
        path = self._copy / mutation.path
        content = path.read_bytes()
        mutant = content[: mutation.start], mutation.after.encode(), content[mutation.stop :]
        path.write_bytes(b"(".join(mutant[:2]) + b")" + mutant[2])
        try:
            return self._first_failed(files)
        finally:
            path.write_bytes(content)

    def _first_failed(self, files: list[str]) -> str:
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            os.chdir(self._copy)
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            import pytest

            plain = ["-x", "-q", "-n0", "-pno:cacheprovider"]
            os._exit(pytest.main([*plain, *files], plugins=[_Failures(theirs)]))
        os.close(theirs)
        with os.fdopen(ours) as pipe:
            name = pipe.read()
        code = os.waitpid(child, 0)[1]
        return "" if code == 0 else name or f"ended with {os.waitstatus_to_exitcode(code)}"


class _Failures:
    """A plugin of pytest that tells the names of tests that fail."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            os.write(self._pipe, report.nodeid.encode())

    pytest_collectreport = pytest_runtest_logreport


def main() -> int:
    """Mutates, tests and prints the share of mutants that were killed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=150, help="mutants (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    parser.add_argument("--only", default="", metavar="PART", help="of a path, such as metrics/")
    parser.add_argument("--out", type=Path, default=Path("mutants.csv"), help="(%(default)s)")
    parser.add_argument("--again", action="store_true", help="try the survivors of --out again")
    options = parser.parse_args()
    sources = sorted(
        str(path.relative_to(REPOSITORY))
        for package in PACKAGES
        for path in (REPOSITORY / "jxrecon" / package).rglob("*.py")
        if options.only in str(path.relative_to(REPOSITORY))
    )
    everything = [one for path in sources for one in mutations(path)]
    chosen = random.Random(options.seed).sample(everything, len(everything))[: options.count]
    columns = ["path", "line", "start", "before", "after", "failed"]
    rows = list(csv.DictReader(options.out.open())) if options.out.exists() else []
    done = {tuple(row[name] for name in columns[:5]): row["failed"] for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        for part in ("jxrecon", "tests", "experiments", "tools", "pyproject.toml", "README.md"):
            source, target = REPOSITORY / part, copy / part
            copy.mkdir(exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
        tester, outcomes = Tester(copy), Counter[bool]()
        for mutation in chosen:
            key = tuple(str(getattr(mutation, name)) for name in columns[:5])
            outcome = done.get(key, "")
            if not outcome or (options.again and outcome == _SURVIVED):
                outcome = tester.failed(mutation, tests_of(mutation.module)) or _SURVIVED
                done[key] = outcome
                print(*key, outcome, sep=" | ", flush=True)
                with options.out.open("w", newline="") as file:
                    table = csv.writer(file)
                    table.writerows([columns, *([*one, what] for one, what in done.items())])
            outcomes[outcome == _SURVIVED] += 1
    print(
        f"{len(chosen)} of {len(everything)} mutations: {outcomes[False]} killed, {outcomes[True]} survived"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
