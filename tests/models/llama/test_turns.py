"""Waiting for one's turn."""

from __future__ import annotations

import asyncio
import threading

import pytest

from agentbudget.models.llama.turns import MachineTurn, Places


def test_one_thread_at_a_time_has_the_machine() -> None:
    machine, inside, most = MachineTurn(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            with machine.taken():
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (inside, most) == (0, 1)


async def test_no_more_than_there_are_places_first_come_first_served() -> None:
    places, order, go = Places(2), list[int](), asyncio.Event()

    async def one(number: int) -> None:
        async with places.taken():
            order.append(number)
            await go.wait()

    tasks = [asyncio.create_task(one(n)) for n in range(4)]
    await asyncio.sleep(0)
    assert order == [0, 1]
    go.set()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3]


async def test_who_is_cancelled_while_waiting_passes_the_place_on() -> None:
    places = Places(1)
    async with places.taken():
        first, second = (asyncio.create_task(_take(places)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    assert await asyncio.wait_for(second, 30)


async def _take(places: Places) -> bool:
    async with places.taken():
        return True
