"""Import what the ``context`` extra brings, or say how to install it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from agentbudget.errors import MissingDependency


@contextmanager
def needs(what: str) -> Generator[None]:
    """Turns a failed import inside the block into `MissingDependency`; ``what`` is what was about to be done."""
    try:
        yield
    except ImportError as error:
        raise MissingDependency(
            f"{what} needs {error.name or error}; install it with: pip install 'agentbudget-runtime[context]'"
        ) from error
