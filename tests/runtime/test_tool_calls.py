"""B3, B4, B5, B6: calls while they run: their order, their limits, and what they show."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.pieces import LONG_S, until, written
from tests.runtime.test_hooks import notes, read
from tests.runtime.test_runs import Mailbox, weather
from turncell import Agent, Declined, Hooks, Output, Session, ToolContext, compare, replay, runs_df, tool
from turncell.adapters.scripted_model import Call
from turncell.core.calls import MAX_PARALLEL
from turncell.core.events import CallFinished, CallProgress, CallStarted, Event
from turncell.frames.transcript import markdown as run_markdown
from turncell.runtime.run import Run
from turncell.testing import ScriptedModel, call


class Gauge:
    """Counts how many calls are inside at the same time, and in which order they came and went."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.log: list[str] = []

    async def visit(self, name: str, wait_s: float = 0.02) -> str:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.log.append(f"+{name}")
        await asyncio.sleep(wait_s)
        self.inside -= 1
        self.log.append(f"-{name}")
        return name

    async def meet(self, name: str, others: int) -> str:
        """Stay until so many have been inside at the same time."""
        self.inside += 1
        self.most = max(self.most, self.inside)
        deadline = time.monotonic() + LONG_S
        while self.most < others and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        self.inside -= 1
        return name


@pytest.fixture
def gauge() -> Gauge:
    return Gauge()


def visit(gauge: Gauge, **options: Any) -> Any:
    @tool(**options)
    async def visit(name: str, wait_s: float = 0.02) -> str:
        """Visit."""
        return await gauge.visit(name, wait_s)

    return visit


def calls_of(*names: str, **options: Any) -> list[Any]:
    return [call("visit", name=name, **options) for name in names]


def run_all(calls: list[Any], tools: list[Any]) -> Run:
    return Agent(ScriptedModel([calls, "Done."]), tools=tools, mode="auto").start("go").result(60)


@pytest.mark.feature("B5")
class TestOrder:
    def test_reads_run_side_by_side_and_not_more_than_the_bound(self, gauge: Gauge) -> None:
        names = [f"n{number}" for number in range(3 * MAX_PARALLEL)]
        run = run_all(calls_of(*names), [visit(gauge, effect="read")])
        assert 1 < gauge.most <= MAX_PARALLEL
        results = [part.content for part in run.messages[-2].parts]  # type: ignore[union-attr]
        assert results == names

    def test_results_come_in_source_order_whatever_finished_first(self) -> None:
        done: list[int] = []

        @tool(effect="read")
        async def wait(number: int) -> str:
            """Wait for those after it."""
            while len(done) < 2 - number:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            done.append(number)
            return f"n{number}"

        run = run_all([call("wait", number=number) for number in range(3)], [wait])
        finished = [event.content for event in run.events if isinstance(event, CallFinished)]
        assert finished == ["n2", "n1", "n0"]
        assert [part.content for part in run.messages[-2].parts] == ["n0", "n1", "n2"]  # type: ignore[union-attr]

    def test_writes_go_one_at_a_time_in_order(self, gauge: Gauge) -> None:
        run_all(calls_of("a", "b", "c"), [visit(gauge)])
        assert gauge.log == ["+a", "-a", "+b", "-b", "+c", "-c"]

    def test_reads_run_beside_a_write(self, gauge: Gauge) -> None:
        @tool
        async def save() -> str:
            """Save."""
            return await gauge.meet("save", 3)

        @tool(effect="read")
        async def look(at: str) -> str:
            """Look."""
            return await gauge.meet(at, 3)

        run_all([call("save"), call("look", at="a"), call("look", at="b")], [save, look])
        assert gauge.most == 3

    def test_writes_that_are_declared_safe_run_side_by_side(self, gauge: Gauge) -> None:
        @tool(parallel=True)
        async def save(what: str) -> str:
            """Save."""
            return await gauge.meet(what, 3)

        run_all([call("save", what=what) for what in "abc"], [save])
        assert gauge.most == 3

    def test_a_tool_may_bound_its_own_calls(self, gauge: Gauge) -> None:
        @tool(effect="read", concurrency=2)
        async def look(at: str) -> str:
            """Look."""
            await gauge.meet(at, 2)
            return await gauge.visit(at)

        run_all([call("look", at=at) for at in "abcdef"], [look])
        assert gauge.most == 2
        gauge.most = 0
        run_all(calls_of(*"abc"), [visit(gauge, parallel=True, concurrency=1)])
        assert gauge.most == 1

    def test_all_are_proposed_and_judged_before_any_runs(self, gauge: Gauge) -> None:
        run = run_all([*calls_of("a"), call("nobody"), *calls_of("b")], [visit(gauge, effect="read")])
        types = [event.type for event in run.events]
        assert max(i for i, t in enumerate(types) if t in ("CallProposed", "CallJudged")) < types.index("CallStarted")
        assert [c.status for c in run.tool_calls] == ["ok", "invalid", "ok"]

    def test_questions_of_a_step_stand_together_while_its_reads_run(self, gauge: Gauge) -> None:
        box = Mailbox()
        calls = [call("mail", to="ana"), *calls_of("a"), call("mail", to="bo")]
        run = Agent(ScriptedModel([calls, "Done."]), tools=[box.tool(), visit(gauge, effect="read")]).start(
            "go", is_attended=True
        )
        until(lambda: len(run.requests) == 2 and "-a" in gauge.log)
        run.approve()
        run.approve()
        run.result(60)
        assert [to for to, _ in box.sent] == ["ana", "bo"]

    def test_the_intent_of_a_write_is_in_the_journal_before_it_begins(self) -> None:
        seen: list[list[str]] = []

        @tool
        def save(context: ToolContext) -> str:
            """Save."""
            records = agent.journal.ask(lambda store: list(store.read(run_id=context.run_id)))
            seen.append([record.type for record in records])
            return "saved"

        agent = Agent(ScriptedModel([call("save"), "Done."]), tools=[save], mode="auto")
        agent.run_sync("go")
        assert seen[0][-1] == "CallStarted"


@pytest.mark.feature("B5")
class TestLimits:
    def test_a_read_is_tried_again_and_what_failed_is_noted(self) -> None:
        tries: list[str] = []

        @tool(effect="read", retries=3, retry_wait_s=0.01)
        def flaky(context: ToolContext) -> str:
            """Fetch."""
            tries.append(context.idempotency_key)
            if len(tries) < 3:
                raise OSError("hiccup")
            return "there"

        run = Agent(ScriptedModel([call("flaky"), "Done."]), tools=[flaky]).run_sync("go")
        assert (run.tool_calls[0].status, len(tries), len(set(tries))) == ("ok", 3, 1)
        assert [note.data for note in run.state.notes] == [{"attempt": 1}, {"attempt": 2}]
        assert "hiccup" in notes(run, "retry")[0]

    def test_after_the_last_try_the_failure_stands(self) -> None:
        tries: list[int] = []

        @tool(effect="idempotent", retries=1, retry_wait_s=0)
        async def flaky() -> str:
            """Fetch."""
            tries.append(1)
            raise OSError("hiccup")

        run = Agent(ScriptedModel([call("flaky"), "Done."]), tools=[flaky], mode="auto").run_sync("go")
        assert (run.tool_calls[0].status, len(tries)) == ("error", 2) and "hiccup" in read(run)

    def test_each_try_has_the_whole_time_limit(self) -> None:
        tries: list[int] = []

        @tool(effect="read", retries=2, retry_wait_s=0, timeout_s=0.2)
        async def slow() -> str:
            """Fetch."""
            tries.append(1)
            if len(tries) < 3:
                await asyncio.sleep(30)
            return "there"

        run = Agent(ScriptedModel([call("slow"), "Done."]), tools=[slow]).start("go").result(60)
        assert (run.tool_calls[0].status, len(tries)) == ("ok", 3)

    def test_a_timeout_error_of_the_tools_own_is_an_error(self) -> None:
        @tool(effect="read", timeout_s=30)
        async def fetch() -> str:
            """Fetch."""
            raise TimeoutError("the server is asleep")

        run = Agent(ScriptedModel([call("fetch"), "Done."]), tools=[fetch]).run_sync("go")
        assert run.tool_calls[0].status == "error" and "the server is asleep" in read(run)

    def test_a_write_waits_for_one_that_overran_and_is_refused_while_that_still_runs(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("turncell.runtime.tool_call.LAGGARD_S", 0.2)
        release, done = threading.Event(), []

        @tool(timeout_s=0.1)
        def stubborn() -> str:
            """Do not stop."""
            release.wait(LONG_S)
            return "late"

        @tool
        def save(what: str) -> str:
            """Save."""
            done.append(what)
            return "saved"

        def let_go(request: Any) -> Any:
            release.set()
            monkeypatch.setattr("turncell.runtime.tool_call.LAGGARD_S", LONG_S)  # it ends when its thread comes to it
            return call("save", what="two")

        model = ScriptedModel([[call("stubborn"), call("save", what="one")], let_go, "Done."])
        run = Agent(model, tools=[stubborn, save], mode="auto").start("go").result(60)
        assert [c.status for c in run.tool_calls] == ["timeout", "error", "ok"] and done == ["two"]
        assert "stubborn, which could not be stopped, is still running" in (run.tool_calls[1].content or "")
        assert "its effect may have happened" in (run.tool_calls[0].content or "")

    def test_a_tool_may_end_the_run(self, gauge: Gauge) -> None:
        @tool(effect="read", terminate=True)
        def finish() -> str:
            """Finish."""
            return "over"

        model = ScriptedModel([[call("finish"), *calls_of("a")], "never"])
        run = Agent(model, tools=[finish, visit(gauge, effect="read")]).run_sync("go")
        assert run.status == "completed" and len(model.requests) == 1
        assert [c.status for c in run.tool_calls] == ["ok", "ok"]
        assert run.text == "over", "what the other call returned is no answer"

    @pytest.mark.parametrize("said", [[], ["I look."]])
    def test_what_the_last_call_returned_is_the_answer_everywhere_and_once(self, said: list[str]) -> None:
        @tool(effect="read", terminate=True)
        def finish(word: str) -> str:
            """Finish."""
            return f"the answer is {word}"

        def agent(*models: Any) -> Agent:
            return Agent(ScriptedModel([[*said, call("finish", word="forty-two")], *models]), tools=[finish])

        run = agent("Bye.").run_sync("go")
        answer = "the answer is forty-two"
        assert (run.status, run.text, run.state.closing) == ("completed", answer, answer)
        assert list(runs_df(run)["text"]) == [answer] and list(agent().map(["go"])["answer"]) == [answer]
        assert run_markdown(run.state).partition("</details>")[2].count(answer) == 1
        run.session.close()
        kept = Session.load(run.session.id).runs[-1]
        assert kept.text == answer and compare(run, replay(run.session)[0]) is None
        later = run.follow_up("And now?").result(60)
        assert str(later._agent.model.requests[-1].messages).count(answer) == 1  # type: ignore[attr-defined]

        outer = ScriptedModel([call("sub", task="t"), "Told."])
        inner = agent().as_tool("sub")
        assert Agent(outer, tools=[inner]).run_sync("go").tool_calls[0].content == answer

    def test_who_is_asked_before_the_end_sees_the_answer_and_may_send_the_agent_on(self) -> None:
        @tool(effect="read", terminate=True)
        def finish() -> str:
            """Finish."""
            return "over"

        seen: list[str] = []
        hooks = Hooks(before_finish=lambda run: seen.append(run.text) or ("Go on." if len(seen) == 1 else None))
        run = Agent(ScriptedModel([call("finish"), "Really."]), tools=[finish], hooks=hooks).run_sync("go")
        assert seen == ["over", "Really."] and run.text == "Really." and run.state.closing is None

    def test_an_output_may_end_the_run_but_a_failure_does_not(self) -> None:
        @tool(effect="read")
        def maybe(is_last: bool) -> Output:
            """Maybe."""
            return Output("over", terminate=is_last)

        @tool(effect="read", terminate=True)
        def broken() -> str:
            """Break."""
            raise OSError("no")

        model = ScriptedModel([call("broken"), call("maybe", is_last=False), call("maybe", is_last=True), "never"])
        run = Agent(model, tools=[maybe, broken]).run_sync("go")
        assert (run.status, len(model.requests)) == ("completed", 3)


@pytest.mark.feature("B3")
class TestTaskGroups:
    @staticmethod
    async def together(*errors: Exception) -> None:
        async def fail(error: Exception) -> None:
            raise error

        async with asyncio.TaskGroup() as group:
            for error in errors:
                group.create_task(fail(error))

    def failing(self, *errors: Exception, **options: Any) -> Run:
        @tool(effect="read", **options)
        async def fetch() -> None:
            """Fetch."""
            await self.together(*errors)

        return Agent(ScriptedModel([call("fetch"), "Done."]), tools=[fetch]).run_sync("go")

    def test_the_model_reads_what_went_wrong_inside(self) -> None:
        one = self.failing(OSError("no route to host"))
        assert read(one) == "OSError: no route to host"
        details: Any = one.tool_calls[0].details
        assert "raise error" in details["traceback"] and "TaskGroup" not in details["traceback"]
        assert read(self.failing(OSError("a"), KeyError("b"))) == "OSError: a; KeyError: 'b'"

    def test_a_question_without_an_answer_is_not_asked_again(self) -> None:
        run = self.failing(Declined("nobody is here"), retries=2)
        assert read(run) == "nobody is here" and not notes(run)


@pytest.mark.feature("B4")
class TestShowing:
    def test_progress_is_text_or_a_bundle_from_any_kind_of_tool(self) -> None:
        @tool(effect="read")
        def drawn(context: ToolContext) -> str:
            """Draw."""
            context.progress({"image/png": "aGk=", "text/plain": "a plot"})
            return "drawn"

        @tool(effect="read")
        async def said(context: ToolContext) -> str:
            """Say."""
            context.progress("half")
            await asyncio.sleep(0)
            context.progress("all")
            return "said"

        seen: list[Event] = []
        run = Agent(ScriptedModel([[call("drawn")], [call("said")], "Done."]), tools=[drawn, said]).start("go")
        run.subscribe(seen.append)
        run.result(60)
        run.drain(LONG_S)
        progress = [event for event in seen if isinstance(event, CallProgress)]
        assert (progress[0].text, progress[0].data) == ("a plot", {"image/png": "aGk=", "text/plain": "a plot"})
        assert progress[-1].text == "all"
        order = [event.type for event in seen if event.type in ("CallProgress", "CallFinished")]
        assert order[-1] == "CallFinished", "what a tool says last does not come after its result"

    def test_a_tool_sees_that_the_run_was_stopped(self) -> None:
        started, noticed = threading.Event(), threading.Event()

        @tool(effect="read")
        def patient(context: ToolContext) -> str:
            """Wait."""
            started.set()
            deadline = time.monotonic() + LONG_S
            while not context.is_cancelled() and time.monotonic() < deadline:
                time.sleep(0.005)
            if context.is_cancelled():
                noticed.set()
            return "stopped"

        run = Agent(ScriptedModel([call("patient")]), tools=[patient]).start("go")
        assert started.wait(60)
        run.cancel()
        run.result(60)
        assert noticed.wait(60)

    def test_files_are_listed_however_they_are_said(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("1,2")
        (tmp_path / "b.csv").write_text("3")

        @tool(effect="read")
        def export(context: ToolContext) -> Output:
            """Export."""
            context.file(str(tmp_path / "a.csv"))
            return Output("exported", files=[tmp_path / "b.csv"])

        run = Agent(ScriptedModel([call("export"), "Done."]), tools=[export]).run_sync("go")
        files = run.tool_calls[0].files
        assert sorted((Path(file.path).name, file.bytes) for file in files) == [("a.csv", 3), ("b.csv", 1)]
        assert all(file.media_type == "text/csv" for file in files) and read(run) == "exported"

    def test_the_model_gets_the_content_and_people_the_rest(self) -> None:
        import pandas as pd

        @tool(effect="read")
        def table() -> Output:
            """A table."""
            return Output("two rows", details={"secret": 1}, display=[pd.DataFrame({"a": [1, 2]})])

        model = ScriptedModel([call("table"), "Done."])
        run = Agent(model, tools=[table]).run_sync("go")
        (finished,) = [event for event in run.events if isinstance(event, CallFinished)]
        assert finished.details == {"secret": 1}
        assert finished.display[0]["application/vnd.turncell.table+json"]["columns"][-1] == "a"  # type: ignore[index, call-overload]
        assert read(run) == "two rows" and "secret" not in str(model.requests[1].messages)

    def test_a_figure_is_shown(self) -> None:
        from matplotlib.figure import Figure

        @tool(effect="read")
        def plot() -> Any:
            """Plot."""
            drawn = Figure()
            drawn.add_subplot().plot([1, 2])
            return drawn

        run = Agent(ScriptedModel([call("plot"), "Done."]), tools=[plot]).start("go").result(100)
        assert "image/png" in run.tool_calls[0].display[0]


@pytest.mark.feature("B3")
class TestNotices:
    def reminding(self, is_async: bool = False, **options: Any) -> Any:
        if is_async:

            @tool(effect="read", name="remind", **options)
            async def remind(context: ToolContext) -> str:
                """Remind."""
                context.notice("The backup is 40 days old.")
                return "ok"

            return remind

        @tool(effect="read", **options)
        def remind(context: ToolContext) -> str:
            """Remind."""
            context.notice("The backup is 40 days old.")
            return "ok"

        return remind

    @pytest.mark.parametrize("is_async", [False, True])
    @pytest.mark.parametrize("terminate", [False, True])
    def test_it_stands_in_front_of_the_next_message_once(self, is_async: bool, terminate: bool) -> None:
        model = ScriptedModel([call("remind"), *([] if terminate else ["Done."]), "Indeed.", "Bye."])
        agent = Agent(model, tools=[self.reminding(is_async, terminate=terminate)])
        session = agent.session()
        first = agent.run_sync("go", session=session)
        assert first.state.notices == ("The backup is 40 days old.",)
        agent.run_sync("next", session=session)
        agent.run_sync("bye", session=session)
        prompts = [m.text for m in model.requests[-1].messages if m.role == "user"]
        assert prompts == ["go", "[notice] The backup is 40 days old.\n\nnext", "bye"]

    def test_when_the_next_run_fails_the_model_still_gets_it_exactly_once(self) -> None:
        model = ScriptedModel([call("remind"), "Done.", ValueError("broken"), "Indeed."])
        agent = Agent(model, tools=[self.reminding()], attempts=1)
        session = agent.session()
        agent.run_sync("go", session=session)
        assert agent.run_sync("next", session=session).status == "failed"
        agent.run_sync("again", session=session)
        assert str(model.requests[-1].messages).count("[notice]") == 1

    def test_none_stands_before_a_message_of_another_session(self) -> None:
        model = ScriptedModel([call("remind"), "Done.", "Hello."])
        agent = Agent(model, tools=[self.reminding()])
        agent.run_sync("go")
        agent.run_sync("other")
        assert "[notice]" not in str(model.requests[-1].messages)


@pytest.mark.feature("B6")
def test_what_was_stopped_before_it_began_is_not_said_to_have_happened() -> None:
    done: list[str] = []

    @tool
    def save(what: str) -> str:
        """Save."""
        done.append(what)
        return "saved"

    calls = [call("save", what="one"), call("save", what="two")]
    run = Agent(ScriptedModel([calls, "Done."]), tools=[save], mode="auto", budget={"calls": 1}).run_sync("go")
    assert (run.status, done) == ("budget", ["one"])
    assert [c.status for c in run.tool_calls] == ["ok", "cancelled"]
    assert run.tool_calls[1].content == "The run was stopped before this call ran."
    assert sum(isinstance(event, CallStarted) for event in run.events) == 2


class TestNestedTooDeeply:
    """No model is told to nest so deeply, and no run may end because of it."""

    @pytest.mark.feature("A3")
    @pytest.mark.parametrize("levels", [150, 950, 5000])
    def test_such_arguments_are_an_invalid_call_and_the_session_can_be_read(self, levels: int) -> None:
        deep = Call("look", '{"at": ' + "[" * levels + "]" * levels + "}")

        @tool(effect="read")
        def look(at: Any) -> str:
            """Look."""
            return "seen"

        run = Agent(ScriptedModel([deep, "Done."]), tools=[look]).run_sync("go")
        assert (run.status, run.text, run.tool_calls[0].status) == ("completed", "Done.", "invalid")
        assert "nested too deeply" in (run.tool_calls[0].content or "")
        assert written(run)[0].messages() == run.messages

    @pytest.mark.feature("A3")
    def test_text_that_never_closes_is_an_invalid_call_too(self) -> None:
        run = Agent(ScriptedModel([Call("weather", "[" * 5000), "Done."]), tools=[weather]).run_sync("go")
        assert (run.status, run.tool_calls[0].status) == ("completed", "invalid")
        assert written(run)[0].text == "Done."


@pytest.mark.feature("B5")
class TestLeftBehind:
    def test_a_write_that_outlives_its_cancelled_run_holds_back_those_of_the_next(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("turncell.runtime.tool_call.LAGGARD_S", 0.2)
        release, begun, done = threading.Event(), threading.Event(), []

        @tool
        def stubborn() -> str:
            """Do not stop."""
            begun.set()
            release.wait(LONG_S)
            return "late"

        @tool
        def save(what: str) -> str:
            """Save."""
            done.append(what)
            return "saved"

        def let_go(request: Any) -> Any:
            release.set()
            monkeypatch.setattr("turncell.runtime.tool_call.LAGGARD_S", LONG_S)  # it ends when its thread comes to it
            return call("save", what="two")

        model = ScriptedModel([call("stubborn"), call("save", what="one"), let_go, "Done."])
        session = Agent(model, tools=[stubborn, save], mode="auto").session()
        first = session.send("go")
        assert begun.wait(LONG_S)
        first.cancel()
        first.result(60)
        run = session.send("again").result(60)
        assert [c.status for c in run.tool_calls] == ["error", "ok"] and done == ["two"]
        assert "stubborn, which could not be stopped, is still running" in (run.tool_calls[0].content or "")

    def test_a_tool_that_was_stopped_by_its_time_limit_is_told(self) -> None:
        told = threading.Event()

        @tool(effect="read", timeout_s=0.1)
        def patient(context: ToolContext) -> str:
            """Wait until it is told to stop."""
            while not context.is_cancelled():
                time.sleep(0.01)
            told.set()
            return "stopped"

        run = Agent(ScriptedModel([call("patient"), "Done."]), tools=[patient]).run_sync("go")
        assert (run.status, run.tool_calls[0].status) == ("completed", "timeout") and told.wait(60)


@pytest.mark.feature("B6")
def test_what_is_said_beside_results_is_cut_too() -> None:
    @tool(effect="idempotent", retries=1, retry_wait_s=0.0, preview=lambda: "p" * 1_000_000)
    def fragile() -> str:
        """Fail."""
        raise ValueError("e" * 1_000_000)

    run = Agent(ScriptedModel([call("fragile"), "Done."]), tools=[fragile]).start("go", is_attended=True)
    until(lambda: run.status == "waiting")
    request = run.requests[0].request
    assert request and request.preview and len(request.preview) < 20_000 and "cut here" in request.preview
    run.approve()
    retries = [note.message for note in run.result(60).state.notes if note.kind == "retry"]
    assert len(retries) == 1 and len(retries[0]) < 20_000 and "cut here" in retries[0]
