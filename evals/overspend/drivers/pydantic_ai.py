"""Pydantic AI: one `RunUsage` for all runs, and `UsageLimits` with a `cost_limit`.

https://ai.pydantic.dev/agents/#usage-limits and, for agents that share a parent's usage,
https://ai.pydantic.dev/multi-agent-applications/#agent-delegation (``usage=ctx.usage``). Limits are checked against
what has been used; there is no budget below a run's usage, and none that outlives the process.
"""

from drivers.script import KEY, Driver, play
from openai import AsyncOpenAI
from pydantic_ai import Agent, RunUsage, UsageLimits
from pydantic_ai.exceptions import UsageLimitExceeded
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


class PydanticAi(Driver):
    refusals = (UsageLimitExceeded,)

    async def open(self):
        client = AsyncOpenAI(base_url=self.job.base_url, api_key=KEY, max_retries=0)
        self.agent = Agent(OpenAIChatModel(self.job.model, provider=OpenAIProvider(openai_client=client)))
        self.usage = RunUsage()
        self.limits = UsageLimits(cost_limit=self.job.cap_usd, request_limit=None)

    async def ask(self, call):
        options = {
            "usage": self.usage,
            "usage_limits": self.limits,
            "model_settings": {"timeout": call.timeout_s, **call.cap},
        }
        if call.leave_after is None:
            await self.agent.run(call.prompt, **options)
            return
        read = 0
        async with self.agent.run_stream(call.prompt, **options) as result:
            async for _ in result.stream_text(delta=True, debounce_by=None):
                read += 1
                if read == call.leave_after:
                    break

    async def said(self):
        return self.usage.cost


if __name__ == "__main__":
    play(PydanticAi)
