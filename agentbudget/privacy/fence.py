"""Retrieved text as data: nothing in it is read as a mark, a turn or a call, and nothing hides from the eye.

What a model makes of the words themselves nobody can promise: see docs/privacy.md.
"""

from __future__ import annotations

import re
from typing import Final

_HIDDEN: Final = (
    "\u200b\u2060\ufeff\u180e\u00ad"  # without width
    "\u202a-\u202e\u2066-\u2069"  # turn the direction of writing, so that the eye reads another text than the model
    "\U000e0000-\U000e007f\U000e0100-\U000e01ef\ufff9-\ufffb"  # tags, selectors, annotations: text inside text
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control
)

_TURNS: Final = (
    r"<(?=[|｜])|(?<=[|｜])>"  # <|im_start|> and its kin; DeepSeek's bars are wide
    r"|<(?=/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn|think|tool_call|tool_response|tools|function_calls|invoke"
    r"|system|assistant|user|passages)\b[^<>\n]{0,80}>)"
    r"|<(?=</?SYS>>)|\[(?=/?(?:INST|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|SYSTEM_PROMPT)\])"
)

_MARK: Final = re.compile(r"\[(\^?[1-9]\d{0,3}(?:\s*[,;–-]\s*\d{1,4})*)\]")
_MARK_NO_SUBSCRIPT: Final = re.compile(rf"(?<![\w)\]]){_MARK.pattern}")
_TURN: Final = re.compile(_TURNS, re.IGNORECASE)
_UNSEEN: Final = re.compile(f"[{_HIDDEN}]")
_LINES: Final = re.compile("\r\n?|[\u2028\u2029\u0085]")
_MASKED: Final = re.compile("█{2,}")
_SUSPECT: Final = re.compile(f"[\r\u2028\u2029\u0085{_HIDDEN}<>\\[█]")
"""What each of the patterns needs one of: most texts have none, and are looked through once."""


def harmless(text: str, *, code: bool = False) -> str:
    """`text` as a prompt may bring it.

    Its own ``[1]`` becomes ``(1)``, so that only our marks are marks; what chat templates use between turns, and models
    around calls, is taken apart by a space; characters that nobody sees are gone, and a mask is one character long. In
    ``code`` a subscript, ``x[1]``, stays.
    """
    if not _SUSPECT.search(text):
        return text
    mark = _MARK_NO_SUBSCRIPT if code else _MARK
    text = _UNSEEN.sub("", _LINES.sub("\n", text))
    return _MASKED.sub("█", _TURN.sub(_apart, mark.sub(r"(\1)", text)))


def _apart(found: re.Match[str]) -> str:
    sign = found[0]
    return f" {sign}" if sign == ">" else f"{sign} "


def fenced(text: str) -> str:
    """`text` of whatever origin, made `harmless`, between marks that it cannot close."""
    return between(harmless(text))


def between(text: str) -> str:
    """`text`, which is harmless, in a fence: ``<passages>`` … ``</passages>``."""
    return f"<passages>\n{text}\n</passages>"
