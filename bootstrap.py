#!/usr/bin/env python3
"""From a clean clone to a running demo or a passed test suite, with nothing but Python, a C++ compiler and an index.

    python3 bootstrap.py setup            everything installed in .venv
    python3 bootstrap.py demo [options]   then `agentbudget demo`
    python3 bootstrap.py test [options]   then `pytest`

What is done already is skipped. Package indexes are the ones that pip or uv are configured for. The standard library
is all that this file needs, and Python 3.7 can read it, to say that 3.11 is wanted.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
UV_VENV = ROOT / ".venv-uv"
LOG = ROOT / "logs" / "setup.log"
STAMP = VENV / ".agentbudget-setup"
EMBEDDER = "all-minilm-l6-v2"
WEIGHTS = {
    "setup": (),
    "demo": ("qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b", EMBEDDER),
    "test": ("smollm2-135m", EMBEDDER),
}
GROUPS = {"test": ("servers",)}
"""Dependency groups that a task needs besides what is always installed."""

TICK_S = 5.0
STARTED = time.monotonic()

PULL = """
import sys, time
from agentbudget.errors import AgentBudgetError
from agentbudget.models import catalog

last = 0.0

def progress(done, total, what):
    global last
    if time.monotonic() - last >= 2.0 or done == total:
        last = time.monotonic()
        print(f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB  {what}", flush=True)

try:
    for name in sys.argv[1:]:
        catalog.ensure(name, progress=progress)
except AgentBudgetError as error:
    sys.exit(str(error))
"""


def main(arguments: list[str]) -> None:
    """Set up, then become the command that was asked for."""
    task = arguments[0] if arguments else ""
    if task not in WEIGHTS:
        print(__doc__)
        sys.exit(0 if task in ("-h", "--help") else 2)
    if sys.version_info < (3, 11):  # noqa: UP036 (this file is run by whatever python3 there is)
        fail(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}. Run this file with a newer python3")
    os.chdir(ROOT)
    install_packages(GROUPS.get(task, ()))
    pull_weights(WEIGHTS[task])
    say("ready")
    if task != "setup":
        become(
            [str(VENV / "bin" / "agentbudget"), "demo"] if task == "demo" else [str(PYTHON), "-m", "pytest"],
            arguments[1:],
        )


def install_packages(groups: tuple[str, ...] = ()) -> None:
    """Everything that pyproject.toml asks for, and these groups, in .venv; llama.cpp is compiled on the way."""
    done = STAMP.read_text().split() if STAMP.is_file() and PYTHON.exists() else []
    if done[:1] == [fingerprint()] and set(groups) <= set(done[1:]):
        say("packages are installed")
        return
    check_compiler()
    uv = find_uv()
    say("installing packages; llama.cpp is compiled on the way, which takes minutes the first time")
    command = [uv, "sync", "--all-extras", "--python", sys.executable]
    run(command, "uv sync", environment=uv_environment())
    if groups:  # one after the other: each compiles on all processors
        run([*command, *(f"--group={name}" for name in groups)], "uv sync", environment=uv_environment())
    STAMP.write_text(" ".join([fingerprint(), *groups]))


def fingerprint() -> str:
    """What the installed packages depend on."""
    return hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + sys.version.encode()).hexdigest()


def check_compiler() -> None:
    """llama.cpp comes as source."""
    candidates = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    if not any(shutil.which(name) for name in candidates if name):
        fail(
            "a C++ compiler is needed to build llama.cpp, and none was found. Install one (Debian and Ubuntu: "
            "apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install), or set CXX to yours"
        )


def find_uv() -> str:
    """The uv that is there, or one from the package index, in an environment of its own."""
    installed = shutil.which("uv")
    if installed:
        return installed
    own = UV_VENV / "bin" / "uv"
    if not own.exists():
        say("installing uv")
        run([sys.executable, "-m", "venv", str(UV_VENV)], "python -m venv")
        run([str(UV_VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv"], "pip install uv")
    return str(own)


def uv_environment() -> dict[str, str]:
    """The environment for uv: the index and certificates that pip was given, where uv was given none."""
    environment = dict(os.environ, UV_PYTHON_DOWNLOADS="never", UV_NO_PROGRESS="1")
    environment.setdefault("LLAMA_CPP_BUILD_JOBS", str(os.cpu_count() or 2))  # else it starts a compiler for each file
    for name in ("CFLAGS", "CXXFLAGS") if compiler_breaks_amx() else ():
        environment[name] = (environment.get(name, "") + " -mno-amx-tile -mno-amx-int8 -mno-amx-bf16").strip()
    environment.pop("VIRTUAL_ENV", None)
    environment.pop("UV_PROJECT_ENVIRONMENT", None)
    if not any(name in environment for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_CONFIG_FILE")):
        index = pip_setting("index-url")
        if index:
            environment["UV_DEFAULT_INDEX"] = index
    certificates = pip_setting("cert")
    if certificates:
        environment.setdefault("SSL_CERT_FILE", certificates)
    return environment


def compiler_breaks_amx() -> bool:
    """Whether this is a GCC that miscompiles llama.cpp's AMX code (GCC's bug 114098, mended in 12.4, 13.3 and 14)."""
    compiler = os.environ.get("CXX") or "c++"
    if platform.machine() != "x86_64" or not shutil.which(compiler):
        return False
    name = subprocess.run([compiler, "--version"], stdout=subprocess.PIPE, text=True, check=False).stdout
    number = subprocess.run([compiler, "-dumpfullversion"], stdout=subprocess.PIPE, text=True, check=False).stdout
    version = tuple(int(part) for part in number.strip().split(".") if part.isdigit())
    if "clang" in name or not version:
        return False
    return (11,) <= version < (12, 4) or (13,) <= version < (13, 3)


def pip_setting(name: str) -> str:
    """A setting from pip's environment variables or configuration files, or nothing."""
    from_environment = os.environ.get("PIP_" + name.upper().replace("-", "_"))
    if from_environment:
        return from_environment
    command = [sys.executable, "-m", "pip", "config", "get", "global." + name]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def pull_weights(names: tuple[str, ...]) -> None:
    """Download what is missing of the weights; each is checked by its sha256."""
    if not names:
        return
    say("weights: " + ", ".join(names))
    command = [str(PYTHON), "-c", PULL, *names]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pull:
        for line in pull.stdout or ():
            say("  " + line.rstrip())
    if pull.returncode != 0:
        fail("the weights could not be fetched; what is there is kept, run this again to go on")


def run(command: list[str], what: str, *, environment: dict[str, str] | None = None) -> None:
    """Run `command` with its output in the log, and say every few seconds that it is still at it."""
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        try:
            wait(process, what)
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
    if process.returncode != 0:
        explain_failure(what)


def wait(process: subprocess.Popen[bytes], what: str) -> None:
    began = time.monotonic()
    while True:
        try:
            process.wait(TICK_S)
        except subprocess.TimeoutExpired:
            say(f"  {what}: {time.monotonic() - began:.0f} s  {last_line()}")
        else:
            return


def last_line() -> str:
    """The newest line of the log, as far as it fits."""
    lines = LOG.read_text(errors="replace").splitlines()
    return lines[-1].strip()[:80] if lines else ""


def explain_failure(what: str) -> None:
    """Show the end of the log, and say what to do about it."""
    text = LOG.read_text(errors="replace")
    print("\n".join(text.splitlines()[-30:]), file=sys.stderr)
    offline = ("failed to fetch", "dns error", "error sending request", "connection refused", "could not connect",
               "failed to establish a new connection", "name resolution", "no matching distribution")  # fmt: skip
    if any(sign in text.lower() for sign in offline):
        fail(
            what + " could not get a package from the index: check the network and the index in pip's or uv's settings"
        )
    fail(f"{what} failed; the whole output is in {LOG.relative_to(ROOT)}")


def become(command: list[str], arguments: list[str]) -> None:
    """Replace this process, so that its exit status and Ctrl-C are the command's own."""
    sys.stdout.flush()
    os.execv(command[0], command + arguments)


def say(message: str) -> None:
    print(f"[{time.monotonic() - STARTED:4.0f} s] {message}", flush=True)


def fail(message: str) -> NoReturn:
    sys.exit("bootstrap: " + message)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        fail("interrupted; run the same command again to go on")
