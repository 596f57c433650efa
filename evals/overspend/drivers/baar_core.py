"""baar-core: a router with a hard budget in its SQLite store, and the same model on both tiers.

https://github.com/orvi2014/Baar-Core, README, "Configuration" and "Multi-tenant & per-user budgets". The LLM that
scores a task's complexity is off (``use_llm_router=False``): its calls would come on top. A call cannot be given a
``max_tokens``; `expected_output_tokens` says what to expect. baar-core tries a
call 3 times and LiteLLM tries each of these 3 times; a user cannot tell them otherwise.
"""

import litellm
from baar import BAARRouter, BudgetExhausted
from baar.core.budget import BudgetExceeded
from baar.core.stores import SQLiteBudgetStore
from drivers.script import KEY, Driver, play


class BaarCore(Driver):
    refusals = (BudgetExhausted, BudgetExceeded)

    async def open(self):
        litellm.api_base, litellm.api_key = self.job.base_url, KEY
        wave = self.job.waves[-1]
        model = f"openai/{self.job.model}"
        self.router = BAARRouter(
            budget=self.job.cap,
            small_model=model,
            big_model=model,
            use_llm_router=False,
            store=SQLiteBudgetStore(str(self.job.folder / "budgets.db"), namespace="caller"),
            call_timeout=wave["timeout_s"],
            expected_output_tokens=wave["max_tokens"] or 500,
        )

    async def ask(self, call):
        if call.leave_after is None:
            await self.router.achat(call.prompt)
            return
        read = 0
        stream = self.router.astream_chat(call.prompt)
        async for text in stream:
            read += bool(text)
            if read == call.leave_after:
                break
        await stream.aclose()

    async def said(self):
        return self.router.spent


if __name__ == "__main__":
    play(BaarCore)
