"""What every store must do, as checks that run against a real one. For people who write a store of their own:

>>> from turncell.adapters.sql_store import SQLStore
>>> from turncell.testing import check_store
>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     check_store(lambda: SQLStore.sqlite(f"{folder}/history.sqlite"))

`make()` opens the same store each time: the checks use several openings side by side, as several processes do, also from
other threads. Sessions get new ids, so that a store may be used that has some already. In a test suite, take the clauses
one by one, so that a failure reads as a sentence:

    @pytest.mark.parametrize("clause", STORE_CLAUSES, ids=lambda clause: clause.__name__)
    def test_my_store(clause): clause(make)

What happens to damaged records is checked by `check_damage(make, spoil)`: only its author knows how to damage a store.

What cannot be checked from outside is left to its author: that `durable` survives a loss of power.
"""

from __future__ import annotations

import hashlib
import inspect
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from turncell.errors import SessionBusy, StoreError, UsageError
from turncell.runtime.ports import Record, Store, Writer

Make: TypeAlias = Callable[[], Store]
Clause: TypeAlias = Callable[[Make], None]


def check_store(make: Make) -> None:
    """Check a store of your own against the contract of `turncell.runtime.ports.Store`.

    `make` opens it: `check_store(lambda: MyStore(path))`. AssertionError names the clause that does not hold; UsageError if
    `make` does not open a store.
    """
    _check_make(make)
    for clause in STORE_CLAUSES:
        try:
            clause(make)
        except Exception as error:
            words = clause.__name__.replace("_", " ")
            raise AssertionError(f"the store does not hold this: {words}\n{inspect.getdoc(clause) or ''}\n{error!r}") from error  # fmt: skip


def check_damage(make: Make, spoil: Callable[[str, int], object]) -> None:
    """Check what the contract of `Store` says of damage. AssertionError where it does not hold.

    `spoil(session_id, seq)` changes the stored bytes of that record, behind the store's back and while it is open.
    """
    _check_make(make)
    with _opened(make, 2) as (one, two):
        hurt, well = _new(one), _new(one)
        payload = b'{"text":"some letters"}'
        one.append([_record(name, seq, payload) for name in (hurt, well) for seq in range(1, 6)], durable=True)
        blob, digest = _with_blob(hurt, 6, uuid.uuid4().bytes)
        one.append([blob], durable=True)
        _equal(two.damage(hurt), None, "damage before there is any")
        spoil(hurt, 4)
        for store in (one, two):
            _equal(_seqs(store, hurt), [1, 2, 3], "the records before the damage")
            damage = store.damage(hurt)
            assert damage is not None, "the damage is not known after it was read"
            _equal((damage.session_id, damage.seq), (hurt, 4), "where the damage is")
            assert damage.found.strip(), "what was found is not said"
            found = [(record.session_id, record.seq) for record in store.read() if record.session_id in (hurt, well)]
            expected = [(hurt, 1), (hurt, 2), (hurt, 3)], [(well, seq) for seq in range(1, 6)]
            _equal(sorted(found), sorted([*expected[0], *expected[1]]), "all that is whole")
            assert 4 not in [record.seq for record in store.read(session_id=hurt, types=["T"])], (
                "a damaged record is read"
            )
            assert {hurt, well} <= {info.session_id for info in store.sessions()}, "a session is hidden"
            with _refused("a record after the damage"):
                store.append([_record(hurt, 7)], durable=False)
            _equal((_seqs(store, well), store.damage(well)), ([1, 2, 3, 4, 5], None), "the other session")
            _equal(store.blob(digest), next(iter(blob.blobs.values())), "a blob behind the damage")
        two.append([_record(well, 6)], durable=True)
        mine = _writer()
        _equal(one.claim(hurt, mine), None, "the claim of a damaged session")
        one.release(hurt, mine.token)
        one.delete([hurt])
        _equal((_seqs(one, hurt), one.damage(hurt)), ([], None), "a damaged session that was deleted")
        _equal(_seqs(one, well), [1, 2, 3, 4, 5, 6], "the other session")


def _check_make(make: object) -> None:
    """The mistake of a caller is not to be told as one of the store."""
    if not callable(make):
        raise UsageError(f"make is {make!r}; use a function that opens the store: check_store(lambda: MyStore(path))")
    store = make()
    missing = sorted(name for name, of in vars(Store).items() if inspect.isfunction(of) and name[0] != "_" and not hasattr(store, name))  # fmt: skip
    if missing:
        raise UsageError(f"make() returned {store!r}, which is no store: it has no {', '.join(missing)}")
    store.close()


def _new(store: Store, *, title: str = "A title", at: float = 1000.0) -> str:
    session_id = f"ses_{uuid.uuid4().hex}"
    store.create_session(session_id, title=title, project="/home/ada", at=at)
    return session_id


def _record(session_id: str, seq: int, payload: bytes = b"{}", run: str = "r1", type: str = "T") -> Record:
    return Record(session_id, seq, f"{run}_{session_id}", 1, type, 1000.5 + seq, payload)


def _with_blob(session_id: str, seq: int, data: bytes) -> tuple[Record, str]:
    digest = hashlib.sha256(data).hexdigest()
    payload = b'{"text":{"$blob":"%s"}}' % digest.encode()
    return Record(session_id, seq, "r", 1, "T", 0.0, payload, {digest: data}), digest


def _writer(token: str = "") -> Writer:
    return Writer(token=token or uuid.uuid4().hex, host="here", pid=4711, born_at=1.25, since=2.5)


def _seqs(store: Store, session_id: str) -> list[int]:
    return [record.seq for record in store.read(session_id=session_id)]


@contextmanager
def _opened(make: Make, count: int = 1) -> Iterator[list[Store]]:
    stores: list[Store] = []
    try:
        for _ in range(count):
            stores.append(make())
        yield stores
    finally:
        for store in stores:
            store.close()


@contextmanager
def _refused(doing: str, kind: type[StoreError] = StoreError) -> Iterator[None]:
    try:
        yield
    except kind as error:
        words = str(error)
    else:
        raise AssertionError(f"{doing} was not refused with a {kind.__name__}")
    assert words.strip(), f"{doing} is refused without a word"


def _equal(found: object, expected: object, what: str) -> None:
    assert found == expected, f"{what}: expected {expected!r}, found {found!r}"


def what_was_appended_is_read_back_to_the_byte(make: Make) -> None:
    payloads = [
        b"{}",
        b'{"a":"-->\\n```\\u0000\\ud800"}',
        b'"<!-- x -->"',
        b'{"deep":' + b"[" * 500 + b"]" * 500 + b"}",
    ]
    with _opened(make) as (store,):
        session_id = _new(store)
        records = [_record(session_id, seq, payload) for seq, payload in enumerate(payloads, 1)]
        store.append(records, durable=False)
        _equal(list(store.read(session_id=session_id)), records, "in the same opening")
    with _opened(make) as (store,):
        _equal(list(store.read(session_id=session_id)), records, "after opening again")


def a_record_of_five_megabytes_is_read_back(make: Make) -> None:
    payload = b'{"text":"' + b"\\u6f22" * 850_000 + b'"}'
    with _opened(make) as (store,):
        session_id = _new(store)
        store.append([_record(session_id, 1, payload)], durable=True)
        (found,) = store.read(session_id=session_id)
        assert found.payload == payload


def records_can_be_found_by_session_run_and_type(make: Make) -> None:
    with _opened(make) as (store,):
        one, two = _new(store), _new(store)
        store.append([_record(one, 1), _record(two, 1, type="Other"), _record(one, 2, run="r2")], durable=False)
        _equal([r.session_id for r in store.read(session_id=one)], [one, one], "by session")
        _equal([r.seq for r in store.read(run_id=f"r2_{one}")], [2], "by run")
        _equal([r.session_id for r in store.read(session_id=two, types=["Other"])], [two], "by session and type")
        _equal(list(store.read(session_id=one, types=["Other"])), [], "a type that is not there")
        _equal(list(store.read(session_id=one, types=[])), [], "no type at all")
        _equal(list(store.read(session_id="ses_nobody")), [], "an unknown session")


def records_are_read_by_the_creation_of_their_session_and_their_number(make: Make) -> None:
    with _opened(make) as (store,):
        late, early = _new(store, at=2000.0), _new(store, at=1500.0)
        store.append([_record(late, 1), _record(early, 1), _record(late, 2)], durable=False)
        store.append([_record(early, 2)], durable=False)
        found = [(r.session_id, r.seq) for r in store.read() if r.session_id in (late, early)]
        _equal(found, [(early, 1), (early, 2), (late, 1), (late, 2)], "the order")


def a_session_id_is_taken_once(make: Make) -> None:
    with _opened(make, 2) as (one, two):
        session_id = _new(one, title="first")
        for store in (one, two):
            with _refused("a second session of the same id"):
                store.create_session(session_id, title="second", project="", at=1.0)
        (info,) = [info for info in two.sessions() if info.session_id == session_id]
        _equal(info.title, "first", "the title")


def a_number_is_taken_once_also_between_two_openings(make: Make) -> None:
    with _opened(make, 2) as (one, two):
        session_id = _new(one)
        one.append([_record(session_id, 1, b'{"by":1}')], durable=False)
        for store in (one, two):
            with _refused("a number that is taken"):
                store.append([_record(session_id, 1, b'{"by":2}')], durable=False)
        two.append([_record(session_id, 2)], durable=False)
        with _refused("a number that the other opening has taken", SessionBusy):
            one.append([_record(session_id, 2)], durable=False)
        with _refused("the same number twice in one append"):
            one.append([_record(session_id, 3), _record(session_id, 3)], durable=False)
        _equal([r.payload for r in two.read(session_id=session_id)], [b'{"by":1}', b"{}"], "the records")


def an_append_writes_all_or_nothing(make: Make) -> None:
    with _opened(make) as (store,):
        one, two = _new(store), _new(store)
        store.append([_record(two, 1)], durable=False)
        new, digest = _with_blob(one, 1, uuid.uuid4().bytes)
        with _refused("an append of which one number is taken"):
            store.append([new, _record(one, 2), _record(two, 1)], durable=True)
        _equal(_seqs(store, one), [], "records of the refused append")
        with _refused("the blob of a refused append"):
            store.blob(digest)
        store.append([_record(one, 1)], durable=False)
        _equal(_seqs(store, one), [1], "the session afterwards")


def what_is_written_together_is_there_as_a_whole_or_not_at_all(make: Make) -> None:
    with _opened(make, 2) as (one, two):
        together = getattr(one, "together", None)
        if together is None:  # a store may do without
            return
        session_id, mine = f"ses_{uuid.uuid4().hex}", _writer()

        def write(store: Store) -> None:
            store.create_session(session_id, title="", project="", at=1.0)
            _equal(store.claim(session_id, mine), None, "the claim of a session that is being made")
            store.append([_record(session_id, 1)], durable=False, token=mine.token)

        def fail(store: Store) -> None:
            write(store)
            store.append([_record("ses_nobody", 1)], durable=False)

        with _refused("a part of what is written together"):
            together(fail, durable=False)
        assert session_id not in [info.session_id for info in two.sessions()], "what was written before it is there"
        together(write, durable=True)
        one.append([_record(session_id, 2)], durable=False, token=mine.token)
        _equal(_seqs(two, session_id), [1, 2], "the records, as the other opening sees them")
        _equal(two.writer(session_id), mine, "the writer, as the other opening sees it")


def records_of_an_unknown_session_are_refused(make: Make) -> None:
    with _opened(make) as (store,):
        with _refused("a record of a session that was never created"):
            store.append([_record("ses_nobody", 1)], durable=False)
        with _refused("a new title of a session that was never created"):
            store.rename("ses_nobody", "x")
        with _refused("a claim of a session that was never created"):
            store.claim("ses_nobody", _writer())
        _equal(store.writer("ses_nobody"), None, "its writer")


def an_append_of_nothing_does_nothing(make: Make) -> None:
    with _opened(make) as (store,):
        store.append([], durable=True)


def what_one_opening_has_written_another_reads(make: Make) -> None:
    with _opened(make, 2) as (one, two):
        session_id = _new(one)
        for seq in range(1, 6):
            (one, two)[seq % 2].append([_record(session_id, seq)], durable=seq == 3)
            _equal(_seqs(one, session_id), list(range(1, seq + 1)), "the first opening")
            _equal(_seqs(two, session_id), list(range(1, seq + 1)), "the second opening")


def blobs_come_back_to_the_byte(make: Make) -> None:
    with _opened(make) as (store,):
        session_id = _new(store)
        data = bytes(range(256)) + uuid.uuid4().bytes
        record, digest = _with_blob(session_id, 1, data)
        store.append([record], durable=True)
        again, _ = _with_blob(session_id, 2, data)
        store.append([again], durable=False)
        _equal(store.blob(digest), data, "the blob")
        _equal([r.payload for r in store.read(session_id=session_id)], [record.payload, again.payload], "the records")
    with _opened(make) as (store,):
        _equal(store.blob(digest), data, "the blob after opening again")
        for unknown in (hashlib.sha256(digest.encode()).hexdigest(), "../../etc/passwd", "", "x\0y"):
            with _refused(f"the blob {unknown!r}"):
                store.blob(unknown)


def a_session_has_one_writer(make: Make) -> None:
    with _opened(make, 2) as (one, two):
        session_id = _new(one)
        mine, other = _writer(), _writer()
        _equal(one.writer(session_id), None, "the writer before any claim")
        _equal(one.claim(session_id, mine), None, "the first claim")
        _equal(one.claim(session_id, mine), None, "the same claim again")
        _equal(two.claim(session_id, other), mine, "a second claim")
        _equal(two.writer(session_id), mine, "the writer as the other opening sees it")
        one.append([_record(session_id, 1)], durable=False, token=mine.token)
        for token in (other.token, None):
            with _refused(f"an append with the token {token!r}", SessionBusy):
                two.append([_record(session_id, 2)], durable=False, token=token)
        _equal(_seqs(one, session_id), [1], "the records")


def a_claim_is_taken_over_only_by_its_token(make: Make) -> None:
    with _opened(make, 2) as (one, two):
        session_id = _new(one)
        mine, other, third = _writer(), _writer(), _writer()
        one.claim(session_id, mine)
        _equal(two.claim(session_id, other, instead_of=third.token), mine, "instead of a token that it has not")
        _equal(two.claim(session_id, other, instead_of=mine.token), None, "instead of the token that it has")
        _equal(one.claim(session_id, third, instead_of=mine.token), other, "instead of a token that it had")
        with _refused("an append of the one who lost the claim"):
            one.append([_record(session_id, 1)], durable=False, token=mine.token)
        two.append([_record(session_id, 1)], durable=False, token=other.token)


def a_claim_is_released_only_by_its_token(make: Make) -> None:
    with _opened(make, 2) as (one, two):
        session_id = _new(one)
        mine, other = _writer(), _writer()
        one.claim(session_id, mine)
        two.release(session_id, other.token)
        _equal(one.writer(session_id), mine, "after a release with another token")
        one.release(session_id, mine.token)
        _equal(two.writer(session_id), None, "after the release")
        one.release(session_id, mine.token)
        _equal(two.claim(session_id, other), None, "the next claim")


def of_many_who_claim_at_once_one_gets_it(make: Make) -> None:
    with _opened(make) as (store,):
        session_ids = [_new(store) for _ in range(5)]
        for instead_of in (None, "old"):
            for session_id in session_ids:
                if instead_of is not None:
                    writer = store.writer(session_id)
                    assert writer is not None
                    store.claim(session_id, _writer("old"), instead_of=writer.token)
            won: list[str] = []
            start = threading.Barrier(4)

            def compete(won: list[str] = won, start: threading.Barrier = start, old: str | None = instead_of) -> None:
                with _opened(make) as (mine,):
                    start.wait(30)
                    won.extend(one for one in session_ids if mine.claim(one, _writer(), instead_of=old) is None)

            threads = [threading.Thread(target=compete) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            _equal(sorted(won), sorted(session_ids), "the claims that were granted")


def sessions_are_listed_the_newest_first(make: Make) -> None:
    with _opened(make) as (store,):
        old, new, empty = _new(store, at=10.0), _new(store, at=20.0), _new(store, title="", at=1010.0)
        begun = [_record(name, 1, b'{"depth":0,"root_run_id":"r"}', type="RunStarted") for name in (old, new)]
        store.append([*begun, _record(old, 2, run="r2", type="RunStarted")], durable=False)
        mine = [info for info in store.sessions() if info.session_id in (old, new, empty)]
        _equal([info.session_id for info in mine], [empty, old, new], "by their last record")
        found = [(info.title, info.project, info.created_at, info.updated_at, info.runs) for info in mine]
        expected = [("", "/home/ada", 1010.0, 1010.0, 0), ("A title", "/home/ada", 10.0, 1002.5, 2)]
        _equal(found, [*expected, ("A title", "/home/ada", 20.0, 1001.5, 1)], "what is known of them")


def a_list_says_which_sessions_are_those_of_sub_agents(make: Make) -> None:
    with _opened(make, 2) as (one, two):
        outer, inner, asked = _new(one), _new(one), _new(one)
        deep = b'{"depth":1,"root_run_id":"run_outer","parent_run_id":"run_between"}'
        one.append([_record(outer, 1, b'{"depth":0,"root_run_id":"run_outer"}', type="RunStarted")], durable=False)
        one.append([_record(inner, 1, deep, type="RunStarted"), _record(inner, 2)], durable=False)
        one.append([_record(asked, 1)], durable=False)
        one.append([_record(asked, 2, deep, type="RunStarted")], durable=False)  # a session of people that a tool uses
        for store in (one, two):
            found = {info.session_id: info.root_run_id for info in store.sessions()}
            _equal([found[name] for name in (outer, inner, asked)], ["", "run_outer", ""], "the runs around them")


def a_session_can_be_renamed(make: Make) -> None:
    with _opened(make, 2) as (one, two):
        session_id = _new(one)
        one.append([_record(session_id, 1)], durable=False)
        _equal([i.title for i in two.sessions() if i.session_id == session_id], ["A title"], "the title before")
        for title in ("Another", "", "# two\nlines --> ` <b>", "é漢🎈", "nul \0 and half a pair \ud83c"):
            one.rename(session_id, title)
            (info,) = [info for info in two.sessions() if info.session_id == session_id]
            # No database keeps NUL and lone surrogates; a store may put other characters in their place.
            whole = title.partition("\0")[0]
            assert info.title == title or (whole != title and info.title.startswith(whole)), (
                f"{title!r}: {info.title!r}"
            )
            _equal(info.created_at, 1000.0, "its time")
        two.append([_record(session_id, 2)], durable=False)
        one.append([_record(session_id, 3)], durable=False)
        _equal(_seqs(two, session_id), [1, 2, 3], "its records")


def a_deleted_session_is_gone_and_others_stay(make: Make) -> None:
    with _opened(make, 2) as (one, two):
        gone, kept = _new(one), _new(one)
        shared, alone = uuid.uuid4().bytes, uuid.uuid4().bytes
        first, shared_digest = _with_blob(gone, 1, shared)
        second, alone_digest = _with_blob(gone, 2, alone)
        third, _ = _with_blob(kept, 1, shared)
        one.append([first, second, third], durable=False)
        one.claim(gone, _writer())
        two.delete([gone, "ses_nobody"])
        _equal(list(one.read(session_id=gone)), [], "records of the deleted session")
        _equal(one.writer(gone), None, "its writer")
        assert gone not in [info.session_id for info in one.sessions()], "it is still listed"
        with _refused("a blob that only the deleted session had"):
            one.blob(alone_digest)
        _equal(one.blob(shared_digest), shared, "a blob that another session has, too")
        with _refused("a record of the deleted session"):
            one.append([_record(gone, 3)], durable=False)
        _equal(_seqs(one, kept), [1], "records of the other session")
        two.create_session(gone, title="anew", project="", at=3.0)
        one.append([_record(gone, 1)], durable=False)
        _equal(_seqs(two, gone), [1], "a new session of the same id")
        one.delete([gone, kept])
        with _refused("a blob whose last session is deleted"):
            two.blob(shared_digest)


def the_version_of_a_record_comes_back(make: Make) -> None:
    with _opened(make, 2) as (one, two):
        session_id = _new(one)
        one.append([_record(session_id, seq)._replace(version=seq) for seq in (1, 2)], durable=False)
        for store in (one, two):
            _equal([record.version for record in store.read(session_id=session_id)], [1, 2], "the versions")


def a_session_ends_before_a_number_that_is_missing(make: Make) -> None:
    with _opened(make, 2) as (one, two):
        gap, late, whole = _new(one), _new(one), _new(one)
        one.append([_record(gap, 1), _record(gap, 2), _record(gap, 4), _record(whole, 1)], durable=False)
        one.append([_record(late, 2)], durable=False)
        for store in (one, two):
            _equal((_seqs(store, gap), _seqs(store, late), _seqs(store, whole)), ([1, 2], [], [1]), "the records")
            found = [store.damage(name) for name in (gap, late, whole)]
            _equal([damage and damage.seq for damage in found], [3, 1, None], "where they are damaged")
            with _refused("a record of a session with a hole"):
                store.append([_record(gap, 5)], durable=False)
        two.append([_record(whole, 2)], durable=False)
        one.delete([gap, late, whole])


def two_openings_write_different_sessions_at_once(make: Make) -> None:
    with _opened(make) as (store,):
        session_ids = [_new(store) for _ in range(3)]
        errors: list[Exception] = []

        def write(session_id: str) -> None:
            try:
                with _opened(make) as (mine,):
                    for seq in range(1, 41):
                        mine.append([_record(session_id, seq)], durable=seq % 10 == 0)
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=write, args=(session_id,)) for session_id in session_ids]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        _equal(errors, [], "errors")
        for session_id in session_ids:
            _equal(_seqs(store, session_id), list(range(1, 41)), "records")


STORE_CLAUSES: tuple[Clause, ...] = (
    what_was_appended_is_read_back_to_the_byte,
    a_record_of_five_megabytes_is_read_back,
    records_can_be_found_by_session_run_and_type,
    records_are_read_by_the_creation_of_their_session_and_their_number,
    a_session_id_is_taken_once,
    a_number_is_taken_once_also_between_two_openings,
    an_append_writes_all_or_nothing,
    what_is_written_together_is_there_as_a_whole_or_not_at_all,
    records_of_an_unknown_session_are_refused,
    an_append_of_nothing_does_nothing,
    what_one_opening_has_written_another_reads,
    blobs_come_back_to_the_byte,
    a_session_has_one_writer,
    a_claim_is_taken_over_only_by_its_token,
    a_claim_is_released_only_by_its_token,
    of_many_who_claim_at_once_one_gets_it,
    sessions_are_listed_the_newest_first,
    a_list_says_which_sessions_are_those_of_sub_agents,
    the_version_of_a_record_comes_back,
    a_session_can_be_renamed,
    a_deleted_session_is_gone_and_others_stay,
    a_session_ends_before_a_number_that_is_missing,
    two_openings_write_different_sessions_at_once,
)
