"""Models that run in this process on llama.cpp: counted exactly, stopped at once, priced by the time they compute."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from agentbudget.errors import ContextTooLong, ModelUnavailable, RequestRejected
from agentbudget.models import catalog
from agentbudget.models.base import (
    Completion,
    Delta,
    InputCount,
    JsonSchema,
    Meter,
    Place,
    Price,
    Request,
    in_one_piece,
)
from agentbudget.models.grammar import to_gbnf

if TYPE_CHECKING:
    from agentbudget.models._llama import Engine, Job, Vocabulary

DEFAULT_CONTEXT: Final = 4096
_INLINE_CHARACTERS: Final = 8_000
"""Text that is tokenized in less time than handing it to a thread takes."""


class LlamaCppModel:
    """A GGUF file as a `Model`. Nothing is read before the first call; the tensors not before the first completion.

    Calls take turns, first come first served, with every other local model of this process: two at once on the same
    processors would each take, and be charged for, far more than twice the time.

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
    ) -> None:
        """`path` may be a function that finds (and fetches) the file when it is first needed, in a thread.

        ``fingerprint`` identifies the weights (`catalog.file_sha256`); ``n_ctx`` is the window for
        input and output.
        """
        self._name = name
        self._path = path
        self._price = price
        self._fingerprint = fingerprint
        self._n_ctx = n_ctx
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"agentbudget-{name}")
        self._opening = threading.Lock()
        self._vocabulary: Vocabulary | None = None
        self._engine: Engine | None = None
        self._grammars: dict[str, str] = {}

    @classmethod
    def from_catalog(cls, name: str, *, price: Price, n_ctx: int = DEFAULT_CONTEXT) -> Self:
        """The catalog's model `name`, verified (and fetched, if it is missing) when it is first needed."""
        entry = catalog.entry(name)
        return cls(
            f"llamacpp:{name}",
            lambda: catalog.ensure(name),
            price=price,
            fingerprint=entry.sha256,
            n_ctx=min(n_ctx, entry.context_window),
        )

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

    async def count_input(self, request: Request) -> InputCount:
        """The exact number of prompt tokens. Reads the vocabulary only; never waits for a generation."""
        return InputCount(len(await self._prompt(request)), exact=True)

    async def complete(self, request: Request, meter: Meter) -> Completion:
        """Answer `request`, when its turn has come.

        Raises `ContextTooLong` and `SchemaUnsupported` before anything is computed, `WeightsError` if the file cannot
        be used. When cancelled it stops within a token (or a chunk of the prompt), and `meter` has what was used.
        """
        job = await self._prepare(request)
        async with _turns.turn():
            engine = await asyncio.get_running_loop().run_in_executor(self._worker, self._open_engine)
            meter.leaving()
            await self._run(engine, job, meter)
        return Completion(job.text, job.finish, job.usage, served_by=self._name, confidence=job.confidence)

    @property
    def stream_lead_tokens(self) -> int | None:
        """None: it answers in one piece."""
        return None

    def stream(self, request: Request, meter: Meter) -> AsyncGenerator[Delta, None]:
        """The answer in one piece; see `Model.stream`."""
        return in_one_piece(self, request, meter)

    async def aclose(self) -> None:
        """Free the model's memory. A later call loads it again."""
        await asyncio.get_running_loop().run_in_executor(self._worker, self._close)

    async def _prepare(self, request: Request) -> Job:
        """Everything that can be refused before anything is spent."""
        prompt = await self._prompt(request)
        if request.max_output_tokens < 1:
            raise RequestRejected("max_output_tokens must be at least 1", model=self._name, sent=False)
        if len(prompt) + request.max_output_tokens > self._n_ctx:
            raise ContextTooLong(
                f"{self._name}: {len(prompt):,} tokens of input and {request.max_output_tokens:,} of output do not fit "
                f"its window of {self._n_ctx:,}: give it less context, less output, or a larger n_ctx",
                input_tokens=len(prompt),
                output_tokens=request.max_output_tokens,
                window=self._n_ctx,
            )
        from agentbudget.models._llama import Job

        return Job(prompt, request, await self._grammar(request.schema))

    async def _grammar(self, schema: JsonSchema | None) -> str | None:
        """The grammar of `schema`, known to be one that llama.cpp takes."""
        if schema is None:
            return None
        key = json.dumps(schema)
        if key not in self._grammars:
            gbnf = to_gbnf(schema)
            (await self._open_vocabulary()).check_grammar(gbnf)
            self._grammars[key] = gbnf
        return self._grammars[key]

    async def _prompt(self, request: Request) -> list[int]:
        vocabulary = await self._open_vocabulary()
        from jinja2 import TemplateError

        try:
            if sum(len(message.text) for message in request.messages) <= _INLINE_CHARACTERS:
                return vocabulary.prompt(request.messages)
            return await asyncio.to_thread(vocabulary.prompt, request.messages)
        except (TemplateError, ValueError) as error:
            raise RequestRejected(
                f"{self._name}: its chat template refuses these messages: {error}", model=self._name, sent=False
            ) from error

    async def _run(self, engine: Engine, job: Job, meter: Meter) -> None:
        """Let the worker compute `job`; come back only when it has stopped, whatever happens here."""
        running = asyncio.get_running_loop().run_in_executor(self._worker, engine.run, job)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            job.stop.set()
            await _ended(running)
            raise
        except RuntimeError as error:
            raise ModelUnavailable(f"{self._name}: {error}", model=self._name, usage=job.usage) from error
        finally:
            meter.used(job.usage)

    async def _open_vocabulary(self) -> Vocabulary:
        return self._vocabulary or await asyncio.to_thread(self._load_vocabulary)

    def _load_vocabulary(self) -> Vocabulary:
        from agentbudget.models._llama import Vocabulary

        with self._opening:
            if self._vocabulary is None:
                if callable(self._path):
                    self._path = self._path()
                self._vocabulary = Vocabulary(self._path)
            return self._vocabulary

    def _open_engine(self) -> Engine:
        from agentbudget.models._llama import Engine

        vocabulary = self._load_vocabulary()
        if self._engine is None:
            path = self._path() if callable(self._path) else self._path
            self._engine = Engine(path, vocabulary, n_ctx=self._n_ctx)
        return self._engine

    def _close(self) -> None:
        with self._opening:
            engine, self._engine = self._engine, None
            vocabulary, self._vocabulary = self._vocabulary, None
        if engine is not None:
            engine.close()
        if vocabulary is not None:
            vocabulary.close()


async def _ended(running: asyncio.Future[None]) -> None:
    """Wait for `running`, however often this task is cancelled meanwhile: it has been told to stop and soon will."""
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:
            continue
    running.exception()  # looked at, so that asyncio does not report it as forgotten; the cancellation goes first


class _Turns:
    """One computation at a time, first come first served, whichever event loop or thread it is asked from."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._busy = False
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Wait for one's turn, and pass it on at the end."""
        await self._take()
        try:
            yield
        finally:
            self._pass_on()

    async def _take(self) -> None:
        loop = asyncio.get_running_loop()
        with self._mutex:
            if not self._busy:
                self._busy = True
                return
            mine = (loop, loop.create_future())
            self._waiting.append(mine)
        try:
            await mine[1]
        except asyncio.CancelledError:
            with self._mutex:
                still_waiting = mine in self._waiting
                if still_waiting:
                    self._waiting.remove(mine)
            if not still_waiting:  # the turn was on its way here
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        with self._mutex:
            while self._waiting:
                loop, waiter = self._waiting.popleft()
                try:
                    loop.call_soon_threadsafe(_give, waiter)
                except RuntimeError:  # that loop was closed, and with it whoever waited there
                    continue
                return
            self._busy = False


def _give(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


_turns: Final = _Turns()
