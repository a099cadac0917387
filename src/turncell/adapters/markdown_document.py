"""Sessions as one Markdown document that stands alone: the form of `MarkdownStore`, with the large texts in the records.

The session comes first, those of its sub-agents follow, each with a first line of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

from turncell.adapters import markdown_store_lines as doc
from turncell.adapters import markdown_store_text as text
from turncell.adapters import store_text
from turncell.core.events import SCHEMA_VERSION
from turncell.errors import StoreError
from turncell.runtime.ports import Damage, Record, SessionInfo

_HEADER_BYTES = 1 << 20


def write(file: BinaryIO, info: SessionInfo, records: Iterable[Record], damage: Damage | None = None) -> None:
    """One record is in memory at a time. StoreError for one that is too long for a document."""
    header = doc.Header(SCHEMA_VERSION, info.session_id, info.title, info.project, info.created_at, "")
    file.write(doc.header_line(header, cut="" if damage is None else damage.found))
    file.write(text.head(info.session_id, info.title, info.project, info.created_at).encode("utf-8", "replace"))
    if damage is not None:
        words = f"Cut: record {damage.seq} and what followed it could not be read ({damage.found})."
        file.write(f"\n**{text.one_line(words)}**\n".encode("utf-8", "replace"))
    for record in records:
        file.write(doc.record_line(record, store_text.payload_text(record), [], 0))
        file.write(text.rendered(record).encode("utf-8", "replace"))


def read(file: BinaryIO) -> Iterator[tuple[int, SessionInfo, str, Iterator[Record]]]:
    """The version, each session, why it was cut where it was, and its records, to be read before the next session is
    asked for. StoreError for what is no such document, and while reading for one that is damaged."""
    is_first = True
    while line := file.readline(_HEADER_BYTES):
        try:
            header, cut = doc.parse_header(line), doc.cut_of(line)
        except doc.Broken as error:
            where = "its first line" if is_first else f"the line before byte {file.tell()}"
            raise StoreError(f"{where} is not that of a session: {error}") from error
        info = SessionInfo(header.session_id, header.title, header.project, header.created_at, header.created_at, 0)
        yield header.version, info, cut, _records(file, header.session_id)
        is_first = False
    if is_first:
        raise StoreError("its first line is not that of a session: it is empty")


def _records(file: BinaryIO, session_id: str) -> Iterator[Record]:
    ending = doc.Ending()
    digests: set[str] = set()
    for record in doc.records(file, session_id, ending, digests):
        if digests:
            raise StoreError(
                f"it keeps large texts in files of its own ({min(digests)[:12]}…), as the documents of a history do; "
                "write one that stands alone with session.export(path)"
            )
        yield record
    if ending.damaged_at is not None:
        raise StoreError(f"a record at byte {ending.damaged_at} cannot be read: {ending.why}")
    if ending.torn_at is not None:
        raise StoreError(f"it ends in the middle of a record, at byte {ending.torn_at}")
