"""What every store has to say about ids, texts and blobs."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Mapping, Sequence, Set

from turncell.errors import SessionBusy, StoreError
from turncell.runtime.ports import Damage, Record, Writer
from turncell.runtime.process import held_by

# Inside a JSON string the quotes would be escaped, so that a text which talks about blobs names none.
_REFERENCE = re.compile(rb'"\$blob"\s*:\s*"([0-9a-f]{64})"')
_DIGEST = re.compile(r"[0-9a-f]{64}")


def storable(text: str) -> str:
    """A title or a path without what no database keeps: NUL and lone surrogates become U+FFFD."""
    return text.replace("\0", "\ufffd").encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def payload_text(record: Record) -> str:
    try:
        return record.payload.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StoreError(
            f"record {record.seq} of session {record.session_id!r} is not UTF-8 ({error.reason} at byte {error.start}); "
            "a payload is ASCII-escaped JSON"
        ) from error


def check_sum(record: Record) -> int:
    """CRC-32 of all of a record but its blobs, which have their digests."""
    session_id, seq, run_id, step, kind, at, payload, _, version = record
    at = float(at) + 0.0  # SQLite makes 0.0 of -0.0
    columns = f"{session_id}\0{seq}\0{run_id}\0{step}\0{kind}\0{at!r}\0"
    if version > 1:
        columns += f"{version}\0"
    return zlib.crc32(payload, zlib.crc32(columns.encode("utf-8", "surrogatepass")))


def blob_digests(record: Record) -> Set[str]:
    """The blobs that a record brings along or names."""
    if b'"$blob"' not in record.payload:
        return record.blobs.keys()
    return {*record.blobs, *[digest.decode("ascii") for digest in _REFERENCE.findall(record.payload)]}


def contents(records: Sequence[Record]) -> dict[str, bytes]:
    """All blobs that come along, by digest. StoreError for one whose bytes have another digest: others would read it."""
    found: dict[str, bytes] = {}
    for record in records:
        for digest, data in record.blobs.items():
            check_blob(digest, data, f"record {record.seq} of session {record.session_id!r}")
            found[digest] = data
    return found


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def check_blob(digest: str, data: bytes, where: str) -> None:
    actual = hashlib.sha256(data).hexdigest()
    if actual != digest:
        raise StoreError(
            f"the blob {digest!r} of {where} has other bytes ({len(data)}, SHA-256 {actual}); it is damaged"
        )


def check_order(records: Sequence[Record], last: Mapping[str, int | None] | None = None) -> None:
    """StoreError unless each session's records ascend, after `last` where that is known."""
    before = dict(last or {})
    for record in records:
        reached = before.get(record.session_id)
        if reached is not None and record.seq <= reached:
            raise written_by_another(record.session_id, f"it has records up to {reached}, found {record.seq}")
        before[record.session_id] = record.seq


def check_writer(session_id: str, writer: Writer | None, token: str | None) -> None:
    if writer is not None and writer.token != token:
        raise SessionBusy(
            f"{held_by(session_id, writer)}; nothing is written here any more, load it again to go on with it"
        )


def written_by_another(session_id: str, found: str) -> SessionBusy:
    return SessionBusy(
        f"session {session_id!r} was written by another process meanwhile ({found}); load it again to go on with it"
    )


def check_damage(damage: Damage | None) -> None:
    if damage is not None:
        raise StoreError(str(damage))


def no_session(session_id: str, where: str) -> StoreError:
    return StoreError(f"the history at {where} has no such session: {session_id!r}; was it deleted?")
