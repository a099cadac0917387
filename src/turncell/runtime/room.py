"""Room: before a model is called, what it is told is counted, and made shorter where it would not fit.

`make_room` goes round until `core.context.plan` says that it fits, or that nothing is left to do. Each round is a signal, an
event of the open step, and only then a change of what is told: what a run has cut is what its record says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from turncell.core.context import (
    Compact,
    Count,
    Fits,
    Prune,
    Room,
    TooLong,
    Unit,
    conversation,
    cuts_of,
    edits_of,
    messages_of,
    plan,
    prompt_unit,
    shortened,
    step_unit,
    summary_text,
    told,
    units_of,
)
from turncell.core.events import Pruned, Retrieved
from turncell.core.fold import Edit, RunState, StepState
from turncell.core.parts import Message, Text
from turncell.core.signals import CallModel, Cut, Found, ModelFailed, Signal, Summarised
from turncell.core.values import evolve
from turncell.errors import UsageError
from turncell.runtime.hooks import Compaction, HookFailed, Vetoed
from turncell.runtime.options import number, one_of, whole
from turncell.runtime.ports import Model, ModelRequest, ToolSpec, capabilities_of
from turncell.runtime.sources import retrieve
from turncell.runtime.summary import Summary, summarise, without_model
from turncell.runtime.tokens import message_tokens, ratio_of, text_tokens, tools_tokens

if TYPE_CHECKING:
    from turncell.runtime.driver import Driver

OUTPUT_TOKENS = 4_096
"""Room for an answer whose length nobody has bounded."""
TARGET_SHARE = 0.6
"""How far down an edit goes: a smaller one would soon be followed by the next, and each costs the provider's cache."""
SUMMARY_SHARE, LEAST_SUMMARY_TOKENS, MOST_SUMMARY_TOKENS = 0.125, 100, 2_000
COUNTED_RUNS = 20
"""So far back a provider's count is looked for: where there is none, it does not say, and a long history is long."""
MAX_ROUNDS, MAX_SUMMARIES = 20, 2
"""Before one model call. Every round but a summary that came out too long saves something."""
WITH_LESS = "; trying again with less"
"""Ends the note of a refusal, which stands after what was cut for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """How a conversation is kept within a model's window.

    window_tokens  the window; if the model says it too, the smaller one counts. If neither is known, nothing is cut
                   until a provider refuses
    threshold      the share of the window beyond which room is made
    room_tokens    kept free for the answer; None: the agent's or model's limit of it, else 4,096; at most a quarter of the window
    when_full      "compact": cut old results, then have the middle summarised; "prune": only cut; "fail": neither
    keep_recent    how many of the last steps stay whole, unless there is no other way

    >>> Context(window_tokens=8_000).threshold
    0.8
    """

    window_tokens: int | None = None
    threshold: float = 0.8
    room_tokens: int | None = None
    when_full: Literal["compact", "prune", "fail"] = "compact"
    keep_recent: int = 2

    def __post_init__(self) -> None:
        if self.window_tokens is not None:
            whole("window_tokens", self.window_tokens, least=1)
        if self.room_tokens is not None:
            whole("room_tokens", self.room_tokens, least=1)
        if (number("threshold", self.threshold, is_needed=True) or 0.0) > 1:
            raise UsageError(f"threshold is {self.threshold!r}; use a share of the window, such as 0.8")
        one_of("when_full", self.when_full, ("compact", "prune", "fail"))
        whole("keep_recent", self.keep_recent, least=1)


_DEFAULT = Context()


def as_context(given: Any) -> Context:
    """What `Agent(context=...)` takes: a Context, a mapping of its fields, or None."""
    if given is None or isinstance(given, Context):
        return given or _DEFAULT
    if not isinstance(given, Mapping):
        raise UsageError(f"context is {given!r}; use a Context or a mapping such as {{'window_tokens': 32_000}}")
    known = [field.name for field in fields(Context)]
    if unknown := [name for name in given if name not in known]:
        raise UsageError(f"a context has no {', '.join(map(repr, unknown))}; use {', '.join(known)}")
    return Context(**given)


def window_of(context: Context, model: Model, refused: Mapping[str, int]) -> int | None:
    """The window of a model in tokens: the smallest of what it says, what was set, and what it has refused."""
    window: int | None = None
    for tokens in (context.window_tokens, capabilities_of(model).context_tokens, refused.get(model.name)):
        if tokens is not None and (window is None or tokens < window):
            window = tokens
    return window


def room_in(context: Context, window_tokens: int, model: Model, max_tokens: int | None) -> Room:
    bound = max_tokens or capabilities_of(model).max_output_tokens or OUTPUT_TOKENS
    free = min(context.room_tokens or min(bound, OUTPUT_TOKENS if max_tokens is None else bound), window_tokens // 4)
    hard = window_tokens - free
    limit = hard if context.when_full == "fail" else min(int(window_tokens * context.threshold), hard)
    summary = min(MOST_SUMMARY_TOKENS, max(LEAST_SUMMARY_TOKENS, int(limit * SUMMARY_SHARE)))
    return Room(limit, hard, int(limit * TARGET_SHARE), summary)


@dataclass(frozen=True, slots=True)
class Repeats:
    """What a run has found and cut is done again at the same steps, before `until`; nothing else is."""

    run: RunState
    until: int

    def signals(self, step: int, run_id: str) -> list[Signal]:
        old, at = self.run.run_id, time.time()

        def name(of: str) -> str:
            return run_id if of == old else of

        def call_name(of: str) -> str:
            return run_id + of.removeprefix(old) if of.startswith(f"{old}-") else of

        signals: list[Signal] = []
        if self.run.retrieved is not None and self.run.retrieved.step == step:
            signals.append(Found(at, self.run.retrieved.passages, self.run.retrieved.tokens))
        for edit in (one for one in self.run.edits if one.step == step):
            if isinstance(edit, Pruned):
                passages = tuple((name(run), number) for run, number in edit.passages)
                calls = tuple(map(call_name, edit.call_ids))
                signals.append(Cut(at, calls, passages, edit.head_chars, edit.tokens_before, edit.tokens_after))
            else:
                signals.append(Summarised(
                    at=at, upto=(name(edit.upto_run_id), edit.upto_step), covers=tuple(map(name, edit.covers)),
                    summary=edit.summary, tokens_before=edit.tokens_before, tokens_after=edit.tokens_after,
                    model=edit.model, usage=edit.usage, cost_usd=edit.cost_usd, cost_basis=edit.cost_basis,
                ))  # fmt: skip
        return signals


@dataclass(frozen=True, slots=True)
class Whole:
    """Runs that have ended, as long as nothing of them is cut."""

    runs: tuple[RunState, ...] = ()
    units: tuple[Unit, ...] = ()
    said: tuple[Unit, ...] = ()
    """Those of the units that have messages, as `told` gives them."""
    sizes: tuple[int, ...] = ()
    """Of what is said, as estimated."""
    tokens: int = 0
    messages: tuple[Message, ...] = ()
    edits: tuple[Edit, ...] = ()

    def and_then(self, runs: Sequence[RunState]) -> Whole:
        units = tuple([unit for run in runs for unit in units_of(run)])
        said = tuple([unit for unit in units if unit.messages]) if self.runs else told(units, ())
        sizes = tuple(map(_size, said))
        return Whole(
            (*self.runs, *runs), self.units + units, self.said + said, self.sizes + sizes, self.tokens + sum(sizes),
            self.messages + messages_of(said), self.edits + edits_of(runs),
        )  # fmt: skip


class Known:
    """What a session keeps of the runs that have ended, so that a late turn costs what an early one does."""

    def __init__(self) -> None:
        self.asked: dict[tuple[str, int], int] = {}
        """By run and step: the estimate of what was sent."""
        self._whole = Whole()

    def whole(self, runs: tuple[RunState, ...]) -> Whole:
        """Of these runs; those that were asked for the last time are not looked at again."""
        whole, known = self._whole, runs[: len(self._whole.runs)]
        # With the runs as they are now: where the session was read anew, those of before would be compared word by word.
        whole = evolve(whole, runs=known) if known == whole.runs else Whole()
        if len(runs) > len(whole.runs):
            whole = whole.and_then(runs[len(whole.runs) :])
        self._whole = whole
        return whole


class Telling:
    """What the model of one run is told: kept between steps, so that a late one costs what an early one does."""

    def __init__(self, before: tuple[RunState, ...], known: Known) -> None:
        self.before = before
        self.known = known
        self._whole = known.whole(before)
        self.units: list[Unit] = []
        self.sizes: list[int] = []
        """Of the units, as estimated."""
        self.tokens = 0
        """Of all of them."""
        self.messages: tuple[Message, ...] = ()
        """Those of the units; the same object as long as nothing has changed."""
        self._known = -1
        """How many steps of the run are among the units; -1 as long as none were made."""
        self._retrieved: Retrieved | None = None
        self._edits = 0
        self._fixed: tuple[str, tuple[ToolSpec, ...], int] = ("", (), 0)
        self._ratios: dict[str, float] = {}
        """By model: what its last answer in an earlier run says."""
        self._cuts: tuple[dict[str, int], frozenset[tuple[str, int]]] | None = None
        """None where nothing is cut."""

    def update(self, run: RunState) -> None:
        if self._known < 0 or len(run.edits) != self._edits or run.retrieved is not self._retrieved:
            whole, edits = self._whole, self._whole.edits + run.edits
            new = [prompt_unit(run)]
            new += [step_unit(run, step, messages) for step, messages in enumerate(run.told, 1)]
            if edits:
                sizes = {id(unit): size for unit, size in zip(whole.said, whole.sizes, strict=True)}
                self.units = list(told((*whole.units, *new), edits, run.run_id))
                self.sizes = [sizes[id(unit)] if id(unit) in sizes else _size(unit) for unit in self.units]
                self.tokens = sum(self.sizes)
                self.messages = messages_of(self.units)
            else:
                said = told(new, (), run.run_id)
                sizes_of_new = list(map(_size, said))
                self.units = [*whole.said, *said]
                self.sizes = [*whole.sizes, *sizes_of_new]
                self.tokens = whole.tokens + sum(sizes_of_new)
                self.messages = whole.messages + messages_of(said)
            self._known, self._retrieved, self._edits = len(run.told), run.retrieved, len(run.edits)
            self._cuts = cuts_of(edits) if edits else None
            return
        if len(run.told) == self._known:
            return
        for step, messages in enumerate(run.told[self._known :], self._known + 1):
            if messages:
                unit = step_unit(run, step, messages)
                if self._cuts is not None:
                    unit = shortened(unit, *self._cuts)
                size = _size(unit)
                self.units.append(unit)
                self.sizes.append(size)
                self.tokens += size
                self.messages += unit.messages
        self._known = len(run.told)

    def fixed_tokens(self, request: ModelRequest) -> int:
        """Of what is sent besides the messages, as estimated."""
        instructions, tools, tokens = self._fixed
        if request.instructions != instructions or request.tools is not tools:
            tokens = text_tokens(request.instructions) + tools_tokens(request.tools)
            self._fixed = (request.instructions, request.tools, tokens)
        return tokens

    def ratio(self, run: RunState, model: str, fixed_tokens: int) -> float:
        """What the provider counted last for this model, over what was estimated of the same."""
        step = _last_counted(run, model)
        if step is not None and (asked := self.known.asked.get((run.run_id, step.step))) is not None:
            return ratio_of(step.usage.input_tokens, asked)
        if model not in self._ratios:
            runs = (*self.before, run)
            for place in range(len(runs), max(0, len(runs) - COUNTED_RUNS), -1):
                if (step := _last_counted(runs[place - 1], model)) is not None:
                    runs = runs[:place]
                    break
            estimate = 0
            if step is not None:
                asked = self.known.asked.get((runs[-1].run_id, step.step))
                # Asked by another process: what was sent then is folded anew.
                estimate = asked or fixed_tokens + sum(map(_size, conversation(runs, step.step)))
            self._ratios[model] = ratio_of(step.usage.input_tokens, estimate) if step is not None else 1.0
        return self._ratios[model]


def _last_counted(run: RunState, model: str) -> StepState | None:
    """The last step of a run for which this model's provider has said how many tokens it was sent."""
    for step in reversed(run.steps):
        if step.model == model and step.usage.input_tokens and not step.usage.is_estimated:
            return step
    return None


def _size(unit: Unit) -> int:
    return sum(map(message_tokens, unit.messages))


async def make_room(driver: Driver, model: Model, command: CallModel, request: ModelRequest) -> bool:
    """Make what is told short enough for this model. False: it cannot be, and the step has failed.

    `driver.telling` has what is told then.
    """
    setup, telling, step = driver.setup, driver.telling, command.step
    if setup.repeats is not None and step < setup.repeats.until:
        for signal in setup.repeats.signals(step, driver.loop_state.run.run_id):
            driver.feed(signal)
        telling.update(driver.loop_state.run)
        return True
    window = window_of(setup.context, model, setup.session.windows)
    if setup.sources:
        await retrieve(driver, window)
    run = driver.loop_state.run
    telling.update(run)
    fixed = telling.fixed_tokens(request)
    if window is not None or command.refusal is not None:
        ratio = telling.ratio(run, model.name, fixed)
        if command.refusal is not None:
            # Whatever was known of its window: less than what it has just refused.
            refused = int((fixed + telling.tokens) * ratio)
            setup.session.windows[model.name] = min(refused, setup.session.windows.get(model.name, refused))
            window = window_of(setup.context, model, setup.session.windows)
        if window is not None and not await _fit(driver, model, command, request, window, fixed, ratio):
            return False
    telling.known.asked[run.started.run_id, step] = fixed + telling.tokens
    return True


async def _fit(
    driver: Driver, model: Model, command: CallModel, request: ModelRequest, window: int, fixed: int, ratio: float
) -> bool:
    setup, telling = driver.setup, driver.telling
    is_refused, when_full = command.refusal, setup.context.when_full
    room = room_in(setup.context, window, model, request.max_tokens)
    if is_refused is None and fits_at_once(fixed + telling.tokens, ratio, room):
        return True
    scaled = _scaled(ratio)
    summaries_left = MAX_SUMMARIES if when_full == "compact" else 0
    for _ in range(MAX_ROUNDS):
        decision = plan(
            telling.units, [int(size * ratio) for size in telling.sizes], room, scaled,
            fixed_tokens=int(fixed * ratio), keep_recent=setup.context.keep_recent,
            may_prune=when_full != "fail", may_compact=summaries_left > 0,
        )  # fmt: skip
        before = int((fixed + telling.tokens) * ratio)
        if isinstance(decision, Fits):
            break
        if isinstance(decision, TooLong):
            _give_up(driver, decision, room, is_refused)
            return False
        if isinstance(decision, Prune):
            _cut(driver, decision, before, ratio, fixed)
        else:
            is_done = await _compact(driver, model, decision, room, scaled, before, int(window / ratio))
            summaries_left = summaries_left - 1 if is_done else 0
        if driver.is_over:
            return False
        telling.update(driver.loop_state.run)
    else:
        _give_up(driver, TooLong(before, int(fixed * ratio)), room, is_refused)
        return False
    if is_refused is not None:
        driver.note("retry", f"context_length: {is_refused}{WITH_LESS}")
    return True


def fits_at_once(tokens: int, ratio: float, room: Room) -> bool:
    """Whether it fits without a look at the units: `plan` adds up the same, but each of them rounded down."""
    return tokens * ratio <= room.limit_tokens


def _scaled(ratio: float) -> Count:
    return lambda message: int(message_tokens(message) * ratio)


def _give_up(driver: Driver, found: TooLong, room: Room, refusal: str | None) -> None:
    text = refusal or (
        f"what would be sent is about {found.tokens:,} tokens, and there is room for {room.hard_tokens:,}; instructions, "
        f"tools and prompts alone are about {found.floor_tokens:,}. Use a model with a larger window, or say less at once"
    )
    driver.feed(ModelFailed(time.time(), "context_length", text, is_final=True))


def _cut(driver: Driver, decision: Prune, before: int, ratio: float, fixed: int) -> None:
    telling = driver.telling
    heads = dict.fromkeys(decision.call_ids, decision.head_chars)
    after = (shortened(unit, heads, frozenset(decision.passages)) for unit in telling.units)
    tokens_after = int((fixed + sum(map(_size, after))) * ratio)
    driver.feed(Cut(time.time(), decision.call_ids, decision.passages, decision.head_chars, before, tokens_after))


async def _compact(
    driver: Driver, model: Model, decision: Compact, room: Room, count: Count, before: int, window_tokens: int
) -> bool:
    """Have it summarised. False: a hook has said no, and nothing has changed."""
    hooks, run = driver.setup.hooks, driver.loop_state.run
    middle = messages_of(decision.middle)
    compaction = Compaction(run_id=run.run_id, step=len(run.steps), messages=middle, tokens_before=before)
    given: str | None = None
    made = Summary(None)
    may_ask = True
    try:
        given = await _said(driver, "before_compaction", compaction)
    except Vetoed as error:
        driver.note("hook", str(error))
        return False
    except HookFailed as error:
        driver.note("hook", str(error))
        may_ask = False
    if given is None and may_ask:
        task = run.prompt.text if run.prompt is not None else ""
        made = await summarise(
            driver, model, middle, task=task, most_tokens=room.summary_tokens, window_tokens=window_tokens
        )
        given = made.text
    if given is not None and hooks.has("after_compaction"):
        try:
            given = await _said(driver, "after_compaction", evolve(compaction, summary=given)) or given
        except (HookFailed, Vetoed) as error:
            driver.note("hook", str(error))
            given = None
    text = fitted(given if given is not None else _marker(decision.middle), room.summary_tokens, count)
    path = [*(one.run_id for one in driver.telling.before), run.run_id]
    after = before - sum(map(count, middle)) + count(_summary_message(text))
    driver.feed(Summarised(
        at=time.time(), upto=decision.upto, covers=tuple(path[: path.index(decision.upto[0]) + 1]), summary=text,
        tokens_before=before, tokens_after=after, model=made.model if given is not None else "", usage=made.usage, cost_usd=made.cost_usd,
        cost_basis=made.cost_basis,
    ))  # fmt: skip
    return True


async def _said(driver: Driver, name: str, compaction: Compaction) -> str | None:
    """What the last of these hooks that says anything says; each sees what the one before has made."""
    said: str | None = None
    for hook in driver.setup.hooks.each(name):
        words = await driver.setup.hooks.said(name, hook, compaction, str)
        if words is not None:
            said, compaction = words, evolve(compaction, summary=words)
    return said


def _marker(middle: Sequence[Unit]) -> str:
    earlier = "\n".join(message.text for unit in middle if unit.is_summary for message in unit.messages)
    rest = without_model(messages_of(unit for unit in middle if not unit.is_summary))
    return f"{rest}\n{earlier.removeprefix(summary_text('')).strip()}".strip()


def _summary_message(text: str) -> Message:
    return Message("user", (Text(summary_text(text)),))


def fitted(text: str, most_tokens: int, count: Callable[[Message], int]) -> str:
    """The summary, cut until its message has no more tokens than that."""
    while text and count(_summary_message(text)) > most_tokens:
        text = text[: len(text) * 7 // 8].rstrip()
    return text
