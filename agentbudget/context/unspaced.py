"""Words as they can be met: letters composed, and scripts without spaces cut into pairs of characters side by side."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from typing import Final

_UNSPACED: Final = re.compile(
    "[\u0e01-\u0e4e\u0e81-\u0ece\u1000-\u104f\u1780-\u17d3"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"  # Japanese, Chinese
    "\uac00-\ud7a3\U00020000-\U0003ffff]+"  # Korean, whose words have endings and particles; rare Chinese
)


def spaced(text: str) -> str:
    """`text` composed (NFC), with each run of such characters as its overlapping pairs, spaces around them.

    A mark that stands behind its letter, as macOS and some PDFs write it, would end a word.

    >>> spaced("退货期限 is 30")
    ' 退货 货期 期限  is 30'
    """
    return text if text.isascii() else _UNSPACED.sub(_pairs, unicodedata.normalize("NFC", text))


def _pairs(run: re.Match[str]) -> str:
    characters = run.group()
    pairs = (one + other for one, other in pairwise(characters))
    return f" {characters if len(characters) == 1 else ' '.join(pairs)} "
