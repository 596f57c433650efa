"""The rules of the house: the map in AGENTS.md, layers, light imports, style and types."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "agentbudget"
HEAVY = (
    "anthropic",
    "bs4",
    "fastembed",
    "genai_prices",
    "inspect_ai",
    "langchain_core",
    "langgraph",
    "llama_cpp",
    "matplotlib",
    "numpy",
    "openai",
    "opentelemetry",
    "pandas",
    "psycopg",
    "pyarrow",
    "pydantic",
    "pypdf",
    "qdrant_client",
    "qdrant_edge",
    "rich",
)
ALONE = {
    "inspect_ai": {"evals.samples"},
    "langchain": {"langchain.history", "langchain.middleware"},
    "langgraph": {"graph"},
    "matplotlib": {"evals.plot"},
    "opentelemetry": {"telemetry.backend", "telemetry.capture", "telemetry.export"},
    "psycopg": {"ledger.postgres"},
}
"""Packages that these modules alone may import."""


@dataclass(frozen=True)
class Module:
    """A module of the package: its dotted name within it (``""`` for the package itself), and its syntax tree."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def unit(self) -> str:
        """The line of the map that it belongs to."""
        return self.name.partition(".")[0]

    def imports(self) -> Iterator[str]:
        """What it imports at run time, anywhere in it, as absolute dotted names."""
        yield from _imports(self.tree)


def _imports(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for part in child.orelse:
                yield from _imports(part)
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"a relative import of {child.module}: write it out"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        else:
            yield from _imports(child)


@cache
def modules() -> dict[str, Module]:
    """Every module of the package by its name within it."""
    found: dict[str, Module] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8")))
    return found


def own(imported: str) -> str | None:
    """The module of the package that an imported dotted name stands in; None for others."""
    head, _, rest = imported.partition(".")
    if head != "agentbudget":
        return None
    while rest not in modules():
        rest = rest.rpartition(".")[0]
    return rest


@cache
def units() -> list[str]:
    """The lines of the map in AGENTS.md, from top to bottom."""
    text = (ROOT / "AGENTS.md").read_text(encoding="utf-8")
    drawn = text[text.index("agentbudget/\n") : text.index("\nskills/")]
    return re.findall(r"^  (\w+)(?:\.py|/)\s", drawn, re.MULTILINE)


def test_the_map_names_every_module_and_no_other() -> None:
    there = {module.unit for module in modules().values()} - {"", "__main__"}
    assert sorted(there) == sorted(units())


def test_a_module_imports_only_what_stands_above_it_in_the_map() -> None:
    place = {unit: number for number, unit in enumerate(units())}
    wrong = [
        f"{module.name} imports {target}"
        for module in modules().values()
        if module.unit in place
        for target in map(own, module.imports())
        if target and place[target.partition(".")[0]] > place[module.unit]
    ]
    assert wrong == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    edges = {
        name: {target for target in map(own, module.imports()) if target and target != name}
        for name, module in modules().items()
    }
    TopologicalSorter(edges).prepare()


def test_some_packages_are_imported_where_they_belong_only() -> None:
    found: dict[str, set[str]] = {package: set() for package in ALONE}
    for module in modules().values():
        for imported in module.imports():
            found.get(imported.partition(".")[0], set()).add(module.name)
    assert found == ALONE


def test_reference_skills_and_graphs_use_public_names_only() -> None:
    private = [
        f"{path.relative_to(ROOT)}: {imported}"
        for folder in ("skills", "graphs")
        for path in sorted((ROOT / folder).glob("*.py"))
        for imported in _imports(ast.parse(path.read_text(encoding="utf-8")))
        if imported.startswith("agentbudget") and imported.removeprefix("agentbudget.") not in public_names()
    ]
    assert private == []


def public_names() -> list[str]:
    """The package's ``__all__``."""
    names = exported(modules()[""])
    assert names is not None
    return names


def exported(module: Module) -> list[str] | None:
    """A module's ``__all__``; None if it has none."""
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def test_every_all_is_sorted() -> None:
    def order(name: str) -> tuple[bool, bool, str]:
        """Constants, then classes, then the rest, as ruff sorts them."""
        return not name.isupper(), not name[0].isupper(), name

    unsorted = [m.name for m in modules().values() if (names := exported(m)) and names != sorted(names, key=order)]
    assert unsorted == []


def test_every_public_name_exists() -> None:
    import agentbudget

    missing = [name for name in public_names() if not hasattr(agentbudget, name)]
    assert missing == []


def test_every_module_says_what_it_is_for() -> None:
    folders = [PACKAGE, ROOT / "skills", ROOT / "graphs"]
    silent = [
        str(path.relative_to(ROOT))
        for folder in folders
        for path in folder.rglob("*.py")
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


@pytest.mark.parametrize("statement", ["import agentbudget", "import agentbudget.cli"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    script = f"import json, sys; {statement}; print(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)).isdisjoint(HEAVY)


def checked(*command: str) -> None:
    """Run a checker of this environment on the whole repository; skip if it is not installed."""
    if importlib.util.find_spec(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed: it is in the group 'dev'")
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_ruff_finds_nothing_to_mend() -> None:
    checked("ruff", "check", ".")


def test_ruff_finds_nothing_to_format() -> None:
    checked("ruff", "format", "--check", ".")


def test_strict_types_hold() -> None:
    checked("basedpyright")
