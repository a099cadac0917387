"""B10: tools and models that ask a person."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import Any

import pytest

from tests.runtime.pieces import Gate, skip, until
from tests.runtime.test_hooks import read
from turncell import Agent, AnswerRefused, Declined, Option, Session, ToolContext, ask_user, tool
from turncell.core.events import RequestAnswered, RequestOpened
from turncell.core.fold import RequestState
from turncell.runtime.run import Run
from turncell.testing import ScriptedModel, call

pytestmark = pytest.mark.feature("B10")


def asking(question: str = "Which one?", options: Any = (), **how: Any) -> Any:
    @tool(effect="read", name="asks", timeout_s=how.pop("limit_s", None))
    async def asks(context: ToolContext, about: str = "") -> str:
        """Ask."""
        return f"chose {await context.ask(question + about, options, **how)}"

    return asks


def start(*tools: Any, calls: Any = None, **options: Any) -> Run:
    """An attended run in which a question is open."""
    model = ScriptedModel([call("asks") if calls is None else calls, "Done."])
    run = Agent(model, tools=tools, **options).start("go", is_attended=True)
    until(lambda: run.status == "waiting" or run.is_done)
    assert run.status == "waiting", run.state
    return run


def asked(run: Run) -> RequestState:
    request = run.requests[0].request
    assert request is not None
    return request


class TestAnswers:
    def test_options_with_descriptions_are_shown_and_one_is_chosen(self) -> None:
        run = start(asking(options=["red", Option("blue", "like the sky")]))
        assert (asked(run).kind, asked(run).question) == ("question", "Which one?")
        assert asked(run).options == (Option("red"), Option("blue", "like the sky")) and not asked(run).allows_text
        run.reply("blue")
        run.result(60)
        assert read(run) == "chose blue" and run.tool_calls[0].status == "ok"

    def test_another_text_is_refused_unless_it_is_allowed_and_the_question_stays(self) -> None:
        run = start(asking(options=["red", "blue"]))
        for wrong in ("green", "", ["red", "blue"], []):
            with pytest.raises(AnswerRefused):
                run.reply(wrong)
        assert run.status == "waiting"
        run.reply(["red"])
        run.result(60)
        assert read(run) == "chose red"
        run = start(asking(options=["red", "blue"], allows_text=True))
        run.reply("a deep green")
        assert run.result(60) and read(run) == "chose a deep green"

    def test_free_text_where_there_are_no_options(self) -> None:
        run = start(asking("Your name?"))
        assert asked(run).allows_text
        with pytest.raises(AnswerRefused, match="is empty"):
            run.reply("  ")
        run.reply("Ana Müller")
        run.result(60)
        assert read(run) == "chose Ana Müller"

    @pytest.mark.parametrize(("reply", "given"), [(["a", "c"], "['a', 'c']"), ("b", "['b']"), ('["a"]', "['a']")])
    def test_several_may_be_chosen_where_that_is_allowed(self, reply: Any, given: str) -> None:
        run = start(asking(options=["a", "b", "c"], allows_many=True))
        with pytest.raises(AnswerRefused, match="'z' is none of the answers"):
            run.reply(["a", "z"])
        run.reply(reply)
        run.result(60)
        assert read(run) == f"chose {given}"

    def test_a_person_may_decline_and_the_tool_is_told(self) -> None:
        @tool(effect="read")
        async def asks(context: ToolContext) -> str:
            """Ask."""
            try:
                return str(await context.ask("Sure?"))
            except Declined as declined:
                return f"then not: {declined}"

        run = start(asks)
        run.deny("none of your business")
        run.result(60)
        assert read(run) == "then not: none of your business"

    def test_a_tool_that_does_not_mind_a_refusal_fails_with_its_words(self) -> None:
        run = start(asking())
        run.deny("not now")
        run.result(60)
        assert run.status == "completed" and run.tool_calls[0].status == "error" and read(run) == "not now"

    @pytest.mark.parametrize(
        ("options", "said"),
        [([1, 2], "an option is a text or an Option with a label; found 1"), ("abc", "are a list of texts; found 'abc'"),
         (None, "are a list of texts; found None"), ([Option(3)], "found Option"), ([" "], "found Option")],  # type: ignore[arg-type]
    )  # fmt: skip
    def test_options_that_are_none_are_refused_in_words(self, options: Any, said: str) -> None:
        @tool(effect="read")
        async def asks(context: ToolContext) -> str:
            """Ask."""
            return str(await context.ask("Which?", options))

        run = Agent(ScriptedModel([call("asks"), "Done."]), tools=[asks]).start("go", is_attended=True).result(60)
        assert read(run).startswith("UsageError: ") and said in read(run)

    def test_approving_is_no_answer(self) -> None:
        run = start(asking())
        with pytest.raises(AnswerRefused, match="is no answer to a question"):
            run.answer(asked(run).request_id, "approve", digest=asked(run).digest).result(60)
        with pytest.raises(AnswerRefused, match="no approval waits"):
            run.approve()
        run.reply("x")
        run.result(60)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"question": " "}, "a question is a text"),
        ({"options": ["a", "a"]}, "the same label"),
        ({"options": [Option("")]}, "an option is"),
        ({"allows_text": False}, "nobody could answer it"),
        ({"options": ["a"], "default": "b"}, "none of the options"),
        ({"default": 3}, "a text; found 3"),
    ],
)
def test_a_question_that_cannot_be_asked_is_a_mistake_of_the_tool(how: dict[str, Any], said: str) -> None:
    run = Agent(ScriptedModel([call("asks"), "Done."]), tools=[asking(**how)]).start("go", is_attended=True).result(60)
    assert run.tool_calls[0].status == "error" and said in read(run)


class TestNobodyAnswers:
    def test_where_nobody_attends_the_default_is_the_answer_at_once(self) -> None:
        model = ScriptedModel([call("asks"), "Done."])
        run = Agent(model, tools=[asking(options=["a", "b"], default="b")]).run_sync("go")
        assert read(run) == "chose b" and run.tool_calls[0].request and run.tool_calls[0].request.by == "unattended"

    def test_without_a_default_the_model_is_told_to_assume(self) -> None:
        run = Agent(ScriptedModel([call("asks"), "Done."]), tools=[asking()]).run_sync("go")
        assert run.tool_calls[0].status == "error" and "nobody is attending" in read(run)

    @pytest.mark.parametrize("default", [None, "later"])
    def test_after_its_time_the_default_is_the_answer(self, default: str | None) -> None:
        model = ScriptedModel([call("asks"), "Done."])
        run = Agent(model, tools=[asking(default=default, timeout_s=0.1)]).start("go", is_attended=True).result(60)
        assert ("chose later" if default else "nobody answered in time") in read(run)
        assert run.tool_calls[0].request and run.tool_calls[0].request.by == "time limit"

    def test_the_default_of_many_is_a_list(self) -> None:
        run = Agent(
            ScriptedModel([call("asks"), "Done."]), tools=[asking(options=["a", "b"], allows_many=True, default="b")]
        ).run_sync("go")
        assert read(run) == "chose ['b']"

    def test_the_time_limit_of_the_tool_does_not_count_the_waiting(self) -> None:
        @tool(effect="read", timeout_s=30)
        async def asks(context: ToolContext) -> str:
            """Ask."""
            first = await context.ask("One?")
            second = await context.ask("Two?")
            return f"{first} {second}"

        run = start(asks)
        for answer, question in (("a", "One?"), ("b", "Two?")):
            until(lambda question=question: run.requests and asked(run).question == question)  # type: ignore[misc]
            skip(31)
            time.sleep(0.05)
            run.reply(answer)
        run.result(60)
        assert read(run) == "a b" and run.tool_calls[0].waited_s >= 0.1

    def test_the_time_limit_counts_again_after_the_answer(self) -> None:
        answered = threading.Event()

        @tool(effect="read", timeout_s=30)
        async def asks(context: ToolContext) -> str:
            """Ask."""
            await context.ask("One?")
            answered.set()
            await asyncio.sleep(3600)
            return "never"

        run = start(asks)
        run.reply("a")
        assert answered.wait(60)
        skip(31)
        run.result(60)
        assert run.tool_calls[0].status == "timeout"


class TestMemory:
    def test_a_question_asked_before_is_answered_from_memory_in_the_run_and_the_session(self) -> None:
        model = ScriptedModel([call("asks"), call("asks"), "Done.", call("asks"), "Done.", call("asks"), "Done."])
        agent = Agent(model, tools=[asking(options=["a", "b"])])
        session = agent.session()
        run = agent.start("go", session=session, is_attended=True)
        until(lambda: run.status == "waiting")
        run.reply("b")
        run.result(60)
        assert [c.content for c in run.tool_calls] == ["chose b", "chose b"]
        assert run.tool_calls[1].request and run.tool_calls[1].request.by == "memory"
        assert read(agent.start("go", session=session, is_attended=True).result(60)) == "chose b"
        assert read(agent.run_sync("go", session=session)) == "chose b", "also where nobody attends"

    def test_it_is_in_the_journal_with_every_question_of_a_call(self) -> None:
        @tool(effect="read")
        async def asks(context: ToolContext) -> str:
            """Ask."""
            return f"{await context.ask('One?')} {await context.ask('Two?', ['x', 'y'], allows_many=True)}"

        agent = Agent(ScriptedModel([call("asks"), "Done.", call("asks"), "Done."]), tools=[asks])
        session = agent.session()
        run = agent.start("go", session=session, is_attended=True)
        for answer, question in (("a", "One?"), (["x", "y"], "Two?")):
            until(lambda question=question: run.requests and asked(run).question == question)  # type: ignore[misc]
            run.reply(answer)
        run.result(60)
        loaded = Session.load(session.id, session.journal)
        assert loaded.answers == session.answers and len(loaded.answers) == 2
        assert read(agent.run_sync("go", session=loaded)) == read(run) == "a ['x', 'y']"

    def test_another_question_or_other_options_are_asked_and_a_refusal_is_not_remembered(self) -> None:
        calls = [call("asks", about=" (a)"), call("asks", about=" (b)"), call("asks", about=" (b)")]
        run = Agent(ScriptedModel([*calls, "Done."]), tools=[asking()]).start("go", is_attended=True)
        questions = []
        for number in range(3):
            until(lambda number=number: run.requests and len(run.tool_calls) == number + 1)  # type: ignore[misc]
            questions.append(asked(run).question)
            if number == 0:
                run.reply("x")
            else:
                run.deny()
        run.result(60)
        assert questions == ["Which one? (a)", "Which one? (b)", "Which one? (b)"]


class TestSeveral:
    def test_a_run_may_ask_so_often_and_then_gets_defaults(self) -> None:
        calls = [call("asks", about=f" ({n})") for n in range(3)]
        run = Agent(ScriptedModel([*calls, "Done."]), tools=[asking(default="d")], max_questions=1).start(
            "go", is_attended=True
        )
        until(lambda: run.requests)
        run.reply("p")
        run.result(60)
        assert [c.content for c in run.tool_calls] == ["chose p", "chose d", "chose d"]
        assert run.tool_calls[1].request and run.tool_calls[1].request.by == "limit"

    def test_without_a_default_one_question_too_many_is_refused_in_words(self) -> None:
        run = Agent(ScriptedModel([call("asks"), "Done."]), tools=[asking()], max_questions=0).start(
            "go", is_attended=True
        )
        assert "this run may ask 0 questions" in read(run.result(60))

    def test_parallel_reads_ask_at_once_and_are_answered_in_any_order(self) -> None:
        calls = [call("asks", about=f" ({n})") for n in range(3)]
        run = start(asking(), calls=calls)
        until(lambda: len(run.requests) == 3)
        for waiting in reversed(run.requests):
            assert waiting.request
            run.reply(f"to {waiting.request.question[-3:]}", waiting)
        run.result(60)
        assert [c.content for c in run.tool_calls] == ["chose to (0)", "chose to (1)", "chose to (2)"]

    def test_one_call_that_asks_twice_at_once_is_asked_one_after_the_other(self) -> None:
        @tool(effect="read")
        async def asks(context: ToolContext) -> str:
            """Ask."""
            return " ".join(map(str, await asyncio.gather(context.ask("One?"), context.ask("Two?"))))

        run = start(asks)
        for answer, question in (("a", "One?"), ("b", "Two?")):
            until(lambda question=question: run.requests and asked(run).question == question)  # type: ignore[misc]
            run.reply(answer)
        assert read(run.result(60)) == "a b"

    def test_a_call_that_ends_while_it_asks_takes_its_question_back(self) -> None:
        @tool(effect="read", timeout_s=20)
        async def asks(context: ToolContext) -> str:
            """Ask, and lose patience."""
            try:
                async with asyncio.timeout(0.1):
                    await asyncio.gather(context.ask("One?"), context.ask("Two?"))
            except TimeoutError:
                return "never mind"
            return "answered"

        run = Agent(ScriptedModel([call("asks"), "Done."]), tools=[asks]).start("go", is_attended=True).result(60)
        assert [event.question for event in run.events if isinstance(event, RequestOpened)] == ["One?"]
        assert (run.status, read(run), run.requests) == ("completed", "never mind", ())

    def test_a_question_that_the_tool_waits_for_no_more_is_taken_back_and_the_next_one_is_asked(self) -> None:
        @tool(effect="read", timeout_s=20)
        async def asks(context: ToolContext) -> str:
            """Ask, lose patience, and ask something else."""
            first = asyncio.create_task(context.ask("One?"))
            await gate.wait_async()
            first.cancel()
            return str(await context.ask("Two?"))

        gate = Gate()
        run = start(asks)
        shown = asked(run)
        gate.open()
        until(lambda: run.requests and asked(run).question == "Two?")
        with pytest.raises(AnswerRefused):
            run.answer(shown.request_id, "result", digest=shown.digest, result="late").result()
        run.reply("b")
        assert read(run.result(60)) == "b"
        answers = [(event.answer, event.by) for event in run.events if isinstance(event, RequestAnswered)]
        assert answers == [("deny", "cancel"), ("result", "person")]

    def test_the_time_limit_of_the_tool_counts_again_once_it_waits_no_more(self) -> None:
        @tool(effect="read", timeout_s=20)
        async def asks(context: ToolContext) -> str:
            """Ask, lose patience, and hang."""
            first = asyncio.create_task(context.ask("One?"))
            await gate.wait_async()
            first.cancel()
            await asyncio.Event().wait()
            return "never"

        gate = Gate()
        run = start(asks)
        gate.open()
        until(lambda: not run.requests)
        skip(21)
        assert run.result(60).tool_calls[0].status == "timeout"

    def test_a_tool_that_is_not_async_asks_too(self) -> None:
        @tool(effect="read", timeout_s=30)
        def asks(context: ToolContext) -> str:
            """Ask."""
            return f"chose {context.ask_blocking('Which?', ['a', 'b'])}"

        run = start(asks)
        skip(31)
        run.reply("a")
        assert read(run.result(60)) == "chose a"

    def test_a_tool_that_is_not_async_is_told_when_the_run_is_stopped(self) -> None:
        told: list[str] = []

        @tool(effect="read")
        def asks(context: ToolContext) -> str:
            """Ask."""
            try:
                context.ask_blocking("Which?")
            except Declined as declined:
                told.append(str(declined))
            return "x"

        run = start(asks)
        run.cancel("enough")
        run.result(60)
        until(lambda: told)
        assert run.status == "cancelled"

    def test_a_question_of_the_very_moment_in_which_the_run_is_stopped_is_declined(
        self, recwarn: pytest.WarningsRecorder
    ) -> None:
        gc.collect()  # what others have left
        recwarn.clear()
        told: list[BaseException] = []
        runs: list[Run] = []
        begun = Gate()

        @tool(effect="read")
        async def asks(context: ToolContext) -> str:
            """Ask in a task of its own, which nobody else ends."""

            async def ask() -> None:
                try:
                    await context.ask("Which one?")
                except BaseException as error:
                    told.append(error)

            await begun.wait_async()
            asking = asyncio.ensure_future(ask())
            await asyncio.sleep(0)
            runs[0].cancel()
            await asyncio.shield(asking)
            return "asked"

        runs.append(Agent(ScriptedModel([call("asks"), "Done."]), tools=[asks]).start("go", is_attended=True))
        begun.open()
        assert runs[0].result(60).status == "cancelled"
        until(lambda: told)
        gc.collect()
        assert isinstance(told[0], Declined) and "stopped" in str(told[0])
        assert not recwarn.list

    def test_a_question_gives_way_to_a_new_message(self) -> None:
        model = ScriptedModel([call("asks"), "As you say."])
        run = Agent(model, tools=[asking()]).start("go", is_attended=True)
        until(lambda: run.status == "waiting")
        run.steer("Never mind, take red.")
        run.result(60)
        assert run.text == "As you say." and "a new message arrived" in (run.tool_calls[0].content or "")
        assert model.requests[1].messages[-1].text == "Never mind, take red."


class TestTheModelAsks:
    def ask(self, **arguments: Any) -> Run:
        model = ScriptedModel([call("ask_user", **arguments), "Done."])
        return Agent(model, tools=[ask_user()]).start("go", is_attended=True)

    def test_with_options_and_free_text(self) -> None:
        run = self.ask(question="Tea?", options=[{"label": "yes", "description": "hot"}, {"label": "no"}])
        until(lambda: run.requests)
        assert asked(run).options == (Option("yes", "hot"), Option("no")) and asked(run).allows_text
        run.reply("coffee")
        assert read(run.result(60)) == "coffee" and not run.is_tainted

    def test_with_several(self) -> None:
        run = self.ask(question="Which?", options=[{"label": "a"}, {"label": "ü"}], allows_many=True, allows_text=False)
        until(lambda: run.requests)
        run.reply(["a", "ü"])
        assert read(run.result(60)) == '["a", "ü"]'

    def test_what_nobody_could_answer_is_told_to_the_model(self) -> None:
        run = self.ask(question="Which?", options=[{"label": "a"}, {"label": "a"}]).result(60)
        assert run.tool_calls[0].status == "error" and "the same label" in read(run)

    def test_the_question_is_recorded_as_one(self) -> None:
        run = self.ask(question="Tea?")
        until(lambda: run.requests)
        run.reply("yes")
        run.result(60)
        (opened,) = [event for event in run.events if isinstance(event, RequestOpened)]
        assert (opened.kind, opened.question, opened.call_id) == ("question", "Tea?", run.tool_calls[0].call_id)


def test_a_tool_called_by_hand_cannot_ask() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="only be asked while a run calls the tool"):
            await ToolContext("c", "r", "s").ask("Who?")

    asyncio.run(main())


@pytest.mark.parametrize("timeout_s", ["5", 0, float("nan")])
def test_a_time_limit_that_is_none_is_told_to_the_tool_and_the_run_goes_on(timeout_s: Any) -> None:
    run = Agent(ScriptedModel([call("asks"), "Done."]), tools=[asking(timeout_s=timeout_s)]).run_sync("go")
    assert (run.status, run.tool_calls[0].status) == ("completed", "error")
    assert f"timeout_s is {timeout_s!r}" in (run.tool_calls[0].content or "")
