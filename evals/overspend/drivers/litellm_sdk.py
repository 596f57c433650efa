"""LiteLLM's SDK: a `BudgetManager` that is asked for the projected cost before each call, and `litellm.max_budget`.

https://docs.litellm.ai/docs/budget_manager. The manager keeps its figures in ``user_cost.json`` in the working folder.
A stream is counted from its text, as the page shows. It has no budget below a user's: child agents share it.
"""

import os

import litellm
from drivers.script import KEY, Driver, Refused, play
from litellm import BudgetExceededError, BudgetManager
from litellm.exceptions import ModelNotMappedError

USER = "caller"


class LitellmSdk(Driver):
    refusals = (BudgetExceededError, ModelNotMappedError)

    async def open(self):
        os.chdir(self.job.folder)
        litellm.max_budget = self.job.cap
        self.manager = BudgetManager(project_name="comparison")
        if not self.manager.is_valid_user(USER):
            self.manager.create_budget(total_budget=self.job.cap, user=USER)

    async def ask(self, call):
        model = f"openai/{call.model}"
        projected = self.manager.projected_cost(model=model, messages=call.messages, user=USER)
        if projected > self.manager.get_total_budget(USER):
            raise Refused("projected_cost")
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
            self.manager.update_cost(completion_obj=await litellm.acompletion(**options), user=USER)
            return
        stream = await litellm.acompletion(**options, stream=True)
        text, read = "", 0
        async for chunk in stream:
            delta = chunk.choices[0].delta.content or ""
            text, read = text + delta, read + bool(delta)
            if read == call.leave_after:
                await stream.aclose()
                break
        self.manager.update_cost(user=USER, model=model, input_text=call.prompt, output_text=text)

    async def said(self):
        return self.manager.get_current_cost(USER)


if __name__ == "__main__":
    play(LitellmSdk)
