from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from agentbudget import context
from agentbudget.context import _extra
from agentbudget.errors import MissingDependency


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = ["bs4", "fastembed", "markdown_it", "numpy", "onnxruntime", "pypdf", "qdrant_client", "qdrant_edge"]
    code = f"import sys, agentbudget.context; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_all_names_exist_and_are_sorted() -> None:
    assert context.__all__ == sorted(context.__all__)
    assert all(hasattr(context, name) for name in context.__all__)


def test_a_missing_package_names_the_extra_that_brings_it() -> None:
    with pytest.raises(MissingDependency, match=r"boiling needs no_such_kettle; .*agentbudget-runtime\[context\]"):
        with _extra.needs("boiling"):
            importlib.import_module("no_such_kettle")
