from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from agentbudget.context import FastEmbedder
from agentbudget.context.edge import EdgeStore
from agentbudget.context.index import DocumentIndex
from agentbudget.context.remote import RemoteStore
from agentbudget.context.store import Store
from agentbudget.errors import WeightsError
from agentbudget.models import catalog
from tests.context.words import WordEmbedder, count_words

__all__ = ["HANDBOOK", "Reopen", "WordEmbedder", "Write", "count_words", "long_document", "pdf_bytes"]

HANDBOOK = Path(__file__).parents[2] / "examples" / "handbook"

Write = Callable[[Mapping[str, str | bytes]], Path]
Reopen = Callable[..., DocumentIndex]


@pytest.fixture
def words() -> WordEmbedder:
    return WordEmbedder()


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The default embedding model, fetched once into the ordinary weights folder."""
    try:
        return catalog.ensure("all-minilm-l6-v2")
    except WeightsError as error:
        if catalog.is_present("all-minilm-l6-v2"):
            raise
        pytest.skip(f"the embedding model cannot be fetched here: {error}")


@pytest.fixture(scope="session")
def minilm(minilm_folder: Path) -> FastEmbedder:
    return FastEmbedder(folder=minilm_folder)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes files into the folder ``docs``, which it gives back."""
    folder = tmp_path / "docs"

    def write_files(files: Mapping[str, str | bytes]) -> Path:
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return folder

    return write_files


@pytest.fixture(params=["edge", "remote"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path, words: WordEmbedder) -> Iterator[Reopen]:
    """Opens the same index again and again, as one tenant or another; the one opened before must be closed."""
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")

    def open_it(*, tenant: str = "default", embedder: WordEmbedder | None = None) -> DocumentIndex:
        store: Store
        if request.param == "edge":
            store = EdgeStore(tmp_path / "index", collection="c", tenant=tenant)
        else:
            store = _Shared(client, location="memory", collection="c", tenant=tenant)
        return DocumentIndex(store, embedder or words, tenant=tenant)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Payload indexes have no effect in the local Qdrant")
        yield open_it
    client.close()


class _Shared(RemoteStore):
    """A store whose server outlives it."""

    def close(self) -> None:
        pass


def long_document(sections: int) -> dict[str, str]:
    """A file of so many sections, each a chunk of its own."""
    return {"long.md": "".join(f"# S{n}\n\nsection number {n}\n\n" for n in range(sections))}


def pdf_bytes(*pages: str) -> bytes:
    """A PDF with one line of text a page."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else ""
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * number} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    body, places = b"%PDF-1.4\n", list[int]()
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    size = len(objects) + 1
    tail = (
        f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{len(body)}\n"
    )
    return body + f"{tail}%%EOF\n".encode()
