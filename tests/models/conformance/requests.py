"""What the suite asks of every model."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import Any, Final

from pydantic import BaseModel

from agentbudget.models.base import Image, JsonSchema, Message, Request, Tool


class Place(BaseModel):
    """An answer that is an object."""

    city: str
    inhabitants: int


WEATHER: Final = Tool(
    "weather",
    "Says what the weather is like in a city. Use this tool for every question about the weather.",
    {
        "type": "object",
        # Of few cities: how long a name a small model makes up differs between processors.
        "properties": {"city": {"type": "string", "enum": ["Lyon", "Paris"], "description": "The city's name"}},
        "required": ["city"],
        "additionalProperties": False,
    },
)

SHORT: Final = "Say hello to a friend, in five words."
LONG: Final = "Write down, in words, each number from one to one hundred, and nothing else."

ENDLESS: Final[JsonSchema] = {"type": "string", "minLength": 1990}
"""What no model says in a few tokens, whatever it would like to say: how much that is differs between processors."""

TEXTS: Final = {
    "plain": SHORT,
    "unicode": "Où est le Rhône ? 日本語の文章です。 Привет, мир! 🌊🇫🇷 نص عربي",
    "code": "def f(x):\n\treturn [i**2 for i in range(x) if i % 2]  # ½\n" * 5,
    "a long run": "A" * 700 + "=" * 300,
    "blank": " \n\t \n",
}


def ask(text: str = SHORT, *, cap: int = 48, **more: Any) -> Request:
    """A request with a system message and one turn."""
    return Request((Message("system", "You are a helpful assistant."), Message("user", text)), cap, **more)


def with_tools(request: Request, *tools: Tool) -> Request:
    """The same with tools."""
    return replace(request, tools=tools or (WEATHER,))


def with_image(request: Request, image: Image) -> Request:
    """The same with a picture in its last turn."""
    *before, last = request.messages
    return replace(request, messages=(*before, replace(last, images=(image,))))


def png(width: int, height: int) -> Image:
    """A grey picture."""
    rows = zlib.compress((b"\x00" + b"\x80" * width) * height)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = b"".join(map(_chunk, (b"IHDR", b"IDAT", b"IEND"), (header, rows, b"")))
    return Image(b"\x89PNG\r\n\x1a\n" + chunks, "image/png")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
