"""What a grammar leaves no choice about, asked of a real vocabulary."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from agentbudget.models.base import JsonSchema, Message, Request
from agentbudget.models.grammar import to_gbnf
from agentbudget.models.llama.sampler import Forced, Sampler
from agentbudget.models.llama.vocabulary import Vocabulary

REQUEST = Request((Message("user", "?"),), 100)


@pytest.fixture(scope="module")
def vocabulary(smollm2: Path) -> Iterator[Vocabulary]:
    vocabulary = Vocabulary(smollm2)
    yield vocabulary
    vocabulary.close()


def forced(vocabulary: Vocabulary, schema: JsonSchema, *, most: int = 100) -> tuple[str, Forced]:
    sampler = Sampler(vocabulary, REQUEST, to_gbnf(schema))
    found = sampler.forced(most)
    sampler.close()
    return b"".join(map(vocabulary.piece, found.tokens)).decode(), found


def test_one_value_is_known_without_asking(vocabulary: Vocabulary) -> None:
    text, found = forced(vocabulary, {"const": "über 🌊"})
    assert (text, found.complete, found.more) == ('"über 🌊"', True, False)


def test_what_alternatives_begin_with_is_known(vocabulary: Vocabulary) -> None:
    text, found = forced(vocabulary, {"enum": ["north east", "north west"]})
    assert (text, found.complete) == ('"north ', False)


def test_a_value_that_another_goes_on_from_is_a_choice(vocabulary: Vocabulary) -> None:
    text, found = forced(vocabulary, {"enum": [1, 12]})
    assert (text, found.complete) == ("1", False)


def test_a_character_is_decided_as_a_whole(vocabulary: Vocabulary) -> None:
    text, found = forced(vocabulary, {"enum": ["é", "è"]})  # they share their first byte
    assert (text, found.complete) == ('"', False)


def test_a_character_that_the_last_token_began_is_gone_on_with(vocabulary: Vocabulary) -> None:
    import numpy as np

    sampler = Sampler(vocabulary, REQUEST, to_gbnf({"enum": ["😀a", "😀b", "é"]}))
    logits = np.zeros(vocabulary.size, dtype=np.float32)
    (begun,) = (token for token in vocabulary.bytes if vocabulary.piece(token) == "😀".encode()[:1])
    (ended,) = vocabulary.tokenize("b")
    logits[begun], logits[ended] = 50.0, 40.0
    told: list[int] = []
    while not (found := sampler.forced(100)).complete:
        told += [*found.tokens, sampler.sample(logits)]
    sampler.close()
    assert b"".join(map(vocabulary.piece, [*told, *found.tokens])).decode() == '"😀b"'


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        (r'"\u00e9"', True),
        (r'"\ud83D\uDE00"', True),
        (r'"\ud83d"', False),
        (r'"\ude00"', False),
        (r'"\ud83d\u0041"', False),
    ],
)
def test_an_escape_stands_for_a_whole_character(vocabulary: Vocabulary, text: str, allowed: bool) -> None:
    import numpy as np

    sampler = Sampler(vocabulary, REQUEST, to_gbnf({"type": "string"}))
    alone = {vocabulary.piece(token): token for token in vocabulary.bytes}
    wanted = [alone[bytes([byte])] for byte in text.encode()]
    chosen: list[int] = []
    for token in wanted:
        logits = np.zeros(vocabulary.size, dtype=np.float32)
        logits[token] = 50.0
        chosen.append(sampler.sample(logits))
    sampler.close()
    assert (chosen == wanted) == allowed


def test_a_key_is_known_and_its_value_is_not(vocabulary: Vocabulary) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    assert forced(vocabulary, schema)[0] == '{"name": "'


def test_no_more_is_put_out_than_asked_for(vocabulary: Vocabulary) -> None:
    whole = forced(vocabulary, {"const": "one two three"})[1]
    text, found = forced(vocabulary, {"const": "one two three"}, most=2)
    assert found == Forced(whole.tokens[:2], complete=False, more=True)
    assert '"one two three"'.startswith(text)


def test_what_is_taken_bit_by_bit_is_what_was_left_without_a_choice(vocabulary: Vocabulary) -> None:
    sampler = Sampler(vocabulary, REQUEST, to_gbnf({"const": "日本語 für 🌊"}))
    told: list[int] = []
    while not (found := sampler.forced(1)).complete:
        told += found.tokens
        assert found.more
    sampler.close()
    assert b"".join(map(vocabulary.piece, [*told, *found.tokens])).decode() == '"日本語 für 🌊"'


def test_without_a_grammar_nothing_is_forced(vocabulary: Vocabulary) -> None:
    sampler = Sampler(vocabulary, REQUEST, None)
    assert sampler.forced(100) == Forced()
    sampler.close()


def test_tokens_are_found_by_the_byte_that_they_begin_with(vocabulary: Vocabulary) -> None:
    (a,) = vocabulary.tokenize("a")
    found = set(vocabulary.beginning_with([a]).tolist())
    everything = {token for token in range(vocabulary.size) if vocabulary.piece(token).startswith(b"a")}
    assert found == everything
    with_end = vocabulary.beginning_with([a, vocabulary.end]).tolist()
    assert vocabulary.end in with_end
    assert found < set(with_end)


def test_what_the_grammar_allows_is_chosen_though_all_else_is_likelier(vocabulary: Vocabulary) -> None:
    import numpy as np

    sampler = Sampler(vocabulary, REQUEST, to_gbnf({"enum": ["north east", "north west"]}))
    sampler.forced(100)
    logits = np.zeros(vocabulary.size, dtype=np.float32)
    logits[vocabulary.tokenize("Sure")[0]] = 50.0
    logits[vocabulary.tokenize("we")[0]] = 1.0
    assert vocabulary.piece(sampler.sample(logits)) == b"we"
    assert sampler.log_probability < 0
    sampler.close()


@pytest.mark.parametrize("level", [-1000.0, -50.0, 0.0, 50.0, 1000.0])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_token_s_probability_is_its_share_however_large_the_logits_are(
    vocabulary: Vocabulary, level: float, temperature: float
) -> None:
    import numpy as np

    sampler = Sampler(vocabulary, replace(REQUEST, temperature=temperature, seed=7), None)
    logits = np.full(vocabulary.size, level, dtype=np.float32)
    logits[11] += 12.0
    assert sampler.sample(logits) == 11
    share = math.exp(12.0) / (math.exp(12.0) + vocabulary.size - 1)
    assert math.exp(sampler.log_probability) == pytest.approx(share, rel=1e-4)
    sampler.close()
