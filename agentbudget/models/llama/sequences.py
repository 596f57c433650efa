"""The cache of keys and values, divided into slots: each holds a sequence, and keeps it for the next that begins alike.

A slot has a window of its own, so what one computes does not depend on what stands in the others.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from agentbudget.errors import WeightsError
from agentbudget.models._processors import FreeProcessors
from agentbudget.models.llama.library import complaints, forget_complaints, library

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CHUNK: Final = 128
"""Prompt tokens evaluated at once on processors; work can stop after each. Half as many are 6 % slower, twice as many
5 % faster (`python -m evals.local settings`); but of a conversation half a chunk is computed again at each turn.

A prompt is always cut at the same places, and what is kept of an earlier prompt ends at such a place: the numbers that
llama.cpp computes depend a little on the size of a batch, and an answer should not depend on what ran before it.
"""
GPU_CHUNK: Final = 512
"""On a GPU, which 64 tokens do not fill."""
_ANY_TOKEN: Final = 0
_WORTH_COPYING: Final = 2
"""A slot is taken over for a prompt that shares at least half of what it holds, else copied."""


def cuts(tokens: int, fixed: int, chunk: int) -> list[int]:
    """Where a prompt is cut: after each `chunk` of its fixed part, at the end of that, after each chunk of the rest."""
    ends = [*range(chunk, fixed, chunk), *([fixed] if fixed else []), *range(fixed + chunk, tokens, chunk)]
    return [*(end for end in ends if end < tokens), tokens]


def side_by_side(numbers: Collection[int], number: int, most: int) -> list[int]:
    """Up to `most` of `numbers`, without a gap, with `number` among them.

    The run in which it stands is divided from its beginning, so that whoever is left out has neighbours, too.
    """
    first = last = number
    while first - 1 in numbers:
        first -= 1
    while last + 1 in numbers:
        last += 1
    start = number - (number - first) % most
    return list(range(start, min(start + most, last + 1)))


@dataclass(slots=True, eq=False)
class Slot:
    """One sequence: its tokens, of which those up to a cut were evaluated as the beginning of every prompt is."""

    number: int
    tokens: list[int] = field(default_factory=list[int])
    cuts: list[int] = field(default_factory=list[int])
    taken: bool = False
    last_used: int = 0

    def shares(self, tokens: Sequence[int], ends: Sequence[int]) -> int:
        """Tokens at its beginning that a prompt, cut at `ends`, would compute just so; never all of the prompt."""
        at = 0
        for mine, theirs in zip(self.cuts, ends, strict=False):
            if mine != theirs or theirs >= len(tokens) or self.tokens[at:mine] != list(tokens[at:mine]):
                break
            at = mine
        return at

    def keep(self, count: int) -> None:
        """Only the first `count` tokens are there any more."""
        del self.tokens[count:]
        self.cuts = [cut for cut in self.cuts if cut <= count]


class Sequences:
    """A llama.cpp context with its slots. One thread at a time may use it."""

    def __init__(self, model: Any, *, n_ctx: int, slots: int, chunk: int, flash: bool, vocabulary_size: int) -> None:
        """`n_ctx` tokens fit each slot; ``flash`` attention is faster on GPUs. Raises `WeightsError` without memory."""
        api = library()
        self.chunk = chunk
        self.slots = [Slot(number) for number in range(slots)]
        self._numbers = ctypes.c_float * vocabulary_size
        self._rows: dict[int, npt.NDArray[np.float32]] = {}
        self._flash = flash
        self.window = n_ctx
        self.takes_back = not (api.llama_model_is_recurrent(model) or api.llama_model_is_hybrid(model))
        self._processors = FreeProcessors()
        self._threads = self._processors.threads
        self._used = 0
        params = api.llama_context_default_params()
        params.n_ctx = n_ctx * slots
        params.n_seq_max = slots
        params.n_batch = params.n_ubatch = max(chunk, slots)
        params.n_threads = params.n_threads_batch = self._threads
        params.kv_unified = False
        # On processors its sums depend on how a prompt is cut and on the number of threads, and decoding behind a long
        # prompt takes longer with it.
        params.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_AUTO if flash else api.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.no_perf = True
        forget_complaints()
        self._context = api.llama_init_from_model(model, params)
        if not self._context:
            raise WeightsError(
                f"llama.cpp cannot open a cache of {slots} × {n_ctx:,} tokens: {complaints()}. "
                "Free some memory, or ask for a smaller n_ctx or fewer parallel"
            )
        self._memory = api.llama_get_memory(self._context)
        self._batch = api.llama_batch_init(max(chunk, slots), 0, 1)
        for n in range(max(chunk, slots)):
            self._batch.n_seq_id[n] = 1

    def close(self) -> None:
        """Free the memory."""
        if self._context:
            api = library()
            api.llama_batch_free(self._batch)
            api.llama_free(self._context)
            self._context = None

    def take(self, tokens: Sequence[int], ends: Sequence[int]) -> Slot:
        """A free slot that holds as much of the prompt's beginning as any does, and nothing else.

        Raises ``RuntimeError`` if all are taken: whoever calls sees to it that they are not.
        """
        shared = {slot.number: slot.shares(tokens, ends) for slot in self.slots}
        free = [slot for slot in self.slots if not slot.taken]
        if not free:
            raise RuntimeError("no slot is free")
        nearest = max(self.slots, key=lambda slot: (shared[slot.number], not slot.taken, -slot.last_used))
        count = shared[nearest.number]
        slot = nearest
        if nearest.taken or count * _WORTH_COPYING < max(nearest.cuts, default=0):
            slot = min(free, key=lambda slot: slot.last_used)
            if slot is not nearest and count > shared[slot.number]:
                self._copy(nearest, slot)
        self._forget_after(slot, min(count, slot.shares(tokens, ends)))
        slot.taken = True
        return slot

    def give_back(self, slot: Slot) -> None:
        """The slot's sequence is at its end; what it holds stays for the next that begins alike."""
        self._used += 1
        slot.last_used = self._used
        slot.taken = False

    def evaluate(self, slot: Slot, tokens: Sequence[int], *, cut: bool) -> int:
        """Evaluate tokens at the end of `slot`'s sequence; the row of the last one's logits.

        `cut`: this is how the beginning of every prompt with these tokens is evaluated. Raises ``RuntimeError``.
        """
        start, last = len(slot.tokens), len(tokens) - 1
        self._decode([(slot, token, start + n, n == last) for n, token in enumerate(tokens)])
        if cut:
            slot.cuts.append(len(slot.tokens))
        return last

    def evaluate_ends(self, ends: Sequence[tuple[Slot, Sequence[int]]]) -> list[int]:
        """Evaluate several tokens of each of several sequences at once; the rows of their last ones' logits, in order.

        They stand in slots side by side, and ``takes_back`` holds: as llama.cpp computes at once only what is of one
        length, shorter ones are filled up with tokens that are forgotten at once. What is evaluated like this is no
        cut: no later prompt begins with it.
        """
        longest = max(len(tokens) for _, tokens in ends)
        rows: list[tuple[Slot, int, int, bool]] = []
        row_of: dict[int, int] = {}
        for slot, tokens in sorted(ends, key=lambda end: end[0].number):
            start, last = len(slot.tokens), len(tokens) - 1
            row_of[slot.number] = len(rows) + last
            filled = [*tokens, *[_ANY_TOKEN] * (longest - len(tokens))]
            rows += [(slot, token, start + n, n == last) for n, token in enumerate(filled)]
        kept = [(slot, len(slot.tokens) + len(tokens)) for slot, tokens in ends]
        self._decode(rows)
        for slot, count in kept:
            self._forget_after(slot, count)
        return [row_of[slot.number] for slot, _ in ends]

    def evaluate_each(self, tokens: Sequence[tuple[Slot, int]]) -> list[int]:
        """Evaluate one more token of each of several sequences at once; the rows of their logits, in the same order.

        llama.cpp computes together only what stands in slots next to each other, in their order. Slots in between that
        have nothing to evaluate get a token that is forgotten at once: that costs far less than to compute in parts.
        """
        given = {slot.number: token for slot, token in tokens}
        rows: list[tuple[Slot, int, int, bool]] = []
        row_of: dict[int, int] = {}
        for slot in self.slots[min(given) : max(given) + 1]:
            if slot.number in given or (self.takes_back and len(slot.tokens) < self.window):
                row_of[slot.number] = len(rows)
                rows.append((slot, given.get(slot.number, _ANY_TOKEN), len(slot.tokens), slot.number in given))
        self._decode(rows)
        for slot, _, length, wanted in rows:
            if not wanted:
                self._forget_after(slot, length)
        return [row_of[slot.number] for slot, _ in tokens]

    def give_way(self) -> None:
        """Take as many threads for the next evaluation as there are processors that others leave free.

        The time to ask is when a token has been chosen and before its reader is told: llama.cpp's threads are asleep
        then, and so are readers, which each token wakes. Neither is taken for others at work.
        """
        if self._flash:  # a GPU does not mind who else is on the processors
            return
        if (threads := self._processors.look()) != self._threads:
            self._threads = threads
            library().llama_set_n_threads(self._context, threads, threads)

    def logits(self, row: int) -> npt.NDArray[np.float32]:
        """What was computed for the token in this row of the last evaluation; valid until the next."""
        import numpy as np

        pointer: Any = library().llama_get_logits_ith(self._context, row)
        address = ctypes.addressof(pointer.contents)
        if address not in self._rows:  # llama.cpp writes to few places, again and again
            self._rows[address] = np.ctypeslib.as_array(self._numbers.from_address(address))
        return self._rows[address]

    def state(self, slot: Slot) -> memoryview:
        """What was computed of `slot`'s sequence, as bytes."""
        api = library()
        room: int = api.llama_state_seq_get_size(self._context, slot.number)
        buffer = (ctypes.c_uint8 * room)()
        size: int = api.llama_state_seq_get_data(self._context, buffer, room, slot.number)
        return memoryview(buffer).cast("B")[:size]

    def restore(self, slot: Slot, state: bytearray, tokens: Sequence[int], ends: Sequence[int]) -> bool:
        """Put a state of `tokens`, cut at `ends`, in place of what `slot` holds; whether llama.cpp took it."""
        self._forget_after(slot, 0)
        buffer = (ctypes.c_uint8 * len(state)).from_buffer(state)
        if not library().llama_state_seq_set_data(self._context, buffer, len(state), slot.number):
            self._forget_after(slot, 0)
            return False
        slot.tokens, slot.cuts = list(tokens), list(ends)
        return True

    def _copy(self, source: Slot, target: Slot) -> None:
        api = library()
        api.llama_memory_seq_rm(self._memory, target.number, -1, -1)
        # From the first to the last: between slots, llama.cpp copies all or nothing.
        api.llama_memory_seq_cp(self._memory, source.number, target.number, -1, -1)
        target.tokens, target.cuts = list(source.tokens), list(source.cuts)

    def _forget_after(self, slot: Slot, count: int) -> None:
        api = library()
        if not api.llama_memory_seq_rm(
            self._memory, slot.number, count, -1
        ):  # a recurrent model forgets all or nothing
            api.llama_memory_seq_rm(self._memory, slot.number, -1, -1)
            count = 0
        slot.keep(count)

    def _decode(self, rows: Sequence[tuple[Slot, int, int, bool]]) -> None:
        """Evaluate `rows`: slot, token, position, and whether its logits are wanted.

        Readers were told of the last token just now. Nothing before `llama_decode` lets go of the interpreter, or they
        would take it first, and this thread would wait for them; they have it while llama.cpp computes.
        """
        api, batch = library(), self._batch
        batch.n_tokens = len(rows)
        tokens, positions, owners, logits = batch.token, batch.pos, batch.seq_id, batch.logits
        for n, (slot, token, position, wanted) in enumerate(rows):
            tokens[n] = token
            positions[n] = position
            owners[n][0] = slot.number
            logits[n] = wanted
        forget_complaints()
        code: int = api.llama_decode(self._context, batch)
        if code != 0:
            for slot in {slot.number: slot for slot, *_ in rows}.values():
                self._forget_after(slot, 0)
            raise RuntimeError(f"llama.cpp could not evaluate {len(rows)} tokens (code {code}): {complaints()}")
        for slot, token, *_ in rows:
            slot.tokens.append(token)
