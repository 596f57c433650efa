"""This library: skills as steps on a run's account, on its own OpenAI model; streams are read inside a skill.

OpenAI does not say that closing a stream ends its billing, so that each stream holds its worst case, and is presumed at
that if it is left. The server is not OpenAI's own, so its price is named, and the input is bounded by its bytes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal

from drivers.script import KEY, Call, Driver, Job, play

from agentbudget import Agent, Budget, BudgetExceeded, Context, Scope, Skill, skill
from agentbudget.errors import UnknownPrice
from agentbudget.models.openai import OpenAIModel
from agentbudget.prices import TokenPrice
from agentbudget.skills import DEFAULT_OUTPUT_TOKENS

ACCOUNT = "user/caller"


async def answer(ctx: Context, question: str) -> str:
    """Answer the question."""
    ...


class Ours(Driver):
    refusals = (BudgetExceeded, UnknownPrice)

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.agent: Agent | None = None

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
        limit = call.max_tokens or DEFAULT_OUTPUT_TOKENS
        asked: Skill[[str], str] = skill(max_output_tokens=limit)(answer)
        if call.leave_after is not None:
            asked = skill(max_output_tokens=limit, max_input_tokens=200)(self.reader(call.leave_after))
        async with asyncio.timeout(call.timeout_s):
            await asked(ctx, call.prompt)

    def reader(self, leave_after: int) -> Callable[[Context, str], Awaitable[str]]:
        """A skill that reads so many pieces of an answer, and leaves."""

        async def read(ctx: Context, question: str) -> str:
            """Answer the question."""
            async with ctx.stream(question) as stream:
                pieces = 0
                async for _ in stream:
                    pieces += 1
                    if pieces == leave_after:
                        break
            return stream.reply.text

        return read

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
