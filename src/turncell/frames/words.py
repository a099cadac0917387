"""What a run says of itself in words: the lines that its text, Markdown and HTML have in common."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from turncell.core import events as ev
from turncell.core.fold import CallState, RequestState, RunState, StepState
from turncell.core.parts import Image, Json
from turncell.frames.visible import one_line, visible

Tone: TypeAlias = Literal["ok", "warn", "err", "info", "quiet"]

ARGUMENTS_WIDTH = 64
VALUE_WIDTH = 40


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended or how far it is: a sign, a word (none where all went well), and how loud to say it."""

    sign: str
    word: str
    tone: Tone


# U+FE0E asks for the plain form of a sign that some systems would draw as a coloured picture.
_OUTCOMES: dict[str, Outcome] = {
    "ok": Outcome("✓", "", "ok"),
    "error": Outcome("✕", "Failed", "err"),
    "invalid": Outcome("✕", "Invalid", "err"),
    "timeout": Outcome("✕", "Timed out", "err"),
    "denied": Outcome("⊘", "Denied", "quiet"),
    "cancelled": Outcome("■", "Stopped", "quiet"),
    "skipped": Outcome("–", "Skipped", "quiet"),
    "waiting": Outcome("●", "Waiting for you", "warn"),
    "in_doubt": Outcome("?", "In doubt: it may or may not have happened", "warn"),
    "running": Outcome("●", "Running", "info"),
}
_NOT_YET = Outcome("○", "Not run yet", "quiet")

_FAILURES = {
    "auth": "The key is missing, or the provider refused it",
    "not_found": "The provider does not know this model",
    "bad_request": "The provider refused the request",
    "context_length": "The conversation is too long for this model",
    "rate_limit": "The provider asks to slow down",
    "overloaded": "The model is overloaded",
    "connection": "The provider could not be reached",
    "timeout": "The model took too long",
    "protocol": "The provider's answer could not be read",
    "filter": "The provider's filter stopped the answer",
    "empty_reply": "The model ended without an answer",
    "output": "The answer does not fit the type that was asked for",
    "hook": "A hook failed",
}
_STOPS: dict[str, tuple[str, Tone]] = {
    "cancelled": ("Stopped", "quiet"),
    "max_steps": ("Stopped at the limit of steps", "warn"),
    "budget": ("Stopped by the budget", "warn"),
    "timeout": ("Stopped at the time limit", "warn"),
    "truncated": ("Cut at the model's output limit", "warn"),
    "waiting": ("Waiting for you", "warn"),
    "running": ("Running", "info"),
    "interrupted": ("Interrupted: the process that drove this run has ended", "warn"),
    "in_doubt": ("In doubt: the process ended while a tool was running", "warn"),
}


_WHO = {
    "person": "You",
    "time limit": "The time limit",
    "unattended": "The unattended policy",
    "memory": "An earlier answer",
    "limit": "The limit of questions",
    "file": "A person, as the imported file says,",
}
_DID = {"approve": "approved", "edit": "edited", "deny": "denied", "result": "answered"}
_DID_IN_DOUBT = {"approve": "had this call run again", "result": "said that it had happened"}
_NOTES: dict[ev.NoteKind, str] = {
    "retry": "Retry",
    "hook": "Hook",
    "notice": "For the next message",
    "guard": "Guard",
    "rule": "Remembered",
    "output": "Output check",
    "context": "Context",
}
_SAID_BY: dict[ev.MessageBy, str] = {
    "person": "You, while it was running",
    "steering": "You, while it was running",
    "hook": "A hook told the model",
    "output": "The output check told the model",
    "limit": "At the limit the model was told",
    "restart": "The program was restarted",
}


@dataclass(frozen=True, slots=True)
class Said:
    """A message in the midst of a run. Of one that the runtime always says alike there is no more to show than `who`."""

    who: str
    text: str
    is_person: bool
    is_line: bool = False


def outcome(call: CallState) -> Outcome:
    found = _OUTCOMES.get(call.status, _NOT_YET)
    request = call.request
    if call.status != "ok":
        return found
    if request is not None and request.by == "person" and not request.name:
        words = {"approve": "Approved by you", "edit": "Edited by you", "result": "Answered by you"}
        if request.kind == "in_doubt":
            words = {"approve": "Run again by you", "result": "Settled by you"}
        return Outcome(found.sign, words.get(request.answer or "", ""), "ok")
    return Outcome(found.sign, "Edited by a hook", "ok") if is_edited_by_hook(call) else found


def is_edited_by_hook(call: CallState) -> bool:
    is_own = call.request is not None and call.request.answer == "edit" and not call.request.name
    return call.proposed_arguments is not None and not is_own


def note_line(note: ev.Noted) -> str:
    return f"{_NOTES.get(note.kind, note.kind)}: {visible(note.message)}"


def lines_before(run: RunState, step: StepState) -> list[str]:
    """What happened before a model said anything: attempts in vain, another model in the place of the first."""
    retries = [n for n in run.notes if n.step == step.step and _is_of_model_call(n)]
    at_begin = [n for n in run.notes if n.step == 0] if step is run.steps[0] else []
    lines = [note_line(note) for note in (*at_begin, *retries)]
    if any(summary.step == step.step for summary in run.summaries):
        lines.append("Earlier messages were summarised to make room")
    before = run.steps[step.step - 2].model if 1 < step.step <= len(run.steps) else run.model
    if step.model != before:
        tier = f" ({visible(step.tier)})" if step.tier else ""
        lines.append(f"Model: {visible(step.model)}{tier}")
    return lines


def lines_after(run: RunState, step: StepState) -> list[str]:
    """What else there was to note in a step."""
    return [note_line(note) for note in run.notes if note.step == step.step and not _is_of_model_call(note)]


def _is_of_model_call(note: ev.Noted) -> bool:
    return note.kind == "retry" and note.call_id is None


def said_after(step: StepState) -> list[Said]:
    """What the model was told after a step, in order."""
    return [
        Said(
            _SAID_BY.get(a.by, "The model was told"), a.message.text, a.by in ("person", "steering"), a.by == "restart"
        )
        for a in step.after
    ]


def unread(run: RunState) -> list[Said]:
    """Messages of the person that the model has not read."""
    who = "You, not read any more" if run.is_ended else "You, not read yet"
    return [Said(who, steered.message.text, True) for steered in run.queued]


def asked(call: CallState) -> tuple[str, str] | None:
    """The question of a running call, or its sub-agent's call that needed an approval; and what became of it."""
    request = call.request
    if request is None or call.started_at is None or (request.kind != "question" and not request.name):
        return None
    title = request.question
    if request.kind == "approval":
        pairs = (f"{key}: {json_text(value)}" for key, value in (request.arguments or {}).items())
        title = f"Allow {request.name}({', '.join(pairs)})?"
    return visible(title), visible(_became(request))


def _became(request: RequestState) -> str:
    if request.answer is None:
        return ""
    if request.by in ("cancel", "steering"):
        return "Taken back before anybody answered."
    did = _DID[request.answer]
    if request.kind == "question" and request.answer == "deny":
        did = "declined to answer"
    quoted = answer_text(request) or request.reason
    return f"{_WHO.get(request.by or '', 'Somebody')} {did}" + (f": “{quoted}”" if quoted else ".")


def answer_text(request: RequestState) -> str:
    """An answer as it is read: those to a question that allows many are a JSON list in the journal."""
    text = request.result or ""
    if not request.allows_many or not text:
        return text
    try:
        answers = json.loads(text)
    except ValueError:
        return text
    return ", ".join(map(str, answers)) if isinstance(answers, list) else text


def ending(run: RunState) -> tuple[str, str, Tone] | None:
    """Title, text and tone of what is said about a run that did not end with an answer."""
    if run.status == "completed":
        return None
    if run.status == "failed":
        return _FAILURES.get(run.error_kind or "", "Stopped by an error"), run.error or "", "err"
    title, tone = _STOPS[run.status]
    if run.started.is_imported:
        return "No answer", run.error or "", tone
    return title, run.error or "", tone


def next_command(run: RunState) -> tuple[str, str] | None:
    """What a button of the live view would do, and the command that does it: a transcript has no buttons."""
    if run.status == "completed":
        return None
    named = " -a AGENT" if run.started.needs else ""  # it had what a record does not hold
    if run.ended_at is None:
        return "To go on with it", f"%agent resume {run.session_id}{named}"
    return "To ask again", f"%agent retry {run.run_id}{named}"


def verdict_line(call: CallState) -> str:
    """Who decided about a call, and why, where that is worth a line."""
    request = call.request
    if request is not None and request.kind == "in_doubt" and request.answer is not None:
        if request.by in ("cancel", "steering"):
            return ""
        reason = (call.content or "") if call.status == "skipped" else request.reason
        line = f"{_WHO.get(request.by or '', 'Somebody')} {_DID_IN_DOUBT.get(request.answer, 'skipped this call')}"
        return f"{line}: {visible(reason)}" if reason else f"{line}."
    if call.status == "skipped":
        return f"Not run: {visible((call.content or '').removeprefix('skipped: '))}."
    if asked(call) is not None:
        return ""
    quoted = ""
    if request is not None and request.answer is not None:
        quoted = f": “{visible(request.reason)}”" if request.reason else "."
        is_said = request.by in ("cancel", "steering") or (
            request.answer == "approve" and request.by == "person" and not request.reason
        )
        did = _DID[request.answer]
        return "" if is_said else f"{_WHO.get(request.by or '', 'Somebody')} {did} this call{quoted}"
    if call.status == "denied":
        quoted = f": {visible(call.reason)}" if call.reason else "."
        return f"Denied by {visible(call.judged_by)}{quoted}"
    return ""


def answer_step(run: RunState) -> StepState | None:
    """The step whose text (or image) is the answer; None where a step policy or a call has closed the run."""
    if run.closing is not None:
        return None
    return next((step for step in reversed(run.steps) if step_text(step) or step_images(step)), None)


def step_text(step: StepState) -> str:
    return "".join(block.text for block in step.blocks if block.kind == "text")


def step_images(step: StepState) -> list[Image]:
    return [part for part in step.message.parts if isinstance(part, Image)] if step.message is not None else []


def step_reasoning(step: StepState) -> str:
    return "\n\n".join(block.text for block in step.blocks if block.kind == "reasoning" and block.text)


def summary(run: RunState, *, with_times: bool = True) -> str:
    """All steps in one line; empty if the run only answered.

    What a person did is said, and what went wrong; what merely worked is only counted.
    """
    said: list[str] = []
    if any(step_reasoning(step) for step in run.steps):
        times = [step.reasoning_s for step in run.steps]
        seconds = sum(time for time in times if time is not None)
        said.append(f"thought for {rough_duration(seconds)}" if with_times and seconds >= 0.5 else "thought")
    calls = run.calls
    ran = sum(call.started_at is not None for call in calls)
    if ran:
        said.append(f"used {ran} tool{'s' * (ran != 1)}")
    requests = [call.request for call in calls if call.request is not None]
    answers = [(asked.answer, asked.by) for asked in requests if asked.kind != "in_doubt"]
    doubts = [asked.by for asked in requests if asked.kind == "in_doubt"]
    # To decline a question is no denial, nor is that of a sub-agent's call one of this.
    denied = [c.request is not None and c.request.by == "person" for c in calls if c.status == "denied"]
    messages = sum(said.is_person for step in run.steps for said in said_after(step))
    counts = (
        (answers.count(("approve", "person")), "approved by you"),
        (answers.count(("edit", "person")), "edited by you"),
        (answers.count(("result", "person")), "answered by you"),
        (doubts.count("person"), "in doubt settled by you"),
        (denied.count(True), "denied by you"),
        (denied.count(False), "denied by the policy"),
        (sum(c.status in ("error", "invalid", "timeout") for c in calls), "failed"),
        (sum(c.status == "waiting" for c in calls), "waiting for you"),
        (sum(c.status == "in_doubt" for c in calls), "in doubt"),
    )
    said.extend(f"{count} {what}" for count, what in counts if count > 0)
    if messages:
        said.append(f"{messages} message{'s' * (messages != 1)} from you")
    if not said and _has_work(run):
        said.append(steps_of(run))
    line = ", ".join(said)
    return line[:1].upper() + line[1:]


def steps_of(run: RunState) -> str:
    """How many; the model call that only sums up, because the limit of steps was reached, is told by itself."""
    has_summary = any(added.by == "limit" for step in run.steps for added in step.after)
    count = len(run.steps) - has_summary
    return f"{count} step{'s' * (count != 1)}{' and a summary' * has_summary}"


def _has_work(run: RunState) -> bool:
    """Whether there is anything to see besides the answer."""
    answer = answer_step(run)
    return any(
        step.after
        or lines_before(run, step)
        or lines_after(run, step)
        or (step is not answer and step_text(step).strip())
        for step in run.steps
    )


def arguments_line(call: CallState) -> str:
    """The arguments in one short line; as the model wrote them where they could not be read."""
    if call.arguments is None:
        return one_line(visible(call.arguments_text), ARGUMENTS_WIDTH)
    pairs = (f"{key}: {one_line(json_text(value), VALUE_WIDTH)}" for key, value in call.arguments.items())
    return one_line(visible(", ".join(pairs)), ARGUMENTS_WIDTH)


def argument_rows(arguments: dict[str, Json]) -> list[tuple[str, str]]:
    """Name and value of each argument in full: strings as they are, all else as JSON."""
    return [(key, value if isinstance(value, str) else json_text(value)) for key, value in arguments.items()]


def json_text(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)


def footer(run: RunState) -> list[str]:
    """Model, time, tokens and cost. A cost that nobody knows is said to be unknown, never shown as 0."""
    is_imported = run.started.is_imported
    items = ["held elsewhere" if is_imported else visible(run.model)]
    if len(run.steps) > 1:
        items.append(steps_of(run))
    if run.ended_at is not None and not is_imported:
        time = duration(run.ended_at - run.started_at)
        items.append(f"stopped after {time}" if run.status == "cancelled" else time)
    usage, about = run.usage, "≈ " if run.usage.is_estimated else ""
    if usage.input_tokens is not None:
        cached = f" ({count(usage.cache_read_tokens)} cached)" if usage.cache_read_tokens else ""
        items.append(f"{about}{count(usage.input_tokens)} in{cached}")
    if usage.output_tokens is not None:
        items.append(f"{about}{count(usage.output_tokens)} out")
    if run.steps:
        cost = run.cost_usd
        items.append("cost unknown" if cost is None or not math.isfinite(cost) else dollars(cost))
        limit = (run.budget or {}).get("usd")
        if isinstance(limit, int | float) and math.isfinite(limit):
            items[-1] += f" of {dollars(limit)}"
    return items


def duration(seconds: float) -> str:
    """
    >>> duration(0.234), duration(14.21), duration(72), duration(7380)
    ('0.2 s', '14.2 s', '1 min 12 s', '2 h 3 min')
    """
    return f"{seconds:.1f} s" if seconds < 59.95 else rough_duration(seconds)


def rough_duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def count(tokens: int) -> str:
    """
    >>> count(850), count(12_400), count(9_960), count(2_000_000)
    ('850', '12.4k', '10.0k', '2.0M')
    """
    if tokens < 1000:
        return str(tokens)
    return f"{tokens / 1e3:.1f}k" if tokens < 999_950 else f"{tokens / 1e6:.1f}M"


def dollars(usd: float) -> str:
    """Two decimals from a dollar on, two digits that say something below.

    >>> dollars(0), dollars(0.0313), dollars(0.000071), dollars(12.5)
    ('$0', '$0.031', '$0.000071', '$12.50')
    """
    if usd == 0:
        return "$0"
    decimals = 2 if abs(usd) >= 1 else min(12, 1 - math.floor(math.log10(abs(usd))))
    return f"${usd:,.{max(2, decimals)}f}"
