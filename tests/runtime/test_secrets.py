"""Secrets are never written down: not in the journal, not in what a notebook keeps, not in logs."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from turncell import Agent, UsageError, calls_df, redact, runs_df, tool
from turncell.adapters.sql_store import SQLStore
from turncell.core import codec
from turncell.core.events import MessageAdded, Noted
from turncell.core.parts import Message, Text
from turncell.frames.export import export_html, export_markdown
from turncell.frames.transcript import mimebundle
from turncell.runtime import secrets
from turncell.runtime.journal import Journal, to_record, to_records
from turncell.testing import ScriptedModel, call, say

pytestmark = pytest.mark.feature("C13")

ENVIRONMENT = "correct-horse-battery"
SHAPED = "sk-proj-" + "a1B2c3D4e5" * 3


@tool(effect="read")
def leak(what: str) -> dict[str, Any]:
    """Read what should not be read."""
    return {"said": {"env": ENVIRONMENT, "shaped": SHAPED}[what], "rest": "harmless"}


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOME_API_KEY", ENVIRONMENT)
    return tmp_path / "history.sqlite"


def bytes_of(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.iterdir() if file.name.startswith(path.name))


@pytest.mark.parametrize(("what", "secret"), [("env", ENVIRONMENT), ("shaped", SHAPED)])
def test_what_a_tool_lets_out_reaches_the_model_and_no_disk(history: Path, what: str, secret: str) -> None:
    journal = Journal(lambda: SQLStore.sqlite(history))
    model = ScriptedModel([call("leak", what=what), f"It is {secret}, is it not?"])
    run = Agent(model, tools=[leak], journal=journal).run_sync(f"Is it {secret}?")
    assert secret in model.requests[1].messages[-1].parts[0].content  # type: ignore[union-attr]
    shown = mimebundle(secrets.redactor().value(run.state))
    content = calls_df(run.session)["content"].iloc[0]
    exits = [export_html(run, f"About {secret}"), export_markdown([run], f"About {secret}")]
    exits += [repr(run), repr(run.state), runs_df(run).to_csv(), calls_df(run).to_csv()]
    journal.close()
    assert not any(secret in text for text in exits) and all("harmless" in text for text in exits[:2])
    assert "[redacted: " in content and "harmless" in content
    assert secret.encode() not in bytes_of(history)
    assert not any(secret in text for text in shown.values()) and "[redacted: " in shown["text/markdown"]


def test_the_password_in_an_address_of_the_environment_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTES_DATABASE", "postgresql://ada:open%2Fsesame-9@db.example/notes")
    monkeypatch.setenv("NOTES_PAGE", "http://localhost:8080/notes/12345678@home")
    said = "postgresql://ada:open%2Fsesame-9@db.example: open/sesame-9 at http://localhost:8080/notes/12345678@home"
    text = runs_df(Agent(ScriptedModel([said])).run_sync("Where?").session)["text"].iloc[0]
    hidden = "[redacted: NOTES_DATABASE]"
    assert text == f"postgresql://ada:{hidden}@db.example: {hidden} at http://localhost:8080/notes/12345678@home"


def test_a_key_that_is_being_written_is_not_saved_in_halves(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(lambda: SQLStore.sqlite(history))
    model = ScriptedModel([[say("The key is ", delay_s=0.0), say(SHAPED, delay_s=0.12, chunk=2), say(" of course. ")]])
    run = Agent(model, journal=journal).run_sync("go")
    saved = [event.text for event in run.events if event.type == "PartialSaved"]
    journal.close()
    assert saved and not any("sk-" in text for text in saved)
    assert b"a1B2c3" not in bytes_of(history)


def test_the_title_of_a_session_has_no_half_of_one(history: Path) -> None:
    journal = Journal(lambda: SQLStore.sqlite(history))
    run = Agent(ScriptedModel(["Yes."]), journal=journal).run_sync("-" * 60 + f" {SHAPED} is my key.")
    journal.close()
    assert "sk-" not in run.session.title and b"a1B2c3" not in bytes_of(history)


def test_what_people_declare_and_their_patterns_are_secrets_too(history: Path) -> None:
    redact("opensesame-1001", patterns=[r"patient [A-Z]\d{5}"])
    journal = Journal(lambda: SQLStore.sqlite(history))
    Agent(ScriptedModel(["Of patient Q12345: opensesame-1001."]), journal=journal).run_sync("Who?")
    journal.close()
    assert b"Q12345" not in bytes_of(history) and b"opensesame" not in bytes_of(history)


@pytest.mark.parametrize(("declare", "said"), [(("short",), "8 characters"), ((None,), "8 characters")])
def test_what_cannot_be_a_secret_is_refused_without_saying_it(declare: tuple[Any, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        redact(*declare)
    assert "short" not in str(error.value)
    with pytest.raises(UsageError, match="no regular expression"):
        redact(patterns=["("])


def test_logs_do_not_say_them(caplog: pytest.LogCaptureFixture, history: Path) -> None:
    secrets.refresh()
    with caplog.at_level(logging.DEBUG, "turncell"):
        try:
            raise ValueError(f"bad key {SHAPED}")
        except ValueError:
            logging.getLogger("turncell").exception("it failed with %s", ENVIRONMENT)
    assert ENVIRONMENT not in caplog.text and SHAPED not in caplog.text and "[redacted: SOME_API_KEY]" in caplog.text


@pytest.mark.parametrize("is_hidden", [False, True])
def test_a_variable_that_comes_and_goes_is_seen_each_time(monkeypatch: pytest.MonkeyPatch, is_hidden: bool) -> None:
    if is_hidden:  # what a Python may keep in another place: then all is read each time
        monkeypatch.setattr(os, "environ", dict(os.environ))
    for value, shown in (
        ("first-value", "[redacted: NEW_TOKEN]"),
        ("other-value", "[redacted: NEW_TOKEN]"),
        (None, None),
    ):
        text = value or "other-value"
        if value is None:
            del os.environ["NEW_TOKEN"]
        else:
            monkeypatch.setitem(os.environ, "NEW_TOKEN", value)
        secrets.refresh()
        assert secrets.redactor().text(text) == (shown or text)


def test_harmless_texts_stay_as_they_are() -> None:
    texts = ["a task-list of sk-ill", "hf_", "the key to happiness", "AKIA", "k_means", "eyJustice"]
    assert [secrets.redactor().text(text) for text in texts] == texts


PLANTED = st.sampled_from(
    (ENVIRONMENT, SHAPED, 'pa"ss\\wörd!', json.dumps('pa"ss\\wörd!'), json.dumps(json.dumps('pa"ss\\wörd!')), "customer-123456",
     "Bearer  abcdefgh12345678", "AKIA" + "ABCD1234" * 2, "a task", "basic ", " correct-horse", "\ud800", "\n")
)  # fmt: skip
TEXTS = st.lists(PLANTED | st.text(max_size=9), max_size=5).map("".join)


@pytest.mark.parametrize("patterns", [[], [r"customer-\d{6}"]], ids=["known", "patterns too"])
def test_events_recorded_together_are_written_as_each_alone_looked_through_with_care(
    monkeypatch: pytest.MonkeyPatch, patterns: list[str]
) -> None:
    monkeypatch.setenv("SOME_API_KEY", ENVIRONMENT)
    redact('pa"ss\\wörd!', patterns=patterns)

    # How fast the texts are made says nothing of the code, and on a busy machine it varies.
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(said=st.lists(st.tuples(TEXTS, TEXTS, st.booleans()), min_size=1, max_size=6))
    def holds(said: list[tuple[str, str, bool]]) -> None:
        events: list[Any] = []
        for seq, (text, other, is_partial) in enumerate(said, 1):
            envelope: dict[str, Any] = {"seq": seq, "session_id": "s", "run_id": "r", "step": 1, "at": 1.5}
            message = Message("assistant", (Text(text), Text(other)), is_partial=is_partial)
            events += (
                MessageAdded(**envelope, message=message),
                Noted(**envelope, kind="notice", message=text, data={other: [text]}),
            )
        written = [record.payload for record in to_records(events)]
        assert written == [codec.encode(secrets.redactor().value(event)) for event in events]
        assert written == [to_record(event).payload for event in events]

    holds()


def test_a_key_is_found_though_other_threads_change_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    is_over = threading.Event()

    def come_and_go() -> None:
        while not is_over.is_set():
            os.environ["TURNCELL_TESTS_COME"] = "x"
            os.environ.pop("TURNCELL_TESTS_COME")

    thread = threading.Thread(target=come_and_go)
    thread.start()
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for number in range(300):
            key = f"hunter2hunter2-{number}"
            monkeypatch.setenv("NEW_API_KEY", key)
            secrets.refresh()
            assert key not in secrets.redactor().text(f"the key {key}")
    finally:
        sys.setswitchinterval(interval_s)
        is_over.set()
        thread.join()
