"""The direction of dependencies: every module has its floor, and imports only what lies below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FILES = sorted((REPOSITORY / "jxrecon").rglob("*.py"))

CAMERAS = {"types", "units", "geometry"}
IMAGING = {*CAMERAS, "pose", "drr", "phantom", "mesh"}
WORK = {"compile", "files", "interrupt", "terminal"}
LEARNING = {"experiment", "metrics", "methods.base", "runs"}
FILES_IN = {"io", "data"}
JUDGING = {"likelihood", "inference", "evaluation"}
KNOWS = {
    "types": set(),
    "units": {"types"},
    "geometry": {"types", "units"},
    "pose": CAMERAS,
    "compile": {"types"},
    "devices": {"types"},
    "rounded": set(),
    "files": {"types"},
    "terminal": {"types"},
    "interrupt": set(),
    "experiment": CAMERAS,
    "cli": {"types", "files", "compile", "interrupt"},
    "drr": CAMERAS,
    "mesh": CAMERAS,
    "phantom": {*CAMERAS, "mesh"},
    "deformation": IMAGING,
    "metrics": IMAGING,
    "nn": IMAGING,
    "interop": CAMERAS,
    "io": {*CAMERAS, "mesh", "files", "terminal"},
    "flags": {*IMAGING, "io"},
    "data": {*IMAGING, "deformation", "experiment", "io", "devices", *WORK},
    "methods.base": {*IMAGING, "nn", "metrics"},
    "methods": {*IMAGING, "deformation", "nn", "metrics", "methods.base", "devices", "rounded"},
    "likelihood": {*IMAGING, *WORK, *FILES_IN, "rounded"},
    "registration": {*IMAGING, "nn", "compile", *FILES_IN},
    "correspondence": {*IMAGING, "nn", "io", *WORK},
    "runs": {*CAMERAS, "experiment", "methods.base", "devices", *WORK},
    "inference": {*IMAGING, *WORK, *LEARNING, *FILES_IN, "correspondence", "likelihood"},
    "evaluation": {*IMAGING, *WORK, *LEARNING, *FILES_IN, "likelihood"},
    "report": {*IMAGING, *WORK, *LEARNING, *FILES_IN, "registration", "inference", "evaluation"},
    "kinds": {*IMAGING, *WORK, *LEARNING, *FILES_IN, *JUDGING, "report"},
    "rivals": {"methods", "experiment"},
}
"""Part -> the parts that it may import beside itself."""

COMMANDS = {
    "demo",
    "train",
    "check",
    "evaluate",
    "reconstruct",
    "register",
    "style",
    "prepare",
    "blind_spots",
    "project",
}
"""Flags and main: nobody imports them but those who start them, and they import no other."""

STARTERS = {("__main__",): COMMANDS, ("drr", "__main__"): {"project"}, (): set()}
"""Who may start commands, and the package's face, which names what lies below."""


def module_of(path: Path) -> tuple[str, ...]:
    """jxrecon/nn/conv.py -> ("nn", "conv")."""
    parts = path.relative_to(REPOSITORY / "jxrecon").with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


MODULES = {module_of(path) for path in FILES}


def part_of(module: tuple[str, ...]) -> str:
    """The part of the house that a module belongs to."""
    return ".".join(module[: 2 if module[:2] == ("methods", "base") else 1])


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


def allowed(module: tuple[str, ...], name: tuple[str, ...]) -> bool:
    """Whether a module may import another one."""
    mine, its = part_of(module), part_of(name)
    if module in STARTERS and its in COMMANDS:
        return its in STARTERS[module]
    if its in COMMANDS or its == "experiments":
        return False
    if module in STARTERS or mine in COMMANDS:
        return its != "methods"  # they know what a method is, none of the methods
    if mine == its == "methods":  # methods/volumes/x/a.py knows methods/volumes/x/b.py alone
        return module[1:3] == name[1:3]
    return mine == its or its in KNOWS[mine]


def breaches(module: tuple[str, ...], source: str) -> list[str]:
    """What a module imports though it should not know of it."""
    return [
        f"{'.'.join(module)} imports {'.'.join(name)}"
        for name in sorted(imports_of(source))
        if not allowed(module, name)
    ]


def circle(edges: dict[tuple[str, ...], set[tuple[str, ...]]]) -> list[tuple[str, ...]]:
    """Modules that import each other in a loop; empty where there is none."""
    left = dict(edges)
    while free := [m for m, names in left.items() if not names & left.keys() - {m}]:
        for module in free:
            del left[module]
    return sorted(left)


@pytest.mark.parametrize("path", FILES, ids=lambda p: ".".join(module_of(p)) or "jxrecon")
def test_module_imports_only_what_lies_below_it(path: Path) -> None:
    assert breaches(module_of(path), path.read_text()) == []


def test_no_module_stands_outside_the_house() -> None:
    parts = {part_of(m) for m in MODULES if m not in STARTERS}
    assert parts == {*KNOWS, *COMMANDS}


def test_the_parts_of_the_house_stand_on_floors() -> None:
    assert circle({(part,): {(p,) for p in known} for part, known in KNOWS.items()}) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    edges = {module_of(path): imports_of(path.read_text()) & MODULES for path in FILES}
    assert circle(edges) == []


def test_a_circle_is_found() -> None:
    edges = {("a",): {("b",)}, ("b",): {("c",)}, ("c",): {("b",)}}
    assert circle(edges) == [("a",), ("b",), ("c",)]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (("geometry",), "from jxrecon import drr"),
        (("drr", "beam"), "import jxrecon.metrics.volume"),
        (("metrics", "volume"), "from jxrecon.io import nifti"),
        (("methods", "volumes", "tv"), "from jxrecon.methods.volumes.nearest import fit"),
        (("methods", "volumes", "tv"), "from jxrecon.methods.surfaces.igcn import losses"),
        (("methods", "volumes", "tv"), "def f():\n    from jxrecon.io.nifti import read_volume"),
        (("methods", "base", "method"), "from jxrecon.runs.checkpoint import Checkpoints"),
        (("methods", "base", "method"), "from jxrecon.methods.volumes import tv"),
        (("data", "volumes"), "from jxrecon.methods.base.method import Method"),
        (("evaluation", "compare"), "def f():\n    from jxrecon.report import page"),
        (("runs", "run"), "from jxrecon.methods.volumes import nearest"),
        (("train",), "from jxrecon.methods.volumes.x2vision.method import build"),
        (("train",), "from jxrecon.evaluate import main"),
        (("inference", "volumes"), "def f():\n    from jxrecon.reconstruct import main"),
        (("drr", "__main__"), "from jxrecon import train"),
        (("kinds",), "import jxrecon.experiments.x2vision_hn"),
    ],
)
def test_wrong_imports_are_found(module: tuple[str, ...], source: str) -> None:
    assert len(breaches(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            ("methods", "volumes", "x2ct", "method"),
            "from jxrecon.methods.volumes.x2ct import losses",
        ),
        (("methods", "volumes", "nearest"), "from jxrecon.methods.base.method import Method"),
        (
            ("train",),
            "from jxrecon.methods.base.method import Method\nfrom jxrecon.runs import loop",
        ),
        (("drr", "__main__"), "from jxrecon.project import command"),
    ],
)
def test_right_imports_pass(module: tuple[str, ...], source: str) -> None:
    assert breaches(module, source) == []
