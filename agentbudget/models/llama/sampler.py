"""Which token comes next: the likeliest or one by chance, within a grammar if any; what follows without a choice."""

from __future__ import annotations

import codecs
import ctypes
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agentbudget.errors import SchemaUnsupported
from agentbudget.models.base import Request
from agentbudget.models.llama.library import complaints, grammar_sampler, library
from agentbudget.models.llama.vocabulary import Vocabulary

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_TOP_K: Final = 40
_TOP_P: Final = 0.95
_MIN_P: Final = 0.05
_NEAR: Final = 10.0
"""A token this far below the likeliest, in logits, has less than 1/20,000 of its probability."""
_SAFE_POWER: Final = 60.0
"""e to this, times the size of any vocabulary, is a float32; and so is e to the power of minus this."""
_LONGEST: Final = 2_048
"""Bytes that are looked ahead at most."""


@dataclass(frozen=True, slots=True)
class Forced:
    """What a grammar leaves no choice about: the tokens that must come next, and whether the answer then ends.

    ``more``: not all of them were asked for.
    """

    tokens: tuple[int, ...] = ()
    complete: bool = False
    more: bool = False


class Sampler:
    """Chooses each token: the likeliest at temperature 0, else by chance from `seed`; within the grammar, if any.

    The grammar looks at the likely tokens, and at the whole vocabulary only when it refuses the chosen one.
    """

    def __init__(
        self, vocabulary: Vocabulary, request: Request, gbnf: str | None, scratch: Scratch | None = None
    ) -> None:
        """`scratch` may be shared by the samplers of one thread."""
        import numpy as np

        self._vocabulary = vocabulary
        self._scratch = scratch or Scratch(vocabulary.size)
        self._grammar = None if gbnf is None else _automaton(vocabulary, gbnf)
        self._chain = _chain(request) if request.temperature > 0 else None
        self._ids = self._scratch.ids
        self._probe = _Candidates(257) if self._grammar and vocabulary.bytes else None
        self._bytes = np.array([*vocabulary.bytes, vocabulary.end], dtype=np.int32) if self._probe else self._ids
        self._rest: list[int] = []
        self._ends = False
        self.log_probability = 0.0

    def close(self) -> None:
        """Free the memory."""
        for sampler in (self._grammar, self._chain):
            if sampler:
                library().llama_sampler_free(sampler)
        self._grammar = self._chain = None

    def sample(self, logits: npt.NDArray[np.float32]) -> int:
        """The next token; ``log_probability`` is its share of the softmax over all tokens that were allowed."""
        shares = logits
        if self._grammar:
            near = self._scratch.near_the_top(logits)
            token = self._choose(near, logits[near])
            ids, shares = self._allowed(near, logits[near])
            if token not in ids:
                possible = self._possible()
                ids, shares = self._allowed(possible, logits[possible])
                token = self._choose(ids, shares) if len(ids) else self._vocabulary.end
        elif self._chain is None:
            token = int(logits.argmax())
        else:
            token = self._by_chance(logits)
        self.log_probability = self._log_share(float(logits[token]), shares)
        if self._grammar and not self._vocabulary.ends(token):
            library().llama_sampler_accept(self._grammar, token)
        return token

    def _log_share(self, chosen: float, logits: npt.NDArray[np.float32]) -> float:
        """The logarithm of the share of the token whose logit is `chosen` among all that have `logits`."""
        if not len(logits):
            return 0.0
        top = chosen if self._chain is None else float(logits.max())
        return min(0.0, chosen - self._scratch.log_sum_exp(logits, top))

    def forced(self, most: int) -> Forced:
        """At most `most` tokens that must come next, which count as put out from now on.

        Between two choices the grammar is asked for one byte after the other: as long as it allows a single one, there
        is nothing to ask the model.
        """
        if not self._rest:
            self._rest, self._ends = self._unavoidable()
        told, self._rest = self._rest[:most], self._rest[most:]
        return Forced(tuple(told), self._ends and not self._rest, more=bool(self._rest))

    def _unavoidable(self) -> tuple[list[int], bool]:
        """All the tokens that must come next, which the grammar then has behind it; whether the answer ends there."""
        if self._probe is None:
            return [], False
        data, complete = self._look_ahead(self._probe)
        tokens = self._vocabulary.spell(data)
        for token in tokens:
            library().llama_sampler_accept(self._grammar, token)
        return tokens, complete and sum(len(self._vocabulary.piece(token)) for token in tokens) == len(data)

    def _look_ahead(self, probe: _Candidates) -> tuple[bytes, bool]:
        """The bytes that must follow, and whether nothing can follow them."""
        api, data, automaton = library(), b"", self._grammar
        decoder = codecs.getincrementaldecoder("utf-8")("ignore")  # the last token may have begun a character
        try:
            while len(data) < _LONGEST:
                allowed, _ = probe.apply(automaton, self._bytes)
                if len(allowed) != 1:
                    break
                only = int(allowed[0])
                if only == self._vocabulary.end:
                    return data, True
                if automaton is self._grammar:
                    automaton = api.llama_sampler_clone(self._grammar)
                api.llama_sampler_accept(automaton, only)
                data += self._vocabulary.piece(only)
        finally:
            if automaton is not self._grammar:
                api.llama_sampler_free(automaton)
        decoder.decode(data)
        kept = len(data) - len(decoder.getstate()[0])  # a character is decided as a whole
        return data[:kept], False

    def _choose(self, ids: npt.NDArray[np.int32], logits: npt.NDArray[np.float32]) -> int:
        """One of `ids`, by their `logits`."""
        if self._chain is None:
            return int(ids[int(logits.argmax())])
        return self._scratch.table.choose(self._chain, ids, logits)

    def _by_chance(self, logits: npt.NDArray[np.float32]) -> int:
        """A token by chance. Those far from the top have none, if enough are near: the chain keeps the best few."""
        near = self._scratch.near_the_top(logits)
        ids = near if len(near) >= _TOP_K else self._ids
        return self._choose(ids, logits[ids])

    def _possible(self) -> npt.NDArray[np.int32]:
        """Tokens that begin with a byte that the grammar allows next: few, of a vocabulary that takes long to try."""
        if self._probe is None:
            return self._ids
        allowed, _ = self._probe.apply(self._grammar, self._bytes)
        return self._vocabulary.beginning_with({int(token) for token in allowed})

    def _allowed(
        self, ids: npt.NDArray[np.int32], logits: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Those of `ids` that the grammar allows next, each with its logit."""
        return self._scratch.table.apply(self._grammar, ids, logits)


class _Candidates:
    """llama.cpp's table of tokens to choose among."""

    def __init__(self, room: int) -> None:
        import numpy as np

        api = library()
        layout = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        self._rows = np.zeros(room, dtype=layout)
        self._array = api.llama_token_data_array(
            data=self._rows.ctypes.data_as(api.llama_token_data_p), size=room, selected=-1, sorted=False
        )

    def apply(
        self, automaton: Any, ids: npt.NDArray[np.int32], logits: npt.NDArray[np.float32] | float = 0.0
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Those of `ids` that `automaton` allows next, each with its logit."""
        self._fill(ids, logits)
        library().llama_sampler_apply(automaton, ctypes.byref(self._array))
        rows = self._rows[: len(ids)]
        rows = rows[rows["logit"] > -math.inf]
        return rows["id"], rows["logit"]

    def choose(self, chain: Any, ids: npt.NDArray[np.int32], logits: npt.NDArray[np.float32]) -> int:
        """The one of `ids` that `chain` selects."""
        self._fill(ids, logits)
        library().llama_sampler_apply(chain, ctypes.byref(self._array))
        return int(self._array.data[self._array.selected].id)

    def _fill(self, ids: npt.NDArray[np.int32], logits: npt.NDArray[np.float32] | float) -> None:
        count = len(ids)
        self._rows["id"][:count] = ids
        self._rows["logit"][:count] = logits
        self._rows["p"][:count] = 0.0
        self._array.size = count
        self._array.selected = -1
        self._array.sorted = False


class Scratch:
    """Room for sums over a whole vocabulary, taken once: new pages for each token would take longer than the sums."""

    def __init__(self, size: int) -> None:
        import numpy as np

        self.ids = np.arange(size, dtype=np.int32)
        self.table = _Candidates(size)
        self._floats = np.empty(size, dtype=np.float32)
        self._flags = np.empty(size, dtype=np.bool_)

    def near_the_top(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """The tokens that are likely enough to matter for a sum of probabilities."""
        import numpy as np

        return self.ids[np.greater(logits, logits.max() - _NEAR, out=self._flags)]

    def log_sum_exp(self, logits: npt.NDArray[np.float32], top: float) -> float:
        """The logarithm of the sum of what `logits` are the logarithms of, of which `top` is the largest.

        Where their powers are numbers that float32 can hold, nothing is subtracted first: one pass less over the whole
        vocabulary, for each token.
        """
        import numpy as np

        room = self._floats[: len(logits)]
        if abs(top) < _SAFE_POWER:
            return math.log(float(np.exp(logits, out=room).sum()))
        np.exp(np.subtract(logits, np.float32(top), out=room), out=room)
        return top + math.log(float(room.sum()))


def _chain(request: Request) -> Any:
    """llama.cpp's own defaults for sampling by chance, but for its default seed: with that it draws one of its own."""
    api = library()
    chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
    for sampler in (
        api.llama_sampler_init_top_k(_TOP_K),
        api.llama_sampler_init_top_p(_TOP_P, 1),
        api.llama_sampler_init_min_p(_MIN_P, 1),
        api.llama_sampler_init_temp(request.temperature),
        api.llama_sampler_init_dist(request.seed % api.LLAMA_DEFAULT_SEED),
    ):
        api.llama_sampler_chain_add(chain, sampler)
    return chain


def _automaton(vocabulary: Vocabulary, gbnf: str) -> Any:
    automaton = grammar_sampler(vocabulary.pointer, gbnf)
    if not automaton:
        raise SchemaUnsupported(f"llama.cpp does not take the grammar of this schema ({complaints()})")
    return automaton
