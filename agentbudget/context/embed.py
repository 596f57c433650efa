"""Turn text into vectors. The default model runs on this machine and comes with the project's catalog of weights."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from agentbudget.context._extra import needs
from agentbudget.errors import UnknownModel, WeightsError

if TYPE_CHECKING:
    from fastembed import TextEmbedding
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

T = TypeVar("T")

Vector = list[float]

DEFAULT_MODEL: Final = "all-minilm-l6-v2"
"""Catalog name of the default: all-MiniLM-L6-v2, int8 ONNX, 384 dimensions, reads 256 tokens."""

_SPACED: Final = re.compile(r"[^ \t\n\r]+")
"""What stands between signs that every tokenizer of BERT's kind takes for white space."""

_WORDS_KEPT: Final = 1 << 16
_LONGEST_KEPT: Final = 64
"""Words, and characters of a word, whose tokens are kept in memory: some megabytes."""

_DEFAULT_DIM: Final = 384
_DEFAULT_FILES: Final = ("model.onnx", "tokenizer.json", "tokenizer_config.json", "config.json")


class Embedder(Protocol):
    """What an index needs of an embedding model. Calls may come from any thread, several at once."""

    @property
    def fingerprint(self) -> str:
        """Names the model and its weights: vectors of different fingerprints must not be compared."""
        ...

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        ...

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """A vector for each passage, in the same order."""
        ...

    def embed_query(self, question: str) -> Vector:
        """The vector of a question; some models treat questions and passages differently."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of `text`, the marks around it not counted and nothing cut off."""
        ...


class FastEmbedder:
    """An embedding model run by fastembed on ONNX Runtime.

    ``name`` is the default or any name that fastembed knows, whose weights it fetches from a model hub. ``folder``
    holds the default's files instead of the catalog's; ``threads`` None leaves the choice to ONNX Runtime.
    ``batch_size`` is 1 because an int8 model scales numbers by batch: in larger ones, what a text's vector is would
    depend on its neighbours (and it is no faster on a CPU). Weights are loaded at first use.
    """

    def __init__(
        self,
        name: str = DEFAULT_MODEL,
        *,
        folder: str | Path | None = None,
        threads: int | None = None,
        batch_size: int = 1,
    ) -> None:
        if folder is not None and name != DEFAULT_MODEL:
            raise UnknownModel(
                f"a folder goes with the model {DEFAULT_MODEL!r}, not with {name!r}; leave one of them out"
            )
        self.name = name
        self._given = Path(folder) if folder is not None else None
        self._threads = threads
        self._batch_size = batch_size
        self._loading = Lock()

    def __reduce__(self) -> tuple[Callable[..., FastEmbedder], tuple[object, ...]]:
        """What another process needs: how it was made. It loads the weights itself."""
        return _remade, (self.name, self._given, self._threads, self._batch_size)

    def with_threads(self, threads: int) -> FastEmbedder:
        """The same embedder on so many threads."""
        return _remade(self.name, self._given, threads, self._batch_size)

    @property
    def fingerprint(self) -> str:
        """``fastembed:<name>:<what its weights are>``: a hash of the default's file, else the vector's length."""
        return self._fingerprint

    @property
    def dim(self) -> int:
        """Numbers in a vector."""
        return _DEFAULT_DIM if self.name == DEFAULT_MODEL else _hub_dim(self.name)

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """A vector for each passage."""
        return [_listed(vector) for vector in self._model.passage_embed(list(texts), batch_size=self._batch_size)]

    def embed_query(self, question: str) -> Vector:
        """The vector of a question."""
        return next(_listed(vector) for vector in self._model.query_embed(question))

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` without the marks around it."""
        words = _SPACED.findall(text) if self._apart else []
        # A document is counted many times over while it is cut, and has the same words over and over.
        if words and max(map(len, words)) <= _LONGEST_KEPT:
            return sum(map(self._count_word, words))
        return self._encoded(text)

    def _encoded(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _count_word(self) -> Callable[[str], int]:
        return lru_cache(maxsize=_WORDS_KEPT)(self._encoded)

    @cached_property
    def _apart(self) -> bool:
        """Whether the tokenizer never looks across white space, as BERT's does not: tokens of words add up."""
        stages: dict[str, dict[str, Any] | None] = json.loads(self._tokenizer.to_str())
        kinds = [(stages[name] or {}).get("type") for name in ("normalizer", "pre_tokenizer", "model")]
        return kinds == ["BertNormalizer", "BertPreTokenizer", "WordPiece"]

    @cached_property
    def _fingerprint(self) -> str:
        if self.name != DEFAULT_MODEL:
            return f"fastembed:{self.name}:{self.dim}"
        with (self._folder / "model.onnx").open("rb") as weights:
            return f"fastembed:{self.name}:{hashlib.file_digest(weights, 'sha256').hexdigest()[:16]}"

    @cached_property
    def _folder(self) -> Path:
        """Where the default's files are; fetched from the catalog unless a folder was given."""
        from agentbudget.models import catalog

        folder = self._given or catalog.ensure(DEFAULT_MODEL)
        missing = [name for name in _DEFAULT_FILES if not (folder / name).is_file()]
        if missing:
            raise WeightsError(f"{folder} lacks {', '.join(missing)} of the embedding model {DEFAULT_MODEL}")
        return folder

    @property
    def _model(self) -> TextEmbedding:
        with self._loading:
            return self._loaded_model

    @cached_property
    def _loaded_model(self) -> TextEmbedding:
        with needs("embedding"):
            from fastembed import TextEmbedding
        if self.name != DEFAULT_MODEL:
            _hub_dim(self.name)
            return _opened(lambda: TextEmbedding(self.name, threads=self._threads), self.name)
        folder = str(self._folder)
        _register_default()
        return _opened(
            lambda: TextEmbedding(
                _REGISTERED, specific_model_path=folder, threads=self._threads, providers=["CPUExecutionProvider"]
            ),
            folder,
        )

    @property
    def _tokenizer(self) -> Tokenizer:
        with self._loading:
            return self._loaded_tokenizer

    @cached_property
    def _loaded_tokenizer(self) -> Tokenizer:
        """The model's tokenizer without its cut and padding, so that it counts all there is."""
        with needs("counting tokens"):
            from tokenizers import Tokenizer
        if self.name == DEFAULT_MODEL:
            tokenizer = _opened(lambda: Tokenizer.from_file(str(self._folder / "tokenizer.json")), str(self._folder))
        else:
            tokenizer = Tokenizer.from_str(_tokenizer_of(self._loaded_model))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer


def _remade(name: str, folder: Path | None, threads: int | None, batch_size: int) -> FastEmbedder:
    return FastEmbedder(name, folder=folder, threads=threads, batch_size=batch_size)


_REGISTERED: Final = f"agentbudget/{DEFAULT_MODEL}"


def _register_default() -> None:
    """Tell fastembed how the default pools its output; it knows it already when asked again."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    with _registering:
        if not any(model["model"] == _REGISTERED for model in TextEmbedding.list_supported_models()):
            TextEmbedding.add_custom_model(
                _REGISTERED,
                pooling=PoolingType.MEAN,
                normalization=True,
                sources=ModelSource(hf="local/none"),
                dim=_DEFAULT_DIM,
                model_file="model.onnx",
            )


_registering: Final = Lock()
"""Two embedders may be loaded at once, and fastembed takes a name once."""


def _hub_dim(name: str) -> int:
    with needs("embedding"):
        from fastembed import TextEmbedding
    try:
        return TextEmbedding.get_embedding_size(name)
    except ValueError as error:
        raise UnknownModel(
            f"fastembed knows no embedding model {name!r}; use {DEFAULT_MODEL!r} or one of its list_supported_models()"
        ) from error


def _opened(load: Callable[[], T], what: str) -> T:
    try:
        return load()
    except Exception as error:  # ONNX Runtime, the tokenizer and the hub each raise their own kinds
        raise WeightsError(f"the embedding model {what} cannot be loaded: {error}") from error


def _tokenizer_of(model: TextEmbedding) -> str:
    tokenizer: object = getattr(model.model, "tokenizer", None)
    to_str: Callable[[], str] | None = getattr(tokenizer, "to_str", None)
    if to_str is None:
        raise UnknownModel(f"{model.model_name} has no tokenizer to count with; use another embedding model")
    return to_str()


def _listed(vector: NDArray[Any]) -> Vector:
    return vector.astype(float).tolist()
