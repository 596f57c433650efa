"""How large a picture is by its head, and what it costs: never less than OpenAI's guide says of its examples."""

from __future__ import annotations

import struct

import pytest

from agentbudget.errors import InvalidArgument
from agentbudget.models.base import Detail, Image, ImageType
from agentbudget.models.images import Size, any_image_tokens, openai_image_tokens, size_of
from tests.models.conformance.requests import png


def sized(width: int, height: int, detail: Detail = "auto") -> Image:
    """The head of a PNG of this size: the rest plays no part."""
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height)
    return Image(head, "image/png", detail)


def riff(kind: bytes, rest: bytes) -> bytes:
    return b"RIFF\x00\x00\x00\x00WEBP" + kind + struct.pack("<I", len(rest)) + rest


EXIF = b"\xff\xe1\x00\x08Exif\x00\x00"
JPEG = b"\xff\xd8" + EXIF + b"\xff\xff\xff\xc2\x00\x11\x08" + struct.pack(">HH", 480, 640) + b"\x03" + b"\x00" * 9


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (png(640, 480).data, "image/png"),
        (b"GIF89a" + struct.pack("<HH", 640, 480) + b"\x00", "image/gif"),
        (JPEG, "image/jpeg"),
        (riff(b"VP8X", b"\x00" * 4 + (639).to_bytes(3, "little") + (479).to_bytes(3, "little")), "image/webp"),
        (riff(b"VP8L", b"\x2f" + (639 | 479 << 14).to_bytes(4, "little")), "image/webp"),
        (riff(b"VP8 ", b"\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", 640, 480)), "image/webp"),
    ],
    ids=["png", "gif", "jpeg", "webp extended", "webp lossless", "webp lossy"],
)
def test_the_size_is_read_from_the_files_head(data: bytes, media_type: ImageType) -> None:
    assert size_of(Image(data, media_type)) == Size(640, 480)


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", JPEG[:12], b"GIF89a\x00", b"RIFF....WEBPVP8 "])
@pytest.mark.parametrize("media_type", ["image/png", "image/jpeg", "image/gif", "image/webp"])
def test_what_is_no_whole_picture_of_its_type_is_refused(data: bytes, media_type: ImageType) -> None:
    with pytest.raises(InvalidArgument, match="give the bytes of a whole file"):
        size_of(Image(data, media_type))


@pytest.mark.parametrize(
    ("model_id", "width", "height", "detail", "stated"),
    [
        ("gpt-4o", 1024, 1024, "high", 765),
        ("gpt-4o", 2048, 4096, "high", 1105),
        ("gpt-4o", 4096, 8192, "low", 85),
        ("gpt-4.1", 1024, 1024, "high", 765),
        ("gpt-4o-mini", 1024, 1024, "high", 2833 + 4 * 5667),
        ("gpt-5", 1024, 1024, "high", 70 + 4 * 140),
        ("o3", 1024, 1024, "high", 75 + 4 * 150),
        ("gpt-4.1-mini", 1024, 1024, "high", 1659),  # 1024 patches × 1.62
        ("gpt-4.1-mini", 1800, 2400, "high", 2353),  # 1452 patches × 1.62
        ("gpt-4.1-nano", 1024, 1024, "high", 2520),
        ("o4-mini", 1024, 1024, "high", 1762),
        ("gpt-5-nano", 1024, 1024, "auto", 2520),
        ("gpt-5.2", 1024, 1024, "auto", 1229),
    ],
)
def test_a_picture_is_never_bounded_below_what_openai_states(
    model_id: str, width: int, height: int, detail: Detail, stated: int
) -> None:
    bound = openai_image_tokens(model_id, sized(width, height, detail))
    assert stated <= bound <= 1.7 * stated


def test_a_model_of_no_table_gets_the_dearest_rule() -> None:
    image = sized(1024, 1024)
    assert openai_image_tokens("gpt-9-vision", image) >= max(
        openai_image_tokens(model_id, image) for model_id in ("gpt-5.2", "gpt-5-nano", "o4-mini", "gpt-4.1-nano")
    )
    assert openai_image_tokens("ft:gpt-4o:acme::1", image) == openai_image_tokens("gpt-4o", image)


def test_a_picture_for_an_open_model_is_bounded_by_its_smallest_patches() -> None:
    assert any_image_tokens(sized(64, 64)) == 4096
    assert any_image_tokens(sized(2800, 1400)) == 200 * 100
