"""Makes the API reference of every module as HTML; a warning is an error.

    python tools/api_reference.py OUT        # then open OUT/index.html

Needs the extra `docs`. A docstring's first line is what the index and editors show.
"""

from __future__ import annotations

import argparse
import inspect
import pkgutil
import typing
import warnings
from importlib import import_module
from pathlib import Path

import jax
import jaxtyping
import numpy
import pdoc
import pdoc.render

import jxrecon


def main() -> None:
    """Writes the pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder")
    out = parser.parse_args().out
    names = [module.name for module in pkgutil.walk_packages(jxrecon.__path__, "jxrecon.")]
    names = [name for name in names if not name.endswith("__main__")]
    for name in names:
        resolve_fields(import_module(name))
    pdoc.render.configure(docformat="google", search=False, show_source=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # A package brings modules of its own, all of which are named here, too.
        warnings.filterwarnings("ignore", "The module specification")
        pdoc.pdoc("jxrecon", *names, output_directory=out)
    print(f"{out}: {len(names) + 1} modules")


def resolve_fields(module: typing.Any) -> None:
    """Gives constructors of named tuples the types of their fields, which pdoc looks for in vain.

    Python writes these constructors in a namespace of their own, where the types' names are unknown.
    """
    known = {**vars(jaxtyping), "Array": jax.Array, "np": numpy, **vars(module)}
    for value in vars(module).values():
        if (
            inspect.isclass(value)
            and hasattr(value, "_fields")
            and value.__module__ == module.__name__
        ):
            value.__new__.__annotations__ = typing.get_type_hints(value, known)


if __name__ == "__main__":
    main()
