"""The input queue: what is sent while a run is going on waits its turn, and may be taken back."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.pieces import LONG_S, Gate, told, until, written
from turncell import Agent, Run, Session, SQLStore, UsageError
from turncell.adapters.scripted_model import ScriptedModel
from turncell.core.events import Event, RunEnded
from turncell.errors import SessionBusy
from turncell.runtime.journal import Journal
from turncell.runtime.ports import Writer

pytestmark = pytest.mark.feature("A4")


class Held:
    """A session whose first run is held, so that what comes after has to wait."""

    def __init__(self, *answers: str) -> None:
        self.gate = Gate()
        self.model = ScriptedModel([self.gate.say("first"), *answers])
        self.agent = Agent(self.model)
        self.session = self.agent.session()
        self.first = self.session.send("one")
        self.gate.was_reached()

    def send(self, *texts: str) -> list[Run]:
        return [self.session.send(text) for text in texts]


def waiting(session: Session) -> list[str]:
    return [one.message.text for one in session.queue]


def test_they_are_counted_listed_and_answered_in_order_each_after_the_one_before() -> None:
    held = Held("second", "third")
    runs = held.send("two", "three")
    assert len(held.session.queue) == 2 and waiting(held.session) == ["two", "three"]
    held.gate.open()
    assert [run.result(LONG_S).text for run in runs] == ["second", "third"]
    assert [run.state.previous for run in (held.first, *runs)] == [None, held.first.id, runs[0].id]
    assert told(held.model, 2) == ["one", "first", "two", "second", "three"]
    assert len(held.session.queue) == 0 and written(held.first) == held.session.runs


def test_the_list_is_a_snapshot() -> None:
    held = Held("second")
    held.send("two")
    listed = iter(held.session.queue)
    held.session.queue.clear()
    assert [one.message.text for one in listed] == ["two"]
    held.gate.open()


def test_one_that_is_removed_ends_at_once_and_leaves_no_record() -> None:
    held = Held("third")
    two, three = held.send("two", "three")
    assert held.session.queue.remove(two.id) and not held.session.queue.remove(two.id)
    assert two.is_done and two.status == "cancelled" and "taken back" in (two.state.error or "") and not two.events
    assert held.first.status == "running", "it did not have to wait for the one that is going on"
    held.gate.open()
    assert three.result(LONG_S).text == "third" and three.state.previous == held.first.id
    assert told(held.model, 1) == ["one", "first", "three"] and len(written(three)) == 2


def test_clearing_takes_back_all_and_says_how_many() -> None:
    held = Held()
    runs = held.send("two", "three", "four")
    assert held.session.queue.clear() == 3 and held.session.queue.clear() == 0
    assert {run.result(LONG_S).status for run in runs} == {"cancelled"}
    held.gate.open()
    held.first.result(LONG_S)
    assert len(held.model.requests) == 1


def test_nothing_behind_a_message_that_is_cleared_begins() -> None:
    agent = Agent(ScriptedModel(lambda request: "x", delay_s=0.002))
    for _ in range(60):
        session = agent.session()
        runs = [session.send(text) for text in "abcde"]
        count = session.queue.clear()
        statuses = [run.result(LONG_S).status for run in runs]
        assert statuses == ["completed"] * (5 - count) + ["cancelled"] * count


def test_who_awaits_and_who_watches_one_that_is_taken_back_gets_the_end() -> None:
    async def main() -> tuple[str, list[Event]]:
        held = Held()
        (two,) = held.send("two")

        async def watch() -> list[Event]:
            return [event async for event in two]

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0)
        held.session.queue.clear()
        events = await asyncio.wait_for(watching, LONG_S)
        await asyncio.wait_for(two, LONG_S)
        held.gate.open()
        return two.status, events

    assert asyncio.run(main()) == ("cancelled", [])


def test_one_that_is_taken_back_cannot_be_steered() -> None:
    held = Held()
    (two,) = held.send("two")
    held.session.queue.clear()
    until(lambda: two.is_done)
    with pytest.raises(UsageError, match="the run is cancelled"):
        two.steer("more")
    held.gate.open()


def test_a_follow_up_of_a_run_begins_another_one_after_it() -> None:
    held = Held("second")
    run = held.first.follow_up("two")
    held.gate.open()
    assert run.result(LONG_S).text == "second" and run.state.previous == held.first.id


class TestAllAtOnce:
    def joined(self) -> tuple[Held, list[Run]]:
        held = Held("together", "last")
        held.session.queue.mode = "all"
        return held, held.send("two", "three", "four")

    def test_what_waits_becomes_one_run_and_every_handle_is_of_it(self) -> None:
        held, runs = self.joined()
        held.gate.open()
        assert [run.result(LONG_S).text for run in runs] == ["together"] * 3
        assert len({run.id for run in runs}) == 1 and {run.status for run in runs} == {"completed"}
        assert told(held.model, 1) == ["one", "first", "two\n\nthree\n\nfour"]
        assert len(held.session.runs) == 2 and written(held.first) == held.session.runs

    def test_the_session_goes_on_afterwards(self) -> None:
        held, runs = self.joined()
        held.gate.open()
        runs[-1].result(LONG_S)
        assert held.session.send("five").result(LONG_S).text == "last"

    def test_whoever_watches_a_joined_handle_sees_the_whole_run(self) -> None:
        held, runs = self.joined()
        seen: list[Event] = []
        runs[2].subscribe(seen.append)
        held.gate.open()
        runs[2].result(LONG_S)
        until(lambda: seen and isinstance(seen[-1], RunEnded))
        assert seen[0].type == "RunStarted" and {event.run_id for event in seen} == {runs[0].id}
        runs[2].drain(LONG_S)

    def test_a_reader_of_a_joined_handle_reads_to_the_end(self) -> None:
        async def main() -> list[str]:
            held, runs = self.joined()

            async def read() -> list[str]:
                return [event.type async for event in runs[1]]

            reading = asyncio.create_task(read())
            await asyncio.sleep(0.05)
            held.gate.open()
            return await asyncio.wait_for(reading, LONG_S)

        types = asyncio.run(main())
        assert types[0] == "RunStarted" and types[-1] == "RunEnded"

    def test_what_was_steered_to_a_joined_handle_is_read(self) -> None:
        held, runs = self.joined()
        runs[1].steer("and quickly")
        held.gate.open()
        assert runs[0].result(LONG_S).text == "last" and told(held.model, 2)[-1] == "and quickly"

    def test_one_that_was_cancelled_while_it_waited_is_not_joined(self) -> None:
        held, runs = self.joined()
        runs[1].cancel("not that one")
        held.gate.open()
        assert [run.result(LONG_S).status for run in runs] == ["completed", "cancelled", "completed"]
        assert told(held.model, 1)[-1] == "two\n\nfour" and runs[1].state.error == "not that one"

    def test_one_that_was_sent_with_other_options_is_a_run_of_its_own(self) -> None:
        held = Held("second", "third")
        held.session.queue.mode = "all"
        runs = [held.session.send("two", mode="auto"), held.session.send("three", mode="plan")]
        held.gate.open()
        assert [run.result(LONG_S).state.mode for run in runs] == ["auto", "plan"]

    def test_a_picture_stays_a_picture(self) -> None:
        from turncell import Image, Message, Text

        held = Held("together")
        held.session.queue.mode = "all"
        pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="
        picture = Message("user", (Text("this"), Image(pixel, "image/png")))
        runs = [held.session.send("look at"), held.session.send(picture)]
        held.gate.open()
        for run in runs:
            run.result(LONG_S)
        prompt = held.model.requests[1].messages[-1]
        assert prompt.parts[-1] == picture.parts[-1] and prompt.text.replace("\n", "") == "look atthis"


@pytest.mark.feature("A11")
class TestStoppingASession:
    def test_an_idle_one_is_left_alone_and_so_is_its_next_run(self) -> None:
        session = Agent(ScriptedModel(["one", "two"])).session()
        assert session.send("go").result(LONG_S).text == "one"
        assert not session.cancel()
        assert session.send("go").result(LONG_S).status == "completed"

    def test_one_whose_run_has_just_been_started_is_stopped(self) -> None:
        for _ in range(20):
            session = Agent(ScriptedModel(["one"], delay_s=LONG_S)).session()
            run = session.send("go")
            assert session.cancel("stop") and run.result(LONG_S).status == "cancelled"

    def test_only_the_running_one_is_stopped(self) -> None:
        held = Held("second")
        (two,) = held.send("two")
        assert held.session.cancel()
        assert held.first.result(LONG_S).status == "cancelled" and two.result(LONG_S).text == "second"


def test_a_session_without_an_agent_says_what_it_needs() -> None:
    agent: Any = Agent(ScriptedModel(["x"]))
    session = Session.new(agent.journal)
    with pytest.raises(UsageError, match="agent=agent"):
        session.send("go")
    assert session.send("go", agent=agent).result(LONG_S).text == "x"


class SlowToClaim:
    """A new session of a history that is slow to say who writes it."""

    def __init__(self, path: Path, *answers: str, refuses: bool = False) -> None:
        gate = self.gate = Gate()

        class Store(SQLStore):
            def claim(self, session_id: str, writer: Writer, *, instead_of: str | None = None) -> Writer | None:
                gate.wait()
                found = super().claim(session_id, writer, instead_of=instead_of)
                return replace(writer, token="another", host="elsewhere") if refuses else found

        self.journal = Journal(lambda: Store.sqlite(path))
        self.model = ScriptedModel(list(answers))
        self.agent = Agent(self.model, journal=self.journal)
        self.session = self.agent.session()

    def writer(self) -> Writer | None:
        return self.journal.ask(lambda store: store.writer(self.session.id))


@pytest.mark.feature("C7")
def test_runs_that_begin_while_a_new_session_is_claimed_keep_their_order(tmp_path: Path) -> None:
    slow = SlowToClaim(tmp_path / "slow.sqlite", *"abcde")
    runs = [slow.session.send(text) for text in "12"]
    slow.gate.was_reached()
    runs += [slow.session.send(text) for text in "34"]
    assert [run.status for run in runs] == ["running"] * 4 and not slow.model.requests
    slow.gate.open()
    runs.append(slow.session.send("5"))
    assert [run.result(LONG_S).text for run in runs] == list("abcde")
    assert [run.state.previous for run in runs] == [None, *(run.id for run in runs[:-1])]
    slow.journal.close()


@pytest.mark.feature("C7")
def test_where_a_new_session_is_another_ones_nothing_has_happened(tmp_path: Path) -> None:
    slow = SlowToClaim(tmp_path / "slow.sqlite", "a", refuses=True)
    slow.gate.open()
    run = slow.session.send("1")
    with pytest.raises(SessionBusy):
        run.result(LONG_S)
    assert not slow.model.requests and not run.events and not slow.session.is_busy
    slow.journal.close()


@pytest.mark.feature("C7")
def test_a_new_session_whose_first_run_is_taken_back_is_left_to_others_when_it_is_closed(tmp_path: Path) -> None:
    slow = SlowToClaim(tmp_path / "slow.sqlite", "a")
    run = slow.session.send("1")
    slow.gate.was_reached()
    run.cancel()
    assert run.result(LONG_S).status == "cancelled"
    slow.gate.open()
    slow.session.close()
    assert slow.writer() is None
    again = slow.session.send("2")
    assert again.result(LONG_S).text == "a" and slow.writer() is not None
    slow.journal.close()


@pytest.mark.feature("C7")
@pytest.mark.parametrize("is_there", [False, True])
def test_an_interrupt_while_a_new_session_is_claimed_holds_up_no_later_run(tmp_path: Path, is_there: bool) -> None:
    class Interrupted(Journal):
        times = 1

        def interrupt(self) -> None:
            if self.times:
                self.times -= 1
                raise KeyboardInterrupt

        def claim_new(self, session_id: str) -> Future[None] | None:
            claimed = super().claim_new(session_id)
            if claimed is not None:
                self.interrupt()
            return claimed

        def claim(self, session_id: str, *, takes_over: bool = False) -> Future[None]:
            self.interrupt()
            return super().claim(session_id, takes_over=takes_over)

    journal = Interrupted(lambda: SQLStore.sqlite(tmp_path / "interrupted.sqlite"))
    session = Agent(ScriptedModel(["a", "b"]), journal=journal).session()
    if is_there:
        journal.flush()
    with pytest.raises(KeyboardInterrupt):
        session.send("1")
    assert session.send("2").result(LONG_S).text == "b"
    journal.close()
