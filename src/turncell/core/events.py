"""Events: what happened, as values that JSON can hold.

Recorded events are the journal, and the journal is the only truth: the loop's state, the view in the page, the
tables, the transcript, replay and resume are all folds of it (`core.fold`). Passing events (deltas, progress) are
for those who watch now; leaving them out of a fold changes nothing that lasts.

Envelope of a recorded event
    type         the class name, the tag of the union
    seq          1, 2, 3 ... within the session, without gaps
    session_id, run_id
    step         the model call it belongs to, 1 ...; 0 before the first
    at           seconds since 1970-01-01 UTC

Adding an optional field or a new class keeps SCHEMA_VERSION; any other change raises it and brings an upcaster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from turncell.core.parts import Json, Message, Usage
from turncell.core.policy import Effect, Rule, Verdict

SCHEMA_VERSION = 1

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "filter", "paused", "other"]
"""`paused`: the provider wants the answer back as it is so far, and then goes on with it."""
CostBasis: TypeAlias = Literal["provider", "prices", "user", "none"]
"""Where a cost comes from: the provider's own figure, a price table, the user's prices, or nowhere (unknown)."""
EndStatus: TypeAlias = Literal["completed", "failed", "cancelled", "max_steps", "budget", "timeout", "truncated"]
CallEnd: TypeAlias = Literal["ok", "error", "denied", "invalid", "cancelled", "skipped", "timeout"]
Answer: TypeAlias = Literal["approve", "edit", "deny", "result"]
"""`edit` approves with other arguments; `result` answers in the tool's place, or the question."""
AnsweredBy: TypeAlias = Literal["person", "unattended", "time limit", "cancel", "steering", "memory", "limit", "file"]
"""`memory`: the question was answered before; `steering`: a new message came instead; `limit`: one question too many;
`file`: an imported file says that a person did."""
RequestKind: TypeAlias = Literal["approval", "question", "in_doubt"]
"""in_doubt: a write had begun when the program ended. Approve runs it again, a result says that it has happened, deny skips it."""
Scope: TypeAlias = Literal["once", "session", "always"]
"""For how long an answer holds for later calls."""
MessageBy: TypeAlias = Literal["person", "steering", "hook", "output", "limit", "restart"]
"""Who put a message to the model: a person at the beginning or in between, a hook, the check of the output's type, or
the runtime when a limit is reached or the program was restarted."""
NoteKind: TypeAlias = Literal["retry", "hook", "notice", "guard", "rule", "output", "context"]
"""What a note is about: a model call tried again, a hook that failed, a word for the person's next message, a call that
failed before, a rule that was remembered, an output that did not fit its type, a source or a summary that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The envelope. Not an event itself."""

    seq: int
    session_id: str
    run_id: str
    step: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Recorded):
    model: str
    mode: str
    max_steps: int
    instructions: str = ""
    tools: tuple[str, ...] = ()
    is_attended: bool = True
    previous: str | None = None
    """The run before this one in the conversation; the history is the tree of these."""
    replaces: str | None = None
    """The run whose place in the conversation this one takes; those after it keep theirs."""
    copy_of: str | None = None
    """The run of another session that this is a copy of: what it cost is counted there."""
    is_imported: bool = False
    """Held elsewhere and brought in as messages: its times, tokens and costs are not known (see `core.imported`)."""
    root_run_id: str = ""
    parent_run_id: str | None = None
    parent_call_id: str | None = None
    """The call of the parent that this run was started in; None where it was started in none."""
    depth: int = 0
    cell_id: str | None = None
    agent: str = ""
    """The name of the agent, where it has one."""
    notices: tuple[str, ...] = ()
    """What tools of the run before had to say; it stands in front of this run's message."""
    needs: tuple[str, ...] | None = None
    """What the agent had that a record cannot hold: "rules", "hooks" ... None: not known."""
    budget: dict[str, Json] | None = None
    """The limits at the beginning: steps, tokens, usd, seconds, calls; those that are None or missing do not apply."""
    version: int = SCHEMA_VERSION
    type: Literal["RunStarted"] = "RunStarted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Steered(Recorded):
    """A message came while the run was going on. It is read at the next boundary, as a MessageAdded of this `input_id`."""

    input_id: str
    message: Message
    type: Literal["Steered"] = "Steered"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageAdded(Recorded):
    """A message to the model or of the model. Tool results are not messages here: see CallFinished."""

    message: Message
    by: MessageBy = "person"
    input_id: str | None = None
    type: Literal["MessageAdded"] = "MessageAdded"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted(Recorded):
    model: str
    type: Literal["StepStarted"] = "StepStarted"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChosen(Recorded):
    """Another model than the run's first answers this step: a tier that a rule chose, or a fallback."""

    model: str
    tier: str | None = None
    reason: str = ""
    type: Literal["ModelChosen"] = "ModelChosen"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished(Recorded):
    finish_reason: FinishReason
    usage: Usage
    cost_usd: float | None = None
    cost_basis: CostBasis = "none"
    answered_by: str | None = None
    """The model that the provider says has answered."""
    duration_s: float
    first_token_s: float | None = None
    reasoning_s: float | None = None
    """Seconds from the first word of reasoning to the first of anything else, summed; None where there was none."""
    longest_gap_s: float | None = None
    """The longest silence between two pieces of the answer."""
    type: Literal["StepFinished"] = "StepFinished"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailed(Recorded):
    """The model call ended without an answer; what had arrived is kept as a partial message."""

    kind: str
    message: str
    usage: Usage
    cost_usd: float | None = None
    cost_basis: CostBasis = "none"
    duration_s: float
    first_token_s: float | None = None
    reasoning_s: float | None = None
    longest_gap_s: float | None = None
    type: Literal["StepFailed"] = "StepFailed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallProposed(Recorded):
    """A call, parsed and validated. `problem` says why it cannot run; then there are no arguments."""

    call_id: str
    name: str
    arguments: dict[str, Json] | None
    digest: str | None
    effect: Effect
    problem: str | None = None
    is_replaced: bool = False
    """A hook has put other arguments in the place of the model's."""
    is_trusted: bool = False
    """What the tool returns counts as trusted."""
    type: Literal["CallProposed"] = "CallProposed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallJudged(Recorded):
    call_id: str
    verdict: Verdict
    by: str
    reason: str = ""
    type: Literal["CallJudged"] = "CallJudged"


@dataclass(frozen=True, slots=True)
class Option:
    """One answer that a question offers."""

    label: str
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOpened(Recorded):
    """A person is asked. All requests of a step stand on one card.

    An approval is about the call itself, or, where `name` is set, about a call of a sub-agent that runs inside it. A
    question is asked by the running call.
    """

    request_id: str
    call_id: str
    digest: str
    """Of the call that is to be approved, or of the question."""
    kind: RequestKind = "approval"
    question: str = ""
    options: tuple[Option, ...] = ()
    allows_text: bool = False
    """Whether an answer may be none of the options."""
    allows_many: bool = False
    name: str = ""
    arguments: dict[str, Json] | None = None
    description: str = ""
    """What the tool does, in the words of its author."""
    preview: str | None = None
    """What the call would do, in the words of the tool."""
    expires_at: float | None = None
    default: Answer = "deny"
    default_result: str | None = None
    type: Literal["RequestOpened"] = "RequestOpened"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAnswered(Recorded):
    """The one answer that counted. `arguments` and `digest` are those that run; what was asked stands in CallProposed."""

    request_id: str
    call_id: str
    answer: Answer
    by: AnsweredBy
    reason: str = ""
    arguments: dict[str, Json] | None = None
    digest: str | None = None
    result: str | None = None
    scope: Scope = "once"
    type: Literal["RequestAnswered"] = "RequestAnswered"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStarted(Recorded):
    """The intent. For a write it is on disk before the effect."""

    call_id: str
    digest: str
    effect: Effect
    type: Literal["CallStarted"] = "CallStarted"


@dataclass(frozen=True, slots=True)
class File:
    """A file that a call has produced; `bytes` is its size."""

    path: str
    bytes: int | None = None
    media_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFinished(Recorded):
    """`content` is what the model reads; `details`, `files` and `display` are what people and programs may see besides."""

    call_id: str
    status: CallEnd
    content: str
    details: Json = None
    duration_s: float | None = None
    files: tuple[File, ...] = ()
    display: tuple[dict[str, Json], ...] = ()
    """Mime bundles: figures and tables."""
    terminates: bool = False
    """The run ends when the calls of this step are closed."""
    type: Literal["CallFinished"] = "CallFinished"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialSaved(Recorded):
    """Text that is on the screen but in no message yet: the piece from `offset` (characters) on."""

    kind: Literal["text", "reasoning"]
    block: int
    offset: int
    text: str
    type: Literal["PartialSaved"] = "PartialSaved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted(Recorded):
    """Something that people should be able to read later; it changes nothing by itself."""

    kind: NoteKind
    message: str
    call_id: str | None = None
    data: Json = None
    type: Literal["Noted"] = "Noted"


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetChanged(Recorded):
    """The limits from now on, all of them."""

    budget: dict[str, Json]
    type: Literal["BudgetChanged"] = "BudgetChanged"


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of text that a source has found for a prompt."""

    text: str
    source: str
    score: float | None = None
    priority: int = 0
    """Of its source: where room is short, the lowest is left out first."""
    is_trusted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved(Recorded):
    """What the sources have found; it stands in front of the run's prompt. `tokens` are estimated."""

    passages: tuple[Passage, ...]
    tokens: int
    type: Literal["Retrieved"] = "Retrieved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned(Recorded):
    """From this step on the results of these calls are told as their head, and these passages not at all.

    A passage is named by its run and its number there, 0 ... Tokens are estimated, of all that is sent.
    """

    call_ids: tuple[str, ...]
    head_chars: int
    passages: tuple[tuple[str, int], ...] = ()
    tokens_before: int
    tokens_after: int
    type: Literal["Pruned"] = "Pruned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted(Recorded):
    """From this step on all up to and with the unit (`upto_run_id`, `upto_step`) but the floor is told as the summary.

    It holds where the runs of the conversation up to there are those of `covers`. Without a `model` the summary only
    says what was left out. Usage and cost are of all model calls that were made for it.
    """

    upto_run_id: str
    upto_step: int
    covers: tuple[str, ...]
    summary: str
    tokens_before: int
    tokens_after: int
    model: str = ""
    usage: Usage = Usage()
    cost_usd: float | None = None
    cost_basis: CostBasis = "none"
    type: Literal["Compacted"] = "Compacted"


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesChanged(Recorded):
    """What people have asked to remember for this session from now on, all of it, the latest last.

    Between runs, `run_id` is the run that began last.
    """

    rules: tuple[Rule, ...]
    type: Literal["RulesChanged"] = "RulesChanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arranged(Recorded):
    """From now on the conversation consists of the runs of `path`; nothing is erased. `run_id` is the run it is about."""

    path: tuple[str, ...]
    reason: Literal["undo", "redo", "branch"]
    type: Literal["Arranged"] = "Arranged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Recorded):
    """The run goes on after its program ended: what was open is at rest, and in doubt where a write had begun."""

    type: Literal["Resumed"] = "Resumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Recorded):
    """The one terminal event of a run."""

    status: EndStatus
    kind: str | None = None
    """What went wrong, in one word, where something did."""
    message: str | None = None
    text: str | None = None
    """The answer, where the model did not write it: the closing words of a step policy, or what the call has returned that
    ended the run."""
    type: Literal["RunEnded"] = "RunEnded"


# Passing events: the cheapest form, one for every fragment of a stream.


@dataclass(slots=True)
class TextDelta:
    run_id: str
    step: int
    block: int
    """Which block of the message grows: 0, 1 ..."""
    text: str
    type: Literal["TextDelta"] = "TextDelta"


@dataclass(slots=True)
class TextBurst:
    """The text that one burst of a stream has brought, piece by piece: what the loop says, and our own views hear.

    Whoever subscribes gets a `TextDelta` for each piece, made when it is taken (`one_by_one`): a long answer that nobody
    has read yet is no heap of objects.
    """

    run_id: str
    step: int
    block: int
    pieces: list[str]
    type: Literal["TextBurst"] = "TextBurst"

    def whole(self) -> TextDelta:
        """All of it as one delta."""
        return TextDelta(self.run_id, self.step, self.block, "".join(self.pieces))


@dataclass(slots=True)
class ReasoningDelta:
    run_id: str
    step: int
    block: int
    text: str
    type: Literal["ReasoningDelta"] = "ReasoningDelta"


@dataclass(slots=True)
class ArgumentsDelta:
    run_id: str
    step: int
    block: int
    text: str
    call_id: str
    name: str
    type: Literal["ArgumentsDelta"] = "ArgumentsDelta"


@dataclass(slots=True)
class CallProgress:
    run_id: str
    step: int
    call_id: str
    text: str
    data: Json = None
    """A mime bundle, where the tool shows more than a line."""
    type: Literal["CallProgress"] = "CallProgress"


@dataclass(slots=True)
class WarmingUp:
    """The model cannot be called yet: the library that calls it is being imported, once in a process, for seconds."""

    run_id: str
    step: int
    type: Literal["WarmingUp"] = "WarmingUp"


@dataclass(slots=True)
class Latency:
    """How long something took, as it happens; only where it was asked for (`debug_latency`)."""

    run_id: str
    step: int
    kind: Literal["first_token", "gap", "model", "call", "waiting"]
    seconds: float
    call_id: str = ""
    type: Literal["Latency"] = "Latency"


RecordedEvent: TypeAlias = (
    RunStarted
    | Steered
    | MessageAdded
    | StepStarted
    | ModelChosen
    | StepFinished
    | StepFailed
    | CallProposed
    | CallJudged
    | RequestOpened
    | RequestAnswered
    | CallStarted
    | CallFinished
    | PartialSaved
    | Noted
    | BudgetChanged
    | RulesChanged
    | Retrieved
    | Pruned
    | Compacted
    | Arranged
    | Resumed
    | RunEnded
)
PassingEvent: TypeAlias = TextDelta | ReasoningDelta | ArgumentsDelta | CallProgress | WarmingUp | Latency
Event: TypeAlias = RecordedEvent | PassingEvent
Said: TypeAlias = Event | TextBurst
"""What the loop says of a signal."""


def one_by_one(said: Iterable[Said]) -> Iterator[Event]:
    """The events as who subscribes gets them.

    >>> list(one_by_one([TextBurst("r", 1, 0, ["a", "b"])]))
    [TextDelta(run_id='r', step=1, block=0, text='a', type='TextDelta'), TextDelta(run_id='r', step=1, block=0, text='b', type='TextDelta')]
    """
    for event in said:
        if type(event) is TextBurst:
            run_id, step, block = event.run_id, event.step, event.block
            for text in event.pieces:
                yield TextDelta(run_id, step, block, text)
        else:
            yield event  # type: ignore[misc]
