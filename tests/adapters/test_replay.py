"""Replay: the journal is the cassette. Nothing is asked of a provider, nothing is done, nothing is stored."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from turncell import (
    Agent,
    Context,
    Hooks,
    Run,
    Session,
    ToolContext,
    UsageError,
    cassette,
    compare,
    reask,
    replay,
    replayed_tools,
    runs_df,
    tool,
)
from turncell.adapters.cassette_file import write_cassette
from turncell.adapters.recordings import CassetteModel
from turncell.adapters.replay import cassette_of
from turncell.adapters.scripted_model import Entry, ScriptedModel, call, say, stop, think
from turncell.core.events import Compacted
from turncell.errors import ModelFailure
from turncell.runtime.ports import ModelRequest
from turncell.runtime.summary import INSTRUCTIONS

pytestmark = pytest.mark.feature("C12")


class World:
    """What tools have done to it."""

    def __init__(self) -> None:
        self.sent: list[str] = []

        @tool
        def send(to: str, text: str = "hello") -> str:
            """Send a note to somebody."""
            self.sent.append(to)
            if to == "nobody":
                raise ConnectionError("there is no such person")
            return f"sent to {to}, number {len([one for one in self.sent if ' ' not in one])}"

        @tool(effect="read")
        def look(city: str) -> dict[str, Any]:
            """Look at the weather."""
            self.sent.append(f"looked at {city}")
            return {"city": city, "temp_c": 3.5}

        self.tools = [send, look]

    def agent(self, *script: Entry, **options: Any) -> Agent:
        return Agent(ScriptedModel(script), tools=self.tools, **({"mode": "auto"} | options))


@pytest.fixture
def world() -> World:
    return World()


def wait_for(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.005)


def same(session: Session, **options: Any) -> list[Run]:
    """Replayed, and each run equal to its record."""
    again = replay(session, **options)
    assert [str(compare(run, other)) for run, other in zip(session.runs, again, strict=True)] == ["None"] * len(again)
    return again


class TestReplay:
    def test_a_conversation_is_the_same_again_and_nothing_is_done_or_stored(self, world: World) -> None:
        agent = world.agent(
            [think("hm"), "Two at once.", call("send", to="ann"), call("look", city="Oslo")], "Sent.", call("send", to="ann"),
            "Again.", instructions="Be kind.",
        )  # fmt: skip
        session = agent.session()
        for prompt in ("Write to Ann", "Once more"):
            session.send(prompt).result()
        done, rows = list(world.sent), len(runs_df())
        again = same(session)
        assert [run.text for run in again] == ["Sent.", "Again."]
        assert again[0].tool_calls[0].content == "sent to ann, number 1"
        assert again[1].tool_calls[0].content == "sent to ann, number 2", "each from the record of its own run"
        assert world.sent == done and len(runs_df()) == rows and len(session.runs) == 2

    def test_it_works_from_the_store_alone_and_with_the_real_tools_schemas(self, world: World) -> None:
        run = world.agent(call("send", to="ann", text="hi"), "Sent.").run_sync("Write to Ann")
        loaded = Session.load(run.session.id, run.session.journal)
        for tools in (None, world.tools):
            assert same(loaded, tools=tools)[0].text == "Sent."
        assert world.sent == ["ann"]

    def test_the_same_call_again_gets_its_results_in_their_order(self, world: World) -> None:
        run = world.agent(call("send", to="ann"), [call("send", to="ann"), call("send", to="ann")], ".").run_sync("Go")
        [again] = same(run.session)
        assert [one.content for one in again.tool_calls] == [f"sent to ann, number {n}" for n in (1, 2, 3)]

    def test_calls_that_failed_were_invalid_or_unknown_are_so_again(self, world: World) -> None:
        run = world.agent(
            call("send", to="nobody"), call("send", whom="ann"), call("mail", to="ann"), "I give up."
        ).run_sync("Write")
        assert [one.status for one in run.tool_calls] == ["error", "invalid", "invalid"]
        same(run.session)
        same(run.session, tools=world.tools)

    def test_a_call_that_keeps_failing_is_refused_again(self, world: World) -> None:
        run = world.agent(*[call("send", to="nobody")] * 3, "I give up.").run_sync("Write")
        same(run.session)

    def test_what_people_denied_and_changed_is_denied_and_changed_again(self, world: World) -> None:
        agent = world.agent([call("send", to="ann"), call("send", to="bob")], "Done.", mode="ask")
        run = agent.start("Write", is_attended=True)
        wait_for(lambda: len(run.requests) == 2)
        first, second = run.requests
        run.approve(first, arguments={"to": "eve", "text": "hi"})
        run.deny("not Bob", second)
        run.result()
        assert world.sent == ["eve"]
        for tools in (None, world.tools):
            [again] = same(run.session, tools=tools)
            assert [one.arguments for one in again.tool_calls] == [
                {"to": "eve", "text": "hi"},
                {"to": "bob", "text": "hello"},
            ]
            assert [one.status for one in again.tool_calls] == ["ok", "denied"]
        assert world.sent == ["eve"]

    def test_a_check_that_has_changed_its_mind_is_not_asked(self, world: World) -> None:
        said = ["allow"]

        @tool(check=lambda to: said[0])
        def post(to: str) -> str:
            """Post."""
            return "posted"

        run = Agent(ScriptedModel([call("post", to="ann"), "."]), tools=[post], mode="auto").run_sync("Post")
        said[0] = "deny"
        same(run.session, tools=[post])

    def test_questions_are_answered_as_they_were(self) -> None:
        @tool
        async def pick(context: ToolContext) -> str:
            """Pick a colour."""
            return await context.ask("Which colour?", ["red", "blue"])

        run = Agent(ScriptedModel([call("pick"), "Blue it is."]), tools=[pick], mode="auto").start(
            "Go", is_attended=True
        )
        wait_for(lambda: run.requests)
        run.reply("blue")
        run.result()
        assert same(run.session)[0].tool_calls[0].content == "blue"

    def test_outputs_of_a_type_messages_of_hooks_and_a_last_summary_happen_again(self, world: World) -> None:
        typed = world.agent(call("final_answer", value="many"), call("final_answer", value=3), output=int).run_sync(
            "How many?"
        )
        assert typed.output == 3
        same(typed.session)
        said = ["Check it."]
        hooked = world.agent(
            "Three.", "Still three.", hooks=Hooks(before_finish=lambda run: said.pop() if said else None)
        )
        same(hooked.run_sync("How many?").session)
        limited = world.agent(call("look", city="Oslo"), "So far: cold.", max_steps=1).run_sync("Look")
        assert limited.status == "max_steps"
        same(limited.session)

    def test_a_notice_of_the_run_before_stands_in_front_again(self) -> None:
        @tool(effect="read")
        def watch(context: ToolContext) -> str:
            """Watch."""
            context.notice("the tide is rising")
            return "watched"

        session = Agent(ScriptedModel([call("watch"), "Ok.", "Run!"]), tools=[watch]).session()
        for prompt in ("Watch", "And now?"):
            session.send(prompt).result()
        same(session)

    def test_runs_that_failed_or_were_cut_off_end_so_again(self, world: World) -> None:
        same(world.agent(["Half an ans", stop("length")]).run_sync("Go").session)
        failed = world.agent(["Half", ModelFailure("auth", "no key")]).run_sync("Go")
        [again] = same(failed.session)
        assert again.state.error == failed.state.error == "no key"

    def test_a_run_that_somebody_stopped_says_so_and_compare_shows_where(self, world: World) -> None:
        run = Agent(ScriptedModel([[say("word "), say("never said", delay_s=60)]])).start("Go")
        wait_for(lambda: run.text)
        run.cancel()
        run.result()
        [again] = replay(run.session)
        assert str(compare(run, again)) == "step 1: failure: from character 1 'cancelled' against 'unknown'"
        assert again.text == run.text and again.state.error == run.state.error


class TestReplayedTools:
    def test_they_answer_any_agent_and_never_run(self, world: World) -> None:
        run = world.agent(call("send", to="ann"), call("look", city="Oslo"), "Done.").run_sync("Write to Ann")
        other = ScriptedModel([call("look", city="Oslo"), call("send", to="ann", text="hello"), "Other way round."])
        done = list(world.sent)
        again = Agent(other, tools=replayed_tools(world.tools, run), mode="auto").run_sync("Something else")
        assert [one.content for one in again.tool_calls] == ['{"city": "Oslo", "temp_c": 3.5}', "sent to ann, number 1"]
        assert world.sent == done

    def test_a_call_that_is_not_in_the_record_is_an_error_that_shows_the_nearest(self, world: World) -> None:
        run = world.agent(call("send", to="ann"), "Done.").run_sync("Write to Ann")
        other = ScriptedModel(
            [call("send", to="bob"), call("send", to="ann"), call("send", to="ann"), call("look", city="x"), "."]
        )
        again = Agent(other, tools=replayed_tools(world.tools, run.state), mode="auto").run_sync("Go")
        assert [one.status for one in again.tool_calls] == ["error", "ok", "error", "error"]
        bob, _, twice, look = (one.content or "" for one in again.tool_calls)
        assert bob.endswith(
            'the nearest is in step 1: {"text": "hello", "to": "ann"} against {"text": "hello", "to": "bob"}'
        )
        assert twice.endswith("has 1 of these calls, and this is one more") and look.endswith("has no call of it")
        assert world.sent == ["ann"]


class TestReask:
    def test_the_steps_before_come_from_the_record_and_another_model_goes_on(self, world: World) -> None:
        run = world.agent(call("send", to="ann"), call("look", city="Oslo"), "Cold.").run_sync("Write to Ann")
        other = ScriptedModel(["Sent, and that is enough."], "other")
        again = reask(run, 2, other)
        assert again.status == "completed" and again.text == "Sent, and that is enough."
        assert len(other.requests) == 1 and other.requests[0].messages[-1].parts[0].content.startswith("sent to ann")  # type: ignore[union-attr]
        assert str(compare(run, again)).startswith("step 2: text")
        assert world.sent == ["ann", "looked at Oslo"] and len(runs_df()) == 1

    def test_calls_after_it_run_for_real_with_real_tools_as_the_mode_says(self, world: World) -> None:
        run = world.agent(call("send", to="ann"), "Sent.").run_sync("Write to Ann")
        script = [[call("send", to="ann"), call("look", city="Oslo")], "Twice."]
        denied = reask(run, 2, ScriptedModel(script), tools=world.tools)
        assert [one.status for one in denied.tool_calls] == ["ok", "denied", "ok"] and world.sent == [
            "ann",
            "looked at Oslo",
        ]
        done = reask(run, 2, ScriptedModel(script), tools=world.tools, mode="auto")
        assert [one.content for one in done.tool_calls[:2]] == ["sent to ann, number 1", "sent to ann, number 2"]
        assert sorted(world.sent) == ["ann", "ann", "looked at Oslo", "looked at Oslo"]

    def test_what_a_person_changed_in_the_record_does_not_change_what_runs_now(self, world: World) -> None:
        run = world.agent(call("send", to="ann"), "Sent.", mode="ask").start("Write", is_attended=True)
        wait_for(lambda: run.requests)
        run.approve(arguments={"to": "eve"})
        run.result()
        again = reask(run, 2, ScriptedModel([call("send", to="ann"), "."]), tools=world.tools, mode="auto")
        assert [one.arguments and one.arguments["to"] for one in again.tool_calls] == ["eve", "ann"]
        assert world.sent == ["eve", "ann"]

    def test_without_tools_calls_after_it_are_answered_from_the_record(self, world: World) -> None:
        run = world.agent(call("send", to="ann"), call("look", city="Oslo"), "Cold.").run_sync("Write to Ann")
        again = reask(run, 1, ScriptedModel([call("look", city="Oslo"), call("send", to="bob"), "Done."]))
        assert [one.status for one in again.tool_calls] == ["ok", "error"]
        assert world.sent == ["ann", "looked at Oslo"]

    def test_the_conversation_before_it_is_there(self, world: World) -> None:
        session = world.agent("Nice to meet you, Ann.", "You are Ann.").session()
        for prompt in ("I am Ann", "Who am I?"):
            session.send(prompt).result()
        other = ScriptedModel(["Ann!"])
        again = reask(session.runs[1], 1, other, session=session, instructions="Be brief.")
        assert again.text == "Ann!" and [m.text for m in other.requests[0].messages] == [
            "I am Ann", "Nice to meet you, Ann.", "Who am I?"
        ]  # fmt: skip
        assert other.requests[0].instructions == "Be brief."

    def test_what_it_cannot_do_is_said(self, world: World) -> None:
        run = world.agent("Hello.").run_sync("Hello")
        with pytest.raises(UsageError, match=r"replay takes a Session \(a Run has one in run.session\); found <Run"):
            replay(run)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=r"made of a Session or of events \(run.events\); found <Run"):
            cassette_of(run)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="step is 2; this run has steps 1 to 1"):
            reask(run, 2, "embedded")
        with pytest.raises(UsageError, match="session=session"):
            reask(run.state, 1, "embedded")
        with pytest.raises(UsageError, match="is not among the runs of"):
            reask(run, 1, "embedded", session=world.agent("Hello.").run_sync("Hello").session)


class TestCassetteOf:
    def test_a_session_becomes_a_model_that_knows_only_what_was_said(self, world: World) -> None:
        run = world.agent("Nice to meet you.").run_sync("I am Ann")
        for source in (run.session, run.events):
            model = CassetteModel(cassette_of(source), name="memory")
            assert Agent(model).run_sync("I am Ann").text == "Nice to meet you."
            miss = Agent(model).run_sync("I am Bob")
            assert miss.status == "failed" and "message 1 (user) differs: from character 6" in (miss.state.error or "")

    def test_a_session_becomes_a_file_for_tests(self, world: World, tmp_path: Path) -> None:
        run = world.agent(call("look", city="Oslo"), "Cold.").run_sync("Look")
        path = tmp_path / "look.jsonl"
        write_cassette(path, cassette_of(run.session))
        with cassette(path):
            assert compare(world.agent().run_sync("Look"), run) is None

    @pytest.mark.feature("C3")
    @pytest.mark.parametrize("said", ["The sea was calm.", "", ModelFailure("bad_request", "no")], ids=str)
    @pytest.mark.parametrize("words", [None, "In the words of a hook."])
    def test_what_was_summarised_is_summarised_again(self, said: Any, words: str | None, tmp_path: Path) -> None:
        @tool(effect="read")
        def look(at: int) -> str:
            """Look at the sea."""
            return f"{at}: {'the tide is high ' * 60}"

        def answer(request: ModelRequest) -> Any:
            if request.instructions == INSTRUCTIONS:
                return said
            return [f"Look {request.step}.", call("look", at=request.step)] if request.step <= 12 else "High."

        def agent(script: Any) -> Agent:
            context = Context(window_tokens=2_000, keep_recent=2)
            hooks = Hooks(before_compaction=lambda compaction: words)
            return Agent(ScriptedModel(script), tools=[look], max_steps=20, context=context, hooks=hooks)

        first = agent(answer).run_sync("Watch the sea.")
        runs = [first, first.session.send("And now?").result()]
        path = tmp_path / "sea.jsonl"
        write_cassette(path, cassette_of(first.session))
        with cassette(path):
            again = agent([]).run_sync("Watch the sea.")
            played = [again, again.session.send("And now?").result()]
        for before, after in zip(runs, played, strict=True):
            assert compare(before, after) is None
            assert summaries(before) == summaries(after) != []

    @pytest.mark.feature("C4")
    @pytest.mark.parametrize("is_live", [False, True])
    def test_what_was_refused_as_too_long_is_refused_again(self, is_live: bool, tmp_path: Path) -> None:
        @tool(effect="read")
        def look(at: int) -> str:
            """Look at the sea."""
            return f"{at}: {'the tide is high ' * 60}"

        def answer(request: ModelRequest) -> Any:
            if request.instructions == INSTRUCTIONS:
                return "The sea was calm."
            words = sum(len(str(part).split()) for message in request.messages for part in message.parts)
            if words > 900:
                return ModelFailure("context_length", "the window has 900 words")
            return [f"Look {request.step}.", call("look", at=request.step)] if request.step <= 12 else "High."

        def talk(script: Any) -> list[Run]:
            first = Agent(ScriptedModel(script), tools=[look], max_steps=20).run_sync("Watch the sea.")
            return [first, first.session.send("And now?").result()]

        path = tmp_path / "sea.jsonl"
        if is_live:
            with cassette(path, "record"):
                runs = talk(answer)
        else:
            runs = talk(answer)
            write_cassette(path, cassette_of(runs[0].session))
        assert [run.status for run in runs] == ["completed", "completed"]
        assert sum("the window has" in note.message for run in runs for note in run.state.notes) >= 1
        with cassette(path):
            played = talk([])
        for before, after in zip(runs, played, strict=True):
            assert compare(before, after) is None
            assert len(before.state.edits) == len(after.state.edits)


def summaries(run: Run) -> list[str]:
    return [edit.summary for edit in run.state.edits if isinstance(edit, Compacted)]


class TestFromTheSessionAndTheRun:
    def test_a_session_replays_itself_also_when_it_was_loaded(self, world: World) -> None:
        run = world.agent(call("send", to="Ana"), "Ana knows.", "Yes.").run_sync("Tell Ana.")
        run.session.send("Does she?").result()
        done = list(world.sent)
        for session in (run.session, Session.load(run.session.id)):
            again = session.replay()
            assert [one.text for one in again] == ["Ana knows.", "Yes."]
            assert [compare(a, b) for a, b in zip(session.runs, again, strict=True)] == [None, None]
        assert run.session.replay(tools=world.tools)[0].text == "Ana knows."
        assert world.sent == done and len(runs_df()) == 2

    def test_a_run_asks_another_model_again(self, world: World) -> None:
        run = world.agent(call("look", city="Oslo"), "Cold.").run_sync("How is Oslo?")
        again = run.reask(2, ScriptedModel(["Fresh."]))
        assert (again.text, len(again.state.steps), world.sent) == ("Fresh.", 2, ["looked at Oslo"])
        with pytest.raises(UsageError, match="this run has steps 1 to 2"):
            run.reask(3, "embedded")

    def test_neither_holds_up_the_loop(self, world: World) -> None:
        told: list[str] = []

        @tool(effect="read")
        async def look_back() -> str:
            """Look back."""
            for ask in (lambda: run.session.replay(), lambda: run.reask(1, "embedded")):
                try:
                    ask()
                except UsageError as error:
                    told.append(str(error))
            return "looked"

        run = world.agent("Hello.").run_sync("Hello?")
        Agent(ScriptedModel([call("look_back"), "Done."]), tools=[look_back]).run_sync("go")
        assert ["would block the loop" in text for text in told] == [True, True]
