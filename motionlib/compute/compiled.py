"""Compilation by numba that works wherever the package lies.

numba keeps machine code beside the source or in the user's cache folder, and compiles nothing where
it can write to neither, as in a container with a foreign uid. There the code stays in memory, and
every process compiles for itself.
"""

from collections.abc import Callable

import numba


def compiled(**options) -> Callable:
    """Decorate a function as `numba.njit` does, with a cache on disk where one can be kept."""

    def decorate(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # numba: no locator available
            return numba.njit(**options)(function)

    return decorate


def keeps_code() -> bool:
    """Whether compiled code of this package outlives its process."""
    try:
        numba.njit(cache=True)(_probe)
    except RuntimeError:
        return False
    return True


def _probe() -> int:
    """Stand for any function that is compiled."""
    return 0
