"""llama.cpp in this process, synchronous: a vocabulary, an engine, and the generation of one answer.

The engine is driven call by call through llama-cpp-python's C API, not its chat completion, so that every token is
counted, its probability known, and the work can stop between any two of them. Nothing here is safe to call from two
threads at once, except a `Vocabulary`, which only reads.
"""

from __future__ import annotations

import codecs
import ctypes
import logging
import math
import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentbudget.errors import MissingDependency, SchemaUnsupported, WeightsError
from agentbudget.models._processors import FreeProcessors
from agentbudget.models.base import Finish, Message, Request
from agentbudget.usage import Usage

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_log = logging.getLogger(__name__)

CHUNK: Final = 64
"""Prompt tokens evaluated at once: nearly as fast as more, and work can stop after each.

A prompt is always cut at the same places, and what is kept of an earlier prompt ends at such a place: the numbers that
llama.cpp computes depend a little on the size of a batch, and an answer should not depend on what ran before it.
"""

_TOP_K: Final = 40
_TOP_P: Final = 0.95
_MIN_P: Final = 0.05
_SPINS: Final = "20000"
"""How long GNU OpenMP's threads spin for one another, some tens of microseconds, before they let others have the
processor: as fast as its default on an idle machine, and two to three times as fast on a busy one. Read at load."""
_NEAR: Final = 10.0
"""A token this far below the likeliest, in logits, has less than 1/20,000 of its probability."""
_complaints: deque[str] = deque(maxlen=4)


def _api() -> Any:
    """The llama.cpp library, loaded and quiet."""
    if (api := _Library.api) is None:
        with _Library.lock:
            api = _Library.api or _Library.load()
    return api


class _Library:
    api: Any = None
    lock = threading.Lock()
    log_callback: Any = None

    @classmethod
    def load(cls) -> Any:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
        try:
            import llama_cpp
        except ImportError as error:
            raise MissingDependency(
                f"local models run on llama-cpp-python ({error}): pip install 'agentbudget-runtime[local]'"
            ) from error
        api: Any = llama_cpp
        cls.log_callback = api.llama_log_callback(_on_log)
        api.llama_log_set(cls.log_callback, ctypes.c_void_p(0))
        api.llama_backend_init()
        cls.api = api
        return api


def _on_log(level: int, text: bytes, _user: object) -> None:
    """Keep what llama.cpp says off the terminal; errors are remembered for the exception to come."""
    line = text.decode("utf-8", "replace").strip()
    if level == 4 and line:
        _complaints.append(line)
    _log.debug("%s", line)


def _open(path: Path, *, vocabulary_only: bool) -> Any:
    """The model at `path`; raises `WeightsError` with llama.cpp's own words."""
    api = _api()
    if not path.is_file():
        raise WeightsError(f"there are no weights at {path}; see what there is: agentbudget models list")
    params = api.llama_model_default_params()
    params.vocab_only = vocabulary_only
    params.n_gpu_layers = 0x7FFFFFFF if api.llama_supports_gpu_offload() and not vocabulary_only else 0
    _complaints.clear()
    model = api.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise WeightsError(
            f"llama.cpp cannot read {path}: {'; '.join(_complaints) or 'no reason given'}. It is not a GGUF file, or "
            "it is broken or too new: fetch it anew (agentbudget models pull NAME --force)"
        )
    return model


class Vocabulary:
    """The tokenizer and chat template of a GGUF file, without its tensors: opens in a fraction of a second."""

    def __init__(self, path: Path) -> None:
        api = _api()
        self._model = _open(path, vocabulary_only=True)
        self.pointer = api.llama_model_get_vocab(self._model)
        self.size: int = api.llama_vocab_n_tokens(self.pointer)
        self.end: int = api.llama_vocab_eos(self.pointer)
        self._controls = self._control_tokens()
        self._render = self._formatter(path)

    def close(self) -> None:
        """Free the memory."""
        if self._model:
            _api().llama_model_free(self._model)
            self._model = None

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of `messages` in the model's chat template, up to where its answer begins.

        Only the template's own control tokens become control tokens: those written in a message (in a hostile document,
        say) are ordinary text to the model. Raises what the template raises (`ValueError`, jinja2's `TemplateError`).
        """
        marks = [f"\ue000{n}\ue001" for n in range(len(messages))]
        turns = [{"role": m.role, "content": mark} for m, mark in zip(messages, marks, strict=True)]
        rendered: str = self._render(messages=turns).prompt
        pieces = re.split("(\ue000[0-9]+\ue001)", rendered)
        texts = {mark: message.text for mark, message in zip(marks, messages, strict=True)}
        return list(self._tokens(pieces, texts))

    def _tokens(self, pieces: Iterable[str], texts: dict[str, str]) -> Iterator[int]:
        """Control tokens as such; the text between two of them, the template's and the messages', in one go."""
        plain = ""
        for piece in pieces:
            if piece in texts:
                plain += texts[piece]
                continue
            for fragment in self._control_pattern.split(piece):
                if fragment not in self._controls:
                    plain += fragment
                    continue
                yield from self.tokenize(plain)
                plain = ""
                yield self._controls[fragment]
        yield from self.tokenize(plain)

    def tokenize(self, text: str) -> list[int]:
        """The tokens of plain text, in which nothing is a control token."""
        if not text:
            return []
        api, data = _api(), text.encode("utf-8", "replace")
        room = len(data) + 2
        buffer = (api.llama_token * room)()
        count: int = api.llama_tokenize(self.pointer, data, len(data), buffer, room, False, False)
        if count < 0:
            raise ValueError(f"llama.cpp could not tokenize a text of {len(data):,} bytes (code {count})")
        return buffer[:count]

    def piece(self, token: int) -> bytes:
        """The bytes that `token` stands for; none for a control token. A character may need several tokens."""
        api = _api()
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count: int = api.llama_token_to_piece(self.pointer, token, buffer, room, 0, False)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def ends(self, token: int) -> bool:
        """Whether `token` ends an answer."""
        return bool(_api().llama_vocab_is_eog(self.pointer, token))

    def check_grammar(self, gbnf: str) -> None:
        """Raise `SchemaUnsupported` if llama.cpp does not take this grammar."""
        _api().llama_sampler_free(_grammar_sampler(self.pointer, gbnf))

    def _control_tokens(self) -> dict[str, int]:
        api = _api()
        control: int = api.LLAMA_TOKEN_ATTR_CONTROL
        attribute, vocabulary = api.llama_vocab_get_attr, self.pointer
        ids = [token for token in range(self.size) if attribute(vocabulary, token) & control]
        found = {self._name(token): token for token in ids}
        longest_first = sorted((re.escape(name) for name in found if name), key=len, reverse=True)
        self._control_pattern = re.compile(f"({'|'.join(longest_first)})" if longest_first else r"(?!)")
        return found

    def _name(self, token: int) -> str:
        return _api().llama_vocab_get_text(self.pointer, token).decode("utf-8", "replace") if token >= 0 else ""

    def _formatter(self, path: Path) -> Any:
        template = self._metadata("tokenizer.chat_template")
        if template is None:
            raise WeightsError(f"{path} has no chat template: it is not a chat model; use an instruction-tuned one")
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        api = _api()
        begin: int = api.llama_vocab_bos(self.pointer)
        return Jinja2ChatFormatter(template, eos_token=self._name(self.end), bos_token=self._name(begin))

    def _metadata(self, key: str) -> str | None:
        api, room = _api(), 1 << 16
        while True:
            buffer = ctypes.create_string_buffer(room)
            count: int = api.llama_model_meta_val_str(self._model, key.encode(), buffer, room)
            if count < room:
                return None if count < 0 else buffer.value.decode("utf-8", "replace")
            room = count + 1


@dataclass(slots=True)
class Job:
    """One answer in the making. Whoever waits for it sets ``stop`` to end it, and reads how far it got."""

    prompt: Sequence[int]
    request: Request
    gbnf: str | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    text: str = ""
    finish: Finish = "stop"
    cached_tokens: int = 0
    evaluated_tokens: int = 0
    output_tokens: int = 0
    log_probability: float = 0.0
    started_ns: int = 0
    compute_ns: int = 0

    @property
    def usage(self) -> Usage:
        """What was computed: prompt tokens evaluated or found in the cache, tokens put out, and the time it took."""
        return Usage(
            input_tokens=self.cached_tokens + self.evaluated_tokens,
            output_tokens=self.output_tokens,
            cached_tokens=self.cached_tokens,
            compute_ns=self.compute_ns,
        )

    @property
    def confidence(self) -> float | None:
        """The geometric mean of the output tokens' probabilities, None without output.

        Within a grammar, a token's probability is its share among those that the grammar allowed: what the grammar left
        no choice about says nothing about the model.
        """
        return math.exp(self.log_probability / self.output_tokens) if self.output_tokens else None

    def may_go_on(self, expected_s: float) -> bool:
        """Whether a piece of work that takes `expected_s` may start: nobody said stop, and it fits the compute cap."""
        cap = self.request.max_compute_s
        if self.stop.is_set():
            return False
        return cap is None or (time.perf_counter_ns() - self.started_ns) / 1e9 + expected_s <= cap


class Engine:
    """The model in memory with one sequence, of which the beginning is used again by prompts that share it."""

    def __init__(self, path: Path, vocabulary: Vocabulary, *, n_ctx: int) -> None:
        api = _api()
        self._vocabulary = vocabulary
        self._processors = FreeProcessors()
        self._model = _open(path, vocabulary_only=False)
        params = api.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_batch = params.n_ubatch = CHUNK
        params.n_threads = params.n_threads_batch = self._processors.threads
        params.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_DISABLED  # its sums depend on how a prompt is cut
        params.no_perf = True
        self._context = api.llama_init_from_model(self._model, params)
        if not self._context:
            api.llama_model_free(self._model)
            raise WeightsError(
                f"llama.cpp cannot open a context of {n_ctx:,} tokens on {path}: {'; '.join(_complaints)}. "
                "Free some memory, or ask for a smaller n_ctx"
            )
        self._memory = api.llama_get_memory(self._context)
        self._evaluated: list[int] = []
        self._reusable = 0
        self._seconds_per_token = 0.0

    def close(self) -> None:
        """Free the memory."""
        if self._context:
            api = _api()
            api.llama_free(self._context)
            api.llama_model_free(self._model)
            self._context = None

    def run(self, job: Job) -> None:
        """Carry out `job` until it ends, is stopped, or has used up what it may; `job` says which, and how much."""
        job.started_ns = time.perf_counter_ns()
        sampler = _Sampler(self._vocabulary, job)
        try:
            if self._prefill(job):
                self._decode(job, sampler)
            else:
                job.finish = "budget"
        finally:
            sampler.close()
            job.compute_ns = time.perf_counter_ns() - job.started_ns

    def _prefill(self, job: Job) -> bool:
        """Evaluate what the cache does not hold of the prompt; whether it got to the end."""
        job.cached_tokens = self._keep_common(job.prompt)
        for start in range(job.cached_tokens, len(job.prompt), CHUNK):
            chunk = job.prompt[start : start + CHUNK]
            if not job.may_go_on(self._seconds_per_token * len(chunk)):
                return False
            began = time.perf_counter()
            self._evaluate(chunk)
            self._seconds_per_token = (time.perf_counter() - began) / len(chunk)
            job.evaluated_tokens += len(chunk)
            self._reusable = len(self._evaluated) // CHUNK * CHUNK
        return True

    def _decode(self, job: Job, sampler: _Sampler) -> None:
        """Sample, and evaluate what was sampled, token by token."""
        text, seconds = _Text(job.request.stop), 0.0
        while True:
            token = sampler.sample(self._logits())
            if self._vocabulary.ends(token):
                break
            job.output_tokens += 1
            job.log_probability += sampler.log_probability
            text.add(self._vocabulary.piece(token))
            if text.stopped or sampler.complete(text.value):
                break
            if job.output_tokens >= job.request.max_output_tokens:
                job.finish = "length"
                break
            if not job.may_go_on(seconds):
                job.finish = "budget"
                break
            began = time.perf_counter()
            self._evaluate([token])
            seconds = time.perf_counter() - began
        job.text = text.value

    def _keep_common(self, prompt: Sequence[int]) -> int:
        """Forget all but the beginning that `prompt` shares with what was evaluated; how many tokens that is."""
        limit = min(self._reusable, len(prompt) - 1)
        common = next((n for n in range(limit) if self._evaluated[n] != prompt[n]), limit) // CHUNK * CHUNK
        api = _api()
        if not api.llama_memory_seq_rm(self._memory, 0, common, -1):  # a recurrent model cannot forget a part
            api.llama_memory_clear(self._memory, True)
            common = 0
        del self._evaluated[common:]
        self._reusable = common
        return common

    def _evaluate(self, tokens: Sequence[int]) -> None:
        api = _api()
        threads = self._processors.look()
        api.llama_set_n_threads(self._context, threads, threads)
        array = (api.llama_token * len(tokens))(*tokens)
        code: int = api.llama_decode(self._context, api.llama_batch_get_one(array, len(tokens)))
        if code != 0:
            self._reusable = 0
            raise RuntimeError(
                f"llama.cpp could not evaluate {len(tokens)} tokens (code {code}): {'; '.join(_complaints)}"
            )
        self._evaluated.extend(tokens)

    def _logits(self) -> npt.NDArray[np.float32]:
        import numpy as np

        pointer: Any = _api().llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, shape=(self._vocabulary.size,))


class _Text:
    """Output as it grows: whole characters only, and nothing from a stop string on."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.value = ""
        self.stopped = False
        self._stops = [stop for stop in stops if stop]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, data: bytes) -> None:
        seen = len(self.value)
        self.value += self._decoder.decode(data)
        found = [at for stop in self._stops if (at := self.value.find(stop, max(0, seen - len(stop) + 1))) >= 0]
        if found:
            self.value = self.value[: min(found)]
            self.stopped = True


class _Sampler:
    """Chooses each token: the likeliest at temperature 0, else by chance from `seed`; within the grammar, if any.

    The grammar looks at the likely tokens, and at the whole vocabulary only when it refuses the chosen one.
    """

    def __init__(self, vocabulary: Vocabulary, job: Job) -> None:
        import numpy as np

        self._vocabulary = vocabulary
        self._grammar = None if job.gbnf is None else _grammar_sampler(vocabulary.pointer, job.gbnf)
        self._chain = _chain(job.request) if job.request.temperature > 0 else None
        api = _api()
        self._ids = np.arange(vocabulary.size, dtype=np.int32)
        self._no_logit = np.zeros(1, dtype=np.float32)
        layout = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        self._table = np.zeros(vocabulary.size, dtype=layout)
        self._candidates = api.llama_token_data_array(
            data=self._table.ctypes.data_as(api.llama_token_data_p), size=vocabulary.size, selected=-1, sorted=False
        )
        self.log_probability = 0.0

    def close(self) -> None:
        """Free the memory."""
        for sampler in (self._grammar, self._chain):
            if sampler:
                _api().llama_sampler_free(sampler)
        self._grammar = self._chain = None

    def sample(self, logits: npt.NDArray[np.float32]) -> int:
        """The next token; ``log_probability`` is its share of the softmax over all tokens that were allowed."""
        token = self._choose(self._ids, logits)
        shares = logits
        if self._grammar:
            near = _near_the_top(logits)
            ids, shares = self._allowed(near, logits[near])
            if token not in ids:
                ids, shares = self._allowed(self._ids, logits)
                token = self._choose(ids, shares) if len(ids) else self._vocabulary.end
        self.log_probability = min(0.0, float(logits[token]) - _log_sum_exp(shares)) if len(shares) else 0.0
        if self._grammar and not self._vocabulary.ends(token):
            _api().llama_sampler_accept(self._grammar, token)
        return token

    def complete(self, text: str) -> bool:
        """Whether nothing but the end can follow: the grammar allows the end, and no number could go on."""
        if not self._grammar or text[-1:].isdigit():
            return False
        end = self._vocabulary.end
        allowed, _ = self._allowed(self._ids[end : end + 1], self._no_logit)
        return len(allowed) > 0

    def _choose(self, ids: npt.NDArray[np.int32], logits: npt.NDArray[np.float32]) -> int:
        """One of `ids`, by their `logits`."""
        if self._chain is None:
            return int(ids[int(logits.argmax())])
        self._fill(ids, logits)
        _api().llama_sampler_apply(self._chain, ctypes.byref(self._candidates))
        return int(self._candidates.data[self._candidates.selected].id)

    def _allowed(
        self, ids: npt.NDArray[np.int32], logits: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Those of `ids` that the grammar allows next, each with its logit."""
        self._fill(ids, logits)
        _api().llama_sampler_apply(self._grammar, ctypes.byref(self._candidates))
        table = self._table[: len(ids)]
        table = table[table["logit"] > -math.inf]
        return table["id"], table["logit"]

    def _fill(self, ids: npt.NDArray[np.int32], logits: npt.NDArray[np.float32]) -> None:
        count = len(ids)
        self._table["id"][:count] = ids
        self._table["logit"][:count] = logits
        self._table["p"][:count] = 0.0
        self._candidates.size = count
        self._candidates.selected = -1
        self._candidates.sorted = False


def _near_the_top(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """The tokens that are likely enough to matter for a sum of probabilities."""
    import numpy as np

    return np.flatnonzero(logits > logits.max() - _NEAR).astype(np.int32)


def _log_sum_exp(logits: npt.NDArray[np.float32]) -> float:
    import numpy as np

    top = logits.max()
    return float(top) + math.log(float(np.exp(logits - top).sum()))


def _chain(request: Request) -> Any:
    """llama.cpp's own defaults for sampling by chance."""
    api = _api()
    chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
    for sampler in (
        api.llama_sampler_init_top_k(_TOP_K),
        api.llama_sampler_init_top_p(_TOP_P, 1),
        api.llama_sampler_init_min_p(_MIN_P, 1),
        api.llama_sampler_init_temp(request.temperature),
        api.llama_sampler_init_dist(request.seed & 0xFFFFFFFF),
    ):
        api.llama_sampler_chain_add(chain, sampler)
    return chain


def _grammar_sampler(vocabulary: Any, gbnf: str) -> Any:
    _complaints.clear()
    sampler = _api().llama_sampler_init_grammar(vocabulary, gbnf.encode(), b"root")
    if not sampler:
        raise SchemaUnsupported(
            f"llama.cpp does not take the grammar of this schema ({'; '.join(_complaints) or 'no reason given'}); "
            "make the schema simpler: fewer repetitions, shorter limits"
        )
    return sampler
