"""The type checker of `--jaxtyping-packages`: shapes, dtypes and types of what functions take and give."""

from collections.abc import Callable

from beartype import BeartypeConf, beartype

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # a float may be an int


def checked(function: Callable) -> Callable:
    """`function` with its annotations checked; not `__init__`, as JAX puts None into its pytrees."""
    return function if function.__name__ == "__init__" else _check(function)
