"""This library: skills as steps on a run's account, on its own OpenAI model; streams inside a hold of the ledger.

``OpenAIModel`` makes one request a call and does not stream, so a caller who wants a stream holds its price himself
(docs/ledger.md). The server is not OpenAI's own, so its price is named, and the input is bounded by its bytes.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal

from drivers.script import KEY, Call, Driver, Job, play
from openai import AsyncOpenAI

from agentbudget import Agent, Amount, Budget, BudgetExceeded, Context, Message, Request, Scope, Skill, skill
from agentbudget.errors import UnknownPrice
from agentbudget.models.openai import OpenAIModel
from agentbudget.prices import TokenPrice
from agentbudget.skills import DEFAULT_OUTPUT_TOKENS
from agentbudget.usage import Usage

ACCOUNT = "user/caller"


async def answer(ctx: Context, question: str) -> str:
    """Answer the question."""
    ...


class Ours(Driver):
    refusals = (BudgetExceeded, UnknownPrice)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.agent: Agent | None = None
        self.numbers = itertools.count(1)

    async def open(self) -> None:
        with Agent(home=self.job.folder).ledger as ledger:  # opening it settles what a dead process left
            ledger.account(ACCOUNT, limit=Budget(usd=self.job.cap_usd))

    def model(self) -> OpenAIModel:
        known = {"price": TokenPrice.known("openai", self.job.model), "context_window": 128_000}
        return OpenAIModel(self.job.model, base_url=self.job.base_url, api_key=KEY, **known)

    def opened(self) -> Agent:
        """The agent, opened by the first call: a model without a price cannot be made."""
        if self.agent is None:
            self.agent = Agent(models=[self.model()], home=self.job.folder, share_answers=False)
        return self.agent

    def context(self, run: str, cap_usd: Decimal | None = None) -> Context:
        agent = self.opened()
        agent.ledger.account(f"run/{run}", limit=None if cap_usd is None else Budget(usd=cap_usd))
        return Context(agent.engine, Scope(run, user="caller"))

    async def ask(self, call: Call) -> None:
        await self.step(self.context(f"run-{self.job.phase}"), call)

    async def step(self, ctx: Context, call: Call) -> None:
        if call.leave_after is not None:
            await self.stream(call)
            return
        asked: Skill[[str], str] = skill(max_output_tokens=call.max_tokens or DEFAULT_OUTPUT_TOKENS)(answer)
        async with asyncio.timeout(call.timeout_s):
            await asked(ctx, call.prompt)

    async def stream(self, call: Call) -> None:
        assert call.max_tokens is not None
        model, ledger = self.opened().ladder.at("local"), self.opened().ledger
        request = Request((Message("user", call.prompt),), call.max_tokens)
        bound = model.price.bound(input_tokens=(await model.count_input(request)).tokens, output_tokens=call.max_tokens)
        client = AsyncOpenAI(base_url=self.job.base_url, api_key=KEY, max_retries=0)
        # Left without a settlement, the hold is presumed spent at the end of its block.
        with ledger.reserve(f"stream/{next(self.numbers)}", Amount(bound), accounts=[ACCOUNT]) as hold:
            hold.mark_sent()
            stream = await client.chat.completions.create(
                model=call.model,
                messages=call.messages,
                stream=True,
                stream_options={"include_usage": True},
                timeout=call.timeout_s,
                **call.cap,
            )
            read = 0
            async with stream:
                async for chunk in stream:
                    read += bool(chunk.choices and chunk.choices[0].delta.content)
                    if chunk.usage is not None:
                        used = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
                        hold.settle(Amount(model.price.cost(used)))
                    if read == call.leave_after:
                        return

    async def said(self) -> Decimal:
        with Agent(home=self.job.folder).ledger as ledger:
            proof = ledger.verify()
            assert proof.ok, proof
            balance = ledger.balance(ACCOUNT)
            return (balance.posted + balance.held).usd

    async def close(self) -> None:
        if self.agent is not None:
            await self.agent.aclose()

    @contextmanager
    def child(self, number: int, cap_usd: Decimal) -> Iterator[Callable[[Call], Awaitable[None]]]:
        ctx = self.context(f"child-{number}", cap_usd)
        yield lambda call: self.step(ctx, call)


if __name__ == "__main__":
    play(Ours)
