from __future__ import annotations

from pathlib import Path

import pytest

from agentbudget.context import Index, open_index, retrieve
from agentbudget.context.choose import Candidate, candidates
from agentbudget.context.chunk import Chunk, chunk_id
from agentbudget.context.hops import doubt, follow_up, less_likely, merged, one_a_step
from agentbudget.context.store import Hit
from agentbudget.errors import Mistake
from tests.context.conftest import WordEmbedder, Write, count_words


def _found(question: str, text: str, *, title: str = "T", score: float = 1.0) -> Candidate:
    chunk = Chunk(chunk_id((title,), text), "a.md", (title,), text, 0, len(text), count_words(text))
    return candidates(question, [Hit(chunk, score)])[0]


def test_a_follow_up_asks_for_what_is_open_about_the_names_that_were_found() -> None:
    question = "Who was the first president of the association which published the Journal of Psychotherapy?"
    text = "It rains in Oslo. The Journal of Psychotherapy is published by the American Psychological Association."
    asked = follow_up(question, _found(question, text, title="Journal of Psychotherapy"))
    assert asked is not None
    assert "president" in asked.question
    assert "American Psychological Association" in asked.question
    assert "Journal" not in asked.question
    assert "Oslo" not in asked.question


def test_a_month_is_no_name_that_leads_on() -> None:
    asked = follow_up("When did the club of Ada Lie win?", _found("", "Ada Lie joined Brann in March or April."))
    assert asked is not None
    assert asked.question.endswith("win Brann")


def test_what_is_about_a_name_that_was_followed_is_likelier() -> None:
    asked = follow_up(
        "Who runs the state where Marram is?", _found("", "Marram is a village in West Holm, Lie.", title="")
    )
    assert asked is not None
    text = "It is a state. Ada Quist runs West Holm."
    plain = _found(asked.question, text, title="Elsewhere")
    [likelier] = asked.likelier([plain])
    assert likelier.chances[0] == plain.chances[0]
    assert plain.chances[1] < likelier.chances[1] < 1
    titled = _found(asked.question, text, title="West Holm")
    assert asked.likelier([titled])[0].chances[0] > titled.chances[0]


def test_a_less_likely_road_is_doubted_more() -> None:
    likely, unlikely = (_found("Who wrote Emma?", text) for text in ("She wrote Emma.", "It rains."))
    best = max(likely.chances)
    assert 1 > doubt(1, likely, best) > doubt(1, unlikely, best)
    assert doubt(1, likely, best) > doubt(2, likely, best)


def test_a_step_needs_the_likeliest_sentence_of_a_chunk_more_than_the_others() -> None:
    found = _found("Who wrote Emma?", "It rains in Oslo. Jane Austen wrote Emma. Tea is good.")
    [thinned] = one_a_step([found])
    assert thinned.chances[1] == found.chances[1]
    assert thinned.chances[0] < found.chances[0]
    assert thinned.chances[2] < found.chances[2]


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("Who wrote Emma?", "Who wrote it: the author of Emma wrote Emma in Hampshire."),
        ("Where was the author of Emma born?", "The author wrote Emma, born of sorrow."),
    ],
    ids=["nothing is open", "nothing new is named"],
)
def test_a_chunk_that_leads_nowhere_is_not_followed(question: str, text: str) -> None:
    assert follow_up(question, _found(question, text)) is None


def test_a_chunk_found_by_two_questions_counts_by_the_likelier() -> None:
    one, other = (_found(question, "Emma was born in Ohio. Tea is good.") for question in ("tea", "born Emma"))
    [together] = merged([[one], less_likely([other], 0.5)])
    assert together.chances == [max(one.chances[0], other.chances[0] / 2), max(one.chances[1], other.chances[1] / 2)]


@pytest.fixture
def films(write: Write) -> Path:
    chaff = {f"{n}.md": f"# Film {n}\n\nFilm {n} was directed by a director called Nobody {n}.\n" for n in range(30)}
    return write(
        {
            "marram.md": "# Marram\n\nMarram is a film of 1934 directed by Ada Quist.\n",
            "quist.md": "# Ada Quist\n\nAda Quist grew up in Bergen, where her mother Ragna Lie kept a school.\n",
            **chaff,
        }
    )


async def test_a_second_hop_finds_what_the_question_does_not_name(
    films: Path, words: WordEmbedder, tmp_path: Path
) -> None:
    async with open_index(tmp_path / "index", embedder=words) as index:
        await index.update(films)
        question = "Who is the mother of the director of the film Marram?"
        one = await retrieve(index, question, tokens=60, limit=2)
        two = await retrieve(index, question, tokens=60, limit=2, hops=2)
        assert "Ragna Lie" not in one.text
        assert "Ragna Lie" in two.text
        assert "Ada Quist" in two.text
        assert two.tokens <= 60
        assert two.chance is None  # that every step is inside is not estimated


async def test_hops_have_bounds(films: Path, words: WordEmbedder, tmp_path: Path) -> None:
    async with open_index(tmp_path / "index", embedder=words) as index:
        await index.update(films)
        await _refused(index, 0)
        await _refused(index, 5)


async def _refused(index: Index, hops: int) -> None:
    with pytest.raises(Mistake, match=f"hops must be between 1 and 4, not {hops}"):
        await retrieve(index, "Who?", tokens=60, hops=hops)
