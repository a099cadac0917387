"""All stores keep the one contract."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.adapters.conftest import Make
from turncell import StoreError, UsageError
from turncell.adapters.sql_store import SQLStore
from turncell.runtime.ports import Record
from turncell.testing import STORE_CLAUSES, check_damage, check_store

pytestmark = pytest.mark.feature("C8")


@pytest.mark.parametrize("clause", STORE_CLAUSES, ids=lambda clause: clause.__name__)
def test_every_store_holds_that(make: Make, clause: Callable[[Make], None]) -> None:
    clause(make)


def test_check_store_names_the_clause_that_does_not_hold(tmp_path: Path) -> None:
    class Forgetful(SQLStore):
        def rename(self, session_id: str, title: str) -> None:
            if session_id == "ses_nobody":
                super().rename(session_id, title)

    with pytest.raises(AssertionError, match="does not hold this: a session can be renamed"):
        check_store(lambda: Forgetful.sqlite(tmp_path / "h.sqlite"))


@pytest.mark.parametrize("check", [check_store, lambda make: check_damage(make, lambda session_id, seq: None)])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (None, "make is None; use a function that opens the store"),
        (lambda: None, r"make\(\) returned None, which is no store: it has no append, blob, claim"),
    ],
)
def test_a_mistake_of_the_caller_is_not_told_as_one_of_the_store(check: Any, make: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check(make)


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=[]), max_size=60) | st.sampled_from(["-->", "\n<!-- turncell record {} -->\n", "````\n", "\r\n\0", "\ud800"]), min_size=1, max_size=5),
    is_escaped=st.booleans(),
)  # fmt: skip
def test_any_text_goes_through_every_store_unchanged(make: Make, texts: list[str], is_escaped: bool) -> None:
    session_id = f"ses_{uuid.uuid4().hex}"
    records = []
    for seq, text in enumerate(texts, 1):
        message = {"type": "MessageAdded", "message": {"role": "user", "parts": [{"type": "text", "text": text}]}}
        payload = json.dumps(message, ensure_ascii=is_escaped).encode("utf-8", "replace")
        records.append(Record(session_id, seq, "run", 1, "MessageAdded", 0.1 * seq, payload))
    store = make()
    store.create_session(session_id, title=texts[0], project=texts[-1], at=5.0)
    store.append(records[:2], durable=False)
    store.append(records[2:], durable=False)
    assert list(store.read(session_id=session_id)) == records
    assert [info.updated_at for info in store.sessions() if info.session_id == session_id] == [records[-1].at]
    store.close()
    store = make()
    assert list(store.read(session_id=session_id)) == records
    store.close()


def test_a_payload_that_is_no_text_is_refused(make: Make) -> None:
    store = make()
    session_id = f"ses_{uuid.uuid4().hex}"
    store.create_session(session_id, title="", project="", at=0.0)
    with pytest.raises(StoreError, match=r"record 1 of session .* is not UTF-8"):
        store.append([Record(session_id, 1, "r", 1, "T", 0.0, b"\xff")], durable=False)
    assert list(store.read(session_id=session_id)) == []


def test_a_blob_whose_bytes_have_another_digest_is_refused(make: Make) -> None:
    store = make()
    session_id = f"ses_{uuid.uuid4().hex}"
    store.create_session(session_id, title="", project="", at=0.0)
    with pytest.raises(StoreError, match="has other bytes"):
        store.append([Record(session_id, 1, "r", 1, "T", 0.0, b"{}", {"0" * 64: b"x"})], durable=False)
    assert list(store.read(session_id=session_id)) == []
