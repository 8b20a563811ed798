"""The direction of dependencies: what a package may know of is written here and nowhere broken."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FILES = sorted((REPOSITORY / "jxrecon").rglob("*.py"))

_CAMERAS = {"types", "units", "geometry"}
_IMAGING = {*_CAMERAS, "drr", "phantom", "mesh"}
KNOWS = {
    "types": set(),
    "units": set(),
    "geometry": {"types", "units"},
    "pose": _CAMERAS,
    "registration": {*_IMAGING, "data", "nn", "pose", "compile"},
    "interop": _CAMERAS,
    "config": _CAMERAS,
    "drr": _CAMERAS,
    "mesh": _CAMERAS,
    "phantom": {*_CAMERAS, "mesh"},
    "deformation": {*_IMAGING, "pose"},
    "metrics": _IMAGING,
    "nn": _IMAGING,
    "data": {*_IMAGING, "config", "deformation"},
    "methods": {*_IMAGING, "metrics", "nn"},
    "canary": {"types"},
    "logs": {"types"},
    "signals": {"types"},
    "sharding": {"types"},
    "checkpoint": {"types", "sharding"},
    "run": {*_CAMERAS, "config", "sharding", "checkpoint", "methods"},
}
"""Package -> what it may import beside itself. Those not listed are entry points and their parts."""


def module_of(path: Path) -> tuple[str, ...]:
    """jxrecon/nn/conv.py -> ("nn", "conv")."""
    parts = path.relative_to(REPOSITORY / "jxrecon").with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


MODULES = {module_of(path) for path in FILES}


def imports_of(source: str) -> set[tuple[str, ...]]:
    """The modules of jxrecon that a source imports, at its top or inside its functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            base = tuple((node.module or "").split("."))
            for alias in node.names:
                full = (*base, alias.name)
                found.add(full if full[1:] in MODULES else base)
    return {name[1:] for name in found if name[0] == "jxrecon" and len(name) > 1}


def breaches(module: tuple[str, ...], source: str) -> list[str]:
    """What a module imports though it should not know of it."""
    package, lines = module[0] if module else "", []
    for name in imports_of(source):
        known = KNOWS.get(package)
        if module[-1:] == ("__main__",) or known is None:
            wrong = False
        elif package == name[0]:
            # A method knows itself and base: methods/x/a.py may import methods/x/b.py alone.
            wrong = package == "methods" and name[1:2] not in (("base",), module[1:2])
        else:
            wrong = name[0] not in known
        if package != "methods" and name[0] == "methods":
            wrong = wrong or name != ("methods", "base")
        if wrong or name[0] == "experiments":
            lines.append(f"{'.'.join(module)} imports {'.'.join(name)}")
    return lines


@pytest.mark.parametrize("path", FILES, ids=lambda p: ".".join(module_of(p)) or "jxrecon")
def test_module_imports_only_what_lies_below_it(path: Path) -> None:
    assert breaches(module_of(path), path.read_text()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (("geometry",), "from jxrecon import drr"),
        (("drr", "beam"), "import jxrecon.metrics.volume"),
        (("metrics", "volume"), "from jxrecon.data import nifti"),
        (("methods", "x2vision", "prior"), "from jxrecon.methods.nearest import fit"),
        (("methods", "nearest"), "def f():\n    from jxrecon.data.nifti import read_volume"),
        (("methods", "base"), "from jxrecon.checkpoint import Checkpoints"),
        (("data", "volumes"), "from jxrecon.methods.base import Method"),
        (("train",), "from jxrecon.methods.x2vision.method import build"),
        (("evaluate",), "from jxrecon.methods import nearest"),
        (("run",), "from jxrecon.methods import nearest"),
        (("config",), "import jxrecon.experiments.x2vision_hn"),
    ],
)
def test_wrong_imports_are_found(module: tuple[str, ...], source: str) -> None:
    assert len(breaches(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (("methods", "x2vision", "prior"), "from jxrecon.methods.x2vision import losses"),
        (("methods", "nearest"), "from jxrecon.methods.base import Method"),
        (("train",), "from jxrecon.methods.base import Method\nfrom jxrecon.data import pipeline"),
        (("drr", "__main__"), "from jxrecon.data import radiographs"),
    ],
)
def test_right_imports_pass(module: tuple[str, ...], source: str) -> None:
    assert breaches(module, source) == []
