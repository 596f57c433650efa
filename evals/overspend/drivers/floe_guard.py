"""floe-guard: its LiteLLM adapter, which reserves a request at its size before it is sent; `StreamGuard` for streams.

README, "How it works", "Persist one UTC-day budget across processes" and "Honest about what this is" (which names
this adapter as the one that sizes reservations). The store on disk is used where a process dies; streams cannot use it.
"""

import litellm
from drivers.script import KEY, Driver, play
from floe_guard import BudgetExceeded, BudgetGuard, SqliteStore, StreamGuard
from floe_guard.integrations.litellm import guarded_acompletion


class FloeGuard(Driver):
    refusals = (BudgetExceeded,)

    async def open(self):
        shared = {}
        if self.job.phase:
            shared = {"window": "utc-day", "store": SqliteStore(self.job.folder / "budget.sqlite3")}
        self.guard = BudgetGuard(limit_usd=self.job.cap, on_block=lambda spent, limit: None, **shared)

    async def ask(self, call):
        model = f"openai/{call.model}"
        options = {
            "model": model,
            "messages": call.messages,
            "api_base": self.job.base_url,
            "api_key": KEY,
            "timeout": call.timeout_s,
            "max_retries": 0,
            **call.cap,
        }
        if call.leave_after is None:
            await guarded_acompletion(self.guard, **options)
            return
        tokens = litellm.token_counter(model=model, messages=call.messages)
        handle = self.guard.reserve(self.guard.estimate_call(model, tokens, call.max_tokens or 0))
        with StreamGuard(self.guard, model, prompt_tokens=tokens, reserved=handle) as metered:
            stream = await litellm.acompletion(**options, stream=True)
            read = 0
            async for chunk in stream:
                text = chunk.choices[0].delta.content or ""
                metered.feed_text(text)
                read += bool(text)
                if read == call.leave_after:
                    await stream.aclose()
                    return

    async def said(self):
        left = self.guard.remaining_usd  # never below 0, and holds count as gone
        return max(self.guard.limit_usd - left, self.guard.spent_usd)


if __name__ == "__main__":
    play(FloeGuard)
