"""cascadeflow: its harness in mode "enforce", around an ordinary OpenAI client.

https://docs.cascadeflow.ai/harness/budget-enforcement: ``init(mode="enforce", budget=…)`` and ``with run(budget=…)``.
The run stops a call when what has been spent reached the budget; below 20 % left it goes on with a cheaper model.
A run has no runs below it: child agents share the parent's.
"""

from cascadeflow import init, run
from cascadeflow.schema.exceptions import BudgetExceededError, HarnessStopError
from drivers.script import KEY, Driver, play
from openai import AsyncOpenAI


class Cascadeflow(Driver):
    refusals = (BudgetExceededError, HarnessStopError)

    async def open(self):
        init(mode="enforce", budget=self.job.cap)
        self.run = run(budget=self.job.cap)
        self.run.__enter__()
        self.client = AsyncOpenAI(base_url=self.job.base_url, api_key=KEY, max_retries=0)

    async def ask(self, call):
        options = {"model": call.model, "messages": call.messages, "timeout": call.timeout_s, **call.cap}
        if call.leave_after is None:
            await self.client.chat.completions.create(**options)
            return
        read = 0
        async with await self.client.chat.completions.create(**options, stream=True) as stream:
            async for chunk in stream:
                read += bool(chunk.choices and chunk.choices[0].delta.content)
                if read == call.leave_after:
                    return

    async def said(self):
        return self.run.cost


if __name__ == "__main__":
    play(Cascadeflow)
