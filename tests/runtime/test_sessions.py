"""Sessions as their users meet them: a tree of runs, from which one conversation is chosen."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from turncell import (
    Agent,
    Journal,
    MarkdownStore,
    Session,
    StoreError,
    UsageError,
    move,
    reask,
    runs_df,
    settings,
    steps_df,
    tool,
)  # fmt: skip
from turncell.core.events import RunStarted
from turncell.runtime.portable import prune
from turncell.testing import ScriptedModel, call

from .pieces import Gate, told


def talk(*prompts: str) -> tuple[Session, ScriptedModel]:
    """A conversation in which every prompt was answered by its number: A1, A2 ..."""
    model = ScriptedModel([f"A{number}" for number in range(1, 30)], price=(1.0, 1.0))
    session = Agent(model).session("talk")
    for prompt in prompts:
        session.send(prompt).result()
    return session, model


def said(session: Session) -> list[str]:
    return [f"{run.prompt.text if run.prompt else ''}:{run.text}" for run in session.runs]


def stored(session: Session) -> Session:
    """As another program reads it."""
    return Session.load(session.id, session.journal)


def has_no_gaps(session: Session) -> bool:
    seqs = session.journal.ask(lambda store: [record.seq for record in store.read(session_id=session.id)])
    return seqs == list(range(1, len(seqs) + 1))


# -- finding them


@pytest.mark.feature("C9")
def test_a_session_is_loaded_by_its_id_and_goes_on(own_history: Path) -> None:
    session, model = talk("a", "b")
    again = stored(session)
    again.agent = session.agent
    again.send("c").result()
    assert told(model, 2) == ["a", "A1", "b", "A2", "c"]
    assert again.title == "talk"


@pytest.mark.feature("C9")
@pytest.mark.parametrize("session_id", ["ses_nobody", "", "../../etc/passwd", "x\0y"])
def test_an_unknown_id_is_told(session_id: str) -> None:
    with pytest.raises(UsageError, match="there is no session"):
        Session.load(session_id)


@pytest.mark.feature("C9", "C8")
@pytest.mark.parametrize(
    "use",
    [
        lambda wrong: Session.list(wrong),
        lambda wrong: Session.load("ses_nobody", wrong),
        lambda wrong: Session.import_file("a.jsonl", wrong),
        lambda wrong: prune(0, wrong),
        lambda wrong: move("ses_nobody", wrong, wrong),
        lambda wrong: Agent(ScriptedModel([]), journal=wrong),
    ],
)
@pytest.mark.parametrize("wrong", ["", "history.sqlite", []])
def test_what_is_no_journal_is_refused_and_never_taken_for_the_history_of_the_settings(use: Any, wrong: Any) -> None:
    kept = Agent(ScriptedModel(["Kept."])).run_sync("Keep this.").session
    kept.close()
    with pytest.raises(UsageError, match=r"journal is .*; use a Journal, such as"):
        use(wrong)
    assert Session.load(kept.id).runs[0].text == "Kept."


@pytest.mark.feature("C8")
def test_a_journal_wants_a_function_that_opens_a_store(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"open_store is <MarkdownStore.*; use a function that opens a store"):
        Journal(MarkdownStore(tmp_path))  # type: ignore[arg-type]


@pytest.mark.feature("C9")
def test_what_is_no_agent_or_no_rule_is_refused() -> None:
    session = Agent(ScriptedModel(["One."])).session()
    with pytest.raises(UsageError, match="agent is 'clerk'; use an Agent"):
        session.send("one", agent="clerk")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'mail' is no rule; use Rule"):
        session.remember("mail")  # type: ignore[arg-type]


@pytest.mark.feature("C9")
def test_the_newest_session_is_that_of_this_folder_or_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"no session of the folder .* begin one with agent.session"):
        Session.newest()
    places = [tmp_path / "one", tmp_path / "two"]
    found = []
    for place in places:
        place.mkdir()
        monkeypatch.chdir(place)
        found.append(talk("a")[0])
    monkeypatch.chdir(places[0])
    assert Session.newest().id == found[0].id
    assert Session.newest(everywhere=True).id == found[1].id
    assert [info.session_id for info in Session.list()] == [found[0].id]
    assert [info.session_id for info in Session.list(everywhere=True)] == [found[1].id, found[0].id]
    found[0].send("b").result()
    assert Session.newest(everywhere=True).id == found[0].id
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no session of the folder"):
        Session.newest()


@pytest.mark.feature("C9")
def test_a_session_of_a_sub_agent_is_neither_listed_nor_continued_and_goes_with_its_parent() -> None:
    inner = Agent(ScriptedModel(["from within"]), name="inner")
    outer = Agent(ScriptedModel([call("inner", task="go"), "done"]), tools=[inner.as_tool()], mode="auto")
    session = outer.session("outer")
    session.send("Ask the other.").result()
    journal = session.journal
    assert len(journal.ask(lambda store: store.sessions())) == 2
    assert [info.session_id for info in Session.list()] == [session.id]
    session.delete()
    assert journal.ask(lambda store: store.sessions()) == []
    assert journal.ask(lambda store: list(store.read())) == []


@pytest.mark.feature("C9")
def test_a_session_can_be_renamed() -> None:
    session, _ = talk("a")
    session.rename("weather")
    assert [info.title for info in Session.list()] == ["weather"] and stored(session).title == "weather"


@pytest.mark.feature("C9")
def test_a_deleted_session_is_gone(own_history: Path) -> None:
    session, _ = talk("the secret word is xylophone-7")
    kept, _ = talk("other")
    session.delete()
    assert [info.session_id for info in Session.list()] == [kept.id]
    with pytest.raises(UsageError, match="there is no session"):
        Session.load(session.id)
    files = [path.read_bytes() for path in own_history.parent.glob("history.sqlite*")]
    assert files and not any(b"xylophone-7" in data for data in files)
    run = session.send("again").result()
    assert run.status == "failed" and "no such session" in (run.state.error or "")


@pytest.mark.feature("C9")
def test_prune_erases_what_nobody_has_used_and_keeps_what_is_held() -> None:
    old, _ = talk("a")
    old.close()
    held, _ = talk("b")
    journal = old.journal
    assert prune(1, journal) == ()
    assert [info.session_id for info in prune(0, journal)] == [old.id]
    assert [info.session_id for info in Session.list()] == [held.id]
    for days in (-1, float("nan"), True, "90"):
        with pytest.raises(UsageError, match="use a number of days"):
            prune(days, journal)  # type: ignore[arg-type]


# -- another path


@pytest.mark.feature("C10")
def test_undo_and_redo_twice() -> None:
    session, model = talk("a", "b", "c")
    assert session.undo().text == "A3" and session.undo().text == "A2"
    assert said(session) == ["a:A1"] == said(stored(session))
    session.redo()
    session.redo()
    assert said(session) == ["a:A1", "b:A2", "c:A3"] == said(stored(session))
    with pytest.raises(UsageError, match="nothing to redo"):
        session.redo()
    session.undo()
    session.send("d").result()
    assert told(model, 3) == ["a", "A1", "b", "A2", "d"]
    with pytest.raises(UsageError, match="nothing to redo"):
        session.redo()
    assert len(session.all_runs) == 4 and has_no_gaps(session)


@pytest.mark.feature("C10")
def test_everything_can_be_undone_and_then_nothing_more() -> None:
    session, model = talk("a")
    session.undo()
    with pytest.raises(UsageError, match="nothing to undo"):
        session.undo()
    session.send("b").result()
    assert told(model, 1) == ["b"] and stored(session).runs[0].previous is None


@pytest.mark.feature("C10")
def test_retry_asks_the_same_again_in_the_same_place_also_twice() -> None:
    session, model = talk("a", "b")
    session.retry().result()
    session.retry().result()
    assert told(model, 3) == ["a", "A1", "b"]
    assert said(session) == ["a:A1", "b:A4"] == said(stored(session))
    assert [run.previous for run in session.all_runs[1:]] == [session.runs[0].run_id] * 3
    assert runs_df(session).text.tolist() == ["A1", "A2", "A3", "A4"] and has_no_gaps(session)


@pytest.mark.feature("C10")
def test_an_edit_in_the_middle_leaves_what_came_after() -> None:
    session, model = talk("a", "b", "c")
    middle, last = session.runs[1:]
    session.edit("b!", middle.run_id).result()
    assert told(model, 3) == ["a", "A1", "b!"]
    assert said(session) == ["a:A1", "b!:A4"] == said(stored(session))
    session.edit("c!", last.run_id).result()  # of a path that was left: after what it came after
    assert told(model, 4) == ["a", "A1", "b", "A2", "c!"]
    assert len(stored(session).all_runs) == 5 and has_no_gaps(session)


@pytest.mark.feature("C10")
def test_an_edit_that_cannot_begin_costs_nothing() -> None:
    session, _ = talk("a", "b", "c")
    for wrong in ({"max_steps": 0}, {"mode": "maybe"}):
        with pytest.raises(UsageError):
            session.edit("b!", session.runs[1].run_id, **wrong)
    with pytest.raises(UsageError, match="there is no run 'run_x'"):
        session.edit("b!", "run_x")
    assert said(session) == ["a:A1", "b:A2", "c:A3"] == said(stored(session))


@pytest.mark.feature("C10")
def test_branch_goes_on_after_any_run_of_the_tree() -> None:
    session, model = talk("a", "b", "c")
    a, b, c = session.runs
    session.branch(a.run_id)
    session.send("d").result()
    assert told(model, 3) == ["a", "A1", "d"]
    session.branch(c.run_id)
    assert said(session) == ["a:A1", "b:A2", "c:A3"]
    session.branch(b.run_id)
    session.send("e").result()
    assert told(model, 4) == ["a", "A1", "b", "A2", "e"]
    assert [run.prompt.text for run in stored(session).all_runs if run.prompt] == ["a", "b", "c", "d", "e"]


@pytest.mark.feature("C10")
def test_nothing_is_arranged_while_a_run_goes_on() -> None:
    gate = Gate()
    session = Agent(ScriptedModel(["A1", gate.say("A2")])).session()
    session.send("a").result()
    run = session.send("b")
    gate.was_reached()
    arrange: list[Any] = [session.undo, session.redo, session.delete, session.close, lambda: session.edit("x")]
    for change in (*arrange, lambda: session.branch(session.runs[0].run_id)):
        with pytest.raises(UsageError, match="is going on"):
            change()
    gate.open()
    run.result()
    assert said(session) == ["a:A1", "b:A2"]


@pytest.mark.feature("C10")
def test_a_conversation_can_be_rearranged_from_inside_an_async_tool() -> None:
    other, _ = talk("a", "b")
    elsewhere = stored(other)

    @tool(effect="read")
    async def take_back() -> str:
        """Take back."""
        return elsewhere.undo().text

    run = Agent(ScriptedModel([call("take_back"), "ok"]), tools=[take_back], mode="auto").run_sync("x")
    assert run.tool_calls[0].content == "A2" and said(stored(other)) == ["a:A1"]


# -- cells


def cells(session: Session, *said: tuple[str, str]) -> None:
    assert session.agent is not None
    for cell_id, prompt in said:
        session.agent.start(prompt, session=session, cell_id=cell_id).result()


@pytest.mark.feature("C10")
def test_a_cell_that_is_run_again_replaces_its_turn_and_the_cells_below_keep_their_place() -> None:
    session, model = talk()
    cells(session, ("1", "a"), ("2", "b"), ("3", "c"), ("2", "b!"))
    assert told(model, 3) == ["a", "A1", "b!"]
    assert said(session) == ["a:A1", "b!:A4", "c:A3"] == said(stored(session))
    cells(session, ("4", "d"), ("2", "b?"))
    assert told(model, 4) == ["a", "A1", "b!", "A4", "c", "A3", "d"] and told(model, 5) == ["a", "A1", "b?"]
    assert said(session) == ["a:A1", "b?:A6", "c:A3", "d:A5"] == said(stored(session))
    assert len(session.all_runs) == 6 == len(runs_df(session)) and has_no_gaps(session)


@pytest.mark.feature("C10")
def test_undo_brings_back_what_was_replaced_and_then_goes_further_back() -> None:
    session, _ = talk()
    cells(session, ("1", "a"), ("2", "b"), ("1", "a!"))
    assert session.undo().text == "A3"
    assert said(session) == ["a:A1", "b:A2"] == said(stored(session))
    assert session.undo().text == "A2" and said(session) == ["a:A1"]
    session.redo()
    session.redo()
    assert said(session) == ["a!:A3", "b:A2"] == said(stored(session))
    session.undo()
    assert said(session) == ["a:A1", "b:A2"]


@pytest.mark.feature("C10")
def test_undo_of_an_edit_brings_back_what_came_after_too() -> None:
    session, _ = talk("a", "b", "c")
    session.edit("b!", session.runs[1].run_id).result()
    session.retry().result()
    assert said(session) == ["a:A1", "b!:A5"]
    for expected in (["a:A1", "b!:A4"], ["a:A1", "b:A2", "c:A3"], ["a:A1", "b:A2"]):
        session.undo()
        assert said(session) == expected == said(stored(session))


@pytest.mark.feature("C10")
def test_a_replaced_run_can_be_asked_again() -> None:
    session, _ = talk("a", "b")
    replaced = session.runs[1]
    session.retry().result()
    again = reask(replaced, 1, ScriptedModel(["other"]), session=session)
    assert again.text == "other" and [m.text for m in again.session.messages] == ["a", "A1", "b", "other"]


@pytest.mark.feature("C10")
def test_an_edit_with_a_mistake_keeps_what_redo_brings_back_also_where_all_is_undone() -> None:
    session, _ = talk("a", "b")
    first = session.runs[0].run_id
    session.undo()
    session.undo()
    before = session.conversation
    for options in ({"max_steps": 0}, {"mode": "all"}, {"is_attended": 1}):
        with pytest.raises(UsageError):
            session.edit("x", first, **options)
    assert session.conversation == before == stored(session).conversation
    session.redo()
    session.redo()
    assert said(session) == ["a:A1", "b:A2"]


@pytest.mark.feature("C9")
def test_a_title_is_one_line_and_what_is_stored() -> None:
    session, _ = talk("a")
    session.rename(" two\nlines\0 ")
    assert session.title == stored(session).title
    with pytest.raises(UsageError, match="title is None"):
        session.rename(None)  # type: ignore[arg-type]


@pytest.mark.feature("C10")
def test_a_cell_whose_turn_was_undone_is_said_anew_at_the_end() -> None:
    session, model = talk()
    cells(session, ("1", "a"), ("2", "b"))
    session.undo()
    cells(session, ("2", "b!"))
    assert told(model, 2) == ["a", "A1", "b!"] and said(session) == ["a:A1", "b!:A3"]


@pytest.mark.feature("C10")
def test_a_message_without_a_cell_replaces_nothing() -> None:
    session, _ = talk("a", "a")
    assert said(session) == ["a:A1", "a:A2"]
    with pytest.raises(UsageError, match="run 'run_x' is not in this conversation"):
        session.send("b", replaces="run_x")


# -- forks


@pytest.mark.feature("C9")
def test_a_fork_goes_its_own_way() -> None:
    session, model = talk("a", "b", "c")
    fork = session.fork(session.runs[1].run_id, title="other")
    fork.send("d").result()
    session.send("e").result()
    assert told(model, 3) == ["a", "A1", "b", "A2", "d"] and told(model, 4) == ["a", "A1", "b", "A2", "c", "A3", "e"]
    assert said(stored(fork)) == ["a:A1", "b:A2", "d:A4"] and stored(fork).title == "other"
    assert said(stored(session)) == ["a:A1", "b:A2", "c:A3", "e:A5"]
    assert has_no_gaps(fork) and not {run.run_id for run in fork.all_runs} & {run.run_id for run in session.all_runs}
    with pytest.raises(UsageError, match="there is no run"):
        session.fork("run_x")


@pytest.mark.feature("C9", "C10")
def test_a_fork_has_the_conversation_and_not_what_was_left() -> None:
    session, _ = talk()
    cells(session, ("1", "a"), ("2", "b"), ("1", "a!"), ("3", "c"))
    session.undo()
    fork = session.fork()
    assert said(fork) == ["a!:A3", "b:A2"] and len(fork.all_runs) == 2
    first, second = fork.runs
    assert second.previous == first.run_id and first.previous is None
    left = session.all_runs[-1].run_id
    with pytest.raises(UsageError, match="is not in this conversation"):
        session.fork(left)


@pytest.mark.feature("C9", "F1")
def test_copies_are_not_counted_twice() -> None:
    session, _ = talk("a", "b")
    fork = session.fork()
    again = fork.fork()
    again.send("c").result()
    assert runs_df().text.tolist() == ["A1", "A2", "A3"] and len(steps_df()) == 3
    assert runs_df(again).text.tolist() == ["A3"]
    copies = runs_df(again, has_copies=True)
    assert copies.text.tolist() == ["A1", "A2", "A3"]
    assert copies.copy_of.iloc[:2].tolist() == [run.run_id for run in session.runs] and copies.copy_of.isna().iloc[2]
    assert len(runs_df(has_copies=True)) == 7
    third = session.fork()
    session.delete()
    assert len(runs_df(again)) == 3 and len(runs_df()) == 3  # what was spent still counts, and once
    assert runs_df(third).text.tolist() == ["A1", "A2"]


@pytest.mark.feature("C9")
def test_an_agent_without_a_history_of_its_own_undoes_and_retries_as_well() -> None:
    from turncell.runtime.journal import Unrecorded

    session = Agent(ScriptedModel(["one", "two", "three"]), journal=Unrecorded()).session()
    session.send("a").result()
    session.send("b").result()
    session.undo()
    session.retry().result()
    assert said(session) == ["a:three"]


# -- two objects of one session


@pytest.mark.feature("C7")
def test_two_objects_of_one_session_in_one_process_do_not_write_over_each_other() -> None:
    session, model = talk("a")
    other = stored(session)
    other.agent = session.agent
    other.send("b").result()
    session.send("c").result()
    other.undo()
    session.retry().result()
    assert told(model, 2) == ["a", "A1", "b", "A2", "c"]
    assert said(session) == ["a:A1", "b:A4"] == said(stored(session)) and has_no_gaps(session)
    session.close()
    assert other.send("d").result().status == "completed"


@pytest.mark.feature("C7")
def test_an_object_is_refused_while_another_one_has_a_run_going_on() -> None:
    gate = Gate()
    session = Agent(ScriptedModel([gate.say("A1"), "A2"])).session()
    run = session.send("a")
    gate.was_reached()
    other = stored(session)
    other.agent = session.agent
    late = other.send("b")
    with pytest.raises(StoreError, match="has a run going on in this process"):
        late.result()
    assert late.status == "failed"
    gate.open()
    run.result()
    other.send("b").result()
    assert said(other) == ["a:A1", "b:A2"] and has_no_gaps(other)


@pytest.mark.feature("C7")
@pytest.mark.parametrize("kind", ["sqlite", "markdown"])
def test_the_tree_is_the_same_in_every_store(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    where = tmp_path / "h.sqlite" if kind == "sqlite" else f"markdown:{tmp_path / 'docs'}"
    settings.use(settings.Settings(store=str(where)))
    session, _ = talk("a", "b")
    session.retry().result()
    session.undo()
    session.undo()
    fork = session.fork()
    assert said(stored(session)) == ["a:A1"] == said(fork) == said(stored(fork))
    started = session.journal.ask(lambda store: list(store.read(session_id=session.id, types=("RunStarted",))))
    assert len(started) == 3 == len(session.all_runs)
    assert [RunStarted.__name__] * 3 == [record.type for record in started]
    session.delete()
    assert [info.session_id for info in Session.list()] == [fork.id]


@pytest.mark.feature("C7")
def test_nothing_is_said_to_a_model_in_a_damaged_session(own_history: Path) -> None:
    session, model = talk("a", "b")
    session.close()
    session.journal.flush()
    with closing(sqlite3.connect(own_history, isolation_level=None)) as connection:
        last = connection.execute("select max(seq) from events").fetchone()[0]
        connection.execute("update events set payload = replace(payload, 'A2', 'A3') where seq >= ?", (last - 3,))
    damaged = stored(session)
    assert damaged.damage is not None and damaged.damage.session_id == session.id
    asked = len(model.requests)
    assert session.agent is not None
    run = session.agent.start("c", session=damaged).result()
    assert run.status == "failed" and "is damaged" in str(run.error) and "session.fork()" in str(run.error)
    assert len(model.requests) == asked
    assert damaged.fork().damage is None
