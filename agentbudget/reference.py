"""The reference graph, skills and handbook that come with agentbudget, in a checkout or in an installed wheel."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentbudget.errors import Mistake

if TYPE_CHECKING:
    from langgraph.graph import StateGraph


def root() -> Path:
    """The folder that holds ``graphs``, ``skills`` and ``examples``: the checkout's root, or the wheel's copy."""
    package = Path(__file__).parent
    copied = package / "_reference"
    return copied if copied.is_dir() else package.parent


def handbook() -> Path:
    """The small handbook that the demo asks about."""
    return root() / "examples" / "handbook"


def research_graph() -> StateGraph[Any, Any, Any, Any]:
    """``graphs/research.py``: plan, explore in parallel, conclude.

    Raises `Mistake` where Python finds another module that is called like the packages it is made of.
    """
    if str(root()) not in sys.path:
        sys.path.insert(0, str(root()))
    for name in ("graphs", "skills"):
        found = importlib.util.find_spec(name)
        origin = found.origin if found is not None and found.origin is not None else name
        if root() not in Path(origin).parents:
            raise Mistake(f"the reference graph has a package {name!r}, and Python finds {origin} first: rename that")
    return importlib.import_module("graphs.research").build()
