"""The tokenizer and chat template of a GGUF file, without its tensors, and what the file says of its size."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentbudget.errors import SchemaUnsupported, WeightsError
from agentbudget.models.base import Message, Tool
from agentbudget.models.llama.library import complaints, grammar_sampler, library, open_model
from agentbudget.models.llama.template import ChatTemplate, Piece

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_F16_BYTES: Final = 2
_NO_BYTE: Final = 256
_FIRST: Final = 1024
"""Among so many tokens at the beginning, most vocabularies have those of a single byte: no need to look on."""
_NOT_IN_UTF8: Final = frozenset({0xC0, 0xC1, *range(0xF5, 0x100)})
_UTF8_BYTES: Final = 256 - len(_NOT_IN_UTF8)


@dataclass(frozen=True, slots=True)
class Prompt:
    """The tokens of a prompt, of which the first ``fixed`` are the same in many."""

    tokens: tuple[int, ...]
    fixed: int = 0


class Vocabulary:
    """The tokenizer and chat template: opens in a fraction of a second. Any number of threads may read it at once."""

    def __init__(self, path: Path, *, template: str | None = None) -> None:
        """`template` in place of the file's own chat template."""
        api = library()
        self.path = path
        self._model = open_model(path, vocabulary_only=True)
        self.pointer = api.llama_model_get_vocab(self._model)
        self.size: int = api.llama_vocab_n_tokens(self.pointer)
        self.end: int = api.llama_vocab_eos(self.pointer)
        self._controls = self._control_tokens()
        self._pieces: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}
        self.template = self._template(template)

    def close(self) -> None:
        """Free the memory."""
        if self._model:
            library().llama_model_free(self._model)
            self._model = None

    def prompt(self, messages: Sequence[Message], *, tools: Sequence[Tool] = (), fixed: int = 0) -> Prompt:
        """The tokens of `messages` in the model's chat template, up to where its answer begins.

        Only the template's own control tokens become control tokens: those written in a message (in a hostile document,
        say) are ordinary text to the model. The first `fixed` messages are said to be the same in many prompts. Raises
        what the template raises (`ValueError`, jinja2's `TemplateError`).
        """
        tokens: list[int] = []
        plain, same = "", None
        for piece in self.template.render(messages, tools):
            if same is None and piece.of is not None and piece.of >= fixed:
                same = len(tokens)
            for fragment in self._fragments(piece):
                if fragment in self._controls and piece.own:
                    tokens += [*self.tokenize(plain), self._controls[fragment]]
                    plain = ""
                else:
                    plain += fragment
        tokens += self.tokenize(plain)
        return Prompt(tuple(tokens), same if fixed and same is not None else 0)

    def _fragments(self, piece: Piece) -> Sequence[str]:
        """Control tokens as such; the text between two of them, the template's and the messages', goes together."""
        return self._control_pattern.split(piece.text) if piece.own else [piece.text]

    def tokenize(self, text: str) -> list[int]:
        """The tokens of plain text, in which nothing is a control token."""
        if not text:
            return []
        api, data = library(), text.encode("utf-8", "replace")
        room = len(data) + 2
        buffer = (api.llama_token * room)()
        count: int = api.llama_tokenize(self.pointer, data, len(data), buffer, room, False, False)
        if count < 0:
            raise ValueError(f"llama.cpp could not tokenize a text of {len(data):,} bytes (code {count})")
        return buffer[:count]

    def spell(self, data: bytes) -> list[int]:
        """The tokenizer's tokens for exactly these bytes, or for the first of them; none where it makes others."""
        tokens = self.tokenize(data.decode("utf-8", "ignore"))
        whole = b"".join(map(self.piece, tokens))
        return tokens if data.startswith(whole) else []

    def piece(self, token: int) -> bytes:
        """The bytes that `token` stands for; none for a control token. A character may need several tokens."""
        if (known := self._pieces.get(token)) is None:
            known = self._pieces[token] = self._read_piece(token)
        return known

    def _read_piece(self, token: int) -> bytes:
        api = library()
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count: int = api.llama_token_to_piece(self.pointer, token, buffer, room, 0, False)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def ends(self, token: int) -> bool:
        """Whether `token` ends an answer."""
        if (known := self._ends.get(token)) is None:
            known = self._ends[token] = bool(library().llama_vocab_is_eog(self.pointer, token))
        return known

    @cached_property
    def bytes(self) -> tuple[int, ...]:
        """A token for each byte that the text of this model can have next; none at all where some have no token."""
        alone: dict[int, int] = {}
        first: set[int] = set()
        for token in range(self.size):
            if token >= _FIRST and len(alone) == _UTF8_BYTES:
                break
            if piece := self._read_piece(token):
                first.add(piece[0])
                if len(piece) == 1 and piece[0] not in _NOT_IN_UTF8:
                    alone.setdefault(piece[0], token)
        return tuple(alone.values()) if first <= alone.keys() | _NOT_IN_UTF8 else ()

    def beginning_with(self, firsts: Collection[int]) -> npt.NDArray[np.int32]:
        """The tokens that begin with the byte of one of `firsts`, which are of ``bytes`` or the end."""
        import numpy as np

        wanted = np.zeros(_NO_BYTE + 1, dtype=np.bool_)
        for token in firsts:
            wanted[_NO_BYTE if token == self.end else self.piece(token)[0]] = True
        return np.flatnonzero(wanted[self._first_bytes]).astype(np.int32)

    @cached_property
    def _first_bytes(self) -> npt.NDArray[np.uint16]:
        """The first byte of each token; `_NO_BYTE` of those that stand for none, such as the ends."""
        import numpy as np

        pieces = (self._read_piece(token) for token in range(self.size))
        return np.fromiter((piece[0] if piece else _NO_BYTE for piece in pieces), np.uint16, self.size)

    def check_grammar(self, gbnf: str) -> None:
        """Raise `SchemaUnsupported` if llama.cpp does not take this grammar."""
        sampler = grammar_sampler(self.pointer, gbnf)
        if not sampler:
            raise SchemaUnsupported(
                f"llama.cpp does not take the grammar of this schema ({complaints()}); "
                "make the schema simpler: fewer repetitions, shorter limits"
            )
        library().llama_sampler_free(sampler)

    @cached_property
    def cache_bytes_per_token(self) -> int:
        """What a token takes in the cache of keys and values; 0 where the file does not say (a recurrent model)."""
        heads = self._number("attention.head_count")
        width = self._number("embedding_length")
        if not heads or not width:
            return 0
        kept = self._number("attention.head_count_kv") or heads
        key = self._number("attention.key_length") or width // heads
        value = self._number("attention.value_length") or width // heads
        return self._number("block_count") * kept * (key + value) * _F16_BYTES

    def _number(self, key: str) -> int:
        """A number of the model's architecture; 0 where it is not a number (it differs by layer) or not there."""
        written = self.metadata(f"{self.metadata('general.architecture')}.{key}")
        return int(written) if written and written.isdigit() else 0

    def metadata(self, key: str) -> str | None:
        """What the file says under `key`."""
        api, room = library(), 1 << 16
        while True:
            buffer = ctypes.create_string_buffer(room)
            count: int = api.llama_model_meta_val_str(self._model, key.encode(), buffer, room)
            if count < room:
                return None if count < 0 else buffer.value.decode("utf-8", "replace")
            room = count + 1

    def _control_tokens(self) -> dict[str, int]:
        api = library()
        control: int = api.LLAMA_TOKEN_ATTR_CONTROL
        attribute, vocabulary = api.llama_vocab_get_attr, self.pointer
        ids = [token for token in range(self.size) if attribute(vocabulary, token) & control]
        found = {self._name(token): token for token in ids}
        longest_first = sorted((re.escape(name) for name in found if name), key=len, reverse=True)
        self._control_pattern = re.compile(f"({'|'.join(longest_first)})" if longest_first else r"(?!)")
        return found

    def _name(self, token: int) -> str:
        return library().llama_vocab_get_text(self.pointer, token).decode("utf-8", "replace") if token >= 0 else ""

    def _template(self, given: str | None) -> ChatTemplate:
        source = given or self.metadata("tokenizer.chat_template")
        if source is None:
            raise WeightsError(
                f"{self.path} has no chat template: it is not a chat model; use an instruction-tuned one"
            )
        begin: int = library().llama_vocab_bos(self.pointer)
        return ChatTemplate(source, begin=self._name(begin), end=self._name(self.end))
