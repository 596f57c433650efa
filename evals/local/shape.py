"""Weights of the same shape, with random values: for machines to which the real ones cannot be brought.

``python -m evals.local.shape take MODEL.gguf MODEL.shape`` keeps what a GGUF file says before its tensors (a few MB);
``make MODEL.shape MODEL.gguf`` writes a file with it and with random tensors. Such a model says nothing sensible, and
computes exactly as long as the real one: how fast llama.cpp is depends on sizes and types, not on values.
"""

from __future__ import annotations

import argparse
import struct
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of the simple types of GGUF's metadata; 8 is a string, 9 an array."""
_STRING, _ARRAY = 8, 9
_LAYOUTS = {
    2: (32, 18, (0,)),
    3: (32, 20, (0, 2)),
    6: (32, 22, (0,)),
    7: (32, 24, (0, 2)),
    8: (32, 34, (0,)),
    12: (256, 144, (0, 2)),
    13: (256, 176, (0, 2)),
    14: (256, 210, (208,)),
}
"""Of ggml's quantized types: values in a block, bytes of a block, where its 16-bit scales stand."""
_F32, _F16 = 0, 1
_SCALE = 0.004
_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of a GGUF file: how many values of which of ggml's types, and where they stand behind the header."""

    values: int
    kind: int
    offset: int

    @property
    def size(self) -> int:
        """Bytes."""
        if self.kind in (_F32, _F16):
            return self.values * (4 if self.kind == _F32 else 2)
        per_block, size, _ = _LAYOUTS[self.kind]
        return self.values // per_block * size

    def filled(self, chance: np.random.Generator) -> bytes:
        """Random values that are small enough to compute with; vectors of ones, which norms are multiplied by."""
        if self.kind in (_F32, _F16):
            return np.full(self.values, 1, np.float32 if self.kind == _F32 else np.float16).tobytes()
        _, size, scales = _LAYOUTS[self.kind]
        blocks = chance.integers(0, 256, (self.size // size, size), np.uint8)
        for at in scales:
            blocks[:, at : at + 2] = np.frombuffer(np.float16(_SCALE).tobytes(), np.uint8)
        return blocks.tobytes()


def header(file: BinaryIO) -> tuple[bytes, list[Tensor]]:
    """What stands before the tensors, padding included, and the tensors that it tells of."""
    file.seek(8)
    count, facts = _read(file, "<QQ")
    for _ in range(facts):
        _skip_string(file)
        _skip_value(file, _read(file, "<I")[0])
    tensors = [_tensor(file) for _ in range(count)]
    end = -(-file.tell() // _ALIGNMENT) * _ALIGNMENT
    file.seek(0)
    return file.read(end), tensors


def _tensor(file: BinaryIO) -> Tensor:
    _skip_string(file)
    dimensions = _read(file, f"<{_read(file, '<I')[0]}Q")
    kind, offset = _read(file, "<IQ")
    return Tensor(prod(dimensions), kind, offset)


def _read(file: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _skip_string(file: BinaryIO) -> None:
    file.seek(_read(file, "<Q")[0], 1)


def _skip_value(file: BinaryIO, kind: int) -> None:
    if kind == _STRING:
        _skip_string(file)
    elif kind == _ARRAY:
        inner, count = _read(file, "<IQ")
        if inner in _SIZES:
            file.seek(_SIZES[inner] * count, 1)
        else:
            for _ in range(count):
                _skip_value(file, inner)
    else:
        file.seek(_SIZES[kind], 1)


def take(source: Path, target: Path) -> None:
    """Keep the shape of `source`."""
    with source.open("rb") as file:
        start, _ = header(file)
    target.write_bytes(zlib.compress(start, 9))


def make(source: Path, target: Path) -> None:
    """Write weights of a shape that was kept."""
    target.write_bytes(zlib.decompress(source.read_bytes()))
    chance = np.random.default_rng(0)
    with target.open("r+b") as file:
        start, tensors = header(file)
        for tensor in tensors:
            file.seek(len(start) + tensor.offset)
            file.write(tensor.filled(chance))
        file.truncate(-(-file.tell() // _ALIGNMENT) * _ALIGNMENT)


def main() -> None:
    """Take or make."""
    parser = argparse.ArgumentParser(prog="python -m evals.local.shape", description=__doc__)
    parser.add_argument("action", choices=("take", "make"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    given = parser.parse_args()
    (take if given.action == "take" else make)(given.source, given.target)


if __name__ == "__main__":
    main()
