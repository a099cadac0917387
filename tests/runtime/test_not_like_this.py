"""What released packages get wrong: one test for each sentence, named after it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import Any

import pytest

from tests.runtime.pieces import LONG_S, Gate, Silent, ends, told, until, written
from turncell import Agent, ModelFailure, Session, runs_df, steps_df, tool
from turncell.adapters.litellm_model import LiteLLMModel, warm_up
from turncell.adapters.scripted_model import Call, ScriptedModel, call, say
from turncell.testing import reply, serve


@tool(effect="read")
def peek(at: str = "clock") -> str:
    """Look quickly."""
    return f"the {at}"


class Mails:
    def __init__(self) -> None:
        self.sent: list[str] = []

    def tool(self) -> Any:
        @tool
        def mail(to: str = "everybody") -> str:
            """Send a mail."""
            self.sent.append(to)
            return f"sent to {to}"

        return mail


def served(script: Any, prompt: str = "go", **options: Any) -> Any:
    warm_up()
    with serve(script) as server:
        model = LiteLLMModel("openai/gpt-4o-mini", api_key="k", base_url=server.base_url)
        return Agent(model, **options).start(prompt).result(LONG_S), server


@pytest.mark.feature("B9")
def test_a_printed_only_example_hangs_at_the_first_tool_call() -> None:
    code = """
from turncell import Agent, tool
from turncell.testing import ScriptedModel, call
@tool
def mail() -> str:
    "Send."
    return "sent"
import asyncio
async def main():
    async for event in Agent(ScriptedModel([call("mail"), "I could not."]), tools=[mail]).stream("go"):
        print(event.type)
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.split()[-1] == "RunEnded" and "CallFinished" in done.stdout


@pytest.mark.feature("A11")
def test_after_aborted_the_partial_text_is_stored_as_an_answer() -> None:
    agent = Agent(Silent("It is certainly tr"))
    session = agent.session()
    run = agent.start("go", session=session)
    until(lambda: run.text)
    run.cancel()
    run.result(LONG_S)
    (stored,) = Session.load(session.id, session.journal).runs
    message = stored.steps[0].message
    assert stored.status == "cancelled" and message is not None and message.is_partial
    assert runs_df().iloc[0]["status"] == "cancelled"


@pytest.mark.feature("A11")
def test_after_aborted_the_streamed_tool_call_still_runs() -> None:
    mails = Mails()
    model = ScriptedModel([[call("mail", to="ana"), say("and then some", delay_s=LONG_S)]])
    run = Agent(model, tools=[mails.tool()], mode="auto").start("go")
    until(lambda: run.call_fragments() and all(text.endswith("}") for text in run.call_fragments().values()))
    run.cancel()
    run.result(LONG_S)
    assert run.status == "cancelled" and not mails.sent
    assert not any(event.type == "CallStarted" for event in run.events)


@pytest.mark.feature("A11")
def test_cancel_is_ignored_while_the_provider_is_silent() -> None:
    model = Silent()
    run = Agent(model).start("go")
    assert model.asked.wait(LONG_S)
    run.cancel()
    assert run.result(LONG_S).status == "cancelled" and model.closed.wait(LONG_S)


@pytest.mark.feature("A11")
def test_cancel_is_ignored_while_a_person_is_asked() -> None:
    mails = Mails()
    run = Agent(ScriptedModel([call("mail")]), tools=[mails.tool()]).start("go", is_attended=True)
    until(lambda: run.requests)
    run.cancel()
    assert run.result(LONG_S).status == "cancelled" and not mails.sent


@pytest.mark.feature("A11")
def test_cancel_when_idle_aborts_the_next_input() -> None:
    session = Agent(ScriptedModel(["one", "two"])).session()
    assert not session.cancel()
    first = session.send("go").result(LONG_S)
    first.cancel()
    assert not session.cancel()
    assert [first.status, session.send("on").result(LONG_S).status] == ["completed", "completed"]


@pytest.mark.feature("A13")
def test_an_empty_reply_is_asked_again_100_times() -> None:
    model = ScriptedModel([""] * 100)
    run = Agent(model).run_sync("go")
    assert (run.status, run.state.error_kind) == ("failed", "empty_reply") and len(model.requests) == 1


@pytest.mark.feature("A8", "A12")
def test_max_steps_ends_without_any_event() -> None:
    run = Agent(ScriptedModel([call("peek"), "So far."]), tools=[peek], max_steps=1).run_sync("go")
    assert [event.status for event in ends(run)] == ["max_steps"]  # type: ignore[attr-defined]


@pytest.mark.feature("A12")
def test_denial_ends_without_any_event() -> None:
    mails = Mails()
    run = Agent(ScriptedModel([call("mail"), "As you wish."]), tools=[mails.tool()]).start("go", is_attended=True)
    until(lambda: run.requests)
    run.deny("no")
    run.result(LONG_S)
    assert [event.status for event in ends(run)] == ["completed"] and run.text == "As you wish."  # type: ignore[attr-defined]
    assert [event.status for event in run.events if event.type == "CallFinished"] == ["denied"]


@pytest.mark.feature("B2")
@pytest.mark.parametrize(
    ("asked", "status"),
    [(call("broken"), "error"), (call("unknown"), "invalid"), (Call("peek", '{"at": '), "invalid")],
    ids=["an exception in a tool", "an unknown tool", "bad JSON"],
)
def test_an_exception_in_a_tool_an_unknown_tool_or_bad_json_kills_the_run(asked: Any, status: str) -> None:
    @tool(effect="read")
    def broken() -> str:
        """Break."""
        raise LookupError("no")

    run = Agent(ScriptedModel([asked, "I see."]), tools=[broken, peek]).run_sync("go")
    assert (run.status, run.text, run.tool_calls[0].status) == ("completed", "I see.", status)


@pytest.mark.feature("B2")
@pytest.mark.parametrize(
    "text", ['{"to": "an', "{", "[]", "null", '"ana"', "to=ana", '{"to": "ana"} {}', "{'to': 'ana'}"]
)
def test_malformed_or_truncated_arguments_become_an_empty_object_and_the_tool_runs(text: str) -> None:
    mails = Mails()
    run = Agent(ScriptedModel([Call("mail", text), "I see."]), tools=[mails.tool()], mode="auto").run_sync("go")
    assert not mails.sent and run.tool_calls[0].status == "invalid"


@pytest.mark.feature("B2")
@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_arguments_that_were_cut_off_before_they_began_are_no_arguments(reason: str) -> None:
    mails = Mails()
    answer = reply(calls=[Call("mail", "")], finish_reason=reason)
    run, _ = served([answer, reply("I see.")], tools=[mails.tool()], mode="auto")
    assert not mails.sent and run.tool_calls[0].status == "invalid"


@pytest.mark.feature("A2")
@pytest.mark.parametrize("indexes", ["own", "from 1"])
def test_interleaved_parallel_calls_lose_their_arguments(indexes: Any) -> None:
    calls = [call("peek", at=f"place number {n}") for n in range(3)]
    answer = reply(calls=calls, is_interleaved=True, indexes=indexes, piece_chars=3)
    run, _ = served([answer, reply("Done.")], tools=[peek])
    assert [one.content for one in run.tool_calls] == [f"the place number {n}" for n in range(3)]


@pytest.mark.feature("A2")
@pytest.mark.parametrize("chunk_bytes", [1, 7])
def test_text_outside_ascii_split_over_network_chunks_is_corrupted(chunk_bytes: int) -> None:
    text = "Größe 数据 🙂 naïve"
    run, _ = served([reply(text, chunk_bytes=chunk_bytes, piece_chars=3)])
    assert run.text == text


@pytest.mark.feature("B4")
def test_a_tool_result_that_json_cannot_hold_poisons_every_later_call() -> None:
    @tool(effect="read")
    def odd() -> Any:
        """Return."""
        return {"a": {1, 2}, "b": float("nan"), "c": b"\xff", "d": "\ud800", 5: object()}

    warm_up()
    calls = reply(calls=[call("odd")])
    with serve([calls, reply("Done."), reply("Still here.")]) as server:
        agent = Agent(LiteLLMModel("openai/gpt-4o-mini", api_key="k", base_url=server.base_url), tools=[odd])
        session = agent.session()
        assert agent.start("go", session=session).result(LONG_S).text == "Done."
        assert agent.start("on", session=session).result(LONG_S).text == "Still here."


@pytest.mark.feature("A18")
def test_the_loop_blocks_because_a_client_is_synchronous() -> None:
    gate = Gate()

    @tool(effect="read")
    def fetch() -> str:
        """Fetch with a client that blocks."""
        gate.wait()
        return "fetched"

    run = Agent(ScriptedModel([call("fetch"), "Done."]), tools=[fetch]).start("go")
    gate.was_reached()
    assert Agent(ScriptedModel(["free"])).start("go").result(LONG_S).text == "free"
    gate.open()
    assert run.result(LONG_S).text == "Done."


@pytest.mark.feature("A13")
def test_an_in_stream_error_object_is_ignored_and_the_run_counts_as_done() -> None:
    run, _ = served([reply("x" * 80, errors_after=5, error="the model crashed")])
    assert run.status == "failed" and "the model crashed" in (run.state.error or "")


@pytest.mark.feature("A11")
def test_a_consumer_that_leaves_early_leaves_tools_running_in_the_background() -> None:
    gate, mails = Gate(), Mails()
    stopped = threading.Event()

    @tool(effect="read")
    async def work() -> str:
        """Work."""
        try:
            await gate.wait_async()
        finally:
            stopped.set()
        return "worked"

    async def main() -> None:
        model = ScriptedModel([call("work"), call("mail"), "Done."])
        async for event in Agent(model, tools=[work, mails.tool()], mode="auto").stream("go"):
            if event.type == "CallStarted":
                gate.was_reached()  # a tool that is cancelled before its first line has nothing to clean up
                break

    asyncio.run(main())
    assert stopped.wait(LONG_S)
    gate.open()
    until(lambda: list(runs_df()["status"]) == ["cancelled"])
    assert not mails.sent


@pytest.mark.feature("A15")
def test_usage_and_partial_text_of_a_failed_run_are_recorded_nowhere() -> None:
    model = ScriptedModel([call("peek"), ["I saw", ModelFailure("connection", "gone")]], price=(1.0, 1.0))
    run = Agent(model, tools=[peek]).run_sync("go")
    (stored,) = written(run)
    assert stored.status == "failed" and stored.text == "I saw" and (stored.usage.input_tokens or 0) > 0
    assert steps_df().iloc[0]["input_tokens"] > 0 and runs_df().iloc[0]["status"] == "failed"


@pytest.mark.feature("A13")
def test_newlines_of_a_prompt_reach_the_model_as_backslash_n() -> None:
    prompt = 'line one\n\tline two\n\n"quoted" \\n stays'
    model = ScriptedModel(["Fine."])
    Agent(model, instructions="be\nbrief").run_sync(prompt)
    assert told(model, 0) == [prompt] and model.requests[0].instructions == "be\nbrief"
    _, server = served([reply("Fine.")], prompt)
    assert server.requests[0]["messages"][-1]["content"] == prompt
