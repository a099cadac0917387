"""What a model is told of a conversation, and what is done when that becomes too long.

The conversation is a list of units: (run, 0) is the prompt of a run, (run, n) all that its step n adds, an answer with the
results of its calls and what was said after. A unit is told whole or not at all, so that a call is never told without its
result. What was cut or summarised stands in the journal as an edit (`Pruned`, `Compacted`) of the run that did it: who
takes that run out of the conversation has the whole back.

* The floor stays as it is, to the byte: the first prompt of the conversation and the prompt of the running run.
* Between two edits the messages only grow at their end: providers keep what they have read by its beginning. So an edit
  is made seldom and reaches far (down to `Room.target_tokens`), and every break of the beginning is an event.
* The order: passages of sources (the lowest priority first), then old results, then a summary of the middle, then the
  results of the last units. Every plan makes the conversation shorter, so that planning ends.

Sizes are tokens as whoever calls estimates them; here they are only added up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from turncell.core import events as ev
from turncell.core.fold import Edit, RunState, step_messages
from turncell.core.parts import Message, Text, ToolResult
from turncell.core.values import evolve

HEAD_CHARS = 400
"""What an old result is cut to: enough to know what it was."""
HARDER_CHARS = (8_000, 4_000, 2_000, 1_000, HEAD_CHARS, 150, 40)
"""What the results of the last units are cut to, where nothing else helps: the first that fits."""
MARK_CHARS = 90
"""A cut that saves less than its own mark is none."""
GAIN_SHARE = 0.1
"""A summary that saves less than this share of the room waits until there is no room at all."""

Count: TypeAlias = Callable[[Message], int]


@dataclass(frozen=True, slots=True)
class Unit:
    """One piece of the conversation. `upto` is what a summary that ends with it has covered."""

    run_id: str
    step: int
    messages: tuple[Message, ...]
    upto: tuple[str, int]
    passages: tuple[tuple[int, int], ...] = ()
    """Of a prompt: number and priority of each passage in front of it."""
    passages_at: int = 0
    """Which part of the message is the first passage."""
    is_floor: bool = False
    is_summary: bool = False


@dataclass(frozen=True, slots=True)
class Room:
    """How much may be sent, in tokens. Beyond `limit` something is done about it, down to `target`; beyond `hard` nothing
    can be sent. `summary` is the most that a summary may take."""

    limit_tokens: int
    hard_tokens: int
    target_tokens: int
    summary_tokens: int


@dataclass(frozen=True, slots=True)
class Fits:
    tokens: int


@dataclass(frozen=True, slots=True)
class Prune:
    """Tell these results as their head, and leave these passages out."""

    call_ids: tuple[str, ...]
    passages: tuple[tuple[str, int], ...] = ()
    head_chars: int = HEAD_CHARS


@dataclass(frozen=True, slots=True)
class Compact:
    """Summarise `middle`, which ends with the unit `upto`."""

    upto: tuple[str, int]
    middle: tuple[Unit, ...]


@dataclass(frozen=True, slots=True)
class TooLong:
    """Nothing is left to be done; `floor_tokens` are those of what always stays."""

    tokens: int
    floor_tokens: int


Plan: TypeAlias = Fits | Prune | Compact | TooLong


def units_of(run: RunState) -> tuple[Unit, ...]:
    """The units of a run, whole."""
    last = (step_messages(run.steps[-1]),) if run.steps else ()
    units = [prompt_unit(run)]
    units += (step_unit(run, number, messages) for number, messages in enumerate((*run.told, *last), 1))
    return tuple(units)


def prompt_unit(run: RunState) -> Unit:
    heard = run.heard
    passages: tuple[tuple[int, int], ...] = ()
    if heard is not None and run.retrieved is not None:
        passages = tuple([(number, found.priority) for number, found in enumerate(run.passages)])
    return Unit(run.run_id, 0, (heard,) if heard else (), (run.run_id, 0), passages, bool(run.started.notices))


def step_unit(run: RunState, step: int, messages: tuple[Message, ...]) -> Unit:
    return Unit(run.run_id, step, messages, (run.run_id, step))


def edits_of(runs: Iterable[RunState], step: int | None = None) -> tuple[Edit, ...]:
    """What these runs have cut and summarised; of the last one up to this step, None: all."""
    edits: list[Edit] = []
    last: tuple[Edit, ...] = ()
    for run in runs:
        edits += last
        last = run.edits
    return (*edits, *(last if step is None else [edit for edit in last if edit.step <= step]))


def conversation(runs: Sequence[RunState], step: int | None = None) -> tuple[Unit, ...]:
    """What a model is told of these runs before the next message; with `step`, before that step of the last one."""
    units = [unit for run in runs for unit in units_of(run)]
    if step is not None and runs:
        last = runs[-1].run_id
        units = [unit for unit in units if unit.run_id != last or unit.step < step]
    return told(units, edits_of(runs, step), runs[-1].run_id if step is not None and runs else "")


def messages_of(units: Iterable[Unit]) -> tuple[Message, ...]:
    return tuple([message for unit in units for message in unit.messages])


def told(units: Sequence[Unit], edits: Sequence[Edit], running: str = "") -> tuple[Unit, ...]:
    """The units as they are told after these edits. `running` is the run whose prompt belongs to the floor."""
    marked = list(units)
    for place, unit in enumerate(units):
        if not unit.step and (not place or unit.run_id == running):
            marked[place] = evolve(unit, is_floor=True)
    summary, end = _summary(marked, edits)
    if summary is not None:
        # The prompt of the run that has summarised was said to the model after the summary, and stays there.
        first, *later = (
            evolve(unit, upto=summary.upto)
            for place, unit in enumerate(marked[:end])
            if not unit.step and (not place or unit.run_id in (summary.run_id, running))
        )
        marked = [first, summary, *later, *marked[end:]]
    if not edits:
        return tuple([unit for unit in marked if unit.messages])
    heads, left_out = cuts_of(edits)
    return tuple([shortened(unit, heads, left_out) for unit in marked if unit.messages])


def cuts_of(edits: Iterable[Edit]) -> tuple[dict[str, int], frozenset[tuple[str, int]]]:
    """To how many characters each call's result is cut, and which passages are left out."""
    heads: dict[str, int] = {}
    left_out: set[tuple[str, int]] = set()
    for edit in edits:
        if isinstance(edit, ev.Pruned):
            left_out.update((run_id, number) for run_id, number in edit.passages)
            for call_id in edit.call_ids:
                heads[call_id] = min(edit.head_chars, heads.get(call_id, edit.head_chars))
    return heads, frozenset(left_out)


def _summary(units: Sequence[Unit], edits: Sequence[Edit]) -> tuple[Unit | None, int]:
    """The last summary that holds for these units, and how many of them it covers."""
    summaries = [edit for edit in edits if isinstance(edit, ev.Compacted)]
    if not summaries:
        return None, 0
    places = {(unit.run_id, unit.step): place for place, unit in enumerate(units)}
    for edit in reversed(summaries):
        upto = (edit.upto_run_id, edit.upto_step)
        end = places.get(upto, -1) + 1
        # Where a run of before was replaced meanwhile, the summary tells of what is not there any more.
        if end and tuple(dict.fromkeys(unit.run_id for unit in units[:end])) == tuple(edit.covers):
            message = Message("user", (Text(summary_text(edit.summary)),))
            return Unit(edit.run_id, -1, (message,), upto, is_summary=True), end
    return None, 0


def summary_text(summary: str) -> str:
    return f"[What was said here before, in short; the whole is in the history:]\n{summary}"


def shortened(unit: Unit, heads: dict[str, int], left_out: frozenset[tuple[str, int]]) -> Unit:
    """The unit with these results cut and these passages left out; the same one where none of them is in it."""
    if left_out and unit.passages and any((unit.run_id, number) in left_out for number, _ in unit.passages):
        message, at = unit.messages[0], unit.passages_at
        kept = [place for place, (number, _) in enumerate(unit.passages) if (unit.run_id, number) not in left_out]
        parts = message.parts
        passages = tuple(parts[at + place] for place in kept)
        message = evolve(message, parts=(*parts[:at], *passages, *parts[at + len(unit.passages) :]))
        unit = evolve(unit, messages=(message,), passages=tuple(unit.passages[place] for place in kept))
    if heads and any(result.call_id in heads for result in results_in(unit)):
        unit = evolve(unit, messages=tuple(_with_cuts(message, heads) for message in unit.messages))
    return unit


def results_in(unit: Unit) -> tuple[ToolResult, ...]:
    return tuple(part for message in unit.messages for part in message.parts if isinstance(part, ToolResult))


def _with_cuts(message: Message, heads: dict[str, int]) -> Message:
    if message.role != "tool":
        return message
    parts = tuple(
        cut(part, heads[part.call_id]) if isinstance(part, ToolResult) and part.call_id in heads else part
        for part in message.parts
    )
    return evolve(message, parts=parts)


def cut(result: ToolResult, head_chars: int) -> ToolResult:
    """A result as its head and a mark, without its images where the head is short; itself where that would save nothing."""
    left = len(result.content) - head_chars
    images = len(result.images) if head_chars <= HEAD_CHARS else 0
    what = [f"{left:,} more characters"] if left > MARK_CHARS else []
    what += [f"{images} image{'s' * (images != 1)}"] if images else []
    if not what:
        return result
    head = result.content[:head_chars] if left > MARK_CHARS else result.content
    content = f"{head}\n[cut: {' and '.join(what)}; the whole is in the history]"
    return evolve(result, content=content, images=() if images else result.images)


def plan(
    units: Sequence[Unit],
    sizes: Sequence[int],
    room: Room,
    count: Count,
    *,
    fixed_tokens: int = 0,
    keep_recent: int = 2,
    may_prune: bool = True,
    may_compact: bool = True,
) -> Plan:
    """What to do next so that this can be sent. `sizes` are those of the units, `fixed_tokens` of what else is sent."""
    total = fixed_tokens + sum(sizes)
    if total <= room.limit_tokens:
        return Fits(total)
    body = [place for place, unit in enumerate(units) if not unit.is_floor]
    floor_tokens = total - sum(sizes[place] for place in body)
    recent = _recent(body, sizes, room.target_tokens - floor_tokens - room.summary_tokens, keep_recent)
    middle = body[: len(body) - recent]
    gentle, saved = _gentle(units, middle, total - room.target_tokens, count) if may_prune else (None, 0)
    if gentle is not None and total - saved <= room.target_tokens:
        return gentle
    if may_compact:
        gain = sum(sizes[place] for place in middle) - room.summary_tokens
        is_worth_it = gain >= GAIN_SHARE * room.limit_tokens or (total > room.hard_tokens and gain > 0)
        if is_worth_it and not all(units[place].is_summary for place in middle):
            if gentle is not None and gentle.passages:
                return Prune((), gentle.passages)
            return _compact(units, middle)
    if gentle is not None and (total > room.hard_tokens or not may_compact):
        return gentle
    if total <= room.hard_tokens:
        return Fits(total)
    if may_prune and (harder := _harder(units, body, total - room.hard_tokens, count)) is not None:
        return harder
    if may_compact:
        for keep in range(keep_recent - 1, 0, -1):
            middle = body[: len(body) - keep]
            gain = sum(sizes[place] for place in middle) - room.summary_tokens
            if gain > 0 and not all(units[place].is_summary for place in middle):
                return _compact(units, middle)
    return TooLong(total, floor_tokens)


def _recent(body: Sequence[int], sizes: Sequence[int], share_tokens: int, least: int) -> int:
    """How many of the last units stay as they are: as many as fit into their share, and never fewer than `least`."""
    taken, number = 0, 0
    for place in reversed(body):
        taken += sizes[place]
        if taken > share_tokens and number >= least:
            break
        number += 1
    return number


def _gentle(units: Sequence[Unit], middle: Sequence[int], wanted: int, count: Count) -> tuple[Prune | None, int]:
    """Passages by priority, then the results of the middle from the oldest on, until so many tokens are saved."""
    saved = 0
    passages: list[tuple[str, int]] = []
    call_ids: list[str] = []
    found = [
        (priority, place, number, units[place].messages[0].parts[units[place].passages_at + at])
        for place in range(len(units))
        for at, (number, priority) in enumerate(units[place].passages)
    ]
    for _, place, number, part in sorted(found, key=lambda one: one[:3]):
        if saved >= wanted:
            break
        passages.append((units[place].run_id, number))
        saved += count(Message("user", (part,)))
    for place in middle:
        if saved >= wanted:
            break
        saved += _cut_all(units[place], HEAD_CHARS, count, call_ids)
    return (Prune(tuple(call_ids), tuple(passages)), saved) if passages or call_ids else (None, 0)


def _harder(units: Sequence[Unit], body: Sequence[int], wanted: int, count: Count) -> Prune | None:
    """All results, the last ones too: no shorter than must be, and as short as can be where nothing is enough."""
    best: Prune | None = None
    for head_chars in HARDER_CHARS:
        call_ids: list[str] = []
        saved = sum(_cut_all(units[place], head_chars, count, call_ids) for place in body)
        if call_ids:
            best = Prune(tuple(call_ids), (), head_chars)
        if saved >= wanted:
            return best
    return best


def _cut_all(unit: Unit, head_chars: int, count: Count, call_ids: list[str]) -> int:
    """Tokens that are saved; the calls go into `call_ids`."""
    saved = 0
    for result in results_in(unit):
        shorter = cut(result, head_chars)
        if shorter is not result:
            gain = count(Message("tool", (result,))) - count(Message("tool", (shorter,)))
            if gain > 0:
                saved += gain
                call_ids.append(result.call_id)
    return saved


def _compact(units: Sequence[Unit], middle: Sequence[int]) -> Compact:
    return Compact(units[middle[-1]].upto, tuple(units[place] for place in middle))
