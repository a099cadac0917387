"""The wire: what a view and its kernel say to each other. Every message has a `type`.

Kernel to page: one `snapshot` for those who come late or missed something, else `events` in batches. `seq` counts the
messages of one view; a page that sees a gap sends `resync`. Page to kernel: few, small and idempotent; each is validated
on the loop, and a view restored from a saved notebook sends nothing but `ready`.

`js/src/wire.ts` is generated from this file (`make wire`), so that both sides speak of the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from turncell.core.events import CostBasis, Event, FinishReason, MessageBy, NoteKind, Scope
from turncell.core.fold import CallState, RunStatus
from turncell.core.parts import Json, Usage

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class BlockView:
    """A block of a step: text to show, or the place of a call."""

    kind: Literal["text", "reasoning", "call"]
    text: str
    call_id: str


@dataclass(frozen=True, slots=True)
class ImageView:
    """An image that the model made: base64 where it has a media type, else an address, which nobody loads by themselves."""

    media_type: str | None
    data: str


@dataclass(frozen=True, slots=True)
class AddedView:
    """What was said to the model after a step, and by whom."""

    by: MessageBy
    text: str


@dataclass(frozen=True, slots=True)
class QueuedView:
    """A message of the person that the model has not read yet."""

    input_id: str
    text: str


@dataclass(frozen=True, slots=True)
class NoteView:
    kind: NoteKind
    message: str
    step: int
    call_id: str | None


@dataclass(frozen=True, slots=True)
class SummaryView:
    """A model call that has summarised the conversation before a step."""

    step: int
    usage: Usage
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class StepView:
    step: int
    model: str
    started_at: float
    tier: str | None
    finish_reason: FinishReason | None
    usage: Usage
    cost_usd: float | None
    cost_basis: CostBasis
    answered_by: str | None
    duration_s: float | None
    first_token_s: float | None
    reasoning_s: float | None
    longest_gap_s: float | None
    error_kind: str | None
    error: str | None
    blocks: list[BlockView]
    images: list[ImageView]
    calls: list[CallState]
    after: list[AddedView]


@dataclass(frozen=True, slots=True)
class RunView:
    """What `core.fold.snapshot` makes of a RunState."""

    run_id: str
    session_id: str
    seq: int
    status: RunStatus
    model: str
    mode: str
    max_steps: int
    tools: list[str]
    is_attended: bool
    previous: str | None
    root_run_id: str
    parent_run_id: str | None
    depth: int
    cell_id: str | None
    agent: str
    is_imported: bool
    prompt: str
    steps: list[StepView]
    queued: list[QueuedView]
    notes: list[NoteView]
    summaries: list[SummaryView]
    budget: dict[str, Json] | None
    is_tainted: bool
    closing: str | None
    started_at: float
    ended_at: float | None
    error_kind: str | None
    error: str | None


# Kernel to page.


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole run. `now` is the kernel's clock, so that the page can count seconds with its own."""

    seq: int
    run: RunView
    now: float
    type: Literal["snapshot"] = "snapshot"


@dataclass(frozen=True, slots=True)
class Events:
    seq: int
    events: list[Event]
    now: float
    type: Literal["events"] = "events"


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer was not taken, and why. Nothing has changed."""

    request_id: str
    problem: str
    type: Literal["refused"] = "refused"


@dataclass(frozen=True, slots=True)
class Code:
    """The code of a library, for a page that has no other way to it."""

    library: str
    code: str
    sheet: str
    type: Literal["code"] = "code"


@dataclass(frozen=True, slots=True)
class Parameters:
    """The JSON Schema of what an approval is about, for the form that edits it. Not for each: a large one is not sent."""

    request_id: str
    schema: dict[str, Json]
    type: Literal["parameters"] = "parameters"


@dataclass(frozen=True, slots=True)
class Child:
    """A run that was started inside a call, and again when its status or its step changes.

    Who wants to see all of it says `ready` in an envelope (`Of`), and is told it there.
    """

    call_id: str
    run_id: str
    agent: str
    prompt: str
    """As much of it as a line shows."""
    status: RunStatus
    steps: int
    type: Literal["child"] = "child"


# Page to kernel.


@dataclass(frozen=True, slots=True)
class Hello:
    """A page is there, and what it sends arrives."""

    type: Literal["hello"] = "hello"


@dataclass(frozen=True, slots=True)
class Ready:
    """A view stands; `have` is the last `seq` that it knows (-1: none). Sent again every few seconds while the run is open."""

    have: int
    type: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class Resync:
    have: int
    type: Literal["resync"] = "resync"


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """A person's answer. `digest` is that of what is on the screen, `arguments` the edited ones as JSON text.

    `result` goes with the decision "result": the answer to a question, a list where it allows many.
    """

    request_id: str
    digest: str
    decision: Literal["approve", "edit", "deny", "result"]
    arguments: str | None = None
    reason: str = ""
    result: str | list[str] | None = None
    scope: Scope = "once"
    type: Literal["answer"] = "answer"


@dataclass(frozen=True, slots=True)
class StopRun:
    type: Literal["stop"] = "stop"


@dataclass(frozen=True, slots=True)
class FetchCode:
    """A view that cannot look up its library asks for it. Changes nothing, so a restored view may send it."""

    library: str
    type: Literal["fetch_code"] = "fetch_code"


@dataclass(frozen=True, slots=True)
class Retry:
    """Ask again what this run was asked. Taken only from a view that offers it, when the run is over."""

    type: Literal["retry"] = "retry"


# Runs inside runs, and the kit: one widget shows several runs, and the messages of each travel in an envelope.


@dataclass(frozen=True, slots=True)
class Of:
    """What the view of one run says or is told; `content` is a message of the wire above, validated where it arrives."""

    run_id: str
    content: dict[str, Json]
    type: Literal["of"] = "of"


@dataclass(frozen=True, slots=True)
class Send:
    """A person's message to the agent of a chat."""

    text: str
    type: Literal["send"] = "send"


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on with what was interrupted in this session."""

    session_id: str
    type: Literal["resume"] = "resume"


@dataclass(frozen=True, slots=True)
class Branch:
    """Let the conversation end with this run; nothing is erased."""

    session_id: str
    run_id: str
    type: Literal["branch"] = "branch"


ToPage: TypeAlias = Snapshot | Events | Refused | Code | Parameters | Child | Of
FromPage: TypeAlias = Hello | Ready | Resync | AnswerRequest | StopRun | FetchCode | Retry | Of
FromKit: TypeAlias = Of | Send | Resume | Branch | FetchCode


@dataclass(frozen=True, slots=True)
class Wire:
    to_page: ToPage
    from_page: FromPage
    from_kit: FromKit


@cache
def from_page() -> TypeAdapter[FromPage]:
    """Validates what a page sent; anything else raises pydantic's ValidationError."""
    from typing import Annotated

    from pydantic import Field, TypeAdapter

    return TypeAdapter(Annotated[FromPage, Field(discriminator="type")])


@cache
def from_kit() -> TypeAdapter[FromKit]:
    """The same for the kit's widgets."""
    from typing import Annotated

    from pydantic import Field, TypeAdapter

    return TypeAdapter(Annotated[FromKit, Field(discriminator="type")])


def json_schema() -> dict[str, Any]:
    """JSON Schema of both directions, for the generator of the TypeScript types."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(Wire).json_schema(mode="serialization")
    _tidy(schema)
    return schema


def _tidy(schema: Any) -> None:
    """Titles of fields would become names of types, and a field with a default is always sent."""
    if isinstance(schema, dict):
        for field in schema.get("properties", {}).values():
            if isinstance(field, dict):
                field.pop("title", None)
        if schema.get("type") == "object" and "properties" in schema:
            schema["required"] = list(schema["properties"])
            schema["additionalProperties"] = False
        for value in schema.values():
            _tidy(value)
    elif isinstance(schema, list):
        for value in schema:
            _tidy(value)


if __name__ == "__main__":
    import json

    print(json.dumps(json_schema(), indent=1, sort_keys=True))  # noqa: T201
