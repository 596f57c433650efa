"""How many input tokens a request to Claude has at most, and how many output tokens have been made of what arrived."""

from __future__ import annotations

from math import ceil
from typing import Final

from agentbudget.models.anthropic.families import Family
from agentbudget.models.base import Image, JsonSchema, Request
from agentbudget.models.images import size_of
from agentbudget.models.tokens import BYTES_FACTOR, bytes_bound, text_tokens

PATCH: Final = 28
"""Side in pixels of what of a picture becomes a token: https://platform.claude.com/docs/en/build-with-claude/vision."""

PIXELS_PER_TOKEN: Final = 750
"""The same for models before 4.5, as the same page said of them."""

PICTURE_FRAME: Final = 16

COUNTED_OFF: Final = 0.02
"""The count endpoint calls itself an estimate, which may differ from what is charged by a small amount."""

COUNTED_FRAME: Final = 32

BLOCK_FRAME: Final = 16
"""Tokens that begin and end a block of the answer, and do not show in its text."""


def input_bound(family: Family, request: Request, schema: JsonSchema | None) -> int:
    """The most input tokens of `request`: bytes of its text, tools and schema, and the size of its pictures."""
    text = bytes_bound(request.messages, schema, tools=request.tools)
    pictures = sum(picture_tokens(family, image) for message in request.messages for image in message.images)
    return text + pictures + sum(text_tokens(None, message.echo) for message in request.messages)


def picture_tokens(family: Family, image: Image) -> int:
    """The most tokens that a picture has: by its patches, or its pixels, up to the size that the model looks at.

    Raises `InvalidArgument` if it is not a picture of its type.
    """
    size = size_of(image)
    patches = ceil(size.width / PATCH) * ceil(size.height / PATCH)
    pixels = ceil(size.width * size.height / PIXELS_PER_TOKEN)
    return min(max(patches, pixels), family.picture) + PICTURE_FRAME


def counted_bound(counted: int) -> int:
    """The most that may be charged of an input that the API counted."""
    return ceil(counted * (1 + COUNTED_OFF)) + COUNTED_FRAME


def made_bound(size: int, blocks: int) -> int:
    """The most output tokens of which so many bytes in so many blocks have been made."""
    return ceil(BYTES_FACTOR * size) + BLOCK_FRAME * blocks
