"""How large a picture is, by the head of its file, and how many input tokens it has at most."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from math import ceil
from typing import Final, assert_never

from agentbudget.errors import InvalidArgument
from agentbudget.models.base import Image

PATCH: Final = 32
TILE: Final = 512
FIT: Final = 2048
SHORT_SIDE: Final = 768
PATCHES: Final = 1536
"""A picture is shrunk to so many patches; newer models keep `MORE_PATCHES`."""
MORE_PATCHES: Final = 10_000
DEAREST_PATCH: Final = 2.46
LARGE: Final = re.compile(r"gpt-5\.[4-9](-pro|-sol)?(-\d{4}-.*)?$")

TILED: Final[tuple[tuple[str, int, int], ...]] = (
    (r"gpt-4o-mini", 2833, 5667),
    (r"gpt-5(\.1)?(-chat.*|-codex|-codex-max|-\d{4}.*)?$", 70, 140),
    (r"o1|o3(?!-mini)", 75, 150),
    (r"computer-use-preview", 65, 129),
    (r"gpt-4\.1(?!-mini|-nano)|gpt-4\.5|gpt-4o|chatgpt-4o|gpt-4-turbo|gpt-4-.*vision", 85, 170),
)
"""Tokens of a picture and of each tile of 512 × 512, by the start of a model's id."""

PATCHED: Final[tuple[tuple[str, int, float], ...]] = (
    (r"(gpt-4\.1|gpt-5|gpt-5\.4)-nano", PATCHES, 2.46),
    (r"(gpt-4\.1|gpt-5|gpt-5\.4)-mini|gpt-5(\.1)?-codex-mini", PATCHES, 1.62),
    (r"o4-mini|codex-mini", PATCHES, 1.72),
    (r"gpt-5\.[23]", PATCHES, 1.2),
)
"""Most patches of 32 × 32 that a picture is shrunk to, and tokens a patch."""

ANY_PATCH: Final = 14
"""Side of the smallest patches that open models look at (ViT-L/14), each at most one token."""

ANY_IMAGE: Final = 4096
"""Open models of one size for every picture, in tiles or whole, have fewer tokens than this."""

JPEG_SIZES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of the segment that states a JPEG's size."""


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels."""

    width: int
    height: int


def size_of(image: Image) -> Size:
    """The size that the picture's own head states. Raises `InvalidArgument` if it is not a picture of its type."""
    try:
        width, height = _read(image)
    except (struct.error, IndexError, ValueError) as error:
        raise _unreadable(image) from error
    if not (width and height):
        raise _unreadable(image)
    return Size(width, height)


def openai_image_tokens(model_id: str, image: Image) -> int:
    """The most tokens that a picture has for one of OpenAI's models.

    By https://developers.openai.com/api/docs/guides/images-vision (read November 2026): older models see a picture of
    a fixed price and its tiles, after it was fitted into 2048 pixels and its short side brought to 768; newer ones
    patches, at most a number of them, times a factor. A model that is in neither table gets the dearest rule.
    """
    size, base = size_of(image), model_id.removeprefix("ft:")
    for pattern, whole, tile in TILED:
        if re.match(pattern, base):
            return whole if image.detail == "low" else whole + tile * _tiles(size)
    for pattern, most, factor in PATCHED:
        if re.match(pattern, base):
            return ceil(min(_patches(size, PATCH), most) * factor)
    return ceil(min(_patches(size, PATCH), MORE_PATCHES) * _newer(base))


def any_image_tokens(image: Image) -> int:
    """The most tokens that a picture has for an open model behind a server, whichever it is."""
    return max(ANY_IMAGE, _patches(size_of(image), ANY_PATCH))


def _newer(model_id: str) -> float:
    """Tokens a patch of models after the tables: 1.2 was measured of the large ones, 2.46 is the dearest of all."""
    return 1.2 if LARGE.match(model_id) else DEAREST_PATCH


def _patches(size: Size, side: int) -> int:
    return ceil(size.width / side) * ceil(size.height / side)


def _tiles(size: Size) -> int:
    """Tiles of the fitted picture. A small one counts as enlarged: the guide says that the short side becomes 768."""
    scale = SHORT_SIDE / min(size.width, size.height)
    long_side = min(FIT, ceil(max(size.width, size.height) * scale))
    return ceil(SHORT_SIDE / TILE) * ceil(long_side / TILE)


def _read(image: Image) -> tuple[int, int]:
    data = image.data
    match image.media_type:
        case "image/png":
            _expect(data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR")
            return struct.unpack(">II", data[16:24])
        case "image/gif":
            _expect(data.startswith((b"GIF87a", b"GIF89a")))
            return struct.unpack("<HH", data[6:10])
        case "image/webp":
            return _webp(data)
        case "image/jpeg":
            return _jpeg(data)
    assert_never(image.media_type)


def _webp(data: bytes) -> tuple[int, int]:
    """The three kinds of WebP: https://developers.google.com/speed/webp/docs/riff_container."""
    _expect(data.startswith(b"RIFF") and data[8:12] == b"WEBP")
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    _expect(data[12:16] == b"VP8 " and data[23:26] == b"\x9d\x01\x2a")
    width, height = struct.unpack("<HH", data[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _jpeg(data: bytes) -> tuple[int, int]:
    """Segment after segment until the one that states the size."""
    _expect(data.startswith(b"\xff\xd8"))
    at = 2
    while True:
        _expect(data[at] == 0xFF)
        if data[at + 1] == 0xFF:  # fill bytes may stand before a marker
            at += 1
            continue
        if data[at + 1] in JPEG_SIZES:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]


def _expect(holds: bool) -> None:
    if not holds:
        raise ValueError("not such a file")


def _unreadable(image: Image) -> InvalidArgument:
    return InvalidArgument(
        f"a picture of {len(image.data)} bytes is not {image.media_type}, or cut short; give the bytes of a whole file "
        "and its own media type",
        argument="images",
        value=image.media_type,
    )
