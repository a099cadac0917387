"""Other runtimes on the same server, each as its own documentation says; run by a Python that has them, not by ours.

`python bench/peers.py --make FOLDER` makes that Python; `python bench/peers.py PEER BASE COUNT TIMES` prints one measurement.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

PROMPT = "Count."
DISTRIBUTIONS = ("exoclaw-turn", "exoclaw-provider-litellm", "tiny-agent-os", "pydantic-ai-slim")
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


class Peer:
    """`turn` gives the text of an answer as its deltas come; `steps` lets the model call a tool so often."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.marks: list[float] = []

    async def turn(self, url: str, take: Callable[[str], None]) -> None:
        raise NotImplementedError

    async def steps(self, url: str, count: int) -> None:
        raise NotImplementedError

    def called(self) -> str:
        self.marks.append(time.process_time())
        return "done"


class TinyAgent(Peer):
    def _agent(self, url: str, **options: Any) -> Any:
        from tinyagent import Agent, AgentOptions
        from tinyagent.alchemy_provider import OpenAICompatModel, stream_alchemy_openai_completions

        agent = Agent(AgentOptions(stream_fn=stream_alchemy_openai_completions, session_id="bench", **options))
        agent.set_system_prompt("")
        agent.set_model(OpenAICompatModel(provider="openai", id="bench", base_url=f"{url}/chat/completions"))
        return agent

    async def turn(self, url: str, take: Callable[[str], None]) -> None:
        agent = self._agent(url)

        def see(event: Any) -> None:
            said = getattr(event, "assistant_message_event", None)
            if said is not None and said.type == "text_delta":
                take(said.delta)

        agent.subscribe(see)
        await agent.prompt_text(PROMPT)

    async def steps(self, url: str, count: int) -> None:
        from tinyagent import AgentTool, AgentToolResult, TextContent

        async def nothing(tool_call_id: str, args: Any, signal: Any, on_update: Any) -> Any:
            said = [TextContent(text=self.called())]
            return AgentToolResult(content=said, terminate=len(self.marks) > count)

        agent = self._agent(url)
        agent.set_tools([AgentTool(name="nothing", description="Does nothing.", parameters=SCHEMA, execute=nothing)])
        await agent.prompt(PROMPT)


class Exoclaw(Peer):
    """With the least provider that its protocol allows, on aiohttp and orjson; it tells nobody of the deltas."""

    _session: Any = None

    def _provider(self, url: str, take: Callable[[str], None] = lambda text: None) -> Any:
        import aiohttp
        import orjson
        from exoclaw.providers.types import LLMResponse, ToolCallRequest

        if Exoclaw._session is None:
            Exoclaw._session = aiohttp.ClientSession()

        class Provider:
            def get_default_model(self) -> str:
                return "bench"

            async def chat(self, messages: Any, tools: Any = None, **options: Any) -> Any:
                body = {"model": "bench", "messages": messages, "stream": True, **({"tools": tools} if tools else {})}
                rest, pieces, arguments = b"", [], []
                name = call_id = ""
                async with Exoclaw._session.post(f"{url}/chat/completions", data=orjson.dumps(body)) as response:
                    async for data in response.content.iter_any():
                        *lines, rest = (rest + data).split(b"\n\n")
                        for line in lines:
                            if line == b"data: [DONE]":
                                continue
                            for choice in orjson.loads(line[6:])["choices"]:
                                if text := choice["delta"].get("content"):
                                    pieces.append(text)
                                    take(text)
                                for call in choice["delta"].get("tool_calls") or ():
                                    name = call["function"].get("name") or name
                                    call_id = call.get("id") or call_id
                                    arguments.append(call["function"]["arguments"])
                calls = [ToolCallRequest(call_id, name, orjson.loads("".join(arguments)))] if name else []
                return LLMResponse("".join(pieces) or None, tool_calls=calls)

        return Provider()

    async def turn(self, url: str, take: Callable[[str], None]) -> None:
        from exoclaw_turn import run_turn

        await run_turn(provider=self._provider(url, take), message=PROMPT)

    async def steps(self, url: str, count: int) -> None:
        from exoclaw_turn import run_turn

        called = self.called

        class Nothing:
            name = "nothing"
            description = "Does nothing."
            parameters = SCHEMA

            async def execute(self, **arguments: Any) -> str:
                return called()

        await run_turn(provider=self._provider(url), message=PROMPT, tools=[Nothing()], max_iterations=count + 1)


class ExoclawDocumented(Exoclaw):
    """With the provider of its documentation; the text comes when all of it is there."""

    def _provider(self, url: str, take: Callable[[str], None] = lambda text: None) -> Any:
        from exoclaw_provider_litellm.provider import LiteLLMProvider

        class Telling(LiteLLMProvider):
            async def chat(self, *arguments: Any, **options: Any) -> Any:
                response = await super().chat(*arguments, **options)
                if response.content:
                    take(response.content)
                return response

        return Telling(api_key="none", api_base=url, default_model="openai/bench", stream=True)


class PydanticAI(Peer):
    _models: ClassVar[dict[str, Any]] = {}

    def _agent(self, url: str, **options: Any) -> Any:
        from pydantic_ai import Agent
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        if url not in self._models:  # its connections are kept
            self._models[url] = OpenAIChatModel("bench", provider=OpenAIProvider(base_url=url, api_key="none"))
        return Agent(self._models[url], **options)

    async def turn(self, url: str, take: Callable[[str], None]) -> None:
        async with self._agent(url).run_stream(PROMPT) as result:
            async for text in result.stream_text(delta=True, debounce_by=None):
                take(text)

    async def steps(self, url: str, count: int) -> None:
        from pydantic_ai.exceptions import UsageLimitExceeded
        from pydantic_ai.usage import UsageLimits

        def nothing(n: int) -> str:
            "Does nothing."
            return self.called()

        async def see(context: Any, events: Any) -> None:
            async for _ in events:
                pass

        agent = self._agent(url, tools=[nothing])
        with suppress(UsageLimitExceeded):
            await agent.run(PROMPT, event_stream_handler=see, usage_limits=UsageLimits(request_limit=count + 1))


PEERS: dict[str, type[Peer]] = dict(
    zip(DISTRIBUTIONS, (Exoclaw, ExoclawDocumented, TinyAgent, PydanticAI), strict=True)
)


async def measure(name: str, base: str, count: int, times: int) -> dict[str, Any]:
    """CPU seconds of a turn of 20 deltas, up to its first delta, of early and late steps, and of fifty."""
    peer = PEERS[name](base)
    url = f"{base}/20/0/text/v1"
    turns, first = [], []
    for number in range(10 * times + 3):
        pieces: list[tuple[float, str]] = []
        began = time.process_time()
        await peer.turn(url, lambda text, pieces=pieces: pieces.append((time.process_time(), text)))  # type: ignore[misc]
        ended = time.process_time()
        assert len("".join(text for _, text in pieces)) == 100, (name, pieces)
        if number >= 3:  # connections, lazy imports and caches are not what a turn costs
            turns.append(ended - began)
            first.append(pieces[0][0] - began)
    runs = []
    for number in range(times + 1):
        peer.marks = [time.process_time()]
        await peer.steps(f"{base}/2/0/tool/v1", count if number else 3)
        if number:
            assert len(peer.marks) >= count + 1, (name, len(peer.marks))
            runs.append(peer.marks)
    early, half, fifty = min(20, count // 4), count // 2, min(50, count)
    return {
        "version": version(name),
        "short": median(turns),
        "short_first": median(first),
        "early": median((marks[early] - marks[1]) / (early - 1) for marks in runs),
        "late": median((marks[count] - marks[half]) / (count - half) for marks in runs),
        "fifty": median(marks[fifty] - marks[0] for marks in runs) * 50 / fifty,
    }


def make(folder: Path) -> None:
    venv.create(folder, with_pip=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    # Without mcp, LiteLLM takes no tools.
    subprocess.run([*pip, *DISTRIBUTIONS, "openai", "aiohttp", "orjson", "mcp"], check=True)


if __name__ == "__main__":
    if sys.argv[1] == "--make":
        make(Path(sys.argv[2]))
    else:
        os.environ.setdefault("OPENAI_API_KEY", "none")
        name, base, count, times = sys.argv[1:]
        print("\n" + json.dumps(asyncio.run(measure(name, base, int(count), int(times)))), flush=True)
        os._exit(0)
