"""The documents: their code runs, their links lead somewhere, and they promise what is there.

A block is executed unless ``<!-- not executed: reason -->`` stands above it. The blocks of a file share a namespace, in
order. Where a model is needed it is SmolLM2-135M in llama.cpp: what it says is not looked at.
"""

from __future__ import annotations
import __future__

import ast
import asyncio
import doctest
import importlib
import inspect
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast

import pytest

from agentbudget.models import catalog

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKED = [*PAGES, *(ROOT / name for name in ("AGENTS.md", "CHANGELOG.md", "CONTRIBUTING.md", "examples/README.md"))]
COMMANDS = ["python3 bootstrap.py demo", "python3 bootstrap.py test"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_EXECUTED = re.compile(r"<!-- not executed: \S.*?-->\s*\Z")
INDEX_HOSTS = re.compile(r"pypi\.(org|io)|python" + r"hosted\.org")
MACHINE_PATHS = re.compile(r"(?<![\w.~\-])/(?:work|home|root|Users|tmp)/\w")


@dataclass(frozen=True)
class Block:
    """A fenced block of code, and the line of its page on which its code begins."""

    language: str
    code: str
    line: int
    executed: bool


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        before = text[: found.start()]
        yield Block(found[1], found[2], before.count("\n") + 2, not NOT_EXECUTED.search(before))


def name(page: Path) -> str:
    """A page as it is named in a test's id."""
    return page.relative_to(ROOT).as_posix()


def pages_with(*languages: str) -> list[Any]:
    """The pages that have executed blocks in these languages."""
    return [
        pytest.param(page, id=name(page))
        for page in PAGES
        if any(block.language in languages and block.executed for block in blocks(page))
    ]


@pytest.fixture
def at_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The repository's root as the working folder, small weights, and a place for what a page writes."""
    catalog.ensure("smollm2-135m")
    monkeypatch.setenv("AGENTBUDGET_MODELS", "llamacpp:smollm2-135m")
    for shared in ("agentbudget", "graphs", "skills", "examples"):
        (tmp_path / shared).symlink_to(ROOT / shared)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", pages_with("python", "pycon"))
def test_the_code_of_a_page_runs(page: Path, at_the_root: Path) -> None:
    module = ModuleType(page.stem)
    for block in blocks(page):
        if block.executed and block.language == "python":
            execute(block, page, vars(module))
        elif block.executed and block.language == "pycon":
            compare(block, page, vars(module))


def execute(block: Block, page: Path, namespace: dict[str, Any]) -> None:
    """Run a block as a notebook's cell would: it may await."""
    source = "\n" * (block.line - 1) + block.code
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | __future__.annotations.compiler_flag
    code = compile(source, str(page), "exec", flags=flags, dont_inherit=True)
    awaitable = eval(code, namespace)
    if inspect.iscoroutine(awaitable):
        asyncio.run(awaitable)


def compare(block: Block, page: Path, namespace: dict[str, Any]) -> None:
    """Run a session block by block and compare what it prints."""
    test = doctest.DocTestParser().get_doctest(block.code, {}, name(page), str(page), block.line - 1)
    test.globs = namespace
    runner = doctest.DocTestRunner(verbose=False)
    told: list[str] = []
    runner.run(test, out=told.append, clear_globs=False)
    assert runner.summarize(verbose=False).failed == 0, "".join(told)


def modules_with_examples() -> list[str]:
    """The modules whose docstrings hold ``>>>``."""
    found = [p for p in sorted((ROOT / "agentbudget").rglob("*.py")) if ">>> " in p.read_text(encoding="utf-8")]
    return [".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for p in found]


@pytest.mark.parametrize("module", modules_with_examples())
def test_the_examples_in_a_docstring_say_the_truth(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("page", [pytest.param(page, id=name(page)) for page in LINKED])
def test_every_link_leads_to_a_file(page: Path) -> None:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", prose) if not re.match(r"[a-z]+:|#", target)]
    missing = [target for target in targets if not (page.parent / target.partition("#")[0]).exists()]
    assert missing == []


def test_the_readme_opens_with_exactly_two_commands_and_ci_calls_the_second() -> None:
    readme = ROOT / "README.md"
    consoles = [b.code.splitlines() for b in blocks(readme) if b.language == "console"]
    commands = [line for lines in consoles for line in lines if "bootstrap.py" in line]
    assert commands == COMMANDS
    assert consoles[:2] == [[command] for command in COMMANDS]
    called = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if "bootstrap.py" in line]
    assert called == [f"exec {COMMANDS[1]}"]


def test_the_quickstart_has_twenty_lines() -> None:
    first = next(block for block in blocks(ROOT / "README.md") if block.language == "python")
    assert len([line for line in first.code.splitlines() if line.strip()]) <= 20


def test_every_decision_is_listed() -> None:
    listed = (ROOT / "docs" / "adr" / "README.md").read_text()
    assert [p.name for p in sorted((ROOT / "docs" / "adr").glob("0*.md")) if f"({p.name})" not in listed] == []


def test_every_page_is_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    pages = [page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").glob("*.md") if page.name != "index.md"]
    assert [page for page in pages if f"({page})" not in readme] == []


def test_every_environment_variable_of_the_code_is_in_the_documents() -> None:
    used = {v for p in (ROOT / "agentbudget").rglob("*.py") for v in re.findall(r"AGENTBUDGET_[A-Z_]+", p.read_text())}
    told = "".join(page.read_text() for page in PAGES)
    assert sorted(v for v in used if v not in told) == []


def committed() -> Iterator[tuple[str, str]]:
    """The text files that are committed, or would be, by name."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip(f"this is no git checkout: {listed.stderr.strip()}")
    for file in filter(None, listed.stdout.split("\0")):
        path = ROOT / file
        if path.is_file() and b"\0" not in (data := path.read_bytes()):
            yield file, data.decode("utf-8")


@pytest.mark.parametrize("kind", ["index host", "machine path"])
def test_no_committed_file_names_a_package_index_or_a_path_of_a_machine(
    kind: Literal["index host", "machine path"],
) -> None:
    pattern = INDEX_HOSTS if kind == "index host" else MACHINE_PATHS
    named = [
        f"{file}:{number}: {line.strip()[:100]}"
        for file, text in committed()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert named == []


def test_no_lock_file_is_committed() -> None:
    assert [file for file, _ in committed() if file.endswith((".lock", "requirements.txt"))] == []


def test_notebooks_are_committed_without_outputs() -> None:
    for path in sorted((ROOT / "examples").glob("*.ipynb")):
        cells = cast("list[dict[str, Any]]", json.loads(path.read_text(encoding="utf-8"))["cells"])
        assert [cell["outputs"] for cell in cells if cell["cell_type"] == "code" and cell["outputs"]] == [], path.name


def test_the_weights_of_a_page_are_the_catalogs() -> None:
    told = (ROOT / "README.md").read_text()
    demo = sum(catalog.entry(n).size_bytes for n in ("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b", "all-minilm-l6-v2"))
    test = sum(catalog.entry(n).size_bytes for n in ("smollm2-135m", "all-minilm-l6-v2"))
    assert f"{demo / 1e9:.1f} GB of weights" in told
    assert f"({test / 1e9:.1f} GB)" in told


def test_the_command_lines_in_the_documents_exist() -> None:
    from click.testing import CliRunner

    from agentbudget.cli import cli

    groups = ("models", "prices", "ledger", "memory", "cache", "budget")
    for page in PAGES:
        for line in (line for b in blocks(page) if b.language in ("console", "sh") for line in b.code.splitlines()):
            if not line.startswith("agentbudget "):
                continue
            words = line.split()[1:]
            known = [words[0]] if words[0] not in groups else words[:2]
            shown = CliRunner().invoke(cli, [*known, "--help"])
            assert shown.exit_code == 0, f"{name(page)}: {line}"
            options = re.findall(r"--[a-z][a-z\-]*", line)
            assert [option for option in options if option not in shown.output] == [], f"{name(page)}: {line}"
