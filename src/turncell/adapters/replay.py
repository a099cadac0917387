"""Replay: runs again from their journal, offline. The journal is the cassette.

The models say what the journal says they said, and the tools return what they returned: nothing is asked of a provider,
nothing is done to the world, nothing is stored. Calls are judged as they were; where a person had changed the arguments,
the same are put in. What the journal does not know (the schemas of tools, the options of models) is not compared.

Who stopped a run from outside (cancel, budget, time limit, a message in between) is not there to do it again: such a
run goes on to the end of its record and fails there, and `compare` says where.
"""

from __future__ import annotations

import copy
import difflib
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, cast, get_args

from turncell.adapters.recordings import CassetteModel, Recording, Recordings, messages_as_json
from turncell.core import codec
from turncell.core.compare import difference
from turncell.core.context import conversation, messages_of
from turncell.core.deltas import Fragment
from turncell.core.digest import call_digest, canonical_json
from turncell.core.events import Compacted, Event, Noted
from turncell.core.fold import CallState, RunState, StepState, fold
from turncell.core.parts import Json, Message, Text
from turncell.core.policy import Effect, Rule
from turncell.core.values import evolve
from turncell.errors import Declined, FailureKind, ToolError, UsageError
from turncell.runtime import defaults
from turncell.runtime.agent import Agent
from turncell.runtime.context import ToolContext
from turncell.runtime.hooks import Hooks, ToolUse
from turncell.runtime.journal import Unrecorded
from turncell.runtime.options import whole
from turncell.runtime.output import Output
from turncell.runtime.output_type import ANSWER_TOOL
from turncell.runtime.ports import Model, ModelRequest, ToolSpec, capabilities_of
from turncell.runtime.room import WITH_LESS, Repeats
from turncell.runtime.run import Run
from turncell.runtime.session import Session
from turncell.runtime.summary import INSTRUCTIONS, NO_SUMMARY
from turncell.runtime.tools import Tool, toolbox

AnyTool = Tool | Callable[..., Any]


def cassette_of(source: Session | Iterable[Event]) -> Recordings:
    """What the models said in a session, or in the events of one or several runs of one, oldest first.

    Without runs that were held elsewhere: what their models were asked is not known.
    `write_cassette` makes a file of it, for tests: tools, options and the model's name then fit anything.
    """
    if isinstance(source, Run) or not isinstance(source, Iterable | Session):
        raise UsageError(f"a cassette is made of a Session or of events (run.events); found {source!r}")
    runs = source.runs if isinstance(source, Session) else _runs(source)
    known = [run for run in runs if not run.started.is_imported]
    return Recordings(recording for run in known for recording in recordings_of(run, _before(runs, run)))


def recordings_of(run: RunState, before: Sequence[RunState] = ()) -> list[Recording]:
    """One for each step of a run, and for what was refused and summarised before it; `before` are the runs that it went on from."""
    recordings = []
    for step in run.steps:
        recordings += _refusals(run, before, step.step)
        recordings += _summaries(run, step.step)
        recordings.append(_recording(_asked(run, before, step.step), step))
    return recordings


def _asked(run: RunState, before: Sequence[RunState], step: int) -> dict[str, Json]:
    told = messages_of(conversation((*before, run), step))
    return {"instructions": run.instructions, "messages": messages_as_json(told)}


def _refusals(run: RunState, before: Sequence[RunState], step: int) -> list[Recording]:
    """What a provider has refused as too long: as it was before the cuts that followed."""
    recordings: list[Recording] = []
    since = 0
    for note in run.notes:
        kind, _, words = note.message.partition(": ")
        if note.step == step and note.kind == "retry" and kind == "context_length" and words.endswith(WITH_LESS):
            uncut = evolve(run, edits=tuple(one for one in run.edits if one.step < step or one.seq < since))
            failure: tuple[FailureKind, str] = ("context_length", words.removesuffix(WITH_LESS))
            recordings.append(Recording(_asked(uncut, before, step), failure=failure))
            since = note.seq
    return recordings


def _summaries(run: RunState, step: int) -> list[Recording]:
    """What was said when a model was asked to summarise. Known by that alone: how much it was shown is not in the journal."""
    asked: dict[str, Json] = {"instructions": INSTRUCTIONS}
    told = [one for one in (*run.notes, *run.edits) if one.step == step]
    recordings = []
    for one in sorted(told, key=lambda one: one.seq):
        if isinstance(one, Compacted) and one.model:
            said = (Text(one.summary),)
            recordings.append(Recording(asked, said, "stop", one.usage, one.cost_usd, one.cost_basis, one.model))
        elif isinstance(one, Noted) and one.kind == "context" and NO_SUMMARY in one.message:
            kind, _, words = one.message.partition(NO_SUMMARY)[2].partition(": ")
            is_failure = kind in get_args(FailureKind)
            recordings.append(Recording(asked, failure=(cast(FailureKind, kind), words) if is_failure else None))
    return recordings


def replayed_tools(tools: Iterable[AnyTool] | None, run: RunState | Run) -> list[Tool]:
    """Tools that answer the calls of a run from its record and never run: by name, arguments and occurrence.

    `tools` are those whose schemas and validation count; None makes them of the names in the record, and takes the
    arguments as they were validated then. A call that is not in the record is an error that names the nearest one.
    """
    return _Record(_state(run)).tools(tools)


def replay(session: Session, *, tools: Iterable[AnyTool] | None = None) -> list[Run]:
    """Run every run of a session again from its record: no provider is asked, no tool runs, nothing is stored. Blocks.

    Runs that were held elsewhere (`is_imported`) have no record to run from and are left out; UsageError where there are
    no others. `compare(run, again)` says where one differs from its record. `tools` are those whose schemas and validation count;
    None makes them from the record.

    >>> from turncell import compare
    >>> from turncell.testing import ScriptedModel
    >>> run = Agent(ScriptedModel(["It is a fine day."])).run_sync("How is the day?")
    >>> [again] = replay(run.session)
    >>> again.text, compare(run, again)
    ('It is a fine day.', None)
    """
    if not isinstance(session, Session):
        raise UsageError(f"replay takes a Session (a Run has one in run.session); found {session!r}")
    tools = None if tools is None else list(tools)
    known = [run for run in session.runs if not run.started.is_imported]
    if session.runs and not known:
        raise UsageError(f"{session!r} {_NO_RECORD}")
    return [_again(session, run, tools).result() for run in known]


_NO_RECORD = (
    "was held elsewhere and brought in as messages, so there is no recording of what its models were asked; "
    "session.retry(run_id) asks a prompt of it again"
)


def reask(
    run: Run | RunState,
    step: int,
    model: str | Model,
    *,
    session: Session | None = None,
    tools: Iterable[AnyTool] | None = None,
    **agent_options: Any,
) -> Run:
    """Run a run again with another model from `step` (1, 2, ...) on; the steps before it come from the record. Blocks.

    From `step` on, `tools` given here run for real, judged by the rules and the mode in `agent_options` (those of `Agent`).
    Without `tools`, calls are answered from the record, and one that is not there is an error. Nothing is stored. A run of
    `session.runs` needs its `session`.
    """
    state = _state(run)
    if session is None and isinstance(run, Run):
        session = run.session
    if session is None:
        raise UsageError("reask needs the conversation of a RunState; use reask(run, step, model, session=session)")
    found = next((one for one in session.all_runs if one.run_id == state.run_id), None)
    if found is None:
        raise UsageError(f"run {state.run_id!r} is not among the runs of {session!r} that have ended")
    if whole("step", step, least=1) > len(state.steps):
        raise UsageError(f"step is {step!r}; this run has steps 1 to {len(state.steps)}")
    if "journal" in agent_options:
        raise UsageError("reask stores nothing, for its history belongs to another session; leave out journal")
    given = None if tools is None else list(tools)
    return _again(session, found, given, step, defaults.model(model), agent_options).result()


def _again(
    session: Session,
    run: RunState,
    tools: list[AnyTool] | None,
    until: int | None = None,
    live: Model | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Run:
    if run.prompt is None:
        raise UsageError(f"run {run.run_id!r} has no message in its record, so there is nothing to ask again")
    if run.started.is_imported:
        raise UsageError(f"run {run.run_id!r} {_NO_RECORD}")
    record = _Record(run, until, is_live=live is not None and tools is not None)
    before = _before(session.all_runs, run)
    model: Model = CassetteModel(recordings_of(run, before), run.model)
    # What the journal says of a failure came after all attempts.
    usual: dict[str, Any] = {"max_steps": run.max_steps or len(run.steps) + 1, "attempts": 1}
    if live is not None and until is not None:
        model = _Until(until, model, live)
        usual = {"max_steps": run.max_steps} if run.max_steps else {}
    own = dict(options)
    rules, hooks = own.pop("rules", ()), own.pop("hooks", ())
    agent = Agent(
        model, tools=record.tools(tools), rules=[record.judge, *rules],
        hooks=[record.hooks, *((hooks,) if isinstance(hooks, Hooks) else hooks)], journal=Unrecorded(),
        **{"instructions": run.instructions, "name": run.agent} | usual | own,
    )  # fmt: skip
    agent.repeats = Repeats(run, len(run.steps) + 1 if until is None else until)
    copied = Session.new(agent.journal)
    for one in before:
        copied.add(one)
    copied.notices = run.started.notices
    return agent.start(run.prompt, session=copied)


def _before(runs: Sequence[RunState], run: RunState) -> list[RunState]:
    """The runs that a run goes on from, the oldest first: the conversation is a tree, and this is the way down to it."""
    of_id = {one.run_id: one for one in runs}
    path: list[RunState] = []
    while run.previous in of_id and len(path) < len(of_id):
        run = of_id[run.previous]
        path.insert(0, run)
    return path


class _Until:
    """A model that speaks from the record before a step, and from then on for itself."""

    def __init__(self, step: int, recorded: Model, live: Model) -> None:
        self._step, self._recorded, self._live = step, recorded, live
        self.name = live.name
        self.capabilities = capabilities_of(live)
        self.price_usd = getattr(live, "price_usd", None)

    async def stream(self, request: ModelRequest) -> AsyncIterator[list[Fragment]]:
        model = self._recorded if request.step < self._step else self._live
        async with aclosing(model.stream(request)) as bursts:  # type: ignore[type-var]
            async for burst in bursts:
                yield burst


class _Record:
    """The calls of a run: how they were judged, and what they returned.

    `until` is the first step that is not repeated. With `is_live` calls from there on run for real, and nothing that was
    recorded of them counts; otherwise the whole record answers, also calls that another model makes.
    """

    def __init__(self, run: RunState, until: int | None = None, *, is_live: bool = False) -> None:
        self._run = run
        self._until = len(run.steps) + 1 if until is None else until
        self._is_live = is_live
        self._calls = [call for call in run.calls if not is_live or call.step < self._until]
        self._answers: dict[tuple[str, str], list[CallState]] = {}
        self._denials: dict[tuple[str, str], list[CallState]] = {}
        self._used: dict[tuple[str, str, bool], int] = {}
        self._lock = threading.Lock()
        self._is_judging_past = False
        for call in self._calls:
            if call.digest is not None and not call.is_open:
                kept = self._denials if call.status == "denied" else self._answers
                kept.setdefault((call.name, call.digest), []).append(call)
        self.hooks = Hooks(
            before_tool=self._arguments,
            before_finish=self._message,
            after_step=lambda state: self._ends(len(state.steps)),
        )

    def tools(self, tools: Iterable[AnyTool] | None) -> list[Tool]:
        if tools is None:
            return [self._nameless(name) for name in self._run.tools]
        return [self._recorded(tool) for tool in toolbox(tools).values()]

    def _nameless(self, name: str) -> Tool:
        """A tool of which the record knows only the calls."""
        calls = [call for call in self._calls if call.name == name]
        effect = calls[0].effect if calls else "read"
        is_trusted = bool(calls) and all(call.is_trusted for call in calls)
        kind = _NamelessAnswer if name == ANSWER_TOOL else _Nameless
        return self._recorded(kind(self, name, effect, is_trusted))

    def _recorded(self, tool: Tool) -> Tool:
        """A copy of a tool that answers from the record; a live one does its own work after it."""
        made = copy.copy(tool)
        is_live, check, on_denied = self._is_live, tool.check, tool.on_denied

        async def call(arguments: Mapping[str, Json], context: ToolContext, **options: Any) -> Any:
            if is_live and self._at(context.call_id) is None:
                return await tool.call(arguments, context, **options)
            return self._answer(tool.name, arguments)

        def denied(arguments: dict[str, Json], reason: str) -> Any:
            said = self._denial(tool.name, arguments)
            return said if said is not None or on_denied is None else on_denied(arguments, reason)

        def checked(**arguments: Any) -> Any:
            return None if self._is_judging_past or check is None else check(**arguments)

        vars(made)["call"] = call
        made.on_denied = denied if on_denied is not None or self._denials else None
        if is_live:
            made.check = None if check is None else checked
        else:
            made.check = made.preview = made.timeout_s = None
            made.retries, made.terminate = 0, False
        return made

    def _at(self, call_id: str) -> CallState | None:
        """The recorded call in the place of a call of the new run; None for what comes after the record."""
        # A call's id ends in its step and its number in the step.
        step, number = (int(text) for text in call_id.rsplit("-", 2)[1:])
        if step >= self._until or step > len(self._run.steps):
            return None
        calls = self._run.steps[step - 1].calls
        return calls[number - 1] if number <= len(calls) else None

    def judge(self, use: ToolUse) -> Rule | None:
        """As it was judged then. Live calls are for other rules and the mode."""
        call = self._at(use.call_id)
        if call is None or call.name != use.name:
            if self._is_live:
                return None
            is_denied = (use.name, call_digest(use.name, dict(use.arguments))) in self._denials
        else:
            is_denied = call.status == "denied"
        # Tainted: what comes from a record reaches nobody, whatever was read before.
        return Rule(use.name, "deny" if is_denied else "allow", reason="as it was recorded", tainted=True)

    def _arguments(self, use: ToolUse) -> Mapping[str, Json] | None:
        """Those that a person or a hook had put in the place of the model's."""
        call = self._at(use.call_id)
        self._is_judging_past = call is not None
        return call.arguments if call is not None and call.name == use.name and call.proposed_arguments else None

    def _message(self, run: RunState) -> Message | None:
        """What a hook or the check of the output said when the run was about to end."""
        step = len(run.steps)
        if step >= self._until or step > len(self._run.steps):
            return None
        after = self._run.steps[step - 1].after
        return next((added.message for added in after if added.by in ("hook", "output")), None)

    def _answer(self, name: str, arguments: Mapping[str, Json]) -> Output:
        """What this call returned, the next time that it was made. Raises what makes it the error that it was."""
        call = self._take(name, arguments, is_denial=False)
        if call is None:
            raise Declined(self._missing(name, arguments))
        if call.status != "ok":
            raise Declined(call.content or "")  # the one exception whose words the model reads as they are
        is_last = call.terminates and call.step < self._until
        return Output(call.content or "", call.details, (), call.display, terminate=is_last)

    def _ends(self, step: int) -> bool:
        """Whether the run was completed after this step: where no call of it says so, by a hook."""
        return self._run.status == "completed" and step == len(self._run.steps) < self._until

    def _denial(self, name: str, arguments: Mapping[str, Json]) -> str | None:
        call = self._take(name, arguments, is_denial=True)
        return None if call is None else call.content

    def validated(self, name: str, arguments: Mapping[str, Json]) -> dict[str, Json]:
        """What the tool had made of the model's arguments; where nobody knows, they stay as they are."""
        for call in self._calls:
            if call.name != name or _object(call.arguments_text) != arguments:
                continue
            if call.arguments is None:
                raise ToolError(call.problem or f"{name} could not be called so")
            return dict(call.arguments if call.proposed_arguments is None else call.proposed_arguments)
        return dict(arguments)

    def _take(self, name: str, arguments: Mapping[str, Json], *, is_denial: bool) -> CallState | None:
        digest = call_digest(name, dict(arguments))
        with self._lock:
            kept = (self._denials if is_denial else self._answers).get((name, digest), [])
            used = self._used.get((name, digest, is_denial), 0)
            if used >= len(kept):
                return None
            self._used[name, digest, is_denial] = used + 1
            return kept[used]

    def _missing(self, name: str, arguments: Mapping[str, Json]) -> str:
        where = f"{name} was not run: the record of run {self._run.run_id!r}"
        made = [call for call in self._calls if call.name == name]
        if not made:
            return f"{where} has no call of it"
        wanted = canonical_json(dict(arguments))
        texts = [canonical_json(call.arguments) for call in made]
        if wanted in texts:
            return f"{where} has {texts.count(wanted)} of these calls, and this is one more"
        ratios = [difflib.SequenceMatcher(None, text[:2_000], wanted[:2_000]).ratio() for text in texts]
        nearest = made[ratios.index(max(ratios))]
        return (
            f"{where} has no such call; the nearest is in step {nearest.step}: "
            f"{difference(nearest.arguments, dict(arguments))}"
        )


class _Nameless(Tool):
    """A tool whose schema nobody knows any more."""

    def __init__(self, record: _Record, name: str, effect: Effect, is_trusted: bool) -> None:
        super().__init__(lambda: None, name=name, effect=effect, trusted=is_trusted)
        self._record = record

    @property
    def spec(self) -> ToolSpec:
        return ToolSpec(self.name, "", {"type": "object", "properties": {}, "additionalProperties": True})

    def validate(self, arguments: Mapping[str, Json]) -> dict[str, Json]:
        return self._record.validated(self.name, arguments)


class _NamelessAnswer(_Nameless):
    is_answer = True


def _recording(asked: dict[str, Json], step: StepState) -> Recording:
    failure: tuple[FailureKind, str] | None = None
    if step.error_kind is not None or step.finish_reason is None:
        kind = step.error_kind if step.error_kind in get_args(FailureKind) else "unknown"
        failure = cast(FailureKind, kind), step.error or "the record of this step has no end"
    return Recording(
        asked, step.message.parts if step.message is not None else (), step.finish_reason or "other", step.usage,
        step.cost_usd, step.cost_basis, step.answered_by or step.model, failure,
    )  # fmt: skip


def _state(run: Run | RunState) -> RunState:
    state = run.state if isinstance(run, Run) else run
    if not isinstance(state, RunState):
        raise UsageError(f"{run!r} is no run; use a Run, or one of session.all_runs")
    return state


def _runs(events: Iterable[Event]) -> list[RunState]:
    of_run: dict[str, list[Event]] = {}
    for event in events:
        of_run.setdefault(event.run_id, []).append(event)
    return [fold(some) for some in of_run.values()]


def _object(text: str) -> Json:
    try:
        return codec.decode_json(text or "{}")
    except ValueError:
        return None
