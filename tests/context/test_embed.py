from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from agentbudget.context import FastEmbedder
from agentbudget.context.embed import Vector
from agentbudget.errors import UnknownModel, WeightsError


@pytest.fixture(scope="module")
def whole_texts(minilm_folder: Path) -> Tokenizer:
    """The default model's tokenizer, as it comes."""
    tokenizer = Tokenizer.from_file(str(minilm_folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _cosine(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_texts_that_mean_the_same_are_near(minilm: FastEmbedder) -> None:
    refund, money_back, weather = minilm.embed(
        ["How do I get a refund?", "I want my money back.", "It will rain in Bergen tomorrow."]
    )
    assert len(refund) == minilm.dim == 384
    assert _cosine(refund, refund) == pytest.approx(1.0, abs=1e-5)
    assert _cosine(refund, money_back) > _cosine(refund, weather) + 0.1


def test_a_vector_does_not_depend_on_its_neighbours(minilm: FastEmbedder) -> None:
    alone = minilm.embed(["kettle"])[0]
    assert minilm.embed(["a much longer text about shipping " * 20, "kettle"])[1] == alone
    assert minilm.embed_query("kettle") == alone


def test_tokens_are_counted_in_full_and_without_marks(minilm: FastEmbedder) -> None:
    assert minilm.count_tokens("") == 0
    assert minilm.count_tokens("kettle") == 1
    assert minilm.count_tokens("kettle " * 1000) == 1000


@given(
    st.one_of(
        st.text(),
        st.lists(st.sampled_from([*"aé.,[]漢\x00\x1c\u0301\u200b\u2028\xa0", " ", "\n", "[SEP]", "##s", "x" * 70])).map(
            "".join
        ),
    )
)
@settings(deadline=None)
def test_words_are_counted_as_the_whole_text_is(minilm: FastEmbedder, whole_texts: Tokenizer, text: str) -> None:
    assert minilm.count_tokens(text) == len(whole_texts.encode(text, add_special_tokens=False).ids)


def test_the_fingerprint_names_the_weights(minilm: FastEmbedder) -> None:
    assert minilm.fingerprint == "fastembed:all-minilm-l6-v2:8199be6f699a395f"


def test_a_folder_without_the_files_says_which_are_missing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"lacks model.onnx, tokenizer.json, tokenizer_config.json"):
        FastEmbedder(folder=tmp_path).embed(["x"])


def test_damaged_weights_are_a_weights_error(tmp_path: Path, minilm_folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        (tmp_path / name).write_bytes((minilm_folder / name).read_bytes())
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        FastEmbedder(folder=tmp_path).embed(["x"])


def test_an_unknown_model_is_refused_by_name() -> None:
    with pytest.raises(UnknownModel, match="fastembed knows no embedding model 'nobody/nothing'"):
        FastEmbedder("nobody/nothing").embed(["x"])


def test_the_length_of_a_hub_models_vectors_is_known_without_its_weights() -> None:
    model = FastEmbedder("BAAI/bge-small-en-v1.5")
    assert (model.dim, model.fingerprint) == (384, "fastembed:BAAI/bge-small-en-v1.5:384")


def test_a_folder_goes_with_the_default_model_only(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="a folder goes with"):
        FastEmbedder("BAAI/bge-small-en-v1.5", folder=tmp_path)


AT_ONCE = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from agentbudget.context import FastEmbedder

started = threading.Barrier(3)

def embed(_):
    started.wait(60)
    return FastEmbedder(folder=sys.argv[1], threads=1).embed_query("a kettle")

with ThreadPoolExecutor(3) as pool:
    first, *others = pool.map(embed, range(3))
assert others == [first] * 2
"""


def test_embedders_are_loaded_at_once_by_threads(minilm_folder: Path) -> None:
    command = [sys.executable, "-c", AT_ONCE, str(minilm_folder)]  # a process to which fastembed is new
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
