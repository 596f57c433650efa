"""A model in memory and the one thread that computes with it: several answers at once, which come and go at any token.

Prompts are evaluated chunk by chunk, one after the other, but for their last chunks, which are evaluated together where
they are about as long; between chunks all who write get a token more, in one evaluation.
The time of each evaluation is divided among those it was for, so that nothing is charged for twice.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentbudget.errors import WeightsTooLarge
from agentbudget.models._memory import available_bytes
from agentbudget.models.base import Finish
from agentbudget.models.llama.job import Job
from agentbudget.models.llama.library import ALL_LAYERS, Device, devices, library, open_model, version
from agentbudget.models.llama.sampler import Sampler, Scratch
from agentbudget.models.llama.sequences import CHUNK, GPU_CHUNK, Sequences, Slot, cuts, side_by_side
from agentbudget.models.llama.states import StateFiles
from agentbudget.models.llama.turns import MACHINE, Places
from agentbudget.models.llama.vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_FILLS: Final = 2
"""As many tokens of prompts as in so many chunks are evaluated before those who write get their next token: the ends of
several prompts, if they are short, so that all write together sooner."""
_PADDING: Final = 8
"""Prompts' last chunks are evaluated together if they differ by so many tokens at most from the first: what the shorter
are filled up with takes about as long as another evaluation would."""
_MOST_PARALLEL: Final = 8
_CACHE_BYTES: Final = 512 << 20
"""What the cache of keys and values takes at most, unless more is asked for by ``parallel``."""
_SCRATCH_BYTES: Final = 256 << 20
"""About what llama.cpp needs beside weights and cache."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a model is opened: tokens in a window; answers at once and layers on GPUs, None: what is best here."""

    n_ctx: int
    parallel: int | None = None
    gpu_layers: int | None = None
    states: Path | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """What `Options` come to for one model on one machine."""

    slots: int
    gpu_layers: int
    cache_bytes: int


def layout(vocabulary: Vocabulary, options: Options) -> Layout:
    """Slots and layers for this model on this machine. Raises `WeightsTooLarge` if it does not fit, before loading."""
    window = vocabulary.cache_bytes_per_token * options.n_ctx
    slots = options.parallel or _slots(window)
    cache = window * slots
    weights = vocabulary.path.stat().st_size
    needed = weights + cache + _SCRATCH_BYTES
    layers = options.gpu_layers
    if layers is None:
        layers = ALL_LAYERS if any(device.free_bytes >= needed for device in devices()) else 0
    elif layers < 0:  # as llama.cpp's own options say it
        layers = ALL_LAYERS
    if layers == 0 and needed > (available := available_bytes()):
        raise WeightsTooLarge(
            f"{vocabulary.path.name} needs about {needed / 1e9:.1f} GB of memory ({weights / 1e9:.1f} of weights, "
            f"{cache / 1e9:.1f} for {slots} × {options.n_ctx:,} tokens), and {available / 1e9:.1f} GB are free: "
            "use a smaller model, a smaller n_ctx or fewer parallel, or free some memory",
            needed_bytes=needed,
            available_bytes=available,
        )
    return Layout(slots, layers, cache)


def _slots(window_bytes: int) -> int:
    slots = _MOST_PARALLEL
    while slots > 1 and slots * window_bytes > _CACHE_BYTES:
        slots //= 2
    return slots


class Engine:
    """The model, its slots, and the thread that carries out jobs. Any thread may hand in jobs."""

    def __init__(self, vocabulary: Vocabulary, options: Options, *, fingerprint: str) -> None:
        """Load the weights. Raises `WeightsError`."""
        self.layout = layout(vocabulary, options)
        self.device: Device | None = next(iter(devices()), None) if self.layout.gpu_layers else None
        self.places = Places(self.layout.slots)
        chunk = GPU_CHUNK if self.device else CHUNK
        self._vocabulary = vocabulary
        self._model = open_model(vocabulary.path, gpu_layers=self.layout.gpu_layers)
        try:
            self._sequences = Sequences(
                self._model,
                n_ctx=options.n_ctx,
                slots=self.layout.slots,
                chunk=chunk,
                flash=self.device is not None,
                vocabulary_size=vocabulary.size,
            )
        except BaseException:
            library().llama_model_free(self._model)
            raise
        place = "gpu" if self.device else "cpu"  # a state is read only where as many slots are as where it was written,
        arranged = f"{fingerprint[:16]}-{version()}-{place}-{self.layout.slots}-{chunk}"  # and prompts are cut alike
        self._states = None if options.states is None else StateFiles(options.states / arranged)
        self._scratch = Scratch(vocabulary.size)
        self._state = threading.Condition()
        self._arrived: deque[Job] = deque()
        self._filling: deque[Job] = deque()
        self._writing: list[Job] = []
        self._ended: list[Job] = []
        self._closing = False
        self._mark_ns = 0
        self._fill_s_per_token = self._write_s = self._restore_s_per_token = 0.0
        self._worker = threading.Thread(target=self._work, name=f"agentbudget-{vocabulary.path.stem}", daemon=True)
        self._worker.start()
        _open_engines.add(self)

    def close(self) -> None:
        """Let those who are at work finish, except where a reader keeps them waiting, and free the memory."""
        with self._state:
            self._closing = True
            self._state.notify()
        self._worker.join()
        _open_engines.discard(self)
        if self._model:
            self._sequences.close()
            library().llama_model_free(self._model)
            self._model = None

    def abandon(self) -> None:
        """Stop everything at once: the process ends."""
        with self._state:
            for job in [*self._arrived, *self._filling, *self._writing]:
                job.stop.set()
        self.close()

    def submit(self, job: Job) -> None:
        """Carry out `job`. Whoever hands it in has one of ``places``."""
        with self._state:
            self._arrived.append(job)
            self._state.notify()

    def stop(self, job: Job) -> None:
        """End `job` within about a token."""
        with self._state:
            job.stop.set()
            self._state.notify()

    def grant(self, job: Job, tokens: int) -> None:
        """Let `job` put out so many tokens in all: its reader has caught up."""
        with self._state:
            job.granted_tokens = tokens
            self._state.notify()

    def seconds_of(self, tokens: int) -> float:
        """About what writing so many tokens takes, as measured last."""
        return self._write_s * tokens

    # --- the worker's thread

    def _work(self) -> None:
        while self._something_to_do():
            with MACHINE.taken():
                self._mark_ns = time.perf_counter_ns()
                try:
                    self._round()
                except Exception as error:  # noqa: BLE001 (whoever waits for a job gets it)
                    self._fail([*self._filling, *self._writing], error)
            for job in self._ended:
                job.done.set_result(None)
            self._ended.clear()

    def _something_to_do(self) -> bool:
        """Wait for it; False when there will be no more."""
        with self._state:
            while True:
                self._filling.extend(self._arrived)
                self._arrived.clear()
                if self._filling or any(job.stop.is_set() or not job.waits_for_reader for job in self._writing):
                    return True
                if self._closing:
                    return bool(self._writing)
                self._state.wait()

    def _round(self) -> None:
        """A few chunks of prompts, and a token for everybody who writes."""
        for job in [job for job in self._writing if job.stop.is_set() or (self._closing and job.waits_for_reader)]:
            self._end(job, "budget")
        left = _FILLS * self._sequences.chunk if self._writing else 1
        while self._filling and left > 0:
            left -= self._fill()
        self._write()

    def _fill(self) -> int:
        """Evaluate the next chunk of the first prompt, if that is its last those of others with it; so many tokens."""
        first = self._filling[0]
        if not self._goes_on(first):
            return 0
        jobs = [first] if len(first.cuts) > 1 else self._beside(first)
        chunks = [(job, self._slot_of(job), self._next_chunk(job)) for job in jobs if self._affords(job)]
        if not chunks:
            return 0
        together = [job for job, _, _ in chunks]
        try:
            if len(chunks) > 1:
                rows = self._sequences.evaluate_ends([(slot, chunk) for _, slot, chunk in chunks])
            else:
                rows = [self._sequences.evaluate(slot, chunk, cut=True) for _, slot, chunk in chunks]
        except (RuntimeError, ValueError) as error:
            self._fail(together, error)
            return 0
        count = sum(len(chunk) for _, _, chunk in chunks)
        self._fill_s_per_token = self._charge(together) / count
        evaluated = zip(chunks, rows, strict=True)
        going_on = [job for (job, slot, chunk), row in evaluated if self._filled(job, slot, len(chunk), row)]
        self._sequences.give_way()
        if going_on:
            self._charge(going_on)
        for job in going_on:
            job.tell()
        return count

    def _goes_on(self, job: Job) -> bool:
        """Begin `job`, unless it has begun. False: it is over; what goes wrong with it concerns no other."""
        if job.slot is not None:
            return True
        try:
            if job.may_compute(0.0):
                self._begin(job)
            else:
                self._end(job, "budget")
        except (RuntimeError, ValueError) as error:
            self._fail([job], error)
            return False
        self._charge([job])
        return job.slot is not None

    def _affords(self, job: Job) -> bool:
        """Whether the next chunk fits what the job may compute; else it ends."""
        if job.may_compute(self._fill_s_per_token * len(self._next_chunk(job))):
            return True
        self._end(job, "budget")
        self._charge([job])
        return False

    def _next_chunk(self, job: Job) -> list[int]:
        return job.todo[len(self._slot_of(job).tokens) : job.cuts[0]]

    def _beside(self, first: Job) -> list[Job]:
        """Jobs whose last chunks are evaluated together with that of `first`: about as long, in slots side by side.

        Whoever has more than its last chunk to do comes before those behind it: they may use what is computed of it.
        """
        length = len(self._next_chunk(first))
        found = {self._slot_of(first).number: first}
        for job in list(self._filling)[1:] if self._has_room(first) else ():
            if not self._goes_on(job):
                continue
            if len(job.cuts) > 1:
                break
            if self._has_room(job) and abs(len(self._next_chunk(job)) - length) <= _PADDING:
                found[self._slot_of(job).number] = job
        longest = max(len(self._next_chunk(job)) for job in found.values())
        most = max(1, self._sequences.chunk // longest)
        return [found[number] for number in side_by_side(found, self._slot_of(first).number, most)]

    def _has_room(self, job: Job) -> bool:
        """Whether its slot can be filled up behind the prompt, and what it is filled up with forgotten."""
        return self._sequences.takes_back and job.cuts[-1] + 2 * _PADDING <= self._sequences.window

    def _filled(self, job: Job, slot: Slot, count: int, row: int) -> bool:
        """So many tokens were evaluated; after a prompt's last, choose the first of the answer. False: that failed."""
        end = job.cuts.pop(0)
        known = len(job.prompt.tokens)  # what comes behind it is the beginning of the answer
        job.evaluated_tokens += min(end, known) - min(end - count, known)
        try:
            if not job.cuts:
                self._filling.remove(job)
                self._writing.append(job)
                self._choose(job, self._sequences.logits(row))
            elif end == job.prompt.fixed:
                self._keep(job, slot)
        except (RuntimeError, ValueError) as error:
            self._fail([job], error)
            return False
        return True

    def _begin(self, job: Job) -> None:
        """Give it a slot. What the answer must begin with is evaluated with the prompt; if that is all, it is over."""
        job.sampler = Sampler(self._vocabulary, job.request, job.gbnf, self._scratch)
        self._follow(job)
        if job.finish_found:
            self._end(job, job.finish)
            return
        tokens = [*job.prompt.tokens, *job.todo]
        ends = cuts(len(tokens), job.prompt.fixed, self._sequences.chunk)
        job.slot = slot = self._sequences.take(tokens, ends)
        self._restore(job, slot, tokens, ends)
        job.todo, job.cuts = tokens, [end for end in ends if end > len(slot.tokens)]
        job.cached_tokens = min(len(slot.tokens), len(job.prompt.tokens))

    def _write(self) -> None:
        """One evaluation for everybody who writes; those with several tokens to evaluate get one of their own."""
        able = [job for job in self._writing if not job.waits_for_reader]
        for job in able:
            if not job.may_compute(self._write_s):
                self._end(job, "budget")
            elif not job.todo:  # its reader has caught up with what the grammar left no choice about
                self._go_on(job)
        able = [job for job in able if job.sampler is not None]
        for job in [job for job in able if len(job.todo) > 1]:
            try:
                self._write_alone(job)
            except (RuntimeError, ValueError) as error:
                self._fail([job], error)
        # Who was written alone may have ended with that, or be ahead of its reader.
        able = [job for job in able if job.sampler is not None and not job.waits_for_reader]
        together = [job for job in able if len(job.todo) == 1]
        if not together:
            return
        rows = self._sequences.evaluate_each([(self._slot_of(job), job.todo[0]) for job in together])
        for job, row in zip(together, rows, strict=True):
            try:
                self._choose(job, self._sequences.logits(row))
            except (RuntimeError, ValueError) as error:
                self._fail([job], error)
        self._sequences.give_way()
        self._write_s = self._charge(together) / len(together)
        for job in together:
            job.tell()

    def _write_alone(self, job: Job) -> None:
        """Evaluate tokens that the grammar left no choice about, all at once."""
        todo, chunk, slot = job.todo, self._sequences.chunk, self._slot_of(job)
        row = 0
        for start in range(0, len(todo), chunk):
            row = self._sequences.evaluate(slot, todo[start : start + chunk], cut=False)
        self._choose(job, self._sequences.logits(row))
        self._sequences.give_way()
        self._charge([job])
        job.tell()

    def _choose(self, job: Job, logits: npt.NDArray[np.float32]) -> None:
        """Put out the next token, and what follows it without a choice."""
        sampler = job.sampler
        assert sampler is not None
        job.todo = []
        if not job.unfinished:
            token = sampler.sample(logits)
            if self._vocabulary.ends(token):
                self._end(job, "stop")
                return
            job.put_out(self._vocabulary.piece(token), sampler.log_probability)
            job.todo = [token]
        self._go_on(job)

    def _go_on(self, job: Job) -> None:
        """Put out what comes next without a choice, and end with the answer."""
        self._follow(job)
        if job.finish_found:
            self._end(job, job.finish)

    def _follow(self, job: Job) -> None:
        """Put out what the grammar leaves no choice about, and find out whether the answer ends here."""
        sampler = job.sampler
        assert sampler is not None
        forced = sampler.forced(0 if job.output.stopped else job.room)
        for token in forced.tokens:
            job.put_out(self._vocabulary.piece(token))
            job.todo.append(token)
            if job.output.stopped:
                break
        job.unfinished = forced.more
        if job.output.stopped or forced.complete:
            job.finish, job.finish_found = "stop", True
        elif job.output_tokens >= job.request.max_output_tokens:
            job.finish, job.finish_found = "length", True

    def _keep(self, job: Job, slot: Slot) -> None:
        """Keep what was computed of the fixed prompt: the slot may be given to another, the process restarted."""
        fixed = job.prompt.tokens[: job.prompt.fixed]
        if self._states is not None and not self._states.has(fixed):
            self._states.write(fixed, self._sequences.state(slot))

    def _restore(self, job: Job, slot: Slot, tokens: Sequence[int], ends: Sequence[int]) -> None:
        """Read the fixed prompt's state, if it was kept and that is faster than to compute what the slot lacks."""
        fixed, there = job.prompt.fixed, len(slot.tokens)
        if self._states is None or fixed <= there or fixed >= len(tokens):
            return
        if self._restore_s_per_token * fixed > self._fill_s_per_token * (fixed - there) > 0:
            return
        began = time.perf_counter()
        state = self._states.read(tokens[:fixed])
        if state is None:
            return
        if self._sequences.restore(slot, state, tokens[:fixed], [end for end in ends if end <= fixed]):
            self._restore_s_per_token = (time.perf_counter() - began) / fixed
        else:
            self._states.forget(tokens[:fixed])

    def _slot_of(self, job: Job) -> Slot:
        assert job.slot is not None
        return job.slot

    def _end(self, job: Job, finish: Finish) -> None:
        """The job is over, as soon as its last piece of work has been charged."""
        job.finish = finish
        self._leave(job)
        self._ended.append(job)

    def _fail(self, jobs: Sequence[Job], error: Exception) -> None:
        if jobs:
            self._charge(jobs)
        for job in jobs:
            self._leave(job)
            job.done.set_exception(error)

    def _leave(self, job: Job) -> None:
        job.cuts = []
        if job in self._writing:
            self._writing.remove(job)
        elif job in self._filling:
            self._filling.remove(job)
        if job.sampler is not None:
            job.sampler.close()
            job.sampler = None
        if job.slot is not None:
            self._sequences.give_back(job.slot)

    def _charge(self, jobs: Sequence[Job]) -> float:
        """Divide the time since the last charge among `jobs`; how many seconds it was."""
        now = time.perf_counter_ns()
        spent, self._mark_ns = now - self._mark_ns, now
        share, rest = divmod(spent, len(jobs))
        for job in jobs:
            job.compute_ns += share
        jobs[0].compute_ns += rest
        return spent / 1e9


_open_engines: Final[weakref.WeakSet[Engine]] = weakref.WeakSet()


def _forked() -> None:
    """The threads of this process's parent, and with them its engines, are not here."""
    MACHINE.forked()
    _open_engines.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


@atexit.register
def _close_all() -> None:
    """A thread that computes while the interpreter takes the library down would take the process with it."""
    for engine in list(_open_engines):
        engine.abandon()
