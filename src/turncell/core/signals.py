"""Signals and commands: all that the loop ever learns, and all that it ever wishes for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from turncell.core import events as ev
from turncell.core.deltas import Finished, Fragment
from turncell.core.fold import CallState, RunState
from turncell.core.parts import Json, Message, Usage
from turncell.core.policy import Effect, Rule, Verdict
from turncell.core.redaction import Redactor

Review: TypeAlias = Literal["step", "finish"]
"""Who is asked before the run goes on: a step policy after each step, hooks and the output's type before the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """The beginning. What `started` says is recorded as it is; the rest is how this run is to behave."""

    started: ev.RunStarted
    message: Message
    reviews: frozenset[Review] = frozenset()
    models: int = 1
    """How many models there are to fall back on, the first included."""
    attempts: int = 1
    """How often each is tried."""
    summarises: bool = False
    """Whether the model is asked for a last word when the steps are used up."""
    reads_all: bool = True
    """Steered messages are read all at once, or one at a boundary."""
    redactor: Redactor = Redactor()
    """What is kept from the pieces of text that are saved while the model writes: their places count what is left."""
    recoveries: int = 0
    """How often a conversation that a provider finds too long is made shorter and sent again."""

    @property
    def at(self) -> float:
        return self.started.at

    @property
    def run_id(self) -> str:
        return self.started.run_id


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on with a run from its record. `begin` says again how it is to behave; `traits` are those of its open calls."""

    at: float
    begin: Begin
    run: RunState
    seq: int
    """The last sequence number of the session."""
    traits: Mapping[str, Traits]
    expires_at: float | None = None
    """Until when the requests that are open wait now."""

    @property
    def run_id(self) -> str:
        return self.run.run_id


@dataclass(slots=True)
class Streamed:
    """A burst of fragments, in order."""

    at: float
    fragments: list[Fragment]


@dataclass(frozen=True, slots=True)
class ModelFinished:
    at: float
    finished: Finished
    first_token_s: float | None = None
    longest_gap_s: float | None = None
    message: Message | None = None
    """What a hook has put in the answer's place. Its calls are among those of the answer."""


@dataclass(frozen=True, slots=True)
class ModelFailed:
    at: float
    kind: str
    message: str
    usage: Usage = Usage()
    first_token_s: float | None = None
    longest_gap_s: float | None = None
    retry_after_s: float | None = None
    is_final: bool = False
    """There is nothing left to try."""
    cost_usd: float | None = None
    cost_basis: ev.CostBasis = "none"


@dataclass(frozen=True, slots=True)
class Found:
    """What the sources have found for the prompt."""

    at: float
    passages: tuple[ev.Passage, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Cut:
    """The driver has cut results and left passages out, to make room for the open step (see `Pruned`)."""

    at: float
    call_ids: tuple[str, ...]
    passages: tuple[tuple[str, int], ...]
    head_chars: int
    tokens_before: int
    tokens_after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summarised:
    """The driver has had the middle of the conversation summarised, to make room for the open step (see `Compacted`)."""

    at: float
    upto: tuple[str, int]
    covers: tuple[str, ...]
    summary: str
    tokens_before: int
    tokens_after: int
    model: str = ""
    usage: Usage = Usage()
    cost_usd: float | None = None
    cost_basis: ev.CostBasis = "none"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The driver has picked another model for the open step."""

    at: float
    model: str
    tier: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Traits:
    """How a tool wants its calls to be run."""

    concurrency: int | None = None
    is_parallel: bool = False
    """A write that may run beside others."""
    answers_denial: bool = False
    """The tool itself says what the model reads when a call is denied."""
    is_answer: bool = False
    """It takes the run's value as its arguments, after all other calls of its step; what it returns is nobody's answer."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One call, parsed, validated and judged. With a `problem` there is no verdict: the call is invalid."""

    call_id: str
    effect: Effect = "write"
    arguments: dict[str, Json] | None = None
    digest: str | None = None
    problem: str | None = None
    verdict: Verdict = "deny"
    by: str = ""
    reason: str = ""
    description: str = ""
    preview: str | None = None
    is_replaced: bool = False
    is_trusted: bool = False
    traits: Traits = Traits()


@dataclass(frozen=True, slots=True)
class Judged:
    at: float
    judgements: tuple[Judgement, ...]
    expires_at: float | None = None
    """Until when the requests of this step wait."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a running call wants to know: an answer, or whether a call of its sub-agent may run."""

    digest: str
    kind: ev.RequestKind = "question"
    question: str = ""
    options: tuple[ev.Option, ...] = ()
    allows_text: bool = False
    allows_many: bool = False
    description: str = ""
    preview: str | None = None
    name: str = ""
    arguments: dict[str, Json] | None = None
    default_result: str | None = None
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A running call asks. `key` is its own name for the question: the answer comes back under it."""

    at: float
    call_id: str
    key: int
    question: Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An answer to a request, already checked: the digest shown was right and edited arguments are valid."""

    at: float
    request_id: str
    answer: ev.Answer
    by: ev.AnsweredBy
    reason: str = ""
    arguments: dict[str, Json] | None = None
    digest: str | None = None
    result: str | None = None
    scope: ev.Scope = "once"


@dataclass(frozen=True, slots=True)
class Progressed:
    call_id: str
    text: str
    data: Json = None


@dataclass(frozen=True, slots=True)
class CallReturned:
    at: float
    call_id: str
    status: ev.CallEnd
    content: str
    details: Json = None
    files: tuple[ev.File, ...] = ()
    display: tuple[dict[str, Json], ...] = ()
    terminates: bool = False
    """The run ends when the calls of this step are closed."""


@dataclass(frozen=True, slots=True)
class Steer:
    """A message for the running run. It is read at the next boundary; calls that have not begun are skipped."""

    at: float
    input_id: str
    message: Message


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What the reviewers say: go on, go on with a message, or end here.

    After a step: `may_go_on=False` means that the limit is reached, with `text` as closing words or None.
    Before the end: `message` sends the agent on; `failure` (kind, message) fails the run.
    """

    at: float
    review: Review
    may_go_on: bool = True
    text: str | None = None
    message: Message | None = None
    by: ev.MessageBy = "hook"
    failure: tuple[str, str] | None = None
    is_final: bool = False
    """A hook wants the run to stop here, completed."""


@dataclass(frozen=True, slots=True)
class Note:
    at: float
    kind: ev.NoteKind
    message: str
    call_id: str | None = None
    data: Json = None


@dataclass(frozen=True, slots=True)
class SetBudget:
    at: float
    budget: dict[str, Json]


@dataclass(frozen=True, slots=True)
class SetRules:
    """What is remembered for the session from now on."""

    at: float
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """End the run now, whatever it is doing."""

    at: float
    status: ev.EndStatus = "cancelled"
    kind: str | None = None
    message: str | None = None
    not_begun: frozenset[str] = frozenset()
    """Calls that were to start and certainly did nothing."""
    usage: Usage = Usage()
    """Of the model call that it breaks off, with its cost."""
    cost_usd: float | None = None
    cost_basis: ev.CostBasis = "none"


@dataclass(frozen=True, slots=True)
class Clock:
    at: float


Signal: TypeAlias = (
    Begin
    | Resume
    | Streamed
    | ModelFinished
    | ModelFailed
    | Found
    | Cut
    | Summarised
    | Chosen
    | Judged
    | Asked
    | Answered
    | Progressed
    | CallReturned
    | Steer
    | Reviewed
    | Note
    | SetBudget
    | SetRules
    | Stop
    | Clock
)


# Commands: wishes, fulfilled by the driver.


@dataclass(frozen=True, slots=True)
class CallModel:
    """Call a model for this step, after `wait_s` seconds."""

    step: int
    model: int = 0
    """Which of the models: 0 is the first, the others are fallbacks."""
    wait_s: float = 0.0
    is_last_word: bool = False
    """The steps are used up: no tools, a summary is wanted."""
    refusal: str | None = None
    """What the provider said when it found the conversation too long: it must be made shorter first."""


@dataclass(frozen=True, slots=True)
class Judge:
    calls: tuple[CallState, ...]


@dataclass(frozen=True, slots=True)
class StartCall:
    call: CallState


@dataclass(frozen=True, slots=True)
class Reply:
    """Give the answer to the running call that asked. None: the question was not opened."""

    call_id: str
    key: int
    answered: Answered


@dataclass(frozen=True, slots=True)
class TellDenial:
    """Ask the tool what the model is to read about the denial; comes back as CallReturned with status "denied"."""

    call: CallState
    content: str
    reason: str


@dataclass(frozen=True, slots=True)
class AskReviewers:
    review: Review


Command: TypeAlias = CallModel | Judge | StartCall | Reply | TellDenial | AskReviewers
