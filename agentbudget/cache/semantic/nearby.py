"""Which vectors are near a vector, among a hundred thousand, in a millisecond: by the signs of their numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

CANDIDATES: Final = 32
"""So many are compared exactly: the nearest by signs are the nearest by cosine where cosines are high."""


class Nearby:
    """Ids and signs of vectors, in memory: 48 bytes for 384 numbers. Not safe for threads by itself.

    Two unit vectors with an angle a between them differ in the sign of a number with a chance of a/π (Charikar, 2002),
    so that few differing signs are a small angle. It costs one exclusive or and a count of bits for each vector, and
    there is no graph to build, or to mend when an entry goes.
    """

    def __init__(self) -> None:
        self._ids: NDArray[np.int64] | None = None
        self._columns: NDArray[np.uint64] | None = None
        self._count = 0

    @property
    def last_id(self) -> int:
        """The id that was added last; 0 before there is one."""
        return int(self._ids[self._count - 1]) if self._ids is not None and self._count else 0

    def add_all(self, new: Sequence[tuple[int, bytes]]) -> None:
        """Add vectors: an id for each, in rising order, and its signs, as `signs_of` gives them."""
        import numpy as np

        if not new:
            return
        ids, signs = zip(*new, strict=True)
        rows = np.frombuffer(b"".join(signs), dtype=np.uint64).reshape(len(ids), -1)
        end = self._count + len(ids)
        if self._ids is None or self._columns is None or end > len(self._ids):
            room = max(1024, 2 * end)
            grown, columns = np.zeros(room, np.int64), np.zeros((rows.shape[1], room), np.uint64)
            if self._ids is not None and self._columns is not None:
                grown[: self._count], columns[:, : self._count] = self._held()
            self._ids, self._columns = grown, columns
        self._ids[self._count : end] = ids
        self._columns[:, self._count : end] = rows.T
        self._count = end

    def search(self, signs: bytes, count: int = CANDIDATES) -> list[int]:
        """Ids of the vectors with the fewest other signs, in no order."""
        import numpy as np

        if not self._count:
            return []
        ids, columns = self._held()
        asked = np.frombuffer(signs, dtype=np.uint64)
        apart = np.zeros(self._count, np.uint16)
        for column, own in zip(columns, asked, strict=True):
            apart += np.bitwise_count(column ^ own)
        if self._count <= count:
            return ids.tolist()
        return ids[np.argpartition(apart, count)[:count]].tolist()

    def _held(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        assert self._ids is not None
        assert self._columns is not None
        return self._ids[: self._count], self._columns[:, : self._count]


def signs_of(vector: NDArray[np.float32]) -> bytes:
    """Which numbers are positive, a bit each, filled up to whole words of eight bytes."""
    import numpy as np

    bits = np.packbits(vector > 0)
    return bits.tobytes() + bytes(-len(bits) % 8)
