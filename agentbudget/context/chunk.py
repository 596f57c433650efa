"""Cut documents into chunks along their structure: what one vector stands for and one citation points to."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from typing import Final

from agentbudget.context import sentences
from agentbudget.context.document import Block, Document
from agentbudget.context.sentences import Split

VERSION: Final = "2"
"""Changes whenever the same document would be cut otherwise; an index records it."""

SEPARATOR: Final = " › "
"""Stands between the headings of a path, in what is embedded and in what is shown."""

_CHARACTERS_A_TOKEN: Final = 8
"""A chunk holds at most so many characters a token: a tokenizer may see one unknown token in a page of base64."""

_LAST_WORDS: Final = 6
_LAST_CHARACTERS: Final = 400
"""The words, and the characters in which they are looked for, by which a paragraph may end a chunk."""

_REMEMBERED: Final = 64
"""Texts whose tokens are not counted again while a document is cut."""

CountTokens = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Tokens of a chunk, its headings included. Neighbours are joined up to ``target``; one block may fill ``limit``.

    The default limit is what all-MiniLM-L6-v2 reads (256) less its two marks. From ``least`` on, a chunk may end
    early, at a paragraph that its own content marks, or at a row, line or sentence of a block that takes more than two
    chunks: so an edit moves only the boundaries near it.
    """

    target: int = 200
    limit: int = 254
    least: int = 80


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk stands, and what is known of that file: all of it that may change while its content stays."""

    source: str
    start: int
    end: int
    metadata: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document.

    ``id`` is a hash of headings and text: the same wherever it stands, so that moving it costs nothing. ``text`` is
    characters ``start`` to ``end`` of the document's text; the later parts of a long table repeat its header.
    ``tokens`` counts `embedded`, by the embedding model's tokenizer. ``metadata`` is its file's. ``also`` names the
    other places where the same content stands, in files of other metadata perhaps. ``stale`` marks what a search found
    in a file that has changed since it was read.
    """

    id: str
    source: str
    heading_path: tuple[str, ...]
    text: str
    start: int
    end: int
    tokens: int
    metadata: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    also: tuple[Place, ...] = ()
    stale: bool = False

    @property
    def places(self) -> tuple[Place, ...]:
        """Every place where it stands, its own first."""
        return Place(self.source, self.start, self.end, self.metadata), *self.also

    @property
    def embedded(self) -> str:
        """The text that is embedded and searched: headings, then text."""
        return _embedded(self.heading_path, self.text)

    @property
    def title(self) -> str:
        """``source › heading › heading``: how a citation names it."""
        return SEPARATOR.join((self.source, *self.heading_path))


def chunk(document: Document, count_tokens: CountTokens, *, sizes: Sizes | None = None) -> tuple[Chunk, ...]:
    """The chunks of `document`, in order. No chunk crosses a heading."""
    # The same headings are counted for each piece below them, the same piece for each size that it may have to fit.
    counted = lru_cache(maxsize=_REMEMBERED)(count_tokens)
    return tuple(_Cutter(document, counted, sizes or Sizes()).chunks())


def chunk_id(heading_path: tuple[str, ...], text: str) -> str:
    """The content hash of a chunk: 32 hexadecimal digits."""
    content = "\x1f".join((*heading_path, "", text))
    return hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()[:32]


def _marks_an_end(text: str) -> bool:
    """Whether a chunk may end behind this text: behind one in four, told by nothing but itself."""
    return hashlib.sha256(" ".join(text.split()).encode(errors="surrogatepass")).digest()[0] % 4 == 0


def meaning(embedded: str) -> str:
    """What a text says, whatever the white space in it: a hash of 32 hexadecimal digits."""
    return hashlib.sha256(" ".join(embedded.split()).encode(errors="surrogatepass")).hexdigest()[:32]


def _embedded(heading_path: tuple[str, ...], text: str) -> str:
    return f"{SEPARATOR.join(heading_path)}\n{text}" if heading_path else text


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int
    end: int
    head: str = ""


@dataclass(frozen=True, slots=True)
class _Cutter:
    document: Document
    count: CountTokens
    sizes: Sizes

    def chunks(self) -> Iterator[Chunk]:
        for path, blocks in groupby(self.document.blocks, key=lambda block: block.heading_path):
            pieces = [piece for block in blocks for piece in self._pieces(block)]
            for piece in self._joined(pieces, path):
                text = self._text(piece)
                tokens = self.count(_embedded(path, text))
                source, metadata = self.document.source, self.document.metadata
                yield Chunk(chunk_id(path, text), source, path, text, piece.start, piece.end, tokens, metadata)

    def _text(self, piece: _Piece) -> str:
        return piece.head + self.document.text[piece.start : piece.end]

    def _fits(self, piece: _Piece, path: tuple[str, ...], size: int) -> bool:
        # Headings that would fill a chunk by themselves are not made room for: the text matters more.
        headings = min(self.count(SEPARATOR.join(path)), size // 2) if path else 0
        text = self._text(piece)
        return len(text) <= size * _CHARACTERS_A_TOKEN and self.count(text) + headings <= size

    def _joined(self, pieces: list[_Piece], path: tuple[str, ...]) -> Iterator[_Piece]:
        """Neighbouring pieces put together while they fit."""
        current: _Piece | None = None
        for piece in pieces:
            if current is None:
                current = piece
                continue
            together = _Piece(current.start, piece.end, current.head)
            if piece.head or self._may_end(current, path) or not self._fits(together, path, self.sizes.target):
                yield current
                current = piece
            else:
                current = together
        if current is not None:
            yield current

    def _may_end(self, piece: _Piece, path: tuple[str, ...]) -> bool:
        """Whether the last words mark the end of a chunk: one paragraph in four does, however its lines are broken."""
        last = " ".join(self._text(piece)[-_LAST_CHARACTERS:].split()[-_LAST_WORDS:])
        return _marks_an_end(last) and not self._fits(piece, path, self.sizes.least)

    def _pieces(self, block: Block) -> list[_Piece]:
        whole = _Piece(block.start, block.end)
        if self._fits(whole, block.heading_path, self.sizes.limit):
            return [whole]
        splits: tuple[Split, ...] = (sentences.words, sentences.halves)
        if block.kind == "prose":
            splits = (sentences.paragraphs, sentences.sentences, sentences.lines, *splits)
        else:
            splits = (sentences.lines, *splits)
        # A header that takes half of the room would leave too little for the rows.
        head = block.head if self._fits(_Piece(0, 0, block.head), block.heading_path, self.sizes.limit // 2) else ""
        return self._cut(whole, block, head, splits)

    def _cut(self, piece: _Piece, block: Block, head: str, splits: tuple[Split, ...]) -> list[_Piece]:
        """Parts of `piece` that fit, each as many whole units as it can hold; a unit too long is cut more finely.

        Of a piece that takes more than two parts, a unit whose own content marks it ends one early.
        """
        parts: list[_Piece] = []
        finer = splits[1:] or splits
        long = not self._fits(piece, block.heading_path, 2 * self.sizes.limit)
        units = self._units(piece, splits[0])
        number = 0
        while number < len(units):
            unit = _Piece(units.starts[number], units.ends[number], head if units.starts[number] > block.start else "")
            if unit.end - unit.start <= 1 or self._fits(unit, block.heading_path, self.sizes.limit):
                parts.append(unit)
            else:
                parts += self._cut(unit, block, head, finer)
            number += 1
            last: _Piece = parts[-1]
            taken = self._taken(last, units, number, block.heading_path, long=long)
            if taken > number:
                parts[-1] = _Piece(last.start, units.ends[taken - 1], last.head)
                number = taken
        return parts

    def _taken(self, part: _Piece, units: _Units, number: int, path: tuple[str, ...], *, long: bool) -> int:
        """How far `part` takes in the `units` from `number` on: the number behind the last.

        A longer text never has fewer tokens, so that halving what is in question finds it in a few counts.
        """

        def fits(n: int, size: int) -> bool:
            return self._fits(part if n < number else _Piece(part.start, units.ends[n], part.head), path, size)

        def first_too_long(size: int, low: int, high: int) -> int:
            return bisect_left(range(high), True, low, key=lambda n: not fits(n, size))

        # No text of more characters fits: what is longer need not be looked at.
        most = bisect_left(units.ends, part.start + self.sizes.limit * _CHARACTERS_A_TOKEN + 1, number)
        if long:
            enough = first_too_long(self.sizes.least, number - 1, most)
            marked = (n for n in range(enough, most) if _marks_an_end(self._unit(units, n)))
            most = next(marked, most - 1) + 1
        return most if fits(most - 1, self.sizes.limit) else first_too_long(self.sizes.limit, number, most)

    def _units(self, piece: _Piece, split: Split) -> _Units:
        units = _Units(array("q"), array("q"))
        for start, end in split(self.document.text[piece.start : piece.end]):
            units.starts.append(piece.start + start)
            units.ends.append(piece.start + end)
        return units

    def _unit(self, units: _Units, number: int) -> str:
        return self.document.text[units.starts[number] : units.ends[number]]


@dataclass(frozen=True, slots=True)
class _Units:
    """Where units begin and end in a document: in arrays, for a line of 50 MB has millions of words."""

    starts: array[int]
    ends: array[int]

    def __len__(self) -> int:
        return len(self.starts)
