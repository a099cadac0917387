"""Markdown documents: people read them, programs lose nothing by it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from turncell import Agent, StoreError, settings, tool
from turncell.adapters import markdown_store_lines as lines
from turncell.adapters.markdown_store import MarkdownStore
from turncell.adapters.scripted_model import ScriptedModel, call
from turncell.core import codec
from turncell.core.events import RunEnded
from turncell.core.fold import fold
from turncell.errors import SettingError
from turncell.runtime import defaults
from turncell.runtime.ports import Record, Writer

pytestmark = pytest.mark.feature("C7", "C8")

AT = 1_700_000_000.0  # 14 November 2023
WRITER = Writer(token="t", host="here", pid=1, born_at=0.0, since=0.0)
HOSTILE = [
    "-->",
    "<!-- turncell record {} 00000000 -->",
    "\n<!-- turncell session {} 00000000 -->\n",
    "```\n````\n~~~\n<script>alert(1)</script>\n# Not a heading",
    "\r\n\0\x1b[31m\u2028\x85\ud800",
]


def message(seq: int, text: str, session: str = "s", role: str = "user") -> Record:
    event = {"type": "MessageAdded", "message": {"role": role, "parts": [{"type": "text", "text": text}]}}
    return Record(session, seq, "r", 1, "MessageAdded", AT + seq, json.dumps(event).encode())


@pytest.fixture
def store(tmp_path: Path) -> MarkdownStore:
    store = MarkdownStore(tmp_path / "root")
    store.create_session("s", title="A title", project="/home/ada", at=AT)
    return store


def document(store: MarkdownStore, session: str = "s") -> Path:
    (path,) = store.root.glob(f"2023*/{session}.md")
    return path


def seqs(store: MarkdownStore, session: str = "s") -> list[int]:
    return [record.seq for record in store.read(session_id=session)]


def test_a_session_is_a_document_that_people_can_read(own_history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own_history.parent)

    @tool
    def weather(city: str) -> str:
        """The weather."""
        return f"It rains in {city}."

    root = own_history.parent / "sessions"
    settings.use(settings.Settings(store=f"markdown:{root}"))
    agent = Agent(ScriptedModel([call("weather", city="Oslo"), "Take **an umbrella**."]), tools=[weather], mode="auto")
    run = agent.run_sync("What is the weather?\nIn Oslo.")
    defaults.journal().close()
    (path,) = root.glob("*/*.md")
    (link,) = Path(".turncell", "sessions").iterdir()
    assert link.resolve() == path.resolve()
    seen = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("<!--"))
    expected = [
        "# What is the weather?",
        "## Run, ",
        "### Message",
        "> What is the weather?\n> In Oslo.",
        "Call of `weather`",
    ]
    expected += ['> ```json\n> {\n>   "city": "Oslo"\n> }\n> ```', "Result: ok", "> It rains in Oslo."]
    expected += ["### Answer\n\n> Take **an umbrella**.", "*completed*"]
    places = [seen.index(words) for words in expected]
    assert places == sorted(places)
    store = MarkdownStore(root)
    events = [codec.decode(record.payload) for record in store.read(run_id=run.id)]
    assert isinstance(events[-1], RunEnded) and fold(events).text == "Take **an umbrella**."
    assert [event.type for event in events] == [event.type for event in run.events]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_no_text_breaks_the_document_or_is_read_as_a_record(store: MarkdownStore, text: str) -> None:
    finished = {"type": "CallFinished", "content": text, "status": text, "call_id": text}
    started = {"type": "RunStarted", "model": text, "mode": text}
    store.create_session("t", title=text, project=text, at=AT)
    records = [
        Record("t", 1, "r", 0, "RunStarted", AT, json.dumps(started).encode()),
        message(2, text, "t"),
        message(3, text + text, "t", role=text),
        Record("t", 4, text.encode("utf-8", "replace").decode(), 1, "CallFinished", AT, json.dumps(finished).encode()),
    ]
    store.append(records, durable=True)
    store.rename("t", text)
    assert list(MarkdownStore(store.root).read(session_id="t")) == records
    content = document(store, "t").read_bytes()
    assert not set(b"\0\r\x1b") & set(content)
    tokens = [one for block in MarkdownIt().parse(content.decode("utf-8")) for one in (block, *(block.children or ()))]
    html = [token.content for token in tokens if token.type in ("html_block", "html_inline")]
    assert len(html) == 5 and all(one.startswith("<!-- turncell ") and one.count("-->") == 1 for one in html)
    assert sum(token.type == "heading_open" and token.level == 0 for token in tokens) == 4, "title, run, two messages"


@pytest.mark.parametrize("cut", [1, 5, 40, 200])
def test_a_torn_last_record_is_left_out_said_once_and_repaired(
    store: MarkdownStore, caplog: pytest.LogCaptureFixture, cut: int
) -> None:
    store.append([message(1, "one")], durable=False)
    whole = document(store).read_bytes()
    store.append([message(2, "two " * 50)], durable=True)
    both = document(store).read_bytes()
    line_end = both.index(b"\n", len(whole))
    document(store).write_bytes(both[: line_end - cut])
    store = MarkdownStore(store.root)
    with caplog.at_level(logging.WARNING, "turncell"):
        assert seqs(store) == seqs(store) == [1]
    assert caplog.text.count("is not whole and left out") == 1
    store.append([message(2, "again")], durable=True)
    assert document(store).read_bytes().startswith(whole)
    assert [record.seq for record in MarkdownStore(store.root).read()] == [1, 2]
    assert b"two two" not in document(store).read_bytes()


def test_at_whatever_byte_the_writer_dies_an_append_is_there_or_not(store: MarkdownStore) -> None:
    store.append([message(1, "one")], durable=False)
    begin = document(store).stat().st_size
    store.append([message(2, "two"), message(3, "three"), message(4, "four")], durable=False)
    data = document(store).read_bytes()
    for end in range(begin, len(data)):
        document(store).write_bytes(data[:end])
        fresh = MarkdownStore(store.root)
        found = seqs(fresh)
        assert found in ([1], [1, 2, 3, 4])
        following = [message(seq, "new") for seq in range(found[-1] + 1, 6)]
        fresh.append(following, durable=False)
        assert seqs(MarkdownStore(store.root)) == [1, 2, 3, 4, 5]
        assert fresh.damage("s") is None


@hypothesis.settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_whatever_happens_to_the_bytes_what_was_before_is_read_and_nothing_is_made_up(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    store = MarkdownStore(tmp_path_factory.mktemp("root"))
    store.create_session("s", title="A title", project="", at=AT)
    records = [message(seq, f"text {seq}") for seq in range(1, 7)]
    for at in (0, 2, 3):
        store.append(records[at : {0: 2, 2: 3, 3: 6}[at]], durable=False)
    content = bytearray(document(store).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(content)))
        end = min(len(content), begin + data.draw(st.integers(0, 400)))
        content[begin:end] = data.draw(st.binary(max_size=20) | st.sampled_from([b"\n", b"-->", bytes(content[:300])]))
    document(store).write_bytes(bytes(content))
    fresh = MarkdownStore(store.root)
    try:
        found = list(fresh.read(session_id="s"))
    except StoreError:
        return  # the first line is damaged
    assert found == records[: len(found)]
    new = message(len(found) + 1, "new")
    if fresh.damage("s") is not None:
        with pytest.raises(StoreError, match=r"session 's' is damaged: record \d cannot be read"):
            fresh.append([new], durable=False)
    else:
        fresh.append([new], durable=False)
        assert list(MarkdownStore(store.root).read(session_id="s")) == [*found, new]


def test_zeros_that_a_loss_of_power_leaves_are_no_record(store: MarkdownStore) -> None:
    store.append([message(1, "one")], durable=True)
    with document(store).open("ab") as file:
        file.write(b"\0" * 5000)
    fresh = MarkdownStore(store.root)
    fresh.append([message(2, "two")], durable=True)
    assert seqs(MarkdownStore(store.root)) == [1, 2]


def test_what_people_add_by_hand_stays(store: MarkdownStore) -> None:
    store.append([message(1, "one")], durable=False)
    with document(store).open("a") as file:
        file.write("\nMy own note, without an end of line")
    store.append([message(2, "two")], durable=False)
    assert "My own note, without an end of line\n" in document(store).read_text() and seqs(store) == [1, 2]
    document(store).write_bytes(document(store).read_bytes().replace(b"\n", b"\r\n"))
    fresh = MarkdownStore(store.root)
    fresh.append([message(3, "three")], durable=False)
    assert seqs(fresh) == [1, 2, 3], "an editor of Windows has saved it"


@pytest.mark.parametrize("broken", [2, 4])
def test_a_broken_record_ends_the_session_and_nothing_is_written_after_it(store: MarkdownStore, broken: int) -> None:
    for seq in range(1, 5):
        store.append([message(seq, f"text {seq}")], durable=False)
    data = document(store).read_bytes()
    document(store).write_bytes(data.replace(b'\\"text %d' % broken, b'\\"text X'))
    words = (
        rf"session 's' is damaged: record {broken} cannot be read \(its check sum is another; in .*s.md at byte \d+\)"
    )
    fresh = MarkdownStore(store.root)
    if broken == 4:
        with pytest.raises(StoreError, match=words):
            fresh.append([message(4, "x")], durable=False)  # also unread: the end of the document is looked at
    assert seqs(fresh) == list(range(1, broken))
    with pytest.raises(StoreError, match=words):
        fresh.append([message(5, "x")], durable=False)
    document(store).write_bytes(data)
    assert seqs(fresh) == [1, 2, 3, 4]
    fresh.append([message(5, "x")], durable=False)


def damaged(change: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda path: path.write_text(change(path.read_text()), newline="")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(b""), "is not the document of a session"),
        (lambda path: path.write_bytes(b"\xff\0" * 50_000), "is not the document of a session"),
        (damaged(lambda text: text.replace("A title", "B title", 1)), "its first line is damaged: its check sum is another"),
        (lambda path: path.write_bytes(lines.header_line(lines.Header(1, "other", "", "", 0.0, ""))), "says that it is session 'other'"),
        (lambda path: path.write_bytes(lines._line("session", {"version": 1})), "it has no 'session_id'"),
        (lambda path: path.write_bytes(b"<!-- turncell session " + b"[" * 500_000 + b" 00000000 -->\n"), "its first line is damaged"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "is no file; remove it"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/passwd")), "is not the document of a session"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_what_it_seems_is_refused_and_hides_no_other(
    store: MarkdownStore, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], object], words: str
) -> None:
    store.create_session("good", title="", project="", at=AT)
    store.append([message(1, "one"), message(1, "one", "good")], durable=False)
    damage(document(store))
    fresh = MarkdownStore(store.root)
    for use in (lambda: fresh.read(session_id="s"), lambda: fresh.append([message(2, "x")], durable=False)):
        with pytest.raises(StoreError, match=words):
            use()
    assert [record.session_id for record in fresh.read()] == ["good"]
    assert [info.session_id for info in fresh.sessions()] == ["good"]
    assert "is left out" in caplog.text and words in caplog.text
    assert Path("/etc/passwd").read_text().startswith("root")


@pytest.mark.parametrize(
    ("foreign", "words"),
    [
        ([lines.record_line(message(2, "x", "other"), "{}", [], 0)], "it belongs to session 'other'"),
        ([lines._line("record", {"session_id": "s", "seq": "2"})], "a value has another type"),
        ([b"<!-- turncell record " + b"[" * 100_000 + b" 00000000 -->\n"], "its check sum is another"),
        ([b"<!-- turncell record ", *[b"x" * (1 << 20)] * 110, b"\n"], "it is not whole"),
    ],
    ids=["another", "typeless", "deep", "giant"],
)
def test_a_record_of_another_session_a_deep_or_a_giant_one_is_damage(
    store: MarkdownStore, foreign: list[bytes], words: str
) -> None:
    store.append([message(1, "one")], durable=False)
    with document(store).open("ab") as file:
        file.writelines(foreign)
        file.write(lines.record_line(message(3, "x"), "{}", [], 0))
    assert seqs(store) == [1]
    damage = store.damage("s")
    assert damage is not None and damage.seq == 2 and words in damage.found


@pytest.mark.parametrize(
    "session_id",
    ["../../x", "/etc/x", "..", ".", "", "a/b", "a\\b", "nul", "CON.txt", "com1", "a\0b", "x" * 300, "ä", "a.", "a\n", "-", "a:b"],
    ids=ascii,
)  # fmt: skip
def test_a_session_id_cannot_leave_its_folder(store: MarkdownStore, session_id: str) -> None:
    before = sorted(store.root.parent.rglob("*"))
    uses: list[Callable[[], object]] = [
        lambda: store.create_session(session_id, title="", project="", at=AT),
        lambda: store.append([message(1, "x", session_id)], durable=False),
        lambda: store.read(session_id=session_id),
        lambda: store.claim(session_id, WRITER),
        lambda: store.release(session_id, "t"),
        lambda: store.writer(session_id),
        lambda: store.rename(session_id, "x"),
        lambda: store.delete([session_id]),
    ]
    for use in uses:
        with pytest.raises(StoreError, match="cannot be the name of a document"):
            use()
    assert sorted(store.root.parent.rglob("*")) == before


def test_a_link_in_the_work_folder_leads_to_the_document_and_goes_with_it(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    store = MarkdownStore(tmp_path / "root", links=True, meta_dirname=".notes")
    store.create_session("s", title="", project=str(work), at=AT)
    link = work / ".notes" / "sessions" / "s.md"
    assert link.is_symlink() and link.resolve() == document(store)
    MarkdownStore(tmp_path / "root").delete(["s"])
    assert not link.is_symlink()


def test_where_links_are_impossible_a_small_file_points_to_the_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "symlink", refuse)
    store = MarkdownStore(tmp_path / "root", links=True)
    store.create_session("s", title="", project=str(tmp_path), at=AT)
    pointer = tmp_path / ".turncell" / "sessions" / "s.md"
    assert str(document(store)) in pointer.read_text() and not pointer.is_symlink()
    store.delete(["s"])
    assert not pointer.exists()
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".turncell").write_text("not a folder")
    store.create_session("t", title="", project=str(tmp_path / "work"), at=AT)
    assert "no link to the session" in caplog.text and [info.session_id for info in store.sessions()] == ["t"]


def test_a_document_that_names_another_file_as_its_link_deletes_nothing(store: MarkdownStore, tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    path = document(store)
    path.write_bytes(lines.header_line(lines.Header(1, "s", "", "", AT, str(victim))))
    MarkdownStore(store.root).delete(["s"])
    assert victim.read_text() == "precious" and not path.exists()


def test_nothing_of_a_deleted_session_is_left(store: MarkdownStore) -> None:
    store.append([message(1, "SECRET")], durable=False)
    store.claim("s", WRITER)
    (document(store).parent / ".s.md.123.new").write_text("SECRET of an interrupted renaming")
    left = store.root / "blobs" / "ab" / ("ab" * 32)
    left.parent.mkdir(parents=True)
    left.write_text("SECRET of an interrupted append")
    store.delete(["s"])
    assert [path.name for path in store.root.rglob("*") if path.is_file() and path.name != ".lock"] == []


def test_an_append_costs_the_same_in_a_long_document(store: MarkdownStore) -> None:
    store.append([message(1, "one")], durable=False)
    short = bytes_read_by_an_append(store, 2)
    with document(store).open("ab") as file:
        for seq in range(3, 53):
            file.write(lines.record_line(message(seq, ""), json.dumps("x" * 1_000_000), [], 0))
        file.write(lines.record_line(message(53, ""), "{}", [], 0))
    assert bytes_read_by_an_append(MarkdownStore(store.root), 54) < short + 1_000_000, "of 50 MB"


def bytes_read_by_an_append(store: MarkdownStore, seq: int) -> int:
    def so_far() -> int:
        return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])

    before = so_far()
    store.append([message(seq, "x")], durable=False)
    return so_far() - before


@pytest.mark.full
def test_a_document_of_200_megabytes_is_read_in_bounded_memory(store: MarkdownStore) -> None:
    with document(store).open("ab") as file:
        for seq in range(1, 201):
            file.write(lines.record_line(message(seq, ""), json.dumps("x" * 1_000_000), [], 0))
    code = """
import resource, sys
from turncell.adapters.markdown_store import MarkdownStore
store = MarkdownStore(sys.argv[1])
list(store.read(session_id="none"))
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + (64 << 20),) * 2)
print(sum(len(record.payload) for record in store.read(session_id="s")), len(store.sessions()))
"""
    done = subprocess.run([sys.executable, "-c", code, str(store.root)], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [str(200 * 1_000_002), "1"], done.stderr


def test_a_full_disk_takes_back_what_was_begun(store: MarkdownStore) -> None:
    store.create_session("t", title="", project="", at=AT)
    store.append([message(1, "one"), message(1, "one", "t")], durable=True)
    before = {name: document(store, name).read_bytes() for name in "st"}
    code = """
import json, resource, signal, sys
from turncell.adapters.markdown_store import MarkdownStore
from turncell.errors import StoreError
from turncell.runtime.ports import Record
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000,) * 2)
try:
    MarkdownStore(sys.argv[1]).append([Record("s", 2, "r", 1, "T", 0.0, b"{}"), Record("t", 2, "r", 1, "T", 0.0, b"x" * 200_000)], durable=True)
except StoreError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(store.root)], capture_output=True, text=True, timeout=60)
    assert "t.md cannot be written: File too large" in done.stdout, done.stderr
    assert {name: document(store, name).read_bytes() for name in "st"} == before


def test_a_claim_stands_beside_the_document_and_one_that_cannot_be_read_is_said(store: MarkdownStore) -> None:
    store.claim("s", WRITER)
    lock = document(store).with_suffix(".lock")
    assert json.loads(lock.read_text())["token"] == "t"
    lock.write_text("{")
    with pytest.raises(StoreError, match=r"s\.lock says who writes the session, and cannot be read .* delete it"):
        store.append([message(1, "x")], durable=False, token="t")


def test_a_folder_that_another_process_holds_says_so(store: MarkdownStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turncell.adapters.markdown_store_files.LOCK_TIMEOUT_S", 0.1)
    code = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(flush=True); sys.stdin.read()"
    program = [sys.executable, "-c", code, str(store.root / ".lock")]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"\n"
        with pytest.raises(StoreError, match=r"another process has held .*\.lock for 0\.1 s"):
            store.append([message(1, "x")], durable=False)
        assert seqs(store) == [], "reading needs no lock"
        other.communicate()
    store.append([message(1, "x")], durable=False)


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made: Not a directory"):
        MarkdownStore(tmp_path / "file" / "root")
    with pytest.raises(SettingError, match="use the name of one folder"):
        MarkdownStore(tmp_path, meta_dirname="../up")


def test_a_newer_document_can_be_read_and_not_written(store: MarkdownStore) -> None:
    store.append([message(1, "one")], durable=False)
    path = document(store)
    rest = path.read_bytes().partition(b"\n")[2]
    path.write_bytes(lines.header_line(lines.Header(99, "s", "", "", AT, "")) + rest)
    fresh = MarkdownStore(store.root)
    assert seqs(fresh) == [1]
    for write in (
        lambda: fresh.append([message(2, "x")], durable=False),
        lambda: fresh.rename("s", "x"),
        lambda: fresh.claim("s", WRITER),
    ):
        with pytest.raises(StoreError, match="schema version 99, this turncell writes up to 1"):
            write()


def test_two_processes_write_one_folder_and_nothing_is_lost(store: MarkdownStore) -> None:
    code = """
import sys
from turncell.adapters.markdown_store import MarkdownStore
from turncell.runtime.ports import Record
store = MarkdownStore(sys.argv[1]); me = sys.argv[2]
store.create_session(me, title="", project="", at=0)
for seq in range(1, 301):
    store.append([Record(me, seq, "r", 1, "T", 0.0, b"{}")], durable=seq % 100 == 0)
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, str(store.root), name]) for name in ("one", "two")]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert seqs(store, "one") == seqs(store, "two") == list(range(1, 301))
