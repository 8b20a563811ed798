"""How every command begins and ends: arguments, compiler check, one line and an exit code for bad input."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable

from jxrecon.files import cache_folder
from jxrecon.types import InputError

_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
"""What a full, read-only or foreign disk answers."""


def command_parser(name: str, description: str, example: str) -> argparse.ArgumentParser:
    """The parser of `jxrecon NAME`, with an example at the end of its help."""
    return argparse.ArgumentParser(
        prog=f"jxrecon {name}",
        description=description,
        epilog=f"example: {example}",
        allow_abbrev=False,
    )


def entry(
    parser: Callable[[], argparse.ArgumentParser],
    main: Callable[[argparse.Namespace], int],
    arguments: list[str] | None = None,
    before: Callable[[argparse.Namespace], None] = lambda options: None,
) -> int:
    """Runs a command: `command = partial(entry, parser, main)`.

    Compiled programs are kept in `cache_folder("xla")`, or where JAX_COMPILATION_CACHE_DIR says. JAX is
    imported after the arguments were read, so that help comes at once.

    Args:
        parser: makes the parser of its flags.
        main: the command; finds what was typed in `options.arguments`, too.
        arguments: without the program's name; None means those of the process.
        before: what has to be done before JAX computes anything.

    Returns:
        what `main` returns; 2 after bad input or when the disk refuses to be written to, with one
        line on stderr; 130 after Ctrl-C.
    """
    typed = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(typed, argparse.Namespace(arguments=typed))
    try:
        before(options)
        _prepare_jax()
        return main(options)
    except InputError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        print(f"error: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _prepare_jax() -> None:
    """Finds the cache of compiled programs and checks that this jaxlib computes right numbers."""
    import jax

    from jxrecon.compile import check_compiler

    folder = cache_folder("xla")
    if folder and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(folder))
    check_compiler()
