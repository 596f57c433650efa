"""The notebooks run from top to bottom, on real llama.cpp and the smallest weights."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from agentbudget.models import catalog

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def test_there_is_one_for_each_journey() -> None:
    assert [path.name.partition("_")[0] for path in NOTEBOOKS] == ["1", "2", "3"]


@pytest.mark.parametrize("notebook", [pytest.param(path, id=path.name) for path in NOTEBOOKS])
def test_a_notebook_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nbclient", reason="the extra 'notebook' is not installed")
    pytest.importorskip("ipykernel", reason="the extra 'notebook' is not installed")
    if "eval" in notebook.name:
        pytest.importorskip("inspect_ai", reason="the extra 'evals' is not installed")
    catalog.ensure("smollm2-135m")
    catalog.ensure("all-minilm-l6-v2")
    monkeypatch.setenv("AGENTBUDGET_MODELS", "llamacpp:smollm2-135m")
    monkeypatch.delenv("AGENTBUDGET_DATA", raising=False)
    for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "XDG_DATA_HOME", "TMPDIR"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setenv(name, str(folder))
    shown = execute(notebook)
    assert shown, f"{notebook.name} shows nothing"
    if "eval" not in notebook.name:
        assert any("<svg" in html for html in shown), "a statement has a chart"


def execute(notebook: Path) -> list[str]:
    """What the cells of a notebook show, as HTML where there is HTML, else as text; raises what a cell raises."""
    import nbformat
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    class ThisInterpreter(KernelSpecManager):
        """Knows one kernel: the interpreter that runs the tests, whatever is installed on the machine."""

        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=command, display_name=kernel_name, language="python")

    book = cast(Any, nbformat.read(notebook, as_version=4))
    nbformat.validate(book)
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=ThisInterpreter())
    client = NotebookClient(book, km=manager, timeout=300, resources={"metadata": {"path": str(notebook.parent)}})
    client.execute()
    return [_shown(output) for cell in book.cells for output in cell.get("outputs", [])]


def _shown(output: Mapping[str, Any]) -> str:
    data: Mapping[str, str] = output.get("data", {})
    return data.get("text/html") or data.get("text/plain") or str(output.get("text"))
