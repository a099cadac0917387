"""Approvals: what the policy says of a call. A decision is bound to the digest of the tool and its validated arguments."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias, get_args

from turncell.core import codec
from turncell.core.digest import call_digest, canonical_json
from turncell.core.fold import CallState, RunState
from turncell.core.parts import MAX_DEPTH, Json, depth
from turncell.core.policy import Decision, Effect, Mode, Rule, Verdict, decide
from turncell.core.signals import Judgement
from turncell.core.values import copied, evolve
from turncell.errors import ToolError, UsageError, say
from turncell.runtime.hooks import HookFailed, HookSet, ToolUse, Vetoed, called
from turncell.runtime.output import shorten
from turncell.runtime.threads import in_thread
from turncell.runtime.tools import Check, Tool

log = logging.getLogger("turncell")

PREVIEW_TIMEOUT_S = 10.0

UNATTENDED = Decision(
    "deny", "the unattended policy", "this call needs a person's approval and nobody is attending this run"
)


RuleSaid: TypeAlias = Verdict | Check | Decision | Rule | None
RuleFunction: TypeAlias = Callable[["ToolUse"], RuleSaid | Awaitable[RuleSaid]]
"""A rule that is code: says "allow", "deny" or "ask", also as a `Check` with a message, or None where it has no opinion.

One that raises denies. Its allow does not stand after untrusted output was read, unless it is a Rule with tainted=True.
"""

FAILURES: Mapping[Effect, int] = {"read": 3, "write": 2, "idempotent": 2}
"""How often the same call may fail in a run before it is refused: reads may be repeated, a hiccup may be tried once more."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What judges the calls of one run."""

    rules: tuple[Rule | RuleFunction, ...] = ()
    mode: Mode = "ask"
    is_attended: bool = False
    unattended: Literal["deny", "allow"] = "deny"
    request_timeout_s: float = 3600.0
    remembered: Callable[[], Sequence[Rule]] = tuple
    """What people have asked to remember, the latest first; read anew for each call, so that revoking works at once."""
    around: Policy | None = None
    """That of the run which this one was started inside."""

    async def judge(self, tool: Tool, use: ToolUse, is_tainted: bool) -> Decision:
        """By rules, the tool's own check and the mode. What fails denies."""
        if tool.is_answer:
            # It touches nothing: a mode or a rule that denies it would only keep the run from ever being done.
            return Decision("allow", "the output that is wanted")
        rule = await self._first(use) if self.rules else None
        check = await _check(tool, use) if tool.check is not None else None
        if self.around is not None and (denied := await self._denied_around(tool, use)) is not None:
            return denied
        decision = decide(
            () if rule is None else (rule,), self.mode, tool.name, use.arguments, tool.effect, tool.edits_notebook,
            remembered=self.remembered(), check=check, is_tainted=is_tainted,
        )  # fmt: skip
        if decision.verdict != "ask" or self.is_attended:
            return decision
        if self.unattended == "allow":
            return Decision("allow", UNATTENDED.by, "nobody is attending and the setting allows it")
        return UNATTENDED

    async def denial(self, tool: Tool, use: ToolUse) -> Decision | None:
        """What denies arguments that a person has put in the place of the model's: a rule in code or the tool's check.

        All else that `judge` asks is what the person was asked for.
        """
        check = await _check(tool, use) if tool.check is not None else None
        if check is not None and check.verdict == "deny":
            return check
        rule = await self._first(use)
        if rule is not None and rule.verdict == "deny":
            return Decision("deny", f"rule {rule}", rule.reason)
        return await self._denied_around(tool, use)

    async def _denied_around(self, tool: Tool, use: ToolUse) -> Decision | None:
        """What the rules in code and the mode of the runs around this one deny: a run inside can only be narrower."""
        if self.around is None:
            return None
        rule = await self.around._first(use)
        rules = () if rule is None else (rule,)
        said = decide(rules, self.around.mode, use.name, use.arguments, tool.effect, tool.edits_notebook)
        if said.verdict == "deny":
            return Decision("deny", f"{said.by} of the run around this one", said.reason)
        return await self.around._denied_around(tool, use)

    async def _first(self, use: ToolUse) -> Rule | None:
        """The first rule that is about this call; of a function, what it says of the call. No function after it is asked."""
        for rule in self.rules:
            if isinstance(rule, Rule):
                if rule.matches(use.name, use.arguments):
                    return rule
                continue
            name = getattr(rule, "__name__", type(rule).__name__)
            try:
                said = await called(rule, evolve(use, arguments=copied(use.arguments)))
                if said is None:
                    continue
                if not isinstance(said, Check | Decision | Rule) and said not in get_args(Verdict):
                    raise UsageError(f"it returned {said!r}; return 'allow', 'deny', 'ask', a Check or None")
                if isinstance(said, Check):
                    said = Decision(said.verdict, "", _in_words(said))
                decided = said if isinstance(said, Decision | Rule) else Decision(said, "", "")
                is_final = isinstance(decided, Rule) and decided.tainted
                return Rule(use.name, decided.verdict, reason=decided.reason or f"said {name}", tainted=is_final)
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                log.exception("the rule %s failed", name)
                return Rule(use.name, "deny", reason=f"the rule {name} failed: {say(error)}")
        return None


async def _check(tool: Tool, use: ToolUse) -> Decision | None:
    by = f"the check of {tool.name}"
    try:
        said = await called(tool.run_check, use.arguments)
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        log.exception("%s raised", by)
        return Decision("deny", by, f"it failed: {say(error)}")
    if said is None:
        return None
    return Decision(said.verdict, by, _in_words(said))


def warn_of_idle(rules: Sequence[Rule | RuleFunction], tools: Mapping[str, Tool]) -> None:
    """Log the rules that no call can ever match: most likely a name is misspelt, and what it denies is not denied."""
    known = list(_with_those_inside(tools))
    for rule in rules if known else ():
        if not isinstance(rule, Rule):
            continue
        matching = [tool for tool in known if fnmatchcase(tool.name, rule.tool)]
        if not matching:
            names = ", ".join(sorted({tool.name for tool in known}))
            log.warning(
                "the rule %r matches no tool; globs are case-sensitive, and the tools are: %s", str(rule), names
            )
            continue
        given = [set(tool.spec.schema.get("properties", {})) for tool in matching]
        if not any(rule.where.keys() <= names for names in given):
            found = ", ".join(sorted(set().union(*given))) or "none"
            log.warning(
                "the rule %r matches no call: no tool that it names has the arguments %s; found are: %s",
                str(rule), ", ".join(rule.where), found,
            )  # fmt: skip


def _with_those_inside(tools: Mapping[str, Tool]) -> Iterator[Tool]:
    for tool in tools.values():
        yield tool
        yield from _with_those_inside(tool.inside)


def _in_words(check: Check) -> str:
    return " ".join(filter(None, (check.message, "; ".join(check.reasons))))


async def judge(
    calls: Sequence[CallState],
    run: RunState,
    tools: Mapping[str, Tool],
    policy: Policy,
    asked: HookSet,
    is_tainted: bool,
) -> tuple[Judgement, ...]:
    """Parse, validate and judge the calls of a step."""
    return tuple([await _judge_one(call, run, tools, policy, asked, is_tainted) for call in calls])


async def _judge_one(
    call: CallState, run: RunState, tools: Mapping[str, Tool], policy: Policy, asked: HookSet, is_tainted: bool
) -> Judgement:
    tool = tools.get(call.name)
    if tool is None:
        return Judgement(call.call_id, problem=await _no_such_tool(call.name, tools))
    try:
        arguments = tool.validate(parse_arguments(call.arguments_text, tool.name))
        vetoed, is_replaced = None, False
        if asked.has("before_tool"):
            arguments, is_replaced, vetoed = await _hooked(asked, tool, call, arguments)
    except ToolError as error:
        return Judgement(call.call_id, tool.effect, problem=str(error), traits=tool.traits)
    digest = call_digest(tool.name, arguments)
    traits = tool.traits
    if problem := _failed_before(tool, digest, run):
        return Judgement(call.call_id, tool.effect, arguments, digest, problem, traits=traits)
    use = ToolUse(call.call_id, tool.name, arguments, tool.effect)
    decision = vetoed or await policy.judge(tool, use, is_tainted)
    preview = await _preview(tool, arguments) if decision.verdict == "ask" else None
    return Judgement(
        call.call_id, tool.effect, arguments, digest, None, decision.verdict, decision.by, decision.reason,
        tool.description, preview, is_replaced, tool.trusted, traits,
    )  # fmt: skip


async def _no_such_tool(name: str, tools: Mapping[str, Tool]) -> str:
    """In words for the model: all names, or of many the nearest and some."""
    name = name if len(name) <= _NAME_CHARS else f"{name[:_NAME_CHARS]}…"
    names, more = sorted(tools), ""
    if len(names) > _NAMES:
        near = await in_thread(get_close_matches, name, names, 5)  # 0.2 s for 3,000 names that are alike
        names = list(dict.fromkeys((*near, *names)))[:_NAMES]
        more = f" and {len(tools) - _NAMES:,} more"
    listed = ", ".join(names) or "none"
    return f"There is no tool called {name!r}. The tools are: {listed}{more}."


_NAME_CHARS, _NAMES = 100, 50


async def _hooked(
    asked: HookSet, tool: Tool, call: CallState, arguments: dict[str, Json]
) -> tuple[dict[str, Json], bool, Decision | None]:
    """The arguments as the hooks leave them, validated again; whether they were replaced; a decision where one said no."""
    use = first = ToolUse(call.call_id, tool.name, arguments, tool.effect)
    try:
        for hook in asked.each("before_tool"):
            shown = evolve(use, arguments=copied(use.arguments))
            given = await asked.said("before_tool", hook, shown, Mapping)
            if given is not None:
                use = ToolUse(call.call_id, tool.name, _valid_of_hook(tool, given), tool.effect)
    except (HookFailed, Vetoed) as error:
        if isinstance(error, HookFailed):
            log.error("%s", error)
        return dict(use.arguments), False, Decision("deny", "a hook", str(error))
    is_replaced = use is not first and canonical_json(use.arguments) != canonical_json(arguments)
    return dict(use.arguments), is_replaced, None


def _valid_of_hook(tool: Tool, given: Mapping[str, Json]) -> dict[str, Json]:
    """The model must not be told that arguments are wrong which it has never seen."""
    try:
        return tool.validate(given)
    except ToolError as error:
        raise HookFailed(f"a hook before_tool returned arguments that cannot be used: {error}") from error


def _failed_before(tool: Tool, digest: str, run: RunState) -> str | None:
    """The guard against the same call failing over and over."""
    failures = run.failed.count(digest)
    if tool.polling or failures < FAILURES[tool.effect]:
        return None
    return (
        f"{tool.name} was not run: with exactly these arguments it has failed {failures} times in this run. "
        "Change the arguments, or do something else."
    )


def parse_arguments(text: str, tool: str) -> dict[str, Json]:
    if not text.strip():
        return {}
    try:
        value = codec.decode_finite(text)
    except ValueError as error:
        raise ToolError(f"the arguments of {tool} are not valid JSON ({error}): {text[:200]!r}") from error
    except RecursionError as error:
        raise ToolError(_too_deep(text, tool)) from error
    if depth(value) > MAX_DEPTH:
        raise ToolError(_too_deep(text, tool))
    if not isinstance(value, dict):
        raise ToolError(f"the arguments of {tool} must be a JSON object; found {text[:200]!r}")
    return value


def _too_deep(text: str, tool: str) -> str:
    return f"the arguments of {tool} are nested too deeply, more than {MAX_DEPTH} levels: {text[:200]!r}"


async def _preview(tool: Tool, arguments: Mapping[str, Json]) -> str | None:
    """The author's preview; one that raises or stalls costs the preview, not the call."""
    if tool.preview is None:
        return None
    try:
        async with asyncio.timeout(PREVIEW_TIMEOUT_S):
            shown = await tool.run_preview(arguments)
            return None if shown is None else shorten(shown)
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        log.exception("the preview of %s raised", tool.name)
        return f"(the preview failed: {shorten(say(error))})"
