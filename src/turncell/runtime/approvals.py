"""Approvals: what the policy says of a call, and what counts as an answer of a person.

A decision is bound to the digest of the tool and its validated arguments. The page sends back the digest that it showed:
an answer for other arguments, a second answer and a late one are refused and change nothing. Edited arguments are
validated like the model's own; where validation changes a value, the person sees the card again before it runs.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from turncell.core.digest import call_digest, canonical_json
from turncell.core.events import Answer, AnsweredBy
from turncell.core.fold import CallState
from turncell.core.parts import Json
from turncell.core.policy import Decision, Mode, Rule, decide
from turncell.core.reducer import Answered, Judgement
from turncell.errors import AnswerRefused, ToolError
from turncell.runtime.tools import Tool

log = logging.getLogger("turncell")

UNATTENDED = Decision(
    "deny", "the unattended policy", "this call needs a person's approval and nobody is attending this run"
)


@dataclass(frozen=True, slots=True)
class Policy:
    """What judges the calls of one run."""

    rules: tuple[Rule, ...] = ()
    mode: Mode = "ask"
    is_attended: bool = False
    unattended: Literal["deny", "allow"] = "deny"
    request_timeout_s: float = 3600.0

    def judge(self, tool: Tool, arguments: Mapping[str, Json]) -> Decision:
        decision = decide(self.rules, self.mode, tool.name, arguments, tool.effect, tool.edits_notebook)
        if decision.verdict != "ask" or self.is_attended:
            return decision
        if self.unattended == "allow":
            return Decision("allow", UNATTENDED.by, "nobody is attending and the setting allows it")
        return UNATTENDED


async def judge(calls: Sequence[CallState], tools: Mapping[str, Tool], policy: Policy) -> tuple[Judgement, ...]:
    """Parse, validate and judge the calls of a step."""
    return tuple([await _judge_one(call, tools, policy) for call in calls])


async def _judge_one(call: CallState, tools: Mapping[str, Tool], policy: Policy) -> Judgement:
    tool = tools.get(call.name)
    if tool is None:
        names = ", ".join(sorted(tools)) or "none"
        return Judgement(call.call_id, problem=f"There is no tool called {call.name!r}. The tools are: {names}.")
    try:
        arguments = tool.validate(_parse(call.arguments_text, tool.name))
    except ToolError as error:
        return Judgement(call.call_id, tool.effect, problem=str(error))
    decision = policy.judge(tool, arguments)
    preview = await _preview(tool, arguments) if decision.verdict == "ask" else None
    return Judgement(
        call.call_id, tool.effect, arguments, call_digest(tool.name, arguments), None,
        decision.verdict, decision.by, decision.reason, tool.description, preview,
    )  # fmt: skip


def check_answer(
    call: CallState | None,
    tools: Mapping[str, Tool],
    *,
    at: float,
    decision: Answer,
    by: AnsweredBy,
    digest: str | None,
    arguments: str | Mapping[str, Json] | None = None,
    reason: str = "",
    result: str | None = None,
) -> Answered:
    """The signal of an answer that counts. Raises AnswerRefused, which says why it does not."""
    if call is None or call.request is None:
        raise AnswerRefused("there is no such request in this run")
    request = call.request
    if call.status != "waiting" or call.digest is None:
        said = f"it was answered ({request.answer}, by {request.by})" if request.answer else "it is closed"
        raise AnswerRefused(f"the request for {call.name} is not open any more: {said}")
    if digest != call.digest:
        raise AnswerRefused(f"this answer was for other arguments of {call.name} than those that would run; look again")
    if decision != "edit":
        return Answered(at=at, request_id=request.request_id, answer=decision, by=by, reason=reason, result=result)
    try:
        given = _parse(arguments, call.name) if isinstance(arguments, str) else dict(arguments or {})
        valid = tools[call.name].validate(given)
    except ToolError as error:
        raise AnswerRefused(str(error)) from error
    edited = call_digest(call.name, valid)
    if edited == call.digest:
        return Answered(at=at, request_id=request.request_id, answer="approve", by=by, reason=reason)
    if call_digest(call.name, given) != edited and not _only_defaults_added(given, valid):
        raise AnswerRefused(
            f"these arguments would run as {json.dumps(valid, ensure_ascii=False)}; send them like that if it is what you mean"
        )
    return Answered(
        at=at,
        request_id=request.request_id,
        answer="edit",
        by=by,
        reason=reason,
        arguments=valid,
        digest=edited,
    )


def _only_defaults_added(given: Mapping[str, Json], valid: Mapping[str, Json]) -> bool:
    return all(name in valid and canonical_json(valid[name]) == canonical_json(value) for name, value in given.items())


def _parse(text: str, tool: str) -> dict[str, Json]:
    if not text.strip():
        return {}
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise ToolError(f"the arguments of {tool} are not valid JSON ({error}): {text[:200]!r}") from error
    if not isinstance(value, dict):
        raise ToolError(f"the arguments of {tool} must be a JSON object; found {text[:200]!r}")
    return value


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


async def _preview(tool: Tool, arguments: Mapping[str, Json]) -> str | None:
    """The author's preview; one that raises costs the preview, not the call."""
    if tool.preview is None:
        return None
    try:
        return str(await asyncio.to_thread(tool.preview, **arguments))
    except Exception as error:
        log.exception("the preview of %s raised", tool.name)
        return f"(the preview failed: {type(error).__name__}: {error})"
