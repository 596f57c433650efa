"""agentbudget (PyPI): a client wrapped for one session, and `would_exceed` asked before every call.

https://github.com/AgentBudget/agentbudget, README, "Explicit Per-Client Tracking" and "Finalization Reserve". It counts
after the call; what a call will cost is its caller's guess (here: a token every 4 characters, and max_tokens).
`max_repeated_calls` is raised: by default the tenth call of a model within a minute counts as a loop.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal

from agentbudget.pricing import calculate_llm_cost
from drivers.script import KEY, Call, Driver, Refused, play
from openai import AsyncOpenAI

import agentbudget
from agentbudget import AgentBudget, BudgetExhausted


class AgentBudgetPypi(Driver):
    refusals = (BudgetExhausted,)

    async def open(self):
        self.session = AgentBudget(max_spend=self.job.cap, max_repeated_calls=10**6).session()
        self.asking = self.asks_in(self.session)

    def asks_in(self, session) -> Callable[[Call], Awaitable[None]]:
        client = agentbudget.wrap_client(AsyncOpenAI(base_url=self.job.base_url, api_key=KEY, max_retries=0), session)

        async def ask(call: Call) -> None:
            estimate = calculate_llm_cost(call.model, len(call.prompt) // 4, call.max_tokens or 0)
            if estimate is not None and session.would_exceed(estimate):
                raise Refused("would_exceed")
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

        return ask

    async def ask(self, call):
        await self.asking(call)

    async def said(self):
        return self.session.spent

    @contextmanager
    def child(self, number: int, cap_usd: Decimal) -> Iterator[Callable[[Call], Awaitable[None]]]:
        with ExitStack() as stack:
            yield self.asks_in(stack.enter_context(self.session.child_session(max_spend=float(cap_usd))))


if __name__ == "__main__":
    play(AgentBudgetPypi)
