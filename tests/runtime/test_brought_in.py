"""A conversation held elsewhere becomes a session like any other: recorded, shown, exported, and gone on with."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as example_settings

import turncell
from tests.adapters.test_foreign_messages import DATA_URL, PNG, conversations, function, returned, user
from turncell import (
    Agent,
    Image,
    Journal,
    MarkdownStore,
    Rule,
    Session,
    UsageError,
    calls_df,
    cassette_of,
    cost_by,
    events_df,
    export_html,
    export_ipynb,
    export_markdown,
    history,
    messages_df,
    redact,
    replay,
    run_turn,
    runs_df,
    steps_df,
    tool,
)
from turncell.adapters.recordings import messages_as_json
from turncell.adapters.sql_store import SQLStore
from turncell.core.parts import Message
from turncell.testing import ScriptedModel, call, serve

pytestmark = pytest.mark.feature("C9")

CHAT: list[dict[str, Any]] = [
    user("What do I wear in Oslo?"),
    {"role": "assistant", "content": None, "tool_calls": [function("c1"), function("c2", "pay", '{"usd": 5}')]},
    returned("c1", "rain"),
    returned("c2", "paid"),
    {"role": "assistant", "content": "An umbrella."},
    user([{"type": "text", "text": "This one?"}, {"type": "image_url", "image_url": {"url": DATA_URL}}]),
    {"role": "assistant", "content": "Yes."},
]
CLAUDE: list[dict[str, Any]] = [
    user("What do I wear in Oslo?"),
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Look.", "signature": "c2VhbA=="},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}},
        ],
    },
    user([{"type": "tool_result", "tool_use_id": "toolu_1", "content": "no such city", "is_error": True}]),
    {"role": "assistant", "content": [{"type": "text", "text": "An umbrella."}]},
]


def talk(messages: list[Any], *script: Any, **options: Any) -> Session:
    return Agent(ScriptedModel(list(script)), **options).session(messages=messages)


def stored() -> int:
    return len(Session.list(everywhere=True))


class TestAnOrdinarySession:
    def test_each_message_of_the_user_is_a_run_with_its_steps_calls_and_results(self) -> None:
        session = talk(CHAT)
        first, second = session.runs
        assert (first.prompt and first.prompt.text, first.text, len(first.steps)) == (
            "What do I wear in Oslo?", "An umbrella.", 2,
        )  # fmt: skip
        assert [(one.name, one.arguments, one.status, one.content) for one in first.calls] == [
            ("weather", {"city": "Oslo"}, "ok", "rain"),
            ("pay", {"usd": 5}, "ok", "paid"),
        ]
        assert second.prompt is not None and second.prompt.parts[1] == Image(PNG, "image/png")
        assert second.previous == first.run_id and {run.status for run in session.runs} == {"completed"}
        assert session.title == "What do I wear in Oslo?" and session.interrupted is None

    def test_it_is_there_in_another_program(self) -> None:
        session = talk(CHAT)
        loaded = Session.load(session.id)
        assert loaded.runs == session.runs and loaded.messages == session.messages and loaded.seq == session.seq
        assert [info.runs for info in Session.list()] == [2]

    def test_what_comes_out_can_go_in(self) -> None:
        first = talk(CHAT)
        second = talk(list(first.messages))
        assert messages_as_json(second.messages) == messages_as_json(first.messages)
        run = Agent(ScriptedModel([call("f", a=1), "Done."]), mode="auto", tools=[f]).run_sync("Go.")
        assert messages_as_json(talk(list(run.messages)).messages) == messages_as_json(run.messages)

    @given(messages=conversations())
    @example_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_nothing_of_it_is_lost_on_the_way(self, messages: tuple[Message, ...], tmp_path: Path) -> None:
        journal = Journal(lambda: SQLStore.sqlite(":memory:"))
        other = Journal(lambda: SQLStore.sqlite(":memory:"))
        try:
            session = Agent(ScriptedModel([]), journal=journal).session(messages=messages)
            assert messages_as_json(session.messages) == messages_as_json(m for m in messages if m.parts)
            found = Session.import_file(session.export(tmp_path / "s.jsonl", overwrite=True), other)
            assert found.runs == Session.load(session.id, journal).runs == session.runs
        finally:
            journal.close()
            other.close()

    def test_tokens_costs_and_durations_are_unknown_and_the_one_time_is_that_of_the_import(self) -> None:
        session = talk(CHAT, "Fine.")
        session.send("And now?").result()
        runs, steps, calls = runs_df(session), steps_df(session), calls_df(session)
        assert list(runs.is_imported) == [True, True, False]
        unknown = [
            "input_tokens",
            "output_tokens",
            "cost_usd",
            "duration_s",
            "first_token_s",
            "model_s",
            "tools_s",
            "waiting_s",
        ]
        assert runs.loc[runs.is_imported, unknown].isna().all(axis=None)
        assert (
            steps.loc[:2, ["finish_reason", "input_tokens", "cost_usd", "duration_s", "answered_by"]]
            .isna()
            .all(axis=None)
        )
        assert calls[["duration_s", "verdict", "judged_by"]].isna().all(axis=None) and list(calls.status) == [
            "ok",
            "ok",
        ]
        old = events_df(session)
        assert len(set(old["at"][: session.runs[1].seq])) == 1
        assert list(messages_df(session).role)[:5] == ["user", "assistant", "tool", "tool", "assistant"]
        assert cost_by(history(session=session), "session").cost_usd.isna().all()

    def test_the_views_of_the_file_know_no_duration_either(self, own_history: Path) -> None:
        talk(CHAT)
        with closing(sqlite3.connect(own_history)) as file:
            rows = file.execute(
                "SELECT duration_s, cost_usd, steps FROM runs ORDER BY started_at, prompt DESC"
            ).fetchall()
        assert rows == [(None, None, 2), (None, None, 1)]

    @pytest.mark.parametrize("suffix", [".jsonl", ".md"])
    def test_it_is_exported_and_comes_back(self, suffix: str, tmp_path: Path) -> None:
        session = talk(CLAUDE)
        notes = Journal(lambda: MarkdownStore(tmp_path / "notes"))
        found = Session.import_file(session.export(tmp_path / f"s{suffix}"), notes)
        assert found.runs == session.runs and all(run.started.is_imported for run in found.runs)
        assert len(runs_df(tmp_path / f"s{suffix}")) == 1
        notes.close()

    def test_it_can_be_undone_forked_branched_and_edited(self) -> None:
        session = talk(CHAT, "Boots.", "Shoes.")
        first, _ = session.runs
        forked = session.fork(upto=first.run_id)
        assert [(run.text, run.started.copy_of) for run in forked.runs] == [("An umbrella.", first.run_id)]
        assert forked.runs[0].started.is_imported
        session.undo()
        assert [run.text for run in session.runs] == ["An umbrella."]
        session.redo()
        session.branch(first.run_id)
        assert session.send("And on my feet?").result().text == "Boots."
        assert session.edit("And mine?").result().text == "Shoes."
        assert [run.text for run in session.runs] == ["An umbrella.", "Shoes."] and len(session.all_runs) == 4

    def test_transcripts_say_that_it_was_held_elsewhere(self) -> None:
        session = talk([*CHAT, user("Well?")])
        text = export_markdown(session)
        assert "held elsewhere · 2 steps · cost unknown" in text and "0.0 s" not in text
        assert "**No answer**" in text and "the messages that were brought in have no answer here" in text
        assert "held elsewhere" in export_html(session) and "0.0 s" not in export_html(session)
        assert len(json.loads(export_ipynb(session))["cells"]) == 5

    def test_an_unrecorded_run_may_use_one(self) -> None:
        helper = Agent(ScriptedModel(["Boots."]))

        @tool(effect="read")
        async def ask() -> str:
            """Ask."""
            run = helper.start("And on my feet?", session=helper.session(messages=CHAT))
            return (await run).text

        run = asyncio.run(run_turn(model=ScriptedModel([call("ask"), "Done."]), message="Go.", tools=[ask]))
        assert run.tool_calls[0].content == "Boots." and stored() == 0

    def test_secrets_are_not_written_down(self, tmp_path: Path) -> None:
        redact("correct horse battery staple")
        session = talk(
            [user("It is correct horse battery staple."), {"role": "assistant", "content": "sk-" + "a1" * 20}]
        )
        said = session.export(tmp_path / "s.jsonl").read_text() + session.title + repr(session.messages)
        assert "battery" not in said and "a1a1" not in said and said.count("[redacted") >= 4
        assert "correct" not in talk([user("-" * 60 + " correct horse battery staple")]).title, "nor a part of one"


@tool
def f(a: int) -> str:
    """F."""
    return "f"


class TestGoingOn:
    def test_openai_is_sent_what_was_said(self) -> None:
        with serve(["Boots."]) as server:
            model = turncell.model("openai/gpt-4o", base_url=server.base_url, api_key="k" * 8)
            agent = Agent(model, instructions="Be kind.")
            session = agent.session(messages=[{"role": "system", "content": "Be kind."}, *CHAT])
            assert session.send("And on my feet?").result().text == "Boots."
            sent = server.requests[0]["messages"]
        assert sent[0] == {"role": "system", "content": "Be kind."}
        assert sent[1:-1] == CHAT and sent[-1] == user("And on my feet?")

    def test_anthropic_is_sent_what_was_said(self) -> None:
        with serve(["Boots."]) as server:
            model = turncell.model(
                "anthropic/claude-sonnet-4-5", base_url=server.origin, api_key="k" * 8, prompt_cache="off"
            )
            session = Agent(model).session(messages=CLAUDE)
            assert session.send("And on my feet?").result().text == "Boots."
            sent = server.requests[0]["messages"]
        assert sent[1:-1] == CLAUDE[1:]
        assert [message["role"] for message in sent] == ["user", "assistant", "user", "assistant", "user"]

    @pytest.mark.parametrize("name", ["openai/gpt-4o", "anthropic/claude-sonnet-4-5"])
    def test_what_one_provider_has_called_another_is_told(self, name: str) -> None:
        long = "x" * 300
        said = [
            {"role": "assistant", "content": "How can I help?"},
            *CLAUDE,
            user("Again."),
            {"role": "assistant", "content": "", "tool_calls": [function(long), function(long), function("a b")]},
            returned(long, "one"),
            returned(long, "two"),
        ]
        with serve(["Boots."]) as server:
            base_url = server.base_url if name.startswith("openai") else server.origin
            session = Agent(turncell.model(name, base_url=base_url, api_key="k" * 8)).session(messages=said)
            assert session.send("And on my feet?").result().text == "Boots."
            sent = server.requests[0]["messages"]
        assert sent[0]["role"] == ("assistant" if name.startswith("openai") else "user")
        calls, results = _calls_and_results(sent)
        assert calls == [one for one, _ in results] and len(set(calls)) == 4
        assert all(len(one) <= 40 and " " not in one for one in calls)
        assert [text for _, text in results][1:3] == ["one", "two"]
        assert "may or may not have happened" in results[3][1]

    def test_nothing_is_executed_and_no_tool_needs_to_exist(self) -> None:
        done: list[str] = []

        @tool(effect="read")
        def weather(city: str) -> str:
            """The weather."""
            done.append(city)
            return "sun"

        session = talk(CHAT[:2], "Fine.", tools=[weather], mode="auto")
        assert session.interrupted is None and session.in_doubt == ()
        assert session.send("Go on.").result().text == "Fine." and done == []
        assert [one.status for one in session.runs[0].calls] == ["cancelled", "cancelled"]

    def test_a_question_without_an_answer_is_answered_with_retry(self) -> None:
        session = talk([*CHAT, user("Well?")], "Well.")
        assert (session.runs[-1].status, session.runs[-1].error_kind) == ("cancelled", "interrupted")
        assert session.retry().result().text == "Well."
        assert [run.prompt.text for run in session.runs if run.prompt] == [
            "What do I wear in Oslo?",
            "This one?",
            "Well?",
        ]

    def test_who_asks_again_is_told_which_calls_were_made(self) -> None:
        told: list[str] = []

        def model(request: Any) -> str:
            told.append(request.messages[0].text)
            return "An umbrella."

        session = Agent(ScriptedModel(model)).session(messages=CHAT[:4])
        session.retry().result()
        assert 'do not repeat what has happened:\n- weather({"city": "Oslo"}): rain\n- pay({"usd": 5}): paid' in told[0]

    def test_what_tools_returned_elsewhere_is_not_trusted(self) -> None:
        session = talk(CHAT, [call("f", a=1)], "Done.", tools=[f], rules=[Rule("f", "allow")])
        assert session.is_tainted
        assert session.send("Go.").result().tool_calls[0].status == "denied"
        assert not talk([user("Hi"), {"role": "assistant", "content": "Hello"}]).is_tainted

    def test_a_long_one_is_made_to_fit(self) -> None:
        said: list[dict[str, Any]] = []
        for number in range(40):
            said += [user(f"{number} " + "word " * 100), {"role": "assistant", "content": "word " * 100}]
        with serve(["In short."] * 3) as server:
            model = turncell.model("openai/gpt-4o", base_url=server.base_url, api_key="k" * 8)
            agent = Agent(model, context={"window_tokens": 4_000}, max_tokens=500)
            run = agent.session(messages=said).send("And now?").result()
            sent = server.requests[-1]["messages"]
        assert run.status == "completed" and run.state.edits and len(sent) < 40
        assert sent[0]["content"] == said[0]["content"].strip() or sent[0]["content"] == said[0]["content"]

    def test_there_is_no_recording_to_replay(self) -> None:
        session = talk(CHAT, "Fine.")
        with pytest.raises(
            UsageError, match=r"held elsewhere and brought in as messages, so there is no recording.*retry"
        ):
            session.replay()
        assert len(cassette_of(session)) == 0
        run = session.send("And now?").result()
        assert [again.text for again in replay(session)] == ["Fine."] and turncell.compare(
            run, replay(session)[0]
        ) is None
        with pytest.raises(UsageError, match="held elsewhere"):
            turncell.reask(session.runs[0], 1, ScriptedModel(["x"]), session=session)


def test_what_is_refused_leaves_nothing_behind() -> None:
    with pytest.raises(UsageError, match=r"messages\[1\]: it is the result of call 'c9'"):
        talk([user("Hi"), returned("c9")])
    with pytest.raises(UsageError, match=r"messages\[1\]: .* arguments are no JSON object"):
        talk([user("Hi"), {"role": "assistant", "tool_calls": [function("c1", arguments='{"usd": 1e999}')]}])
    with pytest.raises(UsageError, match=r"messages are empty"):
        talk([])
    assert stored() == 0


def test_who_gives_a_list_as_a_prompt_is_told_where_it_belongs() -> None:
    with pytest.raises(UsageError, match=r"agent\.session\(messages=\[\.\.\.\]\), then session\.send"):
        Agent(ScriptedModel([])).start(CHAT)


def _calls_and_results(sent: list[dict[str, Any]]) -> tuple[list[str], list[tuple[str, str]]]:
    """Ids of the calls, and ids and texts of the results, in either format."""
    calls: list[str] = []
    results: list[tuple[str, str]] = []
    for message in sent:
        calls += [one["id"] for one in message.get("tool_calls") or ()]
        if message["role"] == "tool":
            results.append((message["tool_call_id"], message["content"]))
        for block in message["content"] if isinstance(message["content"], list) else ():
            if block["type"] == "tool_use":
                calls.append(block["id"])
            elif block["type"] == "tool_result":
                results.append((block["tool_use_id"], block["content"]))
    return calls, results
