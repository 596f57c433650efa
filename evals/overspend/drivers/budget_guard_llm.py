"""budget-guard-llm: a guarded client, a daily total, unpriced models refused.

README of the distribution, "Limits", "How the checks behave", "Prices". Calls in flight count at an estimate. Its price
list has no gpt-4o, so it is given one, as "Prices" says. Loop detection is off: it is not what is compared.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal

import budget_guard
from budget_guard import BudgetExceeded, Limits, UnknownModelError, default_pricing, guard
from drivers.script import KEY, Call, Driver, play
from openai import AsyncOpenAI


class BudgetGuardLlm(Driver):
    refusals = (BudgetExceeded, UnknownModelError)

    async def open(self):
        default_pricing().set("openai", "gpt-4o", {"input": "2.50", "cache_read": "1.25", "output": "10.00"})
        per_child = self.job.cap_usd * 2 / 5
        budget_guard.configure(
            limits=Limits(daily_total=self.job.cap_usd, features={f"child-{n}": per_child for n in range(5)}),
            loop_detection=None,
            on_unknown_model="raise",
        )
        self.client = guard(AsyncOpenAI(base_url=self.job.base_url, api_key=KEY, max_retries=0), user="caller")

    async def ask(self, call):
        await self.ask_with(self.client, call)

    async def ask_with(self, client, call: Call) -> None:
        options = {"model": call.model, "messages": call.messages, "timeout": call.timeout_s, **call.cap}
        if call.leave_after is None:
            await client.chat.completions.create(**options)
            return
        read = 0
        async with await client.chat.completions.create(**options, stream=True) as stream:
            async for chunk in stream:
                read += bool(chunk.choices and chunk.choices[0].delta.content)
                if read == call.leave_after:
                    return

    async def said(self):
        return budget_guard.spent()

    @contextmanager
    def child(self, number: int, cap_usd: Decimal) -> Iterator[Callable[[Call], Awaitable[None]]]:
        client = self.client.with_context(feature=f"child-{number}")
        yield lambda call: self.ask_with(client, call)


if __name__ == "__main__":
    play(BudgetGuardLlm)
