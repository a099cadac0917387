"""The lines of a session's document that programs read, and how a file is read that may be damaged.

    <!-- turncell session {"version":1,"session_id":...,"title":...,"project":...,"created_at":...,"link":...} 5d1f00aa -->
    <!-- turncell record {"session_id":...,"seq":1,...,"left":0,"payload":"{\\"seq\\":1,...}"} 09c3d7e2 -->

The JSON is ASCII, with `<` and `>` escaped too: no text can end the comment or the line. The payload stands in it as a
string, so that it comes back byte for byte. The last word is the CRC-32 of the JSON. `left` is how many records of the
same append follow: an append that did not reach its `left: 0` never happened. Rendered text never begins a line with `<`,
so that nothing a model says is read as a record.

A process that died while it wrote leaves the beginning of what it meant to write: the last line has no end, or the last
append is not whole. That is torn: it never happened, and the next append cuts it off. Any other line of ours that is not
whole, and a number that is not the next one, is damage: nothing that follows is read, and nothing is written.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson

from turncell.core import codec
from turncell.errors import StoreError
from turncell.runtime.ports import Record

MARK = b"<!-- turncell "
_END = b" -->"
_BOM = b"\xef\xbb\xbf"
"""Some editors put it before the first line."""
MAX_LINE_BYTES = 96 << 20
"""A record of more is neither written nor read: what is read must fit into memory. A text of 5 million characters fits."""
_PIECE_BYTES = 1 << 16
_TAIL_BYTES = 1 << 16
_DIGEST = re.compile(rb"[0-9a-f]{64}")


class Broken(ValueError):
    """A line that is ours and cannot be read."""


@dataclass(frozen=True, slots=True)
class Header:
    version: int
    session_id: str
    title: str
    project: str
    created_at: float
    link: str
    """The path of the link to the document, where one was made."""


@dataclass(slots=True)
class Ending:
    """Why a reading ended before the end of the file. Offsets are bytes from its beginning."""

    damaged_at: int | None = None
    why: str = ""
    torn_at: int | None = None


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a document: its last whole record (None: there is none), and where the torn ones begin."""

    seq: int | None
    torn_at: int | None
    ends_with_newline: bool
    damaged_at: int | None = None
    why: str = ""


def header_line(header: Header, cut: str = "") -> bytes:
    """`cut` says of an exported document why it is not all of its session."""
    values = {name: getattr(header, name) for name in Header.__slots__} | ({"cut": cut} if cut else {})
    return _line("session", values)


def record_line(record: Record, payload: str, digests: list[str], left: int) -> bytes:
    values: dict[str, Any] = {
        "session_id": record.session_id,
        "seq": record.seq,
        "run_id": record.run_id,
        "step": record.step,
        "type": record.type,
        "at": record.at,
        "left": left,
    }
    if record.version != 1:
        values["version"] = record.version
    if digests:
        values["blobs"] = digests
    line = _line("record", values | {"payload": payload})
    if len(line) > MAX_LINE_BYTES:
        raise StoreError(
            f"record {record.seq} of session {record.session_id!r} takes {len(line)} bytes, a Markdown document holds "
            f"up to {MAX_LINE_BYTES} in one record; use a SQLite store for records as long as that"
        )
    return line


def _line(kind: str, values: dict[str, Any]) -> bytes:
    text = json.dumps(values, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e").encode("ascii")
    return b"%s%s %s %08x%s\n" % (MARK, kind.encode("ascii"), text, zlib.crc32(text), _END)


def _parse(line: bytes, kind: bytes) -> dict[str, Any]:
    line = line.rstrip(b"\r\n")
    start = MARK + kind + b" "
    if not line.startswith(start) or not line.endswith(_END):
        raise Broken("it is not whole")
    text, _, check = line[len(start) : -len(_END)].rpartition(b" ")
    if b"%08x" % zlib.crc32(text) != check:
        raise Broken("its check sum is another")
    try:
        values = (
            codec.decode_foreign(text) if kind == b"session" or len(text) > codec.MAX_VALUES else orjson.loads(text)
        )
    except (ValueError, RecursionError) as error:
        raise Broken(f"it is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise Broken("it is no object")
    return values


def parse_header(line: bytes) -> Header:
    values = _parse(line.removeprefix(_BOM), b"session")
    try:
        header = Header(**{name: values[name] for name in Header.__slots__})
    except KeyError as error:
        raise Broken(f"it has no {error}") from error
    texts = (header.session_id, header.title, header.project, header.link)
    if (
        not (all(isinstance(text, str) for text in texts) and _is_time(header.created_at))
        or type(header.version) is not int
    ):
        raise Broken("a value has another type")
    return header


def cut_of(line: bytes) -> str:
    return str(_parse(line.removeprefix(_BOM), b"session").get("cut", ""))


def _parse_record(line: bytes, session_id: str) -> tuple[Record, int, list[str]]:
    values = _parse(line, b"record")
    get = values.get
    seq, run_id, step, kind, at, left = get("seq"), get("run_id"), get("step"), get("type"), get("at"), get("left")
    payload, digests, version = get("payload"), get("blobs", []), get("version", 1)
    if get("session_id") != session_id:
        raise Broken(f"it belongs to session {str(get('session_id'))[:80]!r}")
    if not (
        type(seq) is type(step) is type(left) is type(version) is int
        and isinstance(run_id, str) and isinstance(kind, str) and isinstance(payload, str) and isinstance(digests, list)
        and isinstance(at, int | float) and _is_time(at)
    ):  # fmt: skip
        raise Broken("a value has another type")
    return (
        Record(session_id, seq, run_id, step, kind, float(at), payload.encode("utf-8"), version=version),
        left,
        [str(one) for one in digests],
    )


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Our lines and where they begin. One of more than MAX_LINE_BYTES is cut short and has an end: it is damage."""
    offset = file.tell()
    while piece := file.readline(_PIECE_BYTES):
        begin = offset
        offset += len(piece)
        is_ours = piece.startswith(MARK)
        if is_ours and not piece.endswith(b"\n"):
            # Measured before it is held: a line without an end must not fill the memory.
            length = len(piece)
            while length <= MAX_LINE_BYTES and (more := file.readline(_PIECE_BYTES)):
                length += len(more)
                if more.endswith(b"\n"):
                    break
            if length > MAX_LINE_BYTES:
                yield begin, piece[:80] + b"\n"
            else:
                file.seek(begin)
                piece = b""
                yield begin, file.read(length)
            offset = begin + length
            file.seek(offset)
            piece = b"\n" if length <= MAX_LINE_BYTES else b"x"
        elif is_ours:
            yield begin, piece
        while piece and not piece.endswith(b"\n"):
            piece = file.readline(_PIECE_BYTES)
            offset += len(piece)


def records(file: BinaryIO, session_id: str, ending: Ending, blobs_named: set[str] | None = None) -> Iterator[Record]:
    """The whole records in order, one append at a time, up to the first damage. With `blobs_named` the file is one that
    stands alone, and may have other sessions behind this one; it is then left at the next one's first line."""
    held: list[Record] = []  # of an append whose end has not come yet
    held_at = 0
    left_before = last_seq = 0
    for offset, line in lines(file):
        if line.startswith(MARK + b"session "):
            if blobs_named is not None:
                file.seek(offset)
                break
            continue  # the caller has read it
        try:
            record, left, named = _parse_record(line, session_id)
            if record.seq != last_seq + 1:
                raise Broken(f"its number is {record.seq} and comes after {last_seq}")
            if held and left != left_before - 1:
                raise Broken(f"the records before it are not whole: {left_before} more were to come")
        except Broken as error:
            if not line.endswith(b"\n"):
                ending.torn_at = held_at if held else offset
                return
            yield from held
            ending.damaged_at, ending.why = offset, str(error)
            return
        if blobs_named is not None:
            blobs_named.update(named)
        if not held:
            held_at = offset
        last_seq, left_before = record.seq, left
        held.append(record)
        if left == 0:
            yield from held
            held = []
    if held:
        ending.torn_at = held_at


def digests(file: BinaryIO, session_id: str) -> set[str]:
    """The blobs that a document names, also behind damage: whoever repairs it will want them."""
    found: set[str] = set()
    for _, line in lines(file):
        if line.startswith(MARK + b"session "):
            continue
        try:
            found.update(_parse_record(line, session_id)[2])
        except Broken:
            found.update(one.decode("ascii") for one in _DIGEST.findall(line))
    return found


def tail(file: BinaryIO, size: int, session_id: str) -> Tail:
    """The end of a document, read backwards: what this costs does not depend on the size of the file."""
    span = _TAIL_BYTES
    while True:
        begin = max(0, size - span)
        file.seek(begin)
        if begin:
            file.readline(span)  # the rest of a line
        seq, torn_at, is_found = None, None, False
        for offset, line in lines(file):
            try:
                if line.startswith(MARK + b"session "):
                    seq, torn_at, is_found = None, None, True
                    continue
                record, left, _ = _parse_record(line, session_id)
            except Broken as error:
                if line.endswith(b"\n"):
                    return Tail(seq, None, True, offset, str(error))
                left = 1
            if left:
                torn_at = offset if torn_at is None else torn_at
            else:
                seq, torn_at, is_found = record.seq, None, True
        if is_found or span >= size:
            file.seek(max(0, size - 1))
            return Tail(seq, torn_at, file.read(1) == b"\n")
        span *= 8
