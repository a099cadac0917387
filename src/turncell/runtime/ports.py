"""Ports: what the runtime wants from the outside, and nothing about who provides it.

Adapters stand above the runtime and fulfil these protocols; `turncell.testing` has a conformance suite for each.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from turncell.core import codec
from turncell.core.deltas import Fragment
from turncell.core.events import SCHEMA_VERSION
from turncell.core.parts import Json, Message

TOOL_CHOICES = ("auto", "none", "required")
"""What `ModelRequest.tool_choice` may be, besides the name of a tool."""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as a model sees it. `schema` is the JSON Schema of its arguments, always of type object."""

    name: str
    description: str
    schema: dict[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """Everything one model call needs."""

    messages: tuple[Message, ...]
    instructions: str = ""
    tools: tuple[ToolSpec, ...] = ()
    temperature: float | None = None
    max_tokens: int | None = None
    reasoning_effort: str | None = None
    tool_choice: str | None = None
    """"auto", "none", "required", or the name of the tool that must be called. Without `tools` it means nothing."""
    output_schema: dict[str, Json] | None = None
    """The JSON Schema (type object) of the answer, for models that can be held to one (`Capabilities.schema`)."""
    run_id: str = ""
    step: int = 1
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model can do beyond text and tools. A model without the attribute `capabilities` can do none of it."""

    schema: bool = False
    """Hold the answer to `ModelRequest.output_schema`."""
    context_tokens: int | None = None
    """Its window: what may be sent and answered in one call, together."""
    max_output_tokens: int | None = None
    images: bool | None = None
    """See images in messages and results. None: nobody knows, and they are sent; False: it is told in words of each."""


def capabilities_of(model: object) -> Capabilities:
    found = getattr(model, "capabilities", None)
    return found if isinstance(found, Capabilities) else Capabilities()


@runtime_checkable
class Model(Protocol):
    """A language model, or something that plays one.

    `name` is what stands in the history. It may have `capabilities` (a `Capabilities`), and
    `price_usd(input_tokens, output_tokens) -> float | None` for budgets in US dollars. It may have `is_cold`: True while
    its next call has to wait for an import; views then say so.

    `stream` must yield bursts (non-empty lists of fragments, as many as one read of the network brought) and exactly
    one `Finished` as its last fragment. It must raise `ModelFailure` where the provider fails (mapped, with `from`);
    ending without `Finished` counts as a failure of kind "protocol". It must close its connection at once when it is
    cancelled or closed (`aclose`). It must not retry after the first fragment. It may run on any event loop, but
    always on the same one, and several streams may be open side by side.
    """

    @property
    def name(self) -> str: ...

    def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]: ...


class Record(NamedTuple):
    """One recorded event as a store keeps it: the columns it can be found by, and its JSON.

    A tuple, because every event becomes one: a frozen dataclass takes five times as long to make.

    `payload` is ASCII-escaped JSON text, so that NUL and lone surrogates survive every database. Large texts in it are
    replaced by `{"$blob": "<sha256, hex>"}`; the texts themselves come along in `blobs` when the record is written.
    """

    session_id: str
    seq: int
    run_id: str
    step: int
    type: str
    at: float
    payload: bytes
    blobs: Mapping[str, bytes] = MappingProxyType({})
    version: int = SCHEMA_VERSION
    """The schema version of the turncell that wrote it; where a store cannot know, that of the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Where the records of a session stop being whole."""

    session_id: str
    seq: int
    """The first record that cannot be read, or is missing. Those before it are whole."""
    found: str
    """What was found in its place, and where."""
    newer: int | None = None
    """The schema version of a newer turncell, where that is why: nothing is wrong with the record then."""

    def __str__(self) -> str:
        if self.newer is not None:
            return (
                f"session {self.session_id!r} was written by a newer turncell: record {self.seq} has schema version "
                f"{self.newer}, this one reads up to {SCHEMA_VERSION} ({self.found}). What was before it can be read, and "
                "nothing is written after it; upgrade turncell"
            )
        return (
            f"session {self.session_id!r} is damaged: record {self.seq} cannot be read ({self.found}). What was before it "
            "can be read, shown and exported, and nothing is written after it; go on in a copy, session.fork()"
        )


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One line of a list of sessions. Times are seconds since 1970-01-01 UTC."""

    session_id: str
    title: str
    project: str
    created_at: float
    updated_at: float
    """When its last record was made, or itself, where it has none."""
    runs: int
    """How many of its records are a `RunStarted`."""
    root_run_id: str = ""
    """Of a sub-agent's session, the outermost run around it; empty for one that people have (see `root_run_of`)."""
    left: Literal["", "running", "interrupted", "waiting", "in_doubt"] = ""
    """What became of a run that has not ended; "running" where its process lives. Stores leave it ""."""
    is_row: bool = False
    """It is a row of a batch. Stores leave it False."""


def root_run_of(record: Record) -> str:
    """What `SessionInfo.root_run_id` is, by the first record of a session."""
    if record.type != "RunStarted" or b'"depth"' not in record.payload:
        return ""
    try:
        event = codec.decode_json(record.payload)
    except (ValueError, RecursionError):
        return ""
    is_inside = isinstance(event, dict) and event.get("depth")
    root = event.get("root_run_id") if is_inside else ""
    return root if isinstance(root, str) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Who writes a session: `token` is theirs alone; `born_at` tells a process from a later one with the same pid.

    It is in seconds, from a beginning that is the same for all processes of the machine (its boot, or 1970).
    """

    token: str
    host: str
    pid: int
    born_at: float
    since: float
    """When the session was claimed, seconds since 1970-01-01 UTC."""


class Store(Protocol):
    """Where journals live. Called from one thread at a time (the journal's), never from an event loop.

    Every failure is a StoreError that says which file or server, what was found and what to do: StoreBusy where another
    process has its lock and nothing was changed, so that the same can be tried again. A store that was
    written by a newer turncell can be read, and refuses to be written; the message names both versions.

    Damage (a bit that flipped, a record that is gone) is not a failure: a session is read up to its first record that is
    not whole, and no further, for what follows may have its cause in what is lost, and a fold over a hole would lie. All
    other sessions are read as ever. What a dying process has not written whole is no damage: it never happened.

    It may have `together(write, *, durable)`, which calls `write(store)` and gives what that returns: all that is written
    by it is one transaction, and nothing of it is there where it raises. A journal then makes a session, claims it and
    records its first turn at once; without it, one after another.
    """

    def create_session(self, session_id: str, *, title: str, project: str, at: float) -> None:
        """StoreError if there is one of this id."""
        ...

    def append(self, records: Sequence[Record], *, durable: bool, token: str | None = None) -> None:
        """Write all records with their blobs or none, in order.

        Must refuse a `seq` that the session already has, and, where the session is claimed, a `token` that is not that
        of its writer, with SessionBusy: two writers must never interleave. Must refuse a session that a `read` of this opening has found
        damaged, until another one finds it whole; need not look for damage itself. With `durable` it must return only when the records, and all
        before them, survive a loss of power; otherwise they must survive the death of the process. A blob that is
        there already is not written again.
        """
        ...

    def read(
        self, *, session_id: str | None = None, run_id: str | None = None, types: Sequence[str] | None = None
    ) -> Iterable[Record]:
        """Records by (session's creation, seq), filtered. May be lazy; what another process writes meanwhile may be missing.

        Must not yield a record whose bytes have changed. Without `run_id` and `types`, must end each session before the
        first record that is damaged or whose number is not the next one (the first is 1), and must then know its
        `damage`. With them, may yield what follows damage that it did not come across: fold only what was read whole.
        """
        ...

    def damage(self, session_id: str) -> Damage | None:
        """Where the last `read` of this whole session, in this opening, had to end it; None where it was whole."""
        ...

    def blob(self, digest: str) -> bytes:
        """StoreError if there is none."""
        ...

    def claim(self, session_id: str, writer: Writer, *, instead_of: str | None = None) -> Writer | None:
        """Become the one writer of a session: None when that is so, otherwise who is, and nothing has changed.

        Claiming again with the same token is no error. With `instead_of` the claim of that token, and of no other, is
        replaced. Must be atomic over processes.
        """
        ...

    def release(self, session_id: str, token: str) -> None:
        """End a claim; that of another token stays."""
        ...

    def writer(self, session_id: str) -> Writer | None: ...

    def rename(self, session_id: str, title: str) -> None: ...

    def delete(self, session_ids: Sequence[str]) -> None:
        """Erase them, damaged ones too, so that nothing of them is left in the store's files, blobs that nobody else has included."""
        ...

    def sessions(self) -> list[SessionInfo]:
        """All sessions, sub-agents' too (`root_run_id`), the newest first. A damaged one is there, as far as it can be read.

        Should not read the records of sessions that it has listed before.
        """
        ...

    def close(self) -> None: ...
