"""Sessions as files and in other stores: nothing is lost on the way, and nothing is taken from a file that is wrong."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from turncell import Agent, Session, StoreError, UsageError, ask_user, runs_df, tool
from turncell.adapters.markdown_store import MarkdownStore
from turncell.adapters.sql_store import SQLStore
from turncell.core.events import SCHEMA_VERSION
from turncell.core.upcast import UPCASTERS
from turncell.errors import SessionBusy
from turncell.runtime import portable
from turncell.runtime.journal import Journal, read_whole
from turncell.testing import ScriptedModel, call, say, think

SAMPLES = Path(__file__).parent / "samples"
FORMATS = pytest.mark.parametrize("suffix", [".jsonl", ".md"])
ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=80) | st.sampled_from(
    ["-->", "\n<!-- turncell record {} -->\n", "````\n", "\r\n\0", "\ud800", '{"$blob":"x"}', "\u2028", "9" * 40]
)


@pytest.fixture
def other(tmp_path: Path) -> Any:
    """Another history."""
    journal = Journal(lambda: SQLStore.sqlite(tmp_path / "other.sqlite"))
    yield journal
    journal.close()


def talk(*texts: str, title: str = "talk") -> Session:
    @tool(effect="read")
    def look(at: str) -> str:
        """Look."""
        return at + at

    script: list[Any] = []
    for text in texts:
        script += [[think(text), call("look", at=text)], text or "."]
    session = Agent(ScriptedModel(script), tools=[look], mode="auto").session(title)
    for text in texts:
        session.send(f".{text}").result()
    return session


def everything(session: Session) -> list[Any]:
    session_id = session.id
    return session.journal.ask(lambda store: list(read_whole(store, session_id=session_id)))


def info(session: Session) -> Any:
    return next(one for one in Session.list(session.journal, everywhere=True) if one.session_id == session.id)


# -- there and back


@FORMATS
@pytest.mark.feature("C9")
def test_a_session_comes_back_whole(suffix: str, tmp_path: Path, other: Journal) -> None:
    session = talk("a", "b", "large " * 30_000, title="A title")
    session.retry(agent=Agent(ScriptedModel(["again"]))).result()
    session.undo()
    path = session.export(tmp_path / f"session{suffix}")
    found = Session.import_file(path, other)
    assert everything(found) == everything(session) and info(found) == info(session)
    assert found.runs == session.runs and found.all_runs == session.all_runs
    assert found.conversation == session.conversation and found.title == "A title"
    found.redo()
    assert Agent(ScriptedModel(["on"])).start("c", session=found).result().text == "on"
    assert list(tmp_path.glob(".session*")) == []


@FORMATS
@pytest.mark.feature("C9")
@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=3), title=ANY_TEXT)
@example_settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back(suffix: str, texts: list[str], title: str, tmp_path: Path, other: Journal) -> None:
    session = talk(*texts, title=title)
    found = Session.import_file(session.export(tmp_path / f"any{suffix}", overwrite=True), other)
    assert everything(found) == everything(session) and info(found) == info(session)
    again = found.export(tmp_path / f"again{suffix}", overwrite=True)
    assert again.read_bytes() == (tmp_path / f"any{suffix}").read_bytes()


@pytest.mark.feature("C9")
def test_a_file_of_json_lines_is_a_header_and_one_event_per_line(tmp_path: Path) -> None:
    session = talk("a")
    header, *events = [json.loads(line) for line in session.export(tmp_path / "s.jsonl").read_text().splitlines()]
    assert header["version"] == SCHEMA_VERSION and header["session_id"] == session.id
    assert header["records"] == len(events) == session.seq
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))


@pytest.mark.feature("C9")
def test_a_markdown_file_can_be_read_by_people(tmp_path: Path) -> None:
    text = talk("How is the weather?", title="Weather").export(tmp_path / "s.md").read_text()
    assert "\n# Weather\n" in text and "\n> .How is the weather?\n" in text and "#### Call of `look`" in text


@FORMATS
@pytest.mark.feature("C9")
def test_a_large_session_is_not_held_in_memory(suffix: str, tmp_path: Path, other: Journal) -> None:
    big = "x" * 1_000_000
    session = Agent(ScriptedModel([say(big, chunk=len(big))] * 40)).session()
    for _ in range(40):
        session.send(".").result()
    tracemalloc.start()
    try:
        path = session.export(tmp_path / f"big{suffix}")
        exported = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        with path.open("rb") as file:
            portable._checked(file, suffix, other)
        checked = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 40_000_000
    assert exported < 30_000_000 and checked < 30_000_000, (exported, checked)


# -- what is refused


def lines_of(tmp_path: Path) -> list[bytes]:
    return talk("a", "b").export(tmp_path / "good.jsonl").read_bytes().splitlines(keepends=True)


def changed(number: int, **values: Any) -> Callable[[list[bytes]], list[bytes]]:
    def change(lines: list[bytes]) -> list[bytes]:
        lines[number] = json.dumps(json.loads(lines[number]) | values).encode() + b"\n"
        return lines

    return change


@pytest.mark.feature("C9", "C7")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [], "its first line is no JSON"),
        (lambda lines: lines[1:], "its first line is not that of a session"),
        (lambda lines: [b"PK\x03\x04\n"], "its first line is no JSON"),
        (lambda lines: [b"[]\n"], "its first line is no JSON object"),
        (lambda lines: [b"[" * 100_000 + b"\n"], "its first line is no JSON"),
        (lambda lines: lines[:-1], r"it has \d+ records, its first line says \d+; it was cut"),
        (lambda lines: [*lines[:-1], lines[-1][:-5]], r"it ends in the middle of record \d+"),
        (lambda lines: [*lines[:5], b"{}\n", *lines[5:]], "record 5 is no event of type 'None'"),
        (lambda lines: [*lines[:5], b'{"type": 9' + b"9" * 9000 + b"}\n", *lines[5:]], "record 5 is no"),
        (lambda lines: [*lines[:5], b'{"a":' * 50_000 + b"\n", *lines[5:]], "record 5 is no JSON"),
        (lambda lines: [*lines[:5], *lines[6:]], "record 5 has the number 6"),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], "record 2 has the number 1"),
        (changed(0, session_id="../../x"), "its session id is '../../x'"),
        (changed(0, session_id=7), "a value of its first line is missing or has another type"),
        (changed(0, created_at="now"), "a value of its first line is missing or has another type"),
        (changed(0, created_at=True), "a value of its first line is missing or has another type"),
        (changed(0, version=0), "its schema version is '0'"),
        (changed(0, version="1"), "its schema version is '1'"),
        (changed(0, version=SCHEMA_VERSION + 1), f"has schema version {SCHEMA_VERSION + 1}, .* up to {SCHEMA_VERSION}"),
        (changed(3, session_id="ses_other"), "record 3 belongs to session 'ses_other'"),
        (changed(3, run_id="run_other"), "belongs to run 'run_other', which has not begun"),
        (changed(1, run_id="a/b"), "is no id"),
        (changed(3, type="TextDelta", block=0, text="x"), "record 3 is a TextDelta, which is never recorded"),
        (changed(3, type="Exec"), "record 3 is no event of type 'Exec'"),
        (changed(3, type="RunEnded", status="completed"), "comes after the end of run"),
        (changed(3, type="Arranged", path=["run_x"], reason="undo"), "arranges runs that have not begun"),
        (changed(2, message="hello"), "record 2 is no event"),
    ],
)
def test_a_file_that_is_wrong_is_refused_and_nothing_is_imported(
    change: Callable[[list[bytes]], list[bytes]], message: str, tmp_path: Path, other: Journal
) -> None:
    path = tmp_path / "wrong.jsonl"
    path.write_bytes(b"".join(change(lines_of(tmp_path))))
    with pytest.raises(StoreError, match=message) as refused:
        Session.import_file(path, other)
    assert str(path) in str(refused.value) and len(str(refused.value)) < 2000
    assert other.ask(lambda store: store.sessions()) == []


@pytest.mark.feature("C9", "C7")
@given(data=st.data())
@example_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@FORMATS
def test_damage_anywhere_is_refused_or_harmless(suffix: str, data: Any, tmp_path: Path) -> None:
    content = bytearray((SAMPLES / f"session_schema_1{suffix}").read_bytes())
    begin = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(begin, min(len(content), begin + 40)))
    content[begin:end] = data.draw(st.binary(max_size=8))
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content)
    with Scratch() as journal:
        try:
            found = Session.import_file(path, journal)
        except StoreError:
            assert journal.ask(lambda store: store.sessions()) == []
        else:
            assert len(found.all_runs) == 3 and found.messages


class Scratch:
    def __enter__(self) -> Journal:
        self.journal = Journal(lambda: SQLStore.sqlite(":memory:"))
        return self.journal

    def __exit__(self, *_: object) -> None:
        self.journal.close()


@pytest.mark.feature("C9")
@FORMATS
def test_what_is_in_the_history_already_is_refused(suffix: str, tmp_path: Path) -> None:
    session = talk("a")
    path = session.export(tmp_path / f"s{suffix}")
    with pytest.raises(StoreError, match=rf"session {session.id} is in this history already; load it"):
        Session.import_file(path)
    renamed = tmp_path / "renamed.jsonl"
    renamed.write_bytes(session.export(tmp_path / "whole.jsonl").read_bytes().replace(session.id.encode(), b"ses_new"))
    with pytest.raises(StoreError, match="which has begun already"):
        Session.import_file(renamed)
    assert len(runs_df()) == 1


@pytest.mark.feature("B6", "C9")
def test_a_file_cannot_make_a_write_run_that_it_says_was_approved(tmp_path: Path, other: Journal) -> None:
    done: list[str] = []

    @tool
    def pay(to: str) -> str:
        """Pay."""
        done.append(to)
        return "paid"

    session = Agent(ScriptedModel([call("pay", to="eve"), "done"]), tools=[pay]).session("theirs")
    run = session.send("go", is_attended=True)
    run.wait_request()
    run.approve()
    run.result()
    whole = session.export(tmp_path / "whole.jsonl").read_text(encoding="utf-8").splitlines()
    cut = next(number for number, line in enumerate(whole) if '"CallStarted"' in line)
    assert any('"RequestAnswered"' in line for line in whole[:cut])
    path = tmp_path / "attack.jsonl"
    header = json.dumps(json.loads(whole[0]) | {"records": cut - 1})
    path.write_text("\n".join([header, *whole[1:cut]]) + "\n", encoding="utf-8")
    done.clear()
    imported = Session.import_file(path, other)
    assert imported.interrupted is None and [run.status for run in imported.runs] == ["cancelled"]
    agent = Agent(ScriptedModel(["as you say"]), tools=[pay])
    with pytest.raises(UsageError, match="nothing was interrupted"):
        imported.resume(agent=agent, mode="ask")
    agent.start("Go on.", session=imported).result()
    assert done == [] and "was stopped before this call ran" in str(imported.messages)
    assert [record.seq for record in everything(imported)] == list(range(1, len(everything(imported)) + 1))


@pytest.mark.feature("B11", "C9")
def test_what_a_file_says_that_a_person_answered_is_asked_again(tmp_path: Path, other: Journal) -> None:
    def script() -> Agent:
        ask = call("ask_user", question="Which one?", options=[{"label": "a"}, {"label": "b"}])
        return Agent(ScriptedModel([ask, "so it is"]), tools=[ask_user()])

    session = script().session("theirs")
    run = session.send("go", is_attended=True)
    run.wait_request()
    run.reply("a")
    run.result()
    assert list(session.answers.values()) == ["a"] == list(Session.load(session.id).answers.values())
    imported = Session.import_file(session.export(tmp_path / "whole.md"), other)
    assert imported.answers == {} == imported.fork().answers
    again = script().start("and now?", session=imported, is_attended=True)
    assert again.wait_request()
    again.reply("b")
    assert again.result().status == "completed" and imported.runs[0].calls[0].content == run.tool_calls[0].content


@pytest.mark.feature("C9")
def test_a_damaged_markdown_file_is_refused(tmp_path: Path, other: Journal) -> None:
    good = talk("a", "b").export(tmp_path / "s.md").read_bytes()
    records = [index for index in range(len(good)) if good.startswith(b"<!-- turncell record", index)]
    middle, last = records[3], records[-1]
    for content, message in [
        (good[: last + 60], "it ends in the middle of a record"),
        (good[: middle + 60] + b"?" + good[middle + 61 :], "cannot be read: its check sum is another"),
        (b"# Notes\n" + good, "its first line is not that of a session"),
    ]:
        path = tmp_path / "damaged.md"
        path.write_bytes(content)
        with pytest.raises(StoreError, match=message):
            Session.import_file(path, other)
    assert other.ask(lambda store: store.sessions()) == []


@pytest.mark.feature("C9")
def test_a_document_of_a_history_that_does_not_stand_alone_is_refused(tmp_path: Path, other: Journal) -> None:
    journal = Journal(lambda: MarkdownStore(tmp_path / "docs"))
    session = Agent(ScriptedModel(["x" * 100_000]), journal=journal).session()
    session.send("a").result()
    (document,) = (tmp_path / "docs").glob("*/*.md")
    with pytest.raises(StoreError, match="keeps large texts in files of its own"):
        Session.import_file(document, other)
    journal.close()


@pytest.mark.feature("C9")
def test_a_file_that_is_there_is_kept_unless_told_otherwise(tmp_path: Path) -> None:
    first, second = talk("a"), talk("b")
    path = first.export(tmp_path / "s.jsonl")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is there already; use export"):
        second.export(path)
    assert path.read_bytes() == before
    assert second.export(path, overwrite=True).read_bytes() != before
    assert [file.name for file in tmp_path.glob("*s.jsonl*")] == ["s.jsonl"]


@pytest.mark.feature("C9")
def test_mistakes_with_files_are_told(tmp_path: Path) -> None:
    session = talk("a")
    for path in (tmp_path / "s.txt", tmp_path / "s"):
        with pytest.raises(UsageError, match="JSON lines"):
            session.export(path)
        with pytest.raises(UsageError, match="JSON lines"):
            Session.import_file(path)
    with pytest.raises(StoreError, match="cannot be written: No such file"):
        session.export(tmp_path / "no" / "s.md")
    with pytest.raises(StoreError, match="cannot be read: No such file"):
        Session.import_file(tmp_path / "none.md")
    (tmp_path / "folder.md").mkdir()
    with pytest.raises(StoreError, match="is no file"):
        Session.import_file(tmp_path / "folder.md")


# -- between stores


@pytest.mark.feature("C8", "C9")
def test_a_session_moves_between_stores_and_back(tmp_path: Path) -> None:
    session = talk("a", "b" * 100_000)
    records, about = everything(session), info(session)
    documents = Journal(lambda: MarkdownStore(tmp_path / "docs"))
    session.close()
    there = portable.move(session.id, session.journal, documents)
    assert everything(there) == records and info(there) == about
    assert Session.list(session.journal, everywhere=True) == ()
    back = portable.move(session.id, documents, session.journal)
    assert everything(back) == records and list((tmp_path / "docs").glob("*/*.md")) == []
    Agent(ScriptedModel(["on"])).start("c", session=back).result()
    documents.close()


@pytest.mark.feature("C8", "C9")
def test_a_session_is_not_moved_onto_another_or_from_under_a_writer(own_history: Path, other: Journal) -> None:
    session = talk("a")
    second = Journal(lambda: SQLStore.sqlite(own_history))
    with pytest.raises(SessionBusy):
        portable.move(session.id, second, other)
    with pytest.raises(StoreError, match="already has a session"):
        portable.move(session.id, session.journal, session.journal)
    assert len(everything(Session.load(session.id))) == session.seq
    assert other.ask(lambda store: store.sessions()) == []
    second.close()


# -- versions


@pytest.mark.feature("C7", "C9")
def test_there_is_an_upcaster_and_a_sample_for_every_earlier_version() -> None:
    earlier = set(range(1, SCHEMA_VERSION))
    assert set(UPCASTERS) == earlier
    kept = {int(path.stem.rpartition("_")[2]) for path in SAMPLES.glob("session_schema_*.jsonl")}
    assert kept == earlier | {SCHEMA_VERSION}


@pytest.mark.feature("C7", "C9")
@pytest.mark.parametrize("path", sorted(SAMPLES.glob("session_schema_*")), ids=lambda path: path.name)
def test_files_of_every_version_are_read(path: Path) -> None:
    session = Session.import_file(path)
    assert [(run.prompt and run.prompt.text, run.text, run.status) for run in session.runs] == [
        ("Tell Ana the weather.", "Ana knows.", "completed"),
        ("And Bo?", "Not Bo.", "completed"),
    ]
    assert [(c.name, c.status, c.request and c.request.by) for run in session.all_runs for c in run.calls] == [
        ("send_note", "ok", "person"),
        ("send_note", "denied", "person"),
    ]
    assert len(session.all_runs) == 3
