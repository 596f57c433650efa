"""LangChain: `ModelCallLimitMiddleware`, a limit on a thread's model calls, with the thread kept in SQLite.

https://docs.langchain.com/oss/python/langchain/middleware/built-in#model-call-limit. It counts calls and knows no
prices: the budget is turned into calls at a call's price with the whole of `max_tokens` (4,096 where none is given),
as its user would. Every call starts without the thread's history, so that all are of the same size.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal

from drivers.script import KEY, Call, Driver, play
from langchain.agents import create_agent
from langchain.agents.middleware import ModelCallLimitMiddleware
from langchain.agents.middleware.model_call_limit import ModelCallLimitExceededError
from langchain_core.messages import HumanMessage, RemoveMessage
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph.message import REMOVE_ALL_MESSAGES

USD_PER_TOKEN = {"input": 2.50e-6, "output": 10.00e-6}


class LangchainLimits(Driver):
    refusals = (ModelCallLimitExceededError,)

    async def open(self):
        self.saving = AsyncSqliteSaver.from_conn_string(str(self.job.folder / "threads.db"))
        self.saver = await self.saving.__aenter__()
        call = self.job.calls(self.job.waves[-1])[0]
        price = len(call.prompt) / 4 * USD_PER_TOKEN["input"] + (call.max_tokens or 4096) * USD_PER_TOKEN["output"]
        self.limit = int(self.job.cap / price)
        self.note = f"limit: {self.limit} calls"
        self.agents = {}

    def agent(self, call, limit: int):
        key = (limit, call.max_tokens, call.timeout_s)
        if key not in self.agents:
            model = ChatOpenAI(
                model=call.model,
                base_url=self.job.base_url,
                api_key=KEY,
                timeout=call.timeout_s,
                max_retries=0,
                max_tokens=call.max_tokens,
                use_responses_api=False,
            )
            limiting = ModelCallLimitMiddleware(thread_limit=limit, exit_behavior="error")
            self.agents[key] = create_agent(model, middleware=[limiting], checkpointer=self.saver)
        return self.agents[key]

    async def ask(self, call):
        await self.ask_in("caller", self.limit, call)

    async def ask_in(self, thread: str, limit: int, call: Call) -> None:
        agent = self.agent(call, limit)
        told = {"messages": [RemoveMessage(id=REMOVE_ALL_MESSAGES), HumanMessage(call.prompt)]}
        config = {"configurable": {"thread_id": thread}}
        if call.leave_after is None:
            await agent.ainvoke(told, config)
            return
        read = 0
        stream = agent.astream(told, config, stream_mode="messages")
        async for chunk, _ in stream:
            read += bool(chunk.content)
            if read == call.leave_after:
                break
        await stream.aclose()

    async def said(self):
        return None

    async def close(self):
        await self.saving.__aexit__(None, None, None)

    @contextmanager
    def child(self, number: int, cap_usd: Decimal) -> Iterator[Callable[[Call], Awaitable[None]]]:
        limit = int(self.limit * cap_usd / self.job.cap_usd)
        yield lambda call: self.ask_in(f"child-{number}", limit, call)


if __name__ == "__main__":
    play(LangchainLimits)
