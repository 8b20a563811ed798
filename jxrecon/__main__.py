"""`jxrecon NAME ...`: the commands, each of which is `python -m jxrecon.NAME` too."""

from __future__ import annotations

import sys
from importlib import import_module

COMMANDS = {
    "demo": "two X-rays in, a CT out, by the weights that ship; no data needed",
    "train": "train an experiment and evaluate it",
    "evaluate": "compare runs and their rivals: tables, tests, a report",
    "reconstruct": "a CT volume or an organ's surface from X-ray files",
    "check": "whether X-rays are what is told of them: views, flips, distances",
    "register": "the pose of a CT from its X-rays",
    "project": "X-rays of a CT file",
    "prepare": "data sets in the layout that an experiment expects",
    "style": "real X-rays in the style of synthetic ones",
    "blind-spots": "what metrics miss, as data",
}
"""Name -> what it does."""


def command(arguments: list[str] | None = None) -> int:
    """Runs the command that the first argument names; returns its exit code."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print("usage: jxrecon COMMAND ...\n\ncommands (jxrecon COMMAND --help says more):")
        print("\n".join(f"  {name:<14}{what}" for name, what in COMMANDS.items()))
        return 0
    if name == "--version":
        from jxrecon import __version__

        print(f"jxrecon {__version__}")
        return 0
    if name not in COMMANDS:
        print(f"error: jxrecon {name}: expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    if arguments is None:
        sys.argv[1:] = rest  # a process of its own, as `python -m jxrecon.NAME` is
    module = import_module(f"jxrecon.{name.replace('-', '_')}")
    return int(module.command(None if arguments is None else rest))


if __name__ == "__main__":
    raise SystemExit(command())
