"""Keeps a library from loading another one that it would only use if it is there.

    with without("rich"):
        import structlog

structlog and httpx load rich for a terminal that a process of the mesh does not have: 4 MiB and a tenth of a second.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(name: str) -> Iterator[None]:
    """Whatever is imported in the block finds no package of that name."""
    known = sys.modules.get(name)
    sys.modules[name] = None  # pyright: ignore[reportArgumentType] (how an import is told that there is none)
    try:
        yield
    finally:
        del sys.modules[name]
        if known is not None:
            sys.modules[name] = known
