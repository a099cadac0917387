"""Who belongs to whom: runs inside runs, on events, in the history and in logs."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from typing import Any

import pytest

from tests.runtime.pieces import LONG_S, Gate, Silent, until
from turncell import Agent, Hooks, Run, ToolContext, TraceFilter, run_turn, runs_df, tool
from turncell.adapters.scripted_model import ScriptedModel, call
from turncell.core.events import RunStarted
from turncell.runtime.trace import current_trace

pytestmark = pytest.mark.feature("A9")


def started(run: Run) -> RunStarted:
    event = run.events[0]
    assert isinstance(event, RunStarted)
    return event


def nested(depth: int, runs: list[Run]) -> Agent:
    """An agent whose tool runs another, so many times over."""
    if depth == 0:
        return Agent(ScriptedModel(["bottom"]))
    inner = nested(depth - 1, runs)

    @tool(effect="read")
    async def deeper() -> str:
        """Go deeper."""
        run = await inner.run("deeper")
        runs.append(run)
        return run.text

    return Agent(ScriptedModel([call("deeper"), f"level {depth}"]), tools=[deeper])


def test_the_chain_is_on_the_events_and_in_the_history() -> None:
    runs: list[Run] = []
    top = nested(3, runs).run_sync("go")
    chain = [top, *reversed(runs)]
    assert [run.status for run in chain] == ["completed"] * 4
    assert [started(run).depth for run in chain] == [0, 1, 2, 3]
    assert {run.state.root_run_id for run in chain} == {top.id}
    assert [started(run).parent_run_id for run in chain] == [None, *(run.id for run in chain[:-1])]
    rows = runs_df().set_index("run_id")
    assert [rows.loc[run.id, "parent_run_id"] for run in chain[1:]] == [run.id for run in chain[:-1]]
    assert set(rows["root_run_id"]) == {top.id}


@pytest.mark.parametrize("how", ["sync tool", "to_thread", "task", "run_turn"])
def test_a_run_is_a_child_however_its_tool_starts_it(how: str) -> None:
    inner = Agent(ScriptedModel(["inner"]))
    runs: list[Run] = []

    @tool(effect="read", name="nest")
    def in_a_thread() -> str:
        """Nest."""
        runs.append(inner.run_sync("x"))
        return "ok"

    @tool(effect="read", name="nest")
    async def on_the_loop() -> str:
        """Nest."""
        if how == "to_thread":
            runs.append(await asyncio.to_thread(inner.run_sync, "x"))
        elif how == "task":
            runs.append(await asyncio.create_task(inner.run("x")))
        else:
            runs.append(await run_turn(model=ScriptedModel(["inner"]), message="x"))
        return "ok"

    tools = [in_a_thread if how == "sync tool" else on_the_loop]
    top = Agent(ScriptedModel([call("nest"), "Done."]), tools=tools).start("go").result(LONG_S)
    assert top.text == "Done." and started(runs[0]).parent_run_id == top.id and started(runs[0]).depth == 1


def test_runs_side_by_side_do_not_mix_their_traces() -> None:
    seen: dict[str, str] = {}

    @tool(effect="read")
    async def who(context: ToolContext) -> str:
        """Say who."""
        await asyncio.sleep(0.01)
        trace = current_trace()
        assert trace is not None and trace.call_id == context.call_id
        seen[context.run_id] = trace.run_id
        return "me"

    runs = [Agent(ScriptedModel([call("who"), "ok"]), tools=[who]).start("go") for _ in range(20)]
    for run in runs:
        assert run.result(LONG_S).text == "ok"
    assert seen == {run.id: run.id for run in runs} and current_trace() is None


def test_a_child_ends_with_its_parent() -> None:
    gate = Gate()
    children: list[Run] = []
    silent = Silent("half")

    @tool(effect="read")
    async def nest() -> str:
        """Nest."""
        children.append(Agent(silent).start("x"))
        gate.reached.set()
        return (await children[0]).text

    run = Agent(ScriptedModel([call("nest")]), tools=[nest]).start("go")
    gate.was_reached()
    until(lambda: children[0].text)
    run.cancel("all of it")
    run.result(LONG_S)
    assert children[0].result(LONG_S).status == "cancelled" and silent.closed.wait(LONG_S)
    assert children[0].text == "half"


def test_log_records_know_their_run_and_call() -> None:
    records: list[Any] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    mine, ours = logging.getLogger("a.user"), logging.getLogger("turncell")
    handler = Keep()
    handler.addFilter(TraceFilter())
    inner = Agent(ScriptedModel([lambda request: 1 / 0]))
    child: list[Run] = []

    @tool(effect="read")
    async def work() -> str:
        """Work."""
        mine.warning("at work")
        child.append(await inner.run("x"))
        return "ok"

    for logger in (mine, ours):
        logger.addHandler(handler)
    try:
        run = Agent(ScriptedModel([call("work"), "Done."]), tools=[work]).run_sync("go")
        mine.warning("outside")
    finally:
        for logger in (mine, ours):
            logger.removeHandler(handler)
    work_, raised, outside = records
    assert (work_.run_id, work_.call_id, work_.depth) == (run.id, run.tool_calls[0].call_id, 0)
    assert (raised.run_id, raised.parent_run_id, raised.root_run_id) == (child[0].id, run.id, run.id)
    assert raised.depth == 1 and raised.call_id == "" and raised.name == "turncell"
    assert (outside.run_id, outside.root_run_id, outside.depth) == ("", "", 0)


class TestQuiet:
    """Nothing is printed unless somebody listens."""

    CODE = """
import sys, time
from turncell import Agent, Hooks, ModelFailure, tool, ToolContext
from turncell.testing import ScriptedModel, call

@tool(effect="read")
def bad() -> str:
    "Fail."
    raise LookupError("no")

@tool(effect="read")
async def asks(context: ToolContext) -> str:
    "Ask."
    return str(await context.ask("Which?"))

def fail(*_): raise RuntimeError("a subscriber or hook")

run = Agent(ScriptedModel([call("bad"), lambda request: 1 / 0]), tools=[bad]).start("go")
run.subscribe(fail)
run.result(60); run.drain()
Agent(ScriptedModel(["x"]), hooks=Hooks(after_model=fail, before_finish=fail, after_step=fail)).run_sync("go")
Agent(ScriptedModel(["x"]), hooks=Hooks(before_journal=fail)).run_sync("go")
Agent(ScriptedModel([ModelFailure("auth", "no key")])).run_sync("go")
Agent(ScriptedModel([call("asks"), "x"]), tools=[asks]).run_sync("go")
waiting = Agent(ScriptedModel([call("asks"), "x"]), tools=[asks]).start("go", is_attended=True)
while not waiting.requests: time.sleep(0.01)
waiting.cancel(); waiting.result(60)
Agent(ScriptedModel(["x"], delay_s=60)).start("left behind at exit")
asking = Agent(ScriptedModel([call("asks"), "x"]), tools=[asks]).start("go", is_attended=True)
while not asking.requests: time.sleep(0.01)
print("end")
"""

    def test_when_things_fail_and_when_the_process_ends_in_the_middle(self) -> None:
        done = subprocess.run([sys.executable, "-c", self.CODE], capture_output=True, text=True, timeout=100)
        assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")

    def test_whoever_listens_hears_it_under_one_name(self) -> None:
        code = (
            "import logging, sys\nlogging.basicConfig(stream=sys.stdout, format='%(name)s %(message)s', level='DEBUG')"
        )
        done = subprocess.run([sys.executable, "-c", code + self.CODE], capture_output=True, text=True, timeout=100)
        assert done.returncode == 0 and done.stderr == ""
        heads = {line.split()[0] for line in done.stdout.splitlines() if line.startswith(("turncell", "asyncio"))}
        assert "turncell" in heads and "raised on RunStarted" in done.stdout
        assert "asyncio ERROR" not in done.stdout and "never retrieved" not in done.stdout


@pytest.mark.parametrize("where", ["rule", "check", "preview", "hook"])
def test_a_run_that_is_started_while_a_call_is_judged_is_a_child_too(where: str) -> None:
    inner = Agent(ScriptedModel(["Fine."]), name="judge")

    async def asks(*_: Any, **__: Any) -> None:
        await inner.run("Is it fine?")

    @tool(check=asks if where == "check" else None, preview=asks if where == "preview" else None)
    def save() -> str:
        """Save."""
        return "saved"

    outer = Agent(
        ScriptedModel([call("save"), "Done."]), tools=[save], rules=[asks] if where == "rule" else [],
        hooks=Hooks(before_tool=asks) if where == "hook" else (),
    )  # fmt: skip
    run = outer.start("go", is_attended=True)
    until(lambda: run.status == "waiting" or run.is_done)
    run.approve()
    run.result(60)
    table = runs_df().set_index("agent")
    assert (run.status, table.loc["judge", "parent_run_id"], table.loc["judge", "status"]) == (
        "completed", run.id, "completed",
    )  # fmt: skip
