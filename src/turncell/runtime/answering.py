"""An answer on its way into its run: whether it counts, what is remembered of it, and what it sets off.

It is bound to the digest of the tool and its validated arguments. The page sends back the digest that it showed: an answer
for other arguments, a second answer and a late one are refused and change nothing. Edited arguments are validated like the
model's own; where validation changes a value, the person sees the card again before it runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast, get_args

from turncell.core.digest import call_digest, canonical_json
from turncell.core.events import Answer, AnsweredBy, Scope
from turncell.core.fold import CallState, RequestState
from turncell.core.parts import Json
from turncell.core.policy import Rule
from turncell.core.signals import Answered
from turncell.errors import AnswerRefused, ToolError, UsageError
from turncell.runtime.approvals import parse_arguments
from turncell.runtime.hooks import ToolUse
from turncell.runtime.loop import BackgroundLoop
from turncell.runtime.output import shorten
from turncell.runtime.questions import check_result
from turncell.runtime.rulebook import check_plain, rulebook
from turncell.runtime.threads import in_thread
from turncell.runtime.tools import Tool

if TYPE_CHECKING:
    from turncell.runtime.driver import Driver
    from turncell.runtime.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An answer as somebody gives it; `Run.answer` says what each field means."""

    request_id: str
    decision: Answer
    digest: str | None
    arguments: str | Mapping[str, Json] | None = None
    reason: str = ""
    result: str | Sequence[str] | None = None
    scope: Scope = "once"
    where: Mapping[str, str] | None = None
    by: AnsweredBy = "person"

    def rule(self, tool: str, answer: Answer) -> Rule:
        """What it says of later calls."""
        return Rule(tool, "deny" if answer == "deny" else "allow", dict(self.where or {}), self.reason)


class Answering:
    """One answer of one run. All but `done` belongs to the background loop."""

    def __init__(self, driver: Driver, loop: BackgroundLoop, given: Given, done: Future[None]) -> None:
        self._driver, self._loop, self._given, self._done = driver, loop, given, done

    def begin(self) -> None:
        """Have the run take it, now or after what has to come before; `done` tells how that ended."""
        try:
            self._take()
        except BaseException as error:
            self._done.set_exception(error)

    def _take(self) -> None:
        call, mirrored = self._asked(), self._driver.asking.mirrored(self._given.request_id)
        if call is not None and call.request is not None and mirrored is not None:
            self._pass_on(call.request, *mirrored)
            return
        call, signal = self._checked()
        is_kept = signal.scope != "once" and self._given.by == "person"
        if signal.answer == "edit" or (is_kept and signal.scope == "always"):
            later = self._loop.spawn(self._conclude_later(call, signal, is_kept))
            later.add_done_callback(lambda concluded: self._settle(concluded.result))
        else:
            self._conclude(call, signal, is_kept)
            self._done.set_result(None)

    def _asked(self) -> CallState | None:
        """The call whose request this answers."""
        calls = self._driver.state.calls
        return next((c for c in calls if c.request and c.request.request_id == self._given.request_id), None)

    def _checked(self) -> tuple[CallState, Answered]:
        return check_answer(self._asked(), self._driver.setup.tools, self._given, time.time())

    def _pass_on(self, request: RequestState, inner: Run, inner_id: str) -> None:
        """To the run inside this one whose request this really is."""
        given = self._given

        def told(answered: Future[None]) -> None:
            answered.result()
            # A sub-agent's own session ends with its task; "this session" is the one that the person is in.
            if given.scope == "session" and given.by == "person" and request.kind == "approval" and request.name:
                self._remember(given.rule(request.name, given.decision))

        inner.answer(
            inner_id, given.decision, digest=given.digest, arguments=given.arguments, reason=given.reason,
            result=given.result, scope=given.scope, where=given.where, by=given.by,
        ).add_done_callback(lambda answered: self._settle(lambda: told(answered)))  # fmt: skip

    async def _conclude_later(self, call: CallState, signal: Answered, is_kept: bool) -> None:
        setup = self._driver.setup
        if signal.answer == "edit":
            # What denies the model's arguments denies a person's too: they were not seen when the call was judged.
            use = ToolUse(call.call_id, call.name, signal.arguments or {}, call.effect)
            denied = await setup.policy.denial(setup.tools[call.name], use)
            if denied is not None:
                why = f": {denied.reason}" if denied.reason else ""
                raise AnswerRefused(f"{call.name} cannot run with these arguments, denied by {denied.by}{why}")
        if is_kept and signal.scope == "always":
            # The file may be locked by another kernel, for seconds: not on the loop.
            await in_thread(rulebook().remember, self._given.rule(call.name, signal.answer))
        call, signal = self._checked()  # again: somebody else may have answered meanwhile
        self._conclude(call, signal, is_kept)

    def _conclude(self, call: CallState, signal: Answered, is_kept: bool) -> None:
        if not is_kept:
            self._driver.feed(signal)
            return
        rule = self._given.rule(call.name, signal.answer)
        if signal.scope == "session":
            self._driver.setup.session.remember(rule)
        self._driver.note("rule", f"{rule}, {signal.scope}", call.call_id)
        self._driver.feed(signal)
        self._driver.asking.hold(rule)

    def _remember(self, rule: Rule) -> None:
        self._driver.setup.session.remember(rule)
        self._driver.asking.hold(rule)

    def _settle(self, told: Callable[[], None]) -> None:
        try:
            told()
        except BaseException as error:
            self._done.set_exception(error)
        else:
            self._done.set_result(None)


def check_answer(
    call: CallState | None, tools: Mapping[str, Tool], given: Given, at: float
) -> tuple[CallState, Answered]:
    """The call, and the signal of an answer that counts. Raises AnswerRefused, which says why it does not."""
    if call is None or call.request is None:
        raise AnswerRefused("there is no such request in this run")
    request, decision = call.request, given.decision
    if call.status != "waiting" or call.digest is None:
        said = f"it was answered ({request.answer}, by {request.by})" if request.answer else "it is closed"
        raise AnswerRefused(f"the request for {call.name} is not open any more: {said}")
    if given.digest != request.digest:
        raise AnswerRefused(f"this answer was for other arguments of {call.name} than those that would run; look again")
    _check_values(given)
    if given.arguments is not None and decision != "edit":
        raise AnswerRefused(f"arguments go with 'edit', not with {decision!r}; nothing was answered")
    if request.kind == "in_doubt" and decision == "edit":
        raise AnswerRefused(
            "a call that is in doubt has its arguments already; run it again (approve), say what came of it (result), "
            "or skip it (deny)"
        )
    if given.where is not None and (request.kind == "question" or given.scope == "once"):
        raise AnswerRefused("where says which later calls an answer holds for; use it with scope 'session' or 'always'")
    if request.kind == "question":
        return call, _to_question(request, given, at)
    if given.scope not in ("once", "session", "always"):
        raise AnswerRefused(f"scope is {given.scope!r}; use 'once', 'session' or 'always'")
    if decision == "edit":
        return call, _edited(call, tools[call.name], given, at)
    if decision == "result":
        if given.result is None:
            raise AnswerRefused(f"'result' answers in the place of {call.name}; say with what: result=...")
        if given.scope != "once":
            raise AnswerRefused(
                f"words in the place of {call.name} hold for this call only; found scope {given.scope!r}"
            )
    _check_where(given.where, call.name, call.arguments or {})
    text = given.result if given.result is None or isinstance(given.result, str) else ", ".join(given.result)
    return call, Answered(
        at=at, request_id=request.request_id, answer=decision, by=given.by, reason=given.reason, result=text,
        scope=given.scope,
    )  # fmt: skip


def _check_values(given: Given) -> None:
    """That they are of the kinds that `Run.answer` names, whatever is asked."""
    if given.decision not in get_args(Answer):
        raise AnswerRefused(f"{given.decision!r} is no answer; use {', '.join(map(repr, get_args(Answer)))}")
    if not isinstance(cast(object, given.reason), str):
        raise AnswerRefused(f"a reason is a text; found {given.reason!r}")
    if given.by not in get_args(AnsweredBy):
        raise AnswerRefused(f"by is {given.by!r}; use {', '.join(map(repr, get_args(AnsweredBy)))}")
    if not isinstance(cast(object, given.arguments), str | Mapping | None):
        raise AnswerRefused(f"arguments are a mapping or JSON text; found {given.arguments!r}")
    if not _is_result(given.result):
        raise AnswerRefused(f"a result is a text or a list of texts; found {given.result!r}")


def _is_result(result: object) -> bool:
    return isinstance(result, str | None) or (
        isinstance(result, list | tuple) and all(isinstance(one, str) for one in result)
    )


def _to_question(request: RequestState, given: Given, at: float) -> Answered:
    if given.decision not in ("result", "deny"):
        raise AnswerRefused(f"{given.decision!r} is no answer to a question; use 'result' with the answer, or 'deny'")
    result = check_result(request, given.result) if given.decision == "result" else None
    return Answered(
        at=at, request_id=request.request_id, answer=given.decision, by=given.by, reason=given.reason, result=result
    )


def _edited(call: CallState, tool: Tool, given: Given, at: float) -> Answered:
    """An approval where the arguments are, after all, those of the model."""
    assert call.request is not None
    said = given.arguments
    if said is None or (isinstance(said, str) and not said.strip()):
        # A tool whose parameters all have defaults would run with these, which nobody has shown or proposed.
        raise AnswerRefused(f"'edit' runs {call.name} with other arguments; say with which: arguments=...")
    try:
        written = parse_arguments(said, call.name) if isinstance(said, str) else dict(said)
        valid = tool.validate(written)
    except ToolError as error:
        raise AnswerRefused(str(error)) from error
    _check_where(given.where, call.name, valid)
    digest = call_digest(call.name, valid)
    is_same = digest == call.digest
    if not is_same and call_digest(call.name, written) != digest and not _only_defaults_added(written, valid):
        raise AnswerRefused(
            f"these arguments would run as {json.dumps(valid, ensure_ascii=False)}; send them like that if it is what you mean"
        )
    return Answered(
        at=at, request_id=call.request.request_id, answer="approve" if is_same else "edit", by=given.by,
        reason=given.reason, arguments=None if is_same else valid, digest=None if is_same else digest, scope=given.scope,
    )  # fmt: skip


def _only_defaults_added(written: Mapping[str, Json], valid: Mapping[str, Json]) -> bool:
    return all(
        name in valid and canonical_json(valid[name]) == canonical_json(value) for name, value in written.items()
    )


def _check_where(where: Mapping[str, str] | None, tool: str, arguments: Mapping[str, Json]) -> None:
    """Raises AnswerRefused for what the call at hand does not match: it would be remembered, and never count."""
    if where is None:
        return
    try:
        rule = Rule(tool, "allow", where)
        check_plain(rule)
    except UsageError as error:
        raise AnswerRefused(f"{error}; nothing was answered") from error
    for name, glob in rule.where.items():
        if name not in arguments:
            found = ", ".join(arguments) or "none"
            raise AnswerRefused(f"where names {name!r}, and this call of {tool} has the arguments {found}")
        if not Rule(tool, "allow", {name: glob}).matches(tool, arguments):
            said = shorten(canonical_json(arguments[name]), 200)
            raise AnswerRefused(
                f"where says {name}={glob!r}, which does not match this call of {tool}: its {name} is {said}; "
                "use a glob that does, such as the value itself, with [*], [?] and [[] for those characters"
            )
