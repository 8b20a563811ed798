"""How every command begins and ends: arguments, compiler check, one line and an exit code for bad input."""

from __future__ import annotations

import argparse
import errno
import gc
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress

from jxrecon.files import cache_folder
from jxrecon.interrupt import Ended, heeded
from jxrecon.types import InputError

_REFUSALS = {
    errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG, errno.ESTALE,
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE,
}  # fmt: skip
"""What a full, read-only, foreign or vanished disk answers, and one that holds other things than expected."""

_NEW_OBJECTS = 20_000
"""Made since the last look for unreachable ones, until the next: tracing makes millions, all in use. Python's
700 took a fifth of the time of tracing."""

_LONGEST = 2000
"""Characters of an error line: what a damaged file holds may be of any length."""


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
        line on stderr; 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP. A process of its own
        (`arguments` None) ends here unless all went well: libraries may have threads that would wait.
    """
    gc.set_threshold(max(_NEW_OBJECTS, gc.get_threshold()[0]), *gc.get_threshold()[1:])
    if arguments is None and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name of a file may be no text
    with heeded(last=arguments is None):
        typed = sys.argv[1:] if arguments is None else arguments
        code = _code_of(parser, main, typed, before)
    if code and arguments is None:
        with suppress(OSError):
            sys.stdout.flush()
        with suppress(OSError):
            sys.stderr.flush()
        os._exit(code)
    return code


def _code_of(
    parser: Callable[[], argparse.ArgumentParser],
    main: Callable[[argparse.Namespace], int],
    typed: list[str],
    before: Callable[[argparse.Namespace], None],
) -> int:
    try:
        options = parser().parse_args(typed, argparse.Namespace(arguments=typed))
        before(options)
        _prepare_jax()
        code = main(options)
        sys.stdout.flush()
        return code
    except InputError as error:
        line = " ".join(str(error).split())
        return _ended("error:", line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ...")
    except BrokenPipeError:  # who read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + 13
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        return _ended(f"error: {error.filename or 'output'}: {error.strerror}")
    except MemoryError as error:
        return _ended("error: out of memory", f"({error})" if str(error) else "")
    except RuntimeError as error:  # JAX's are of a type that is made when it is imported
        if not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        return _ended("error: out of memory on the device,", " ".join(str(error).split())[:200])
    except KeyboardInterrupt as error:
        return _ended("interrupted", code=128 + error.number if isinstance(error, Ended) else 130)


def _ended(*words: str, code: int = 2) -> int:
    """Says so, where there is anybody to be told; returns the code."""
    with suppress(OSError):
        print(*words, file=sys.stderr, flush=True)
    return code


def _prepare_jax() -> None:
    """Finds the cache of compiled programs and checks that this jaxlib computes right numbers."""
    import jax

    from jxrecon.compile import check_compiler

    folder = cache_folder("xla")
    if folder and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:  # small programs are many
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    check_compiler()
