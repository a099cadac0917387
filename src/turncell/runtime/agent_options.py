"""The options of an agent, checked when they are given: lists, and what may stand in them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, cast

from turncell.core.budget import RESOURCES
from turncell.core.policy import Rule
from turncell.errors import UsageError
from turncell.runtime.hooks import Hooks
from turncell.runtime.ports import TOOL_CHOICES
from turncell.runtime.step_policy import StepPolicy
from turncell.runtime.telemetry import TelemetryWriter, Watcher
from turncell.runtime.tools import ToolSource


def items(name: str, given: Any, single: Any = None) -> tuple[Any, ...]:
    """The items of an iterable; one item alone is taken as such where `single` says what that is."""
    if type(given) is tuple or type(given) is list:  # to ask whether something fits a Protocol takes long
        return tuple(given)
    is_list = isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping)
    if single is not None and (isinstance(given, single) or not is_list):
        return (given,)  # what it must be instead, whoever looks at the items says
    if not is_list:
        raise UsageError(f"{name} is {given!r}; use a list")
    return tuple(given)


def as_tool_sources(sources: Iterable[Any]) -> tuple[ToolSource, ...]:
    named: dict[str, ToolSource] = {}
    for source in sources:
        if named.setdefault(source.name, source) is not source:
            raise UsageError(f"two sources of tools are called {source.name!r}; give one of them another name")
    return tuple(named.values())


def as_rule(rule: Any) -> Any:
    if not isinstance(rule, Rule) and not callable(rule):
        raise UsageError(f"{rule!r} is no rule; use Rule(tool, verdict) or a function of the call")
    return rule


def as_hooks(hook: Any) -> Hooks:
    if not isinstance(hook, Hooks):
        raise UsageError(f"{hook!r} is no set of hooks; use Hooks(before_tool=...)")
    return hook


def as_writer(writer: Any) -> TelemetryWriter | Watcher:
    is_one = any(callable(getattr(writer, name, None)) for name in ("write", "watch"))
    if isinstance(writer, type) or not is_one:
        raise UsageError(f"{writer!r} is no telemetry writer; use an object with write(record), such as MemoryWriter()")
    return cast("TelemetryWriter | Watcher", writer)


def as_step_policy(policy: Any) -> StepPolicy | None:
    is_policy = hasattr(policy, "should_continue") and hasattr(policy, "on_limit_reached")
    if policy is not None and (not is_policy or isinstance(policy, type)):
        raise UsageError(f"step_policy is {policy!r}; use an object with should_continue and on_limit_reached")
    return policy


def as_limits(budget: Any) -> dict[str, Any]:
    if not isinstance(budget, Mapping):
        raise UsageError(f"budget is {budget!r}; use a Budget or a mapping such as {{'usd': 0.5}}")
    known = (*RESOURCES, "unknown_prices")
    if unknown := [name for name in budget if name not in known]:
        raise UsageError(f"a budget has no limit called {', '.join(map(repr, unknown))}; use {', '.join(known)}")
    return dict(budget)


def check_tool_choice(choice: str | None, tools: Collection[str]) -> None:
    """UsageError for one that these tools cannot fulfil."""
    if choice is None or choice in ("auto", "none") or choice in tools or (choice == "required" and tools):
        return
    words = ", ".join(map(repr, TOOL_CHOICES))
    has = f"; it has {', '.join(tools)}" if tools else ", and it has none"
    raise UsageError(f"tool_choice is {choice!r}; use {words} or the name of a tool of this run{has}")
