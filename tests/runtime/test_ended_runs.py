"""What is left of runs that have ended and that nobody holds any more: nothing, also before Python looks for cycles.

That takes as long as a hundred turns where many have run; and what a run has read and written would stay in memory until then.
"""

from __future__ import annotations

import asyncio
import gc
import queue
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from tests.runtime.pieces import LONG_S, until
from turncell import Agent, Hooks, ModelFailure, Run, ToolContext, run_turn, tool
from turncell.adapters.direct_chat import DirectChat
from turncell.core.deltas import Fragment
from turncell.runtime.ports import ModelRequest
from turncell.testing import ScriptedModel, call, reply, serve

pytestmark = pytest.mark.feature("A18")

TURNS = 10


@tool(effect="read")
async def look(context: ToolContext) -> str:
    """Look."""
    context.progress("looking")
    return "seen"


@tool(effect="read")
def block(context: ToolContext) -> str:
    """Block."""
    context.notice("done")
    return "seen"


@tool(effect="read")
def fail() -> str:
    """Fail, in a thread."""
    raise ValueError("no")


@tool(effect="read", timeout_s=0.02)
async def hang() -> str:
    """Hang."""
    await asyncio.Event().wait()
    return "never"


@tool(effect="read")
async def wait() -> str:
    """Wait."""
    await asyncio.Event().wait()
    return "never"


@tool(effect="read")
async def ask(context: ToolContext) -> str:
    """Ask."""
    return str(await context.ask("Which one?"))


@tool
def mail(to: str) -> str:
    """Send a mail."""
    return f"sent to {to}"


def asked(agent: Agent) -> Run:
    run = agent.start("go", is_attended=True)
    run.wait_request(LONG_S)
    return run


def simple() -> list[Run]:
    return [Agent(ScriptedModel(["Fine."])).run_sync("go")]


def with_tools() -> list[Run]:
    model = ScriptedModel([[call("look"), call("block")], [call("mail", to="ann")], "Done."])
    return [Agent(model, tools=[look, block, mail], mode="auto").run_sync("go")]


def with_tools_that_fail() -> list[Run]:
    return [Agent(ScriptedModel([[call("fail"), call("hang")], "Sorry."]), tools=[fail, hang]).run_sync("go")]


def approved() -> list[Run]:
    run = asked(Agent(ScriptedModel([call("mail", to="ann"), "Done."]), tools=[mail]))
    run.approve(arguments={"to": "bob"}, scope="session")
    return [run.result(LONG_S)]


def answered() -> list[Run]:
    run = asked(Agent(ScriptedModel([call("ask"), "Done."]), tools=[ask]))
    run.reply("this one")
    return [run.result(LONG_S)]


class Endless:
    """Says one word, and no more. Sets no timer: asyncio keeps one that was cancelled until it would have rung."""

    name = "endless"

    async def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
        yield ["Well"]
        await asyncio.Event().wait()


def stopped_in_the_answer() -> list[Run]:
    run = Agent(Endless()).start("go")
    until(lambda: run.text)
    run.cancel()
    return [run.result(LONG_S)]


def stopped_in_a_tool() -> list[Run]:
    run = Agent(ScriptedModel([call("wait"), "Done."]), tools=[wait]).start("go")
    until(lambda: any(call.status == "running" for call in run.tool_calls))
    run.cancel()
    return [run.result(LONG_S)]


def out_of_time() -> list[Run]:
    return [Agent(Endless(), timeout_s=0.02).run_sync("go")]


def failed() -> list[Run]:
    def refuse(request: Any) -> Any:
        raise ModelFailure("auth", "no key")

    return [Agent(ScriptedModel([refuse])).run_sync("go")]


def hooked() -> list[Run]:
    async def see(use: Any) -> None:
        """An async hook."""

    hooks = Hooks(before_tool=see, after_step=see, before_journal=lambda event: None)
    return [Agent(ScriptedModel([call("look"), "Done."]), tools=[look], hooks=hooks).run_sync("go")]


def watched() -> list[Run]:
    async def see(event: Any) -> None:
        """An async subscriber."""

    run = Agent(ScriptedModel(["Fine. " * 20])).start("go")
    for subscriber in (print_nothing, queue.Queue[Any](), see):
        run.subscribe(subscriber)
    run.attach(lambda events: str(run))
    run.result(LONG_S).drain(LONG_S)
    return [run]


def print_nothing(event: Any) -> None:
    """A subscriber in a thread."""


def read() -> list[Run]:
    async def main() -> list[Run]:
        agent = Agent(ScriptedModel(["Fine. " * 20] * 2))
        whole, left = agent.start("go"), agent.start("go")
        assert [event async for event in whole]
        async for _ in left:
            break
        return [await whole, await left]

    return asyncio.run(main())


def as_functions() -> list[Run]:
    turn = run_turn(model=ScriptedModel([call("look"), "Fine."]), message="go", tools=[look], on_progress=print_nothing)
    return [asyncio.run(turn)]


def in_one_session() -> list[Run]:
    session = Agent(ScriptedModel(["one", "two"])).session()
    runs = [session.send("first"), session.send("second"), session.send("third")]
    runs[2].cancel()
    for run in runs:
        run.result(LONG_S)
    return runs


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def check(way: Callable[[], list[Run]]) -> None:
    """Runs that went this way, dropped, are gone, and have left nothing in cycles."""
    way()  # what is made once
    simple()
    gc.collect()
    # What ends late of other tests is found once, what these runs leave each time.
    found = [_left_by(way) for _ in range(3)]
    assert min(found) < TURNS, f"{found} objects in cycles"


def _left_by(way: Callable[[], list[Run]]) -> int:
    left: list[weakref.ref[Any]] = []
    for _ in range(TURNS):
        left += [weakref.ref(held) for run in way() for held in (run, run.session)]
    simple()  # the threads that do all this keep the latest that they had in hands
    until(lambda: not any(one() for one in left))
    return gc.collect()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize(
    "way",
    [
        simple, with_tools, with_tools_that_fail, approved, answered, stopped_in_the_answer, stopped_in_a_tool, out_of_time,
        failed, hooked, watched, read, as_functions, in_one_session,
    ],
)  # fmt: skip
def test_nothing_is_left_of_runs(way: Callable[[], list[Run]]) -> None:
    check(way)


@pytest.mark.usefixtures("uncollected")
def test_nothing_is_left_of_agents_inside_agents() -> None:
    inner = Agent(ScriptedModel(lambda request: "Done."), name="clerk", tools=[look])
    as_tool = inner.as_tool()
    check(lambda: [Agent(ScriptedModel([call("clerk", task="x"), "Done."]), tools=[as_tool]).run_sync("go")])


@pytest.mark.usefixtures("uncollected")
def test_nothing_is_left_of_turns_over_http() -> None:
    with serve(lambda body: reply("Fine. " * 20)) as server:
        check(lambda: [Agent(DirectChat("openai/gpt-5", base_url=server.base_url, api_key="k")).run_sync("go")])
