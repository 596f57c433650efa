"""Remember, recall, forget: the same on every engine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentbudget.errors import IndexMismatch, Mistake
from agentbudget.memory import Memories, Memory, Owner
from agentbudget.memory.store import Stores
from agentbudget.testing import ManualClock
from tests.context.conftest import WordEmbedder
from tests.memory.conftest import MIA, TOM, said

DAY_NS = 86_400 * 10**9


async def keep(memories: Memories, text: str, owner: Owner = MIA, *, expires_ns: int | None = None) -> Memory:
    kept = await memories.remember(owner, text, source=said(f"she said: {text}"), expires_ns=expires_ns)
    return kept.memory


async def texts(memories: Memories, owner: Owner = MIA) -> set[str]:
    return {memory.text for memory in await memories.all_of(owner)}


async def test_what_was_remembered_is_recalled_with_where_it_was_learned(memories: Memories) -> None:
    await keep(memories, "She prefers an aisle seat.")
    found = await memories.recall(MIA, "Which seat does she prefer?", tokens=50)
    (memory,) = found.memories
    assert memory.text == "She prefers an aisle seat."
    assert memory.sources[0] == said("she said: She prefers an aisle seat.")
    assert str(found) == "- She prefers an aisle seat. (2023-11-14)"


async def test_what_matters_most_comes_first(memories: Memories) -> None:
    for text in ("Her dog is called Rex.", "She prefers an aisle seat.", "She pays by invoice."):
        await keep(memories, text)
    found = await memories.recall(MIA, "aisle or window seat", tokens=200)
    assert found.memories[0].text == "She prefers an aisle seat."
    assert len(found.memories) == 3


async def test_recall_keeps_to_its_allowance(memories: Memories) -> None:
    for number in range(10):
        await keep(memories, f"Order order-{number} was late by {number} days.")
    found = await memories.recall(MIA, "Which order was late?", tokens=40)
    assert 0 < found.tokens <= 40
    assert found.tokens == WordEmbedder().count_tokens(found.text)
    assert found.left_out == 10 - len(found.memories)


@pytest.mark.parametrize("tokens", [0, "50"])
async def test_an_allowance_that_is_none_is_refused(memories: Memories, tokens: Any) -> None:
    with pytest.raises(Mistake, match=r"an allowance of .* tokens holds nothing"):
        await memories.recall(MIA, "seat?", tokens=tokens)


async def test_nothing_is_recalled_where_the_first_does_not_fit(memories: Memories) -> None:
    await keep(memories, "She prefers an aisle seat.")
    found = await memories.recall(MIA, "seat?", tokens=2)
    assert (found.memories, found.text, found.left_out) == ((), "", 1)


async def test_nothing_is_known_of_somebody_new(memories: Memories) -> None:
    assert (await memories.recall(MIA, "anything?", tokens=50)).memories == ()
    assert await memories.all_of(MIA) == ()


async def test_the_same_words_are_one_memory(memories: Memories) -> None:
    await keep(memories, "She prefers an aisle seat.")
    again = await keep(memories, "she prefers  an aisle seat.")
    assert again.times == 2
    assert len(again.sources) == 2
    assert await texts(memories) == {"she prefers  an aisle seat."}


async def test_much_the_same_words_are_one_memory(memories: Memories) -> None:
    first = await keep(memories, "Mia really prefers to have an aisle seat on long flights to Asia.")
    again = await keep(memories, "Mia really prefers to have an aisle seat on all long flights to Asia.")
    assert again.id == first.id
    assert await texts(memories) == {again.text}


async def test_the_same_words_in_other_letters_are_one_memory(memories: Memories) -> None:
    first = await keep(memories, "She likes the café in Köln.")
    again = await keep(memories, "She likes the cafe\u0301 in Ko\u0308ln.")
    assert (again.id, again.times) == (first.id, 2)
    assert await texts(memories) == {"She likes the café in Köln."}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "Her order order-1182 was delivered late to the office.",
            "Her order order-1183 was delivered late to the office.",
        ),
        ("She does want to have letters by post from us.", "She does not want to have letters by post from us."),
        ("The price of 105 dollars was fine for her that day.", "The price of 150 dollars was fine for her that day."),
        (
            "Her sister is allergic to nuts and has to carry an injector wherever they go.",
            "Her brother is allergic to nuts and has to carry an injector wherever they go.",
        ),
        (
            "She takes the insulin that her doctor gave her half an hour before meals.",
            "She takes the insulin that her doctor gave her half an hour after meals.",
        ),
        ("She flies from Paris to London every week.", "She flies from London to Paris every week."),
        ("She is allergic to nuts, and to milk and eggs.", "She is allergic to nuts, and to milk."),
    ],
)
async def test_another_word_a_fact_or_a_negation_makes_two_memories(memories: Memories, one: str, other: str) -> None:
    await keep(memories, one)
    await keep(memories, other)
    assert await texts(memories) == {one, other}


async def test_what_has_expired_is_not_recalled_and_then_gone(memories: Memories, clock: ManualClock) -> None:
    await keep(memories, "She is in Rome this week.", expires_ns=clock() + DAY_NS)
    await keep(memories, "She likes Rome.")
    clock.advance(DAY_NS)
    found = await memories.recall(MIA, "Rome?", tokens=100)
    assert [memory.text for memory in found.memories] == ["She likes Rome."]
    assert await texts(memories) == {"She likes Rome."}


async def test_what_is_said_again_is_kept_as_long_as_either_asked(memories: Memories, clock: ManualClock) -> None:
    await keep(memories, "She is in Rome.", expires_ns=clock() + 5 * DAY_NS)
    assert (await keep(memories, "She is in Rome.", expires_ns=clock() + DAY_NS)).expires_ns == clock() + 5 * DAY_NS
    assert (await keep(memories, "She is in Rome.")).expires_ns is None


async def test_what_is_said_again_is_of_the_narrower_class(memories: Memories) -> None:
    await memories.remember(MIA, "She is in Rome.", source=said(), data_class="confidential")
    await memories.remember(MIA, "She is in Rome.", source=said(), data_class="public")
    assert [memory.data_class for memory in await memories.all_of(MIA)] == ["confidential"]


async def test_a_memory_is_forgotten_by_its_id(memories: Memories) -> None:
    first, other = await keep(memories, "She prefers an aisle seat."), await keep(memories, "Her dog is called Rex.")
    assert await memories.forget(MIA, [first.id]) == 1
    assert await memories.all_of(MIA) == (other,)
    found = await memories.recall(MIA, "aisle seat", tokens=100)
    assert found.memories == (other,)


async def test_the_last_memory_can_be_forgotten(memories: Memories) -> None:
    only = await keep(memories, "She prefers an aisle seat.")
    await memories.forget(MIA, [only.id])
    assert await memories.all_of(MIA) == ()
    await keep(memories, "She prefers a window seat.")
    assert await texts(memories) == {"She prefers a window seat."}


async def test_an_id_that_is_not_there_is_refused_and_nothing_deleted(memories: Memories) -> None:
    first = await keep(memories, "She prefers an aisle seat.")
    with pytest.raises(Mistake, match="there is no memory"):
        await memories.forget(MIA, [first.id, "00000000-0000-0000-0000-000000000000"])
    assert await memories.all_of(MIA) == (first,)


async def test_everything_of_a_user_is_forgotten_and_nothing_else(memories: Memories) -> None:
    await keep(memories, "She prefers an aisle seat.")
    await keep(memories, "He prefers a window seat.", TOM)
    await memories.forget_all(MIA)
    assert await memories.all_of(MIA) == ()
    assert await texts(memories, TOM) == {"He prefers a window seat."}
    assert await memories.owners() == (TOM,)


async def test_everyones_memories_are_forgotten(memories: Memories) -> None:
    await keep(memories, "She prefers an aisle seat.")
    await keep(memories, "He prefers a window seat.", TOM)
    assert await memories.forget_everyone() == 2
    assert await memories.owners() == ()


@pytest.mark.parametrize("text", ["", "  \n", "\ud800"])
async def test_there_is_nothing_to_remember_in_nothing(memories: Memories, text: str) -> None:
    with pytest.raises(Mistake, match="nothing to remember"):
        await memories.remember(MIA, text, source=said())


async def test_a_document_is_no_memory(memories: Memories) -> None:
    with pytest.raises(Mistake, match="is a document"):
        await memories.remember(MIA, "word " * 1000, source=said())


async def test_memories_belong_to_somebody() -> None:
    with pytest.raises(Mistake, match="name both"):
        Owner("acme", "")


async def test_vectors_of_another_model_are_not_compared(stores: Stores, memories: Memories) -> None:
    await keep(memories, "She prefers an aisle seat.")
    with pytest.raises(IndexMismatch, match="export them"):
        await Memories(lambda: stores, WordEmbedder(name="other")).recall(MIA, "seat?", tokens=50)


async def test_what_is_of_another_model_can_be_forgotten(stores: Stores, memories: Memories) -> None:
    await keep(memories, "She prefers an aisle seat.")
    other = Memories(lambda: stores, WordEmbedder(name="other"))
    await other.forget_all(MIA)
    assert await other.all_of(MIA) == ()


async def test_many_at_once_lose_nothing(memories: Memories) -> None:
    await asyncio.gather(*(keep(memories, f"Her case case-{n} is open.") for n in range(12)))
    assert len(await memories.all_of(MIA)) == 12
