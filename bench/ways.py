"""The ways to read an answer, from a bare socket to a run with events, journal and a subscriber.

Each has `turn(path)` (one answer), `turns(paths)` (at once) and `steps(path, count)` (a no-op tool, step by step).
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import selectors
import socket
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count as counter
from typing import Any, ClassVar, Protocol

import orjson

PROMPT = "Count."
TOOL = {
    "type": "function",
    "function": {
        "name": "nothing",
        "description": "Does nothing.",
        "parameters": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    },
}


@dataclass
class Turn:
    deltas: int = 0
    text: str = ""
    first_cpu_s: float = 0.0
    """CPU of the process from the start of the turn to its first delta."""


class Way(Protocol):
    def turn(self, path: str) -> Turn: ...

    def turns(self, paths: Sequence[str]) -> int: ...

    def steps(self, path: str, count: int) -> list[float]:
        """CPU of the process at the start of each step, and at the end."""
        ...


def _chat(count: int = 0) -> list[dict[str, Any]]:
    """The messages after so many steps."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": PROMPT}]
    for number in range(count):
        call = {"id": f"call_{number}", "type": "function", "function": {"name": "nothing", "arguments": '{"n": 1}'}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"call_{number}", "content": "done"})
    return messages


def _step(messages: list[dict[str, Any]], number: int) -> None:
    messages += _chat(1)[1:]
    messages[-2]["tool_calls"][0]["id"] = messages[-1]["tool_call_id"] = f"call_{number}"


class _RawAnswer:
    """Headers and frames by hand."""

    def __init__(self) -> None:
        self.buffer, self.left, self.pieces, self.calls = b"", -1, list[str](), 0

    def feed(self, data: bytes) -> bool:
        """Returns whether the answer is over."""
        if self.left < 0:
            head, found, data = (self.buffer + data).partition(b"\r\n\r\n")
            if not found:
                self.buffer = head
                return False
            self.left, self.buffer = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]), b""
        self.left -= len(data)
        lines = (self.buffer + data).split(b"\n\n")
        self.buffer = lines.pop()
        for line in lines:
            if line != b"data: [DONE]":
                self.take(orjson.loads(line[6:]))
        return self.left == 0

    def take(self, chunk: dict[str, Any]) -> None:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            if text := delta.get("content"):
                self.pieces.append(text)
            elif "tool_calls" in delta:
                self.calls += 1


class _LinesAnswer(_RawAnswer):
    """Line by line."""

    def feed(self, data: bytes) -> bool:
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            if line == b"data: [DONE]":
                return True
            if line.startswith(b"data: "):
                self.take(json.loads(line[6:]))
        return False


class Raw:
    """A socket and `orjson`: the floor."""

    _answer = _RawAnswer

    def __init__(self, base: str) -> None:
        host, port = base.removeprefix("http://").split(":")
        self._address = (host, int(port))
        self._socket = socket.create_connection(self._address)

    def _request(self, path: str, messages: Any, **more: Any) -> bytes:
        body = orjson.dumps({"model": "bench", "messages": messages, "stream": True, **more})
        head = f"POST {path}/v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def _ask(self, request: bytes) -> tuple[_RawAnswer, float]:
        began = time.process_time()
        first = 0.0
        self._socket.sendall(request)
        answer = _RawAnswer()
        is_over = False
        while not is_over:
            is_over = answer.feed(self._socket.recv(262_144))
            if not first and answer.pieces:
                first = time.process_time() - began
        return answer, first

    def turn(self, path: str) -> Turn:
        answer, first = self._ask(self._request(path, _chat()))
        return Turn(len(answer.pieces), "".join(answer.pieces), first)

    def turns(self, paths: Sequence[str]) -> int:
        open_ = selectors.DefaultSelector()
        for path in paths:
            one = socket.create_connection(self._address)
            one.sendall(self._request(path, _chat()))
            open_.register(one, selectors.EVENT_READ, self._answer())
        count = 0
        while open_.get_map():
            for key, _ in open_.select():
                if key.data.feed(key.fileobj.recv(262_144)):  # type: ignore[union-attr]
                    count += len(key.data.pieces)
                    open_.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
        return count

    def steps(self, path: str, count: int) -> list[float]:
        marks, messages = [], _chat()
        for number in range(count):
            marks.append(time.process_time())
            self._ask(self._request(path, messages, tools=[TOOL]))
            _step(messages, number)
        return [*marks, time.process_time()]


class RawLines(Raw):
    """A socket read line by line, and `json`: a raw client as it is usually written."""

    _answer = _LinesAnswer

    def __init__(self, base: str) -> None:
        super().__init__(base)
        self._file = self._socket.makefile("rb")

    def _ask(self, request: bytes) -> tuple[_RawAnswer, float]:
        began = time.process_time()
        first = 0.0
        self._socket.sendall(request)
        while self._file.readline() != b"\r\n":
            pass
        answer = _RawAnswer()
        while (line := self._file.readline()) != b"data: [DONE]\n":
            if line != b"\n":
                answer.take(json.loads(line[6:]))
                if not first and answer.pieces:
                    first = time.process_time() - began
        self._file.readline()
        return answer, first


async def _events(response: Any) -> AsyncIterator[list[dict[str, Any]]]:
    """The chunks of an SSE response, as many at once as a read brought."""
    rest = b""
    async for data in response.content.iter_any():
        *lines, rest = (rest + data).split(b"\n\n")
        yield [orjson.loads(line[6:]) for line in lines if line != b"data: [DONE]"]


class _Async:
    """A way that has a coroutine for one answer; on a loop of its own."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._runner = asyncio.Runner()

    async def _ask(self, path: str, messages: Any, **more: Any) -> Turn:
        raise NotImplementedError

    def turn(self, path: str) -> Turn:
        return self._runner.get_loop().run_until_complete(self._ask(path, _chat()))

    def turns(self, paths: Sequence[str]) -> int:
        async def all_() -> int:
            return sum(turn.deltas for turn in await asyncio.gather(*(self._ask(path, _chat()) for path in paths)))

        return self._runner.run(all_())

    def steps(self, path: str, count: int) -> list[float]:
        async def all_() -> list[float]:
            marks, messages = [], _chat()
            for number in range(count):
                marks.append(time.process_time())
                await self._ask(path, messages, tools=[TOOL])
                _step(messages, number)
            return [*marks, time.process_time()]

        return self._runner.run(all_())


class Aiohttp(_Async):
    _session: Any = None
    """The class's, so that no collection complains about it before the process ends."""

    async def _ask(self, path: str, messages: Any, **more: Any) -> Turn:
        began = time.process_time()
        turn, pieces = Turn(), list[str]()

        def take(burst: list[str]) -> None:
            pieces.extend(burst)
            if pieces and not turn.first_cpu_s:
                turn.first_cpu_s = time.process_time() - began

        await self.pieces(path, take, messages, **more)
        turn.deltas, turn.text = len(pieces), "".join(pieces)
        return turn

    async def pieces(self, path: str, take: Callable[[list[str]], Any], messages: Any = None, **more: Any) -> None:
        """Hand over the text of each burst."""
        body = orjson.dumps({"model": "bench", "messages": messages or _chat(), "stream": True, **more})
        async for chunks in self.chunks(path, body):
            take([text for chunk in chunks for choice in chunk["choices"] if (text := choice["delta"].get("content"))])

    async def chunks(self, path: str, body: bytes) -> AsyncIterator[list[dict[str, Any]]]:
        """What each burst has brought."""
        import aiohttp

        if self._session is None:
            Aiohttp._session = aiohttp.ClientSession(self._base, connector=aiohttp.TCPConnector(limit=0))
        async with self._session.post(f"{path}/v1/chat/completions", data=body) as response:
            async for chunks in _events(response):
                yield chunks


@dataclass(slots=True)
class _Record:
    """What the parts keep of a turn or a step, seven times."""

    seq: int
    run_id: str
    step: int
    at: float
    text: str
    type: str = "Record"


class Parts:
    """The parts that turns and steps are made of here, and nothing else: aiohttp on a loop in a thread of its own, so that
    cells and interrupts do not stop it; bursts handed to a subscriber on the caller's loop; seven short records for each
    turn or step, written to SQLite on another thread in as few transactions as possible, the last of which is waited for.
    Of a step besides: messages that are encoded once, arguments that pydantic validates, a synchronous tool in a thread.
    No runtime can cost less with them.
    """

    def __init__(self, base: str) -> None:
        self._runner = asyncio.Runner()
        self._reader = Aiohttp(base)
        self._loop = asyncio.new_event_loop()
        self._jobs: queue.SimpleQueue[tuple[list[_Record], Future[None] | None]] = queue.SimpleQueue()
        self._calls: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self._run_ids = counter()
        for target in (self._loop.run_forever, self._write, self._work):
            threading.Thread(target=target, daemon=True).start()

    def _write(self) -> None:
        database = sqlite3.connect(f"{os.environ['TURNCELL_STORE']}.parts", isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute("CREATE TABLE events (run TEXT, seq INTEGER, payload BLOB, PRIMARY KEY (run, seq))")
        while True:
            jobs = [self._jobs.get()]
            if jobs[0][1] is None:
                time.sleep(0.05)  # nobody waits for it
            while not self._jobs.empty():
                jobs.append(self._jobs.get())
            database.execute("BEGIN IMMEDIATE")
            rows = [(one.run_id, one.seq, orjson.dumps(one)) for records, _ in jobs for one in records]
            database.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
            database.execute("COMMIT")
            for _, written in jobs:
                if written is not None:
                    written.set_result(None)

    def _work(self) -> None:
        while True:
            self._calls.get()()

    def _record(self, run_id: str, step: int, text: str, written: Future[None] | None) -> None:
        at = time.time()
        self._jobs.put(([_Record(7 * step + number, run_id, step, at, text) for number in range(7)], written))

    async def _run(self, path: str, take: Callable[[list[str] | None], Any]) -> None:
        said = list[str]()

        def hand_over(burst: list[str]) -> None:
            said.extend(burst)
            take(burst)

        await self._reader.pieces(path, hand_over)
        written: Future[None] = Future()
        self._record(f"run_{next(self._run_ids)}", 0, "".join(said), written)
        await asyncio.wrap_future(written)
        take(None)

    def turn(self, path: str) -> Turn:
        return self._runner.get_loop().run_until_complete(self._turn(path))

    async def _turn(self, path: str) -> Turn:
        began = time.process_time()
        loop, bursts = asyncio.get_running_loop(), asyncio.Queue[list[str] | None]()
        turn, pieces = Turn(), list[str]()

        def take(burst: list[str] | None) -> None:
            loop.call_soon_threadsafe(bursts.put_nowait, burst)

        self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._run(path, take)))
        while (burst := await bursts.get()) is not None:
            pieces += burst
            if pieces and not turn.first_cpu_s:
                turn.first_cpu_s = time.process_time() - began
        turn.deltas, turn.text = len(pieces), "".join(pieces)
        return turn

    def turns(self, paths: Sequence[str]) -> int:
        async def all_() -> int:
            return sum(turn.deltas for turn in await asyncio.gather(*map(self._turn, paths)))

        return self._runner.get_loop().run_until_complete(all_())

    def steps(self, path: str, count: int) -> list[float]:
        return asyncio.run_coroutine_threadsafe(self._steps(path, count), self._loop).result()

    async def _steps(self, path: str, count: int) -> list[float]:
        from pydantic import TypeAdapter

        marks = [time.process_time()]

        def nothing(n: int) -> str:
            marks.append(time.process_time())
            return "done"

        validate = TypeAdapter(dict[str, int]).validate_json
        loop, run_id = asyncio.get_running_loop(), f"run_{next(self._run_ids)}"
        encoded, tools = [orjson.dumps(message) for message in _chat()], orjson.dumps([TOOL])
        written: Future[None] = Future()
        for number in range(count):
            body = b'{"model":"bench","stream":true,"messages":[' + b",".join(encoded) + b'],"tools":' + tools + b"}"
            said = list[str]()
            async for chunks in self._reader.chunks(path, body):
                for chunk in chunks:
                    for choice in chunk["choices"]:
                        said += [call["function"]["arguments"] for call in choice["delta"].get("tool_calls", ())]
            arguments, returned = validate("".join(said)), loop.create_future()

            def call(arguments: dict[str, int] = arguments, returned: asyncio.Future[str] = returned) -> None:
                loop.call_soon_threadsafe(returned.set_result, nothing(**arguments))

            self._calls.put(call)
            text = await returned
            self._record(run_id, number, text, written if number == count - 1 else None)
            messages: list[dict[str, Any]] = []
            _step(messages, number)
            encoded += [orjson.dumps(message) for message in messages]
        await asyncio.wrap_future(written)
        return marks


class LiteLLM(_Async):
    model = "openai/bench"
    suffix = "/v1"
    more: ClassVar[dict[str, Any]] = {"stream_options": {"include_usage": True}}

    async def _ask(self, path: str, messages: Any, **more: Any) -> Turn:
        import litellm

        began = time.process_time()
        turn, pieces = Turn(), list[str]()
        stream = await litellm.acompletion(
            model=self.model, messages=messages, stream=True, api_key="none", base_url=f"{self._base}{path}{self.suffix}",
            **self.more, **more,
        )  # fmt: skip
        async for chunk in stream:
            for choice in chunk.choices:
                if choice.delta.content:
                    pieces.append(choice.delta.content)
                    if not turn.first_cpu_s:
                        turn.first_cpu_s = time.process_time() - began
        turn.deltas, turn.text = len(pieces), "".join(pieces)
        return turn


class LiteLLMGemini(LiteLLM):
    """A provider that only LiteLLM can read."""

    model, suffix = "gemini/gemini-2.5-flash", "/model"
    more: ClassVar[dict[str, Any]] = {}

    def turn(self, path: str) -> Turn:
        return super().turn(path.replace("/text", "/gemini"))


class LocalModel:
    """The least that a Model can be: what a run costs with it, less what `Aiohttp` costs, is the runtime."""

    name = "bench"
    _session: Any = None

    def __init__(self, base: str, path: str) -> None:
        self._base, self._path = base, path
        self._encoded: dict[int, tuple[Any, bytes]] = {}

    async def stream(self, request: Any) -> AsyncIterator[list[Any]]:
        import aiohttp

        from turncell.core.deltas import CallFragment, Finished

        if LocalModel._session is None:
            LocalModel._session = aiohttp.ClientSession(self._base, connector=aiohttp.TCPConnector(limit=0))
        reason = "stop"
        async with self._session.post(f"{self._path}/v1/chat/completions", data=self._body(request)) as response:
            async for chunks in _events(response):
                burst: list[Any] = []
                for chunk in chunks:
                    for choice in chunk["choices"]:
                        delta = choice["delta"]
                        if text := delta.get("content"):
                            burst.append(text)
                        for call in delta.get("tool_calls") or ():
                            function = call["function"]
                            burst.append(
                                CallFragment(call["index"], call.get("id"), function.get("name"), function["arguments"])
                            )
                        reason = choice["finish_reason"] or reason
                if burst:
                    yield burst
        yield [Finished(reason)]  # type: ignore[arg-type]

    def _body(self, request: Any) -> bytes:
        """Each message is encoded once, for as long as the runtime gives the same one again."""
        from turncell.adapters.chat_format import chat_messages, chat_tools

        parts = []
        for message in request.messages:
            known = self._encoded.get(id(message))
            if known is None:
                text = b",".join(orjson.dumps(one) for one in chat_messages([message]))
                known = self._encoded[id(message)] = (message, text)
            parts.append(known[1])
        tools = b',"tools":' + orjson.dumps(chat_tools(request.tools)) if request.tools else b""
        return b'{"model":"bench","stream":true,"messages":[' + b",".join(parts) + b"]" + tools + b"}"


class Turncell:
    """Runs in sessions of their own, each with one subscriber on the caller's loop; the journal is a file."""

    def __init__(self, base: str, effect: str = "read") -> None:
        self._base, self._effect = base, effect
        self._runner = asyncio.Runner()

    def model(self, path: str) -> Any:
        return LocalModel(self._base, path)

    async def _watch(self, run: Any, began: float) -> Turn:
        turn, pieces = Turn(), list[str]()
        async for event in run:
            if event.type == "TextDelta":
                pieces.append(event.text)
                if not turn.first_cpu_s:
                    turn.first_cpu_s = time.process_time() - began
        await run
        assert run.status == "completed", (run.status, run.state.error)
        turn.text = "".join(pieces)
        # Whoever subscribes late, or is slower than the run, gets several deltas as one.
        turn.deltas = len(turn.text) // 5
        return turn

    def turn(self, path: str) -> Turn:
        return self.prepare(path)()

    def prepare(self, path: str) -> Callable[[], Turn]:
        """A turn of a conversation that exists already: making one is not a part of each turn."""
        from turncell import Agent

        agent = Agent(self.model(path))
        session = agent.session()
        agent.journal.flush()

        async def turn() -> Turn:
            began = time.process_time()
            return await self._watch(agent.start(PROMPT, session=session), began)

        # Not `Runner.run`, which sets signal handlers each time.
        return lambda: self._runner.get_loop().run_until_complete(turn())

    def conversation(self, path: str, count: int) -> list[float]:
        """CPU of the process at the start of each turn of one session, and at the end."""
        from turncell import Agent

        agent = Agent(self.model(path))
        session = agent.session()
        marks = []
        for _ in range(count):
            marks.append(time.process_time())
            self._runner.get_loop().run_until_complete(self._watch(agent.start(PROMPT, session=session), marks[-1]))
        return [*marks, time.process_time()]

    def turns(self, paths: Sequence[str]) -> int:
        from turncell import Agent

        async def all_() -> int:
            runs = [Agent(self.model(path)).start(PROMPT) for path in paths]
            return sum(turn.deltas for turn in await asyncio.gather(*(self._watch(run, 0.0) for run in runs)))

        return self._runner.run(all_())

    def steps(self, path: str, count: int) -> list[float]:
        from turncell import Agent, Hooks, Rule, tool

        marks: list[float] = [time.process_time()]

        async def look(use: Any) -> None:
            """A hook that only looks."""

        def nothing(n: int) -> str:
            "Does nothing."
            marks.append(time.process_time())
            return "done"

        agent = Agent(
            self.model(path), tools=[tool(effect=self._effect)(nothing)], mode="auto", max_steps=count, summarises=False,  # type: ignore[arg-type]
            rules=[Rule("delete_*", "deny"), Rule("*", "allow")], hooks=Hooks(before_tool=look, after_step=look),
        )  # fmt: skip
        run = agent.run_sync(PROMPT)
        assert run.status == "max_steps" and len(marks) == count + 1, (run.status, len(marks))
        return marks


class TurncellDirect(Turncell):
    def model(self, path: str) -> Any:
        from turncell.adapters.direct_chat import DirectChat

        return DirectChat("openai/bench", base_url=f"{self._base}{path}/v1")


class TurncellAnthropic(Turncell):
    def model(self, path: str) -> Any:
        from turncell.adapters.direct_anthropic import DirectAnthropic

        return DirectAnthropic("bench", base_url=f"{self._base}{path.replace('/tool', '/anthropic')}")


class TurncellResponses(Turncell):
    def model(self, path: str) -> Any:
        from turncell.adapters.direct_responses import DirectResponses

        return DirectResponses("bench", base_url=f"{self._base}{path.replace('/tool', '/responses')}/v1")


class TurncellLiteLLM(Turncell):
    is_whole = False

    def model(self, path: str) -> Any:
        from turncell.adapters.litellm_model import LiteLLMModel

        return LiteLLMModel("openai/bench", api_key="none", base_url=f"{self._base}{path}/v1", is_whole=self.is_whole)


class TurncellLiteLLMWhole(TurncellLiteLLM):
    is_whole = True


class TurncellParsed(TurncellLiteLLM):
    """What only LiteLLM can read, its parser alone reads."""

    def model(self, path: str) -> Any:
        from turncell.adapters.litellm_model import LiteLLMModel

        base_url = f"{self._base}{path.replace('/text', '/gemini')}/model"
        return LiteLLMModel(LiteLLMGemini.model, api_key="none", base_url=base_url)


WAYS: dict[str, Callable[[str], Way]] = {
    "raw socket + orjson": Raw,
    "aiohttp + orjson": Aiohttp,
    "turncell, minimal model": Turncell,
    "turncell direct": TurncellDirect,
    "litellm.acompletion": LiteLLM,
    "turncell through LiteLLM": TurncellLiteLLM,
    "turncell through LiteLLM whole": TurncellLiteLLMWhole,
}
RAW, AIOHTTP, MINIMAL, DIRECT, BARE, THROUGH, WHOLE = WAYS

PARTS = "aiohttp, two threads more and a commit"
PARTS_WAY: dict[str, Callable[[str], Way]] = {PARTS: Parts}

LINES = "raw socket by lines + json"
LINE_WAY: dict[str, Callable[[str], Way]] = {LINES: RawLines}

TEXT_WAYS: dict[str, Callable[[str], Way]] = {
    "litellm.acompletion, Gemini's format": LiteLLMGemini,
    "turncell through LiteLLM's parser, Gemini's format": TurncellParsed,
}
"""Only for `turn`."""
BARE_GEMINI, PARSED = TEXT_WAYS

STEP_WAYS: dict[str, Callable[[str], Way]] = {
    "turncell direct, Anthropic's format": TurncellAnthropic,
    "turncell direct, OpenAI's responses": TurncellResponses,
}
"""Only for `steps`."""
