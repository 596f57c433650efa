"""Models that run in this process on llama.cpp: counted exactly, stopped at once, priced by the time they compute."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from weakref import WeakSet

from agentbudget.errors import ContextTooLong, InvalidArgument, ModelUnavailable, RequestRejected
from agentbudget.models import catalog
from agentbudget.models.base import (
    Completion,
    Delta,
    Finish,
    InputCount,
    JsonSchema,
    Meter,
    Place,
    Price,
    Request,
    ToolCall,
)
from agentbudget.models.grammar import to_gbnf
from agentbudget.models.llama.shared import Shared
from agentbudget.usage import Usage

if TYPE_CHECKING:
    from agentbudget.models.llama.engine import Engine
    from agentbudget.models.llama.job import Job
    from agentbudget.models.llama.vocabulary import Prompt, Vocabulary

DEFAULT_CONTEXT: Final = 4096
STREAM_LEAD_TOKENS: Final = 8
"""Tokens that a stream may be ahead of its reader: enough that neither waits for the other."""
_INLINE_CHARACTERS: Final = 8_000
"""Text that is tokenized in less time than handing it to a thread takes."""
_ENDED: Final = object()


class LlamaCppModel:
    """A GGUF file as a `Model`. Nothing is read before the first call; the tensors not before the first completion.

    Calls run beside each other, up to ``parallel`` of them in one batch, and each is charged for its share of the time.
    Two models of this process never compute at the same time. Models made of the same file share one copy of it. A
    process that was forked from this one opens its own.

    With ``parallel=1`` the same request has exactly the same answer each time. With more it has, too, while it is
    alone; beside others, llama.cpp's sums come out a little different, and where two tokens are nearly as likely, the
    other one may be chosen.

    A request's schema becomes a grammar; it does not stand in the prompt, so the prompt should say what is asked for.
    """

    def __init__(
        self,
        name: str,
        path: Path | Callable[[], Path],
        *,
        price: Price,
        fingerprint: str,
        n_ctx: int = DEFAULT_CONTEXT,
        parallel: int | None = None,
        gpu_layers: int | None = None,
        states: Path | None = None,
        template: str | None = None,
    ) -> None:
        """`path` may be a function that finds (and fetches) the file when it is first needed, in a thread.

        ``fingerprint`` identifies the weights (`catalog.file_sha256`); ``n_ctx`` is the window for
        input and output. ``parallel``: answers at once; None: ``AGENTBUDGET_PARALLEL``, else as many, up to 8, as keep
        the cache within 512 MiB. ``gpu_layers``: layers computed on GPUs; None: ``AGENTBUDGET_GPU_LAYERS``, else all,
        where this build of llama.cpp has a GPU with room for them. ``states`` is a folder in which what was computed of
        fixed prompts is kept; None: it is kept in memory only. ``template`` is a chat template in place of the file's.
        """
        self._name = name
        self._path = path
        self._price = price
        self._fingerprint = fingerprint
        self._n_ctx = n_ctx
        self._parallel = _setting("AGENTBUDGET_PARALLEL", parallel, least=1)
        self._gpu_layers = _setting("AGENTBUDGET_GPU_LAYERS", gpu_layers, least=-1)
        self._states = states
        self._template = template
        self._grammars: dict[str, str] = {}
        self._open_nothing()
        _models.add(self)

    def _open_nothing(self) -> None:
        """As it begins, and anew in a process that was forked: the threads that had the rest are its parent's."""
        self._opening = threading.Lock()
        self._vocabulary: Vocabulary | None = None
        self._engine: Engine | None = None
        self._in_use = threading.Condition()
        self._uses = 0

    @classmethod
    def from_catalog(
        cls,
        name: str,
        *,
        price: Price,
        n_ctx: int = DEFAULT_CONTEXT,
        parallel: int | None = None,
        gpu_layers: int | None = None,
        states: Path | None = None,
    ) -> Self:
        """The catalog's model `name`, verified (and fetched, if it is missing) when it is first needed."""
        entry = catalog.entry(name)
        return cls(
            f"llamacpp:{name}",
            lambda: catalog.ensure(name),
            price=price,
            fingerprint=entry.sha256,
            n_ctx=min(n_ctx, entry.context_window),
            parallel=parallel,
            gpu_layers=gpu_layers,
            states=states,
        )

    def __repr__(self) -> str:
        return f"<{self._name}: {self.where}>"

    @property
    def where(self) -> str:
        """Where it computes: ``"not loaded"``, ``"processors, 8 at once"``, ``"NVIDIA H100, 8 at once"``."""
        if (engine := self._engine) is None:
            return "not loaded"
        device = engine.device.name if engine.device else "processors"
        return f"{device}, {engine.layout.slots} at once"

    @property
    def name(self) -> str:
        """As a user writes it: ``"llamacpp:smollm2-135m"``."""
        return self._name

    @property
    def provider(self) -> str:
        """``"llamacpp"``."""
        return "llamacpp"

    @property
    def place(self) -> Place:
        """``"local"``: prompts stay on this machine."""
        return "local"

    @property
    def price(self) -> Price:
        """What its seconds of compute cost."""
        return self._price

    @property
    def context_window(self) -> int:
        """Input and output tokens that fit together."""
        return self._n_ctx

    @property
    def fingerprint(self) -> str:
        """The sha256 of the file, which holds the weights and the chat template."""
        return self._fingerprint

    @property
    def stream_lead_tokens(self) -> int | None:
        """What a stream may be ahead of its reader: more is not computed before the reader has taken that."""
        return STREAM_LEAD_TOKENS

    async def count_input(self, request: Request) -> InputCount:
        """The exact number of prompt tokens. Reads the vocabulary only; never waits for a generation."""
        return InputCount(len((await self._prompt(request)).tokens), exact=True)

    async def complete(self, request: Request, meter: Meter) -> Completion:
        """Answer `request`, when there is a place for it.

        Raises `ContextTooLong` and `SchemaUnsupported` before anything is computed, `WeightsError` if the file cannot
        be used. When cancelled it stops within a token (or a chunk of the prompt), and `meter` has what was used.
        """
        job = await self._prepare(request)
        async with self._place() as engine:
            meter.leaving()
            try:
                engine.submit(job)
                await self._end_of(engine, job)
            finally:
                meter.used(job.usage)
        return self._completion(job, job.finish)

    async def stream(self, request: Request, meter: Meter) -> AsyncGenerator[Delta, None]:
        """Answer `request` piece by piece. No more is computed ahead of the reader than `stream_lead_tokens`."""
        job = await self._prepare(request)
        loop, told = asyncio.get_running_loop(), asyncio.Queue[tuple[str, Usage] | object]()

        def tell(event: tuple[str, Usage] | object) -> None:
            try:
                loop.call_soon_threadsafe(told.put_nowait, event)
            except RuntimeError:  # the loop was closed, and with it whoever read here
                job.stop.set()

        job.on_text = lambda text, usage: tell((text, usage))
        job.granted_tokens = STREAM_LEAD_TOKENS
        job.done.add_done_callback(lambda _: tell(_ENDED))
        async with self._place() as engine:
            meter.leaving()
            sent, cut = 0, False
            try:
                engine.submit(job)
                async for text, usage in _events(told):
                    meter.used(usage)
                    if cut := not meter.may_go_on(self._ahead(engine, job, usage)):
                        break
                    if text:
                        sent += len(text)
                        yield Delta(text)
                    engine.grant(job, usage.output_tokens + STREAM_LEAD_TOKENS)
            finally:
                engine.stop(job)
                try:
                    await self._end_of(engine, job)
                finally:
                    meter.used(job.usage)
        answer = self._completion(job, "cut" if cut else job.finish)
        if rest := answer.text[sent:]:
            yield Delta(rest)
        yield Delta(completion=answer)

    async def aclose(self) -> None:
        """Free the model's memory, once calls under way have ended. A later call loads it again."""
        await asyncio.to_thread(self._close)

    @staticmethod
    def _ahead(engine: Engine, job: Job, usage: Usage) -> Usage:
        """What will have been used at most when the reader is asked again: the whole prompt, and the lead."""
        lead = min(STREAM_LEAD_TOKENS, job.request.max_output_tokens - usage.output_tokens)
        rest = len(job.prompt.tokens) - usage.input_tokens
        return usage + Usage(rest, lead, compute_ns=int(engine.seconds_of(lead) * 1e9))

    def _completion(self, job: Job, finish: Finish) -> Completion:
        text, calls = job.text, tuple[ToolCall, ...]()
        if job.hidden:
            from agentbudget.models.llama.calls import parse

            text, calls = parse(text, job.request.messages)
            if calls and finish == "stop":
                finish = "tools"
        return Completion(text, finish, job.usage, served_by=self._name, confidence=job.confidence, calls=calls)

    async def _prepare(self, request: Request) -> Job:
        """Everything that can be refused before anything is spent."""
        prompt = await self._prompt(request)
        if request.max_output_tokens < 1:
            raise RequestRejected("max_output_tokens must be at least 1", model=self._name, sent=False)
        if (missing := len(prompt.tokens) + request.max_output_tokens - self._n_ctx) > 0:
            raise ContextTooLong(
                f"{self._name}: {len(prompt.tokens):,} tokens of input and {request.max_output_tokens:,} of output are "
                f"{missing:,} too many for its window of {self._n_ctx:,}: give it less context, less output, or a "
                "larger n_ctx",
                input_tokens=len(prompt.tokens),
                output_tokens=request.max_output_tokens,
                window=self._n_ctx,
            )
        from agentbudget.models.llama import calls
        from agentbudget.models.llama.job import Job

        if request.tools and request.tool_choice == "none":  # the tools stay in the prompt, as they are in its cache
            request = replace(request, stop=(*request.stop, calls.BEGIN))
        hidden = calls.BEGIN if request.tools and request.tool_choice != "none" else None
        return Job(prompt, request, await self._grammar(request), hidden=hidden)

    async def _grammar(self, request: Request) -> str | None:
        """What the answer is held to, known to be a grammar that llama.cpp takes."""
        required = request.tools and request.tool_choice == "required"
        if request.schema is None and not required:
            return None
        asked = [[tool.name, tool.parameters] for tool in request.tools] if required else request.schema
        key = json.dumps(asked)
        if key not in self._grammars:
            gbnf = self._written_grammar(request, request.schema)
            with self._use():
                (await self._open_vocabulary()).check_grammar(gbnf)
            self._grammars[key] = gbnf
        return self._grammars[key]

    @staticmethod
    def _written_grammar(request: Request, schema: JsonSchema | None) -> str:
        if schema is not None:
            return to_gbnf(schema)
        from agentbudget.models.llama import calls

        return calls.grammar(request.tools)

    async def _prompt(self, request: Request) -> Prompt:
        from jinja2 import TemplateError

        def written(vocabulary: Vocabulary) -> Prompt:
            return vocabulary.prompt(request.messages, tools=request.tools, fixed=request.fixed)

        def written_apart() -> Prompt:
            with self._use():  # a thread goes on though whoever waits for it was cancelled
                return written(self._load_vocabulary())

        with self._use():
            vocabulary = await self._open_vocabulary()
            self._refuse(request, vocabulary)
            try:
                if sum(len(message.text) for message in request.messages) <= _INLINE_CHARACTERS:
                    return written(vocabulary)
                return await asyncio.to_thread(written_apart)
            except (TemplateError, ValueError) as error:
                raise self._rejected(f"its chat template refuses these messages: {error}") from error

    def _refuse(self, request: Request, vocabulary: Vocabulary) -> None:
        """What llama.cpp in this process, or the model's template, cannot do."""
        if any(message.images for message in request.messages):
            raise self._rejected("it reads text only: send pictures to a model that sees")
        if (
            request.tools or any(message.calls for message in request.messages)
        ) and not vocabulary.template.knows_tools:
            raise self._rejected(
                "its chat template knows no tools (as <tool_call> blocks): use a model that was trained for them, "
                "such as qwen2.5, or give its template"
            )
        if request.tools and request.tool_choice == "required" and request.schema is not None:
            raise self._rejected("an answer cannot be held to a schema and be a tool's call: ask for one of them")

    def _rejected(self, why: str) -> RequestRejected:
        return RequestRejected(f"{self._name}: {why}", model=self._name, sent=False)

    @asynccontextmanager
    async def _place(self) -> AsyncGenerator[Engine]:
        """A place in the batch of the engine, which stays open so long."""
        with self._use():
            engine = self._engine or await asyncio.to_thread(self._open_engine)
            async with engine.places.taken():
                yield engine

    @contextmanager
    def _use(self) -> Generator[None]:
        """What is open stays open so long: llama.cpp's memory must not be freed under whoever reads it."""
        with self._in_use:
            self._uses += 1
        try:
            yield
        finally:
            with self._in_use:
                self._uses -= 1
                self._in_use.notify_all()

    async def _end_of(self, engine: Engine, job: Job) -> None:
        """Come back only when the engine has let go of `job`, whatever happens here."""
        ended = asyncio.wrap_future(job.done)
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            engine.stop(job)
            await _ended(ended)
            raise
        except (RuntimeError, ValueError) as error:
            raise ModelUnavailable(f"{self._name}: {error}", model=self._name, usage=job.usage) from error

    async def _open_vocabulary(self) -> Vocabulary:
        return self._vocabulary or await asyncio.to_thread(self._load_vocabulary)

    def _load_vocabulary(self) -> Vocabulary:
        from agentbudget.models.llama.vocabulary import Vocabulary

        with self._use(), self._opening:
            if self._vocabulary is None:
                if callable(self._path):
                    self._path = self._path()
                path = self._path
                self._vocabulary_key = (*_identity(path), self._template)
                self._vocabulary = _vocabularies.acquire(
                    self._vocabulary_key, lambda: Vocabulary(path, template=self._template)
                )
            return self._vocabulary

    def _open_engine(self) -> Engine:
        from agentbudget.models.llama.engine import Engine, Options

        with self._use():
            vocabulary = self._load_vocabulary()
            with self._opening:
                if self._engine is None:
                    options = Options(self._n_ctx, self._parallel, self._gpu_layers, self._states)
                    self._engine_key = (*self._vocabulary_key, options)
                    self._engine = _engines.acquire(
                        self._engine_key, lambda: Engine(vocabulary, options, fingerprint=self._fingerprint)
                    )
                return self._engine

    def _close(self) -> None:
        with self._in_use:
            self._in_use.wait_for(lambda: not self._uses)
            # Under the same lock: whoever comes from now on finds nothing open, and opens anew.
            engine = None if self._engine is None else self._engine_key
            vocabulary = None if self._vocabulary is None else self._vocabulary_key
            self._engine = self._vocabulary = None
        if engine is not None:
            _engines.release(engine)
        if vocabulary is not None:
            _vocabularies.release(vocabulary)


_vocabularies: Final[Shared[Vocabulary]] = Shared()
_engines: Final[Shared[Engine]] = Shared()
_models: Final[WeakSet[LlamaCppModel]] = WeakSet()


def _forked() -> None:
    _vocabularies.forked()
    _engines.forked()
    for model in list(_models):
        model._open_nothing()  # pyright: ignore[reportPrivateUsage] # of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _identity(path: Path) -> tuple[object, ...]:
    """What tells one file from another, and from what it was before it was replaced."""
    if not path.is_file():
        return (path,)
    about = path.stat()
    return (path.resolve(), about.st_size, about.st_mtime_ns)


def _setting(name: str, given: int | None, *, least: int) -> int | None:
    """What a model was made with, else what the environment says. Raises `InvalidArgument` if that is no number."""
    written = os.environ.get(name)
    if given is not None or not written:
        return given
    try:
        number = int(written)
    except ValueError:
        number = least - 1
    if number < least:
        message = f"{name} must be a whole number of at least {least}, not {written!r}"
        raise InvalidArgument(message, argument=name, value=written)
    return number


async def _events(told: asyncio.Queue[tuple[str, Usage] | object]) -> AsyncGenerator[tuple[str, Usage], None]:
    while (event := await told.get()) is not _ENDED:
        assert isinstance(event, tuple)
        yield event


async def _ended(running: asyncio.Future[None]) -> None:
    """Wait for `running`, however often this task is cancelled meanwhile: it has been told to stop and soon will."""
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:
            continue
    running.exception()  # looked at, so that asyncio does not report it as forgotten; the cancellation goes first
