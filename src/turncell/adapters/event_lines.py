"""Bytes of a `text/event-stream`, cut anywhere, to events. Pure: no network, no clock.

Lines end in LF, CRLF or CR; a CR counts at once, and the LF that may follow it in the next piece is dropped then, so that
nothing waits for it. Events end with an empty line; what stands after the last one is given at the end, since many servers
leave the last empty line out. A long event is joined once, whatever number of pieces it came in.

A server that does not stream sends one JSON value instead, or a web page: no event begins with `{`, `[` or `<`, so the
first byte tells, whatever the headers say.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Event: TypeAlias = tuple[bytes, bytes]
"""The event's name (empty where it has none) and its data."""

_BOM = b"\xef\xbb\xbf"
_BETWEEN = b"\n\ndata: "


class EventLines:
    """Feed it bytes in order, take payloads (`payloads`) or events with their names (`events`); `end` has the rest."""

    def __init__(self) -> None:
        self.kind: Literal["events", "json", "page"] | None = None
        """What the body is, known from its first byte on."""
        self.waiting_bytes = 0
        """How much is kept of an event that is not whole yet."""
        self._pieces: list[bytes] = []
        self._ends_in_newline = False
        self._ends_in_cr = False

    def payloads(self, data: bytes) -> list[bytes]:
        """The data of the events that this piece has made whole."""
        whole = self._whole(data)
        # Nearly always each event is one line of data: then all of them are cut at once.
        if whole[:6] == b"data: " and whole.count(b"\n") == 2 * whole.count(_BETWEEN):
            found = whole[6:].split(_BETWEEN)
            if b"" not in found:
                return found
        return [data for _, data in _events(whole)]

    def events(self, data: bytes) -> list[Event]:
        return _events(self._whole(data))

    def end(self) -> list[Event]:
        """What is left at the end of the body: one event at most, or the JSON value."""
        rest = b"".join(self._pieces)
        self._pieces = []
        if self.kind != "events":
            return [(b"", rest)] if rest.strip() and not _BOM.startswith(rest) else []
        return _events(rest)

    def _whole(self, data: bytes) -> bytes:
        """The events that are whole now, with an empty line between two of them."""
        if self.kind != "events" and not (data := self._begin(data)):
            return b""
        if self._ends_in_cr or b"\r" in data:
            data = self._with_newlines(data)
        end = data.rfind(b"\n\n")
        if end < 0:
            end = 0 if self._ends_in_newline and data[:1] == b"\n" else -1
            skipped = 1
        else:
            skipped = 2
        if data:
            self._ends_in_newline = data[-1] == 10
        if end < 0:
            self._pieces.append(data)
            self.waiting_bytes += len(data)
            return b""
        self._pieces.append(data[:end])
        whole = b"".join(self._pieces) if len(self._pieces) > 1 else data[:end]
        self._pieces = [data[end + skipped :]]
        self.waiting_bytes = len(data) - end - skipped
        return whole

    def _begin(self, data: bytes) -> bytes:
        """The data, once it is known to be of events; until then, and where it is not, it is kept."""
        if self.kind is not None:
            self._pieces.append(data)
            self.waiting_bytes += len(data)
            return b""
        data = b"".join((*self._pieces, data))
        self._pieces = []
        first = data.removeprefix(_BOM).lstrip(b" \t\r\n")
        if not first or _BOM.startswith(data):
            self._pieces.append(data)
            return b""
        self.kind = "page" if first[:1] == b"<" else "json" if first[:1] in b"{[" else "events"
        if self.kind == "events":
            return first
        self._pieces.append(first)
        return b""

    def _with_newlines(self, data: bytes) -> bytes:
        if self._ends_in_cr and data[:1] == b"\n":
            data = data[1:]
            self._ends_in_cr = False
        if data:
            self._ends_in_cr = data[-1] == 13
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _events(whole: bytes) -> list[Event]:
    return [event for block in whole.split(b"\n\n") if (event := _event(block)) is not None]


def _event(block: bytes) -> Event | None:
    name, data = b"", list[bytes]()
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    joined = data[0] if len(data) == 1 else b"\n".join(data)
    return (name, joined) if joined else None
