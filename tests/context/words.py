"""The embedding model of these tests. It stands alone, so that a process that embeds with it starts quickly."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence

from agentbudget.context.embed import Vector


class WordEmbedder:
    """A small real embedding model: a passage is the directions of its words' hashes added up."""

    def __init__(self, dim: int = 64, name: str = "words") -> None:
        self._dim = dim
        self._name = name
        self.embedded: list[str] = []
        self.counted = 0

    @property
    def fingerprint(self) -> str:
        return f"{self._name}:{self._dim}"

    @property
    def dim(self) -> int:
        return self._dim

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        self.embedded += texts
        return [self.embed_query(text) for text in texts]

    def embed_query(self, question: str) -> Vector:
        total = [0.001] * self._dim
        for word in re.findall(r"\w+", question.casefold()):
            digest = hashlib.blake2b(word.encode(), digest_size=self._dim).digest()
            total = [value + byte / 127.5 - 1 for value, byte in zip(total, digest, strict=True)]
        length = math.sqrt(sum(value * value for value in total))
        return [value / length for value in total]

    def count_tokens(self, text: str) -> int:
        self.counted += 1
        return count_words(text)


def count_words(text: str) -> int:
    """Words and punctuation marks."""
    return len(re.findall(r"\w+|[^\w\s]", text))
