"""Histories that were damaged after a kill: cut anywhere, a bit flipped anywhere; and disks that are full or read-only."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.core.test_fold import accepted_by_providers
from tests.crash.scene import Scene, Template, approve, attend, lines_of, open_store, wait_for_end
from turncell.adapters.markdown_store_lines import MARK
from turncell.core import codec
from turncell.errors import TurncellError
from turncell.runtime.journal import Journal, read_whole
from turncell.runtime.session import Session

pytestmark = pytest.mark.feature("B6", "C7", "C8")

SEED = 7


class Remains:
    """What a killed session has left, to be copied and damaged."""

    def __init__(self, template: Template, folder: Path, store: str) -> None:
        self.name = "history.sqlite" if store == "sqlite" else "history"
        for nth in (12, 11, 10, 9, 8):  # how much goes into one change depends on the time: until a run is open
            self.folder = folder / str(nth)
            self.folder.mkdir(parents=True)
            where = str(self.folder / self.name)
            wait_for_end(template.child(where=where, folder=str(self.folder), nth=nth, pace=0.3))
            self.session_id: str = Scene(self.folder).seen()[0]["session"]
            with opened(self.copy(folder / f"look-{nth}")) as journal:
                if Session.load(self.session_id, journal).interrupted is not None:
                    return
        raise AssertionError("no run was open at any of the changes")

    def copy(self, to: Path) -> Path:
        shutil.copytree(self.folder, to)
        return to / self.name

    def file(self, where: Path) -> Path:
        """The file that holds the records."""
        return where if where.is_file() else next(where.rglob("*.md"))


@contextmanager
def opened(where: Path) -> Iterator[Journal]:
    journal = Journal(lambda: open_store(str(where)))
    try:
        yield journal
    finally:
        journal.close()


def events_of(journal: Journal, session_id: str) -> list[Any]:
    return journal.ask(lambda store: [codec.decode(r.payload) for r in read_whole(store, session_id=session_id)])


def go_on(where: Path, journal: Journal, session: Session) -> str:
    """To the end, denying what is in doubt; what is wrong where it is not reached."""
    scene = Scene(where.parent, pace=0.0)
    agent = scene.agent(journal)
    if session.interrupted is not None:
        answer = lambda call: ("deny", None) if call.request.kind == "in_doubt" else approve(call)  # noqa: E731
        run = attend(session.resume(agent=agent, is_attended=True), answer)
        assert accepted_by_providers(session.messages)
        return "" if run.status == "completed" else str(run.state.error)
    return ""


@pytest.mark.parametrize("store", ["sqlite", "markdown"])
def test_a_record_that_is_cut_anywhere_is_the_beginning_of_itself_and_goes_on(
    template: Template, tmp_path: Path, store: str
) -> None:
    remains = Remains(template, tmp_path / "it", store)
    with opened(remains.copy(tmp_path / "whole")) as journal:
        whole = events_of(journal, remains.session_id)
    dice = random.Random(SEED)
    lengths = set()
    for number in range(12):
        where = remains.copy(tmp_path / f"cut-{number}")
        file = Path(f"{where}-wal") if store == "sqlite" else remains.file(where)
        size = file.stat().st_size
        # Not before the session is there: its line or row is on disk with the first transaction.
        os.truncate(file, dice.randrange(size * 6 // 10, size))
        with opened(where) as journal:
            session = Session.load(remains.session_id, journal)
            kept = events_of(journal, remains.session_id)
            assert kept == whole[: len(kept)]
            lengths.add(len(kept))
            assert go_on(where, journal, session) == ""
    assert len(lengths) > 2, "the cuts were all at the same place"


def told_in(document: bytes | bytearray) -> list[int]:
    """Where a Markdown document has the text that people read, without the ends of its lines."""
    told, at = [], 0
    for line in document.splitlines(keepends=True):
        if not line.startswith(MARK):
            told += range(at, at + len(line.rstrip(b"\r\n")))
        at += len(line)
    return told


@pytest.mark.parametrize("store", ["sqlite", "markdown"])
def test_a_flipped_bit_is_said_or_harmless(template: Template, tmp_path: Path, store: str) -> None:
    remains = Remains(template, tmp_path / "it", store)
    whole_at = remains.copy(tmp_path / "whole")
    with opened(whole_at) as journal:
        whole = events_of(journal, remains.session_id)
    remains.folder = whole_at.parent  # closed: with SQLite everything is in one file now
    dice = random.Random(SEED)
    outcomes = []
    for number in range(25):
        where = remains.copy(tmp_path / f"flip-{number}")
        file = remains.file(where)
        data = bytearray(file.read_bytes())
        is_told = store == "markdown" and number % 2 == 0
        data[dice.choice(told_in(data)) if is_told else dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        file.write_bytes(data)
        why = ""
        try:
            with opened(where) as journal:
                session = Session.load(remains.session_id, journal)
                kept = events_of(journal, remains.session_id)
                assert kept == whole[: len(kept)], "something is made up, or read behind a hole"
                # A flip of the last end of a line looks as if the writer had died there: then it goes on.
                is_damaged = journal.damage(remains.session_id) is not None
                why = go_on(where, journal, session)
                assert why or not is_damaged or session.interrupted is None, "it is written behind the damage"
        except TurncellError as error:
            why = str(error)
        assert not why or str(where) in why or remains.session_id in why, why
        assert not (why and is_told), "text is rendered from the records and read by nobody"
        outcomes.append(why)
    assert any(outcomes), "no bit mattered"


@pytest.mark.parametrize("store", ["sqlite", "markdown"])
def test_a_disk_that_gets_full_fails_the_run_and_the_session_goes_on_when_there_is_room(
    template: Template, tmp_path: Path, store: str
) -> None:
    for number, share in enumerate((0.75, 0.9)):
        folder = tmp_path / f"full-{number}"
        folder.mkdir()
        where = folder / ("history.sqlite" if store == "sqlite" else "history")
        size = 110_000 if store == "sqlite" else 30_000
        wait_for_end(template.child(where=str(where), folder=str(folder), pace=0.1, file_bytes=int(size * share)))
        scene = Scene(folder)
        world = lines_of(scene.world)
        with opened(where) as journal:
            session = Session.load(scene.seen()[0]["session"], journal)
            started = [
                e.call_id for e in events_of(journal, session.id) if e.type == "CallStarted" and e.effect == "write"
            ]
            assert len(world) <= len(started), "a write happened without its intent"
            assert go_on(where, journal, session) == ""
            assert len(lines_of(scene.world)) == len(set(lines_of(scene.world)))


@pytest.mark.parametrize("store", ["sqlite", "markdown"])
def test_a_folder_that_may_not_be_written_is_said(template: Template, store: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own may not even be entered
        os.chmod(folder, 0o777)
        # Root may write everywhere, so it becomes somebody who may not; anybody else is that already.
        is_root = os.getuid() == 0
        (locked := Path(folder) / "locked").mkdir(0o755 if is_root else 0o555)
        where = str(locked / ("history.sqlite" if store == "sqlite" else "history"))
        wait_for_end(template.child(where=where, folder=folder, pace=0.1, uid=65534 if is_root else 0))
        said = " ".join(
            [(Path(folder) / "log").read_text(), *(str(one.get("error")) for one in Scene(Path(folder)).seen())]
        )
        assert lines_of(Path(folder) / "world") == [], "a write happened without a record"
    assert where in said and ("TURNCELL_STORE" in said or "writable by this user" in said), said
