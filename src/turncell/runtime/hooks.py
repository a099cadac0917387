"""Hooks: code that is asked before and after what a run does. It may observe, replace or veto.

Each is sync (run in a thread) or async (run on the background loop) and has HOOK_TIMEOUT_S seconds; the two around
the journal are sync and are called on the loop, because an event and its record are one step. What a hook returns:

    None            go on as it was
    the same kind   go on with this instead
    Veto(reason)    do not

A hook that raises, stalls or returns something else is recorded (a note of kind "hook"; of `before_tool` the denial says
it) and fails closed: the model is not called, the call is denied, the result is withheld, the run fails where nothing
else is safe. Only at the end of a step or a run, where nothing is at stake any more, the run goes on without it.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, TypeVar, cast

from turncell.core.events import RecordedEvent
from turncell.core.fold import RunState
from turncell.core.parts import Json, Message
from turncell.errors import TurncellError, UsageError, say
from turncell.runtime.output import Output
from turncell.runtime.ports import ModelRequest
from turncell.runtime.threads import in_thread, within

HOOK_TIMEOUT_S = 60.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Veto:
    """No, and why; people and, for tools, the model read the reason."""

    reason: str = ""

    def __post_init__(self) -> None:
        if not isinstance(cast(object, self.reason), str):
            raise UsageError(f"the reason of a Veto is a text; found {self.reason!r}")


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A call that is about to be judged, or has run. `arguments` are validated, as JSON values.

    `status` says how it ended ("ok", "error", "timeout"); "" before it has run.
    """

    call_id: str
    name: str
    arguments: Mapping[str, Json]
    effect: str
    status: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """The middle of a conversation that is about to be summarised, or was: `summary` is "" before."""

    run_id: str
    step: int
    messages: tuple[Message, ...]
    tokens_before: int
    """Of the whole conversation."""
    summary: str = ""


Maybe: TypeAlias = T | Awaitable[T | None] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Functions that are asked while a run goes on. An agent takes one set, or several, which are asked in order.

    Each may be async, except those of the journal, and has 60 seconds. None means: go on. A Veto says no.

    before_model(request)       may return another ModelRequest
    after_model(message)        may return another Message
    before_tool(use)            may return other arguments, which are validated, judged and approved like the model's own
    after_tool(use, output)     may return another Output, also of a call that failed (`use.status`); the status stays
    before_compaction(middle)   may return the summary; a veto leaves the conversation as it is
    after_compaction(middle)    may return another summary; with a veto the model is only told that something was left out
    before_journal(event)       may return another event to be recorded
    after_journal(event)        observes
    after_step(state)           True ends the run
    before_finish(state)        a text or Message sends the agent on

    >>> quiet = Hooks(before_tool=lambda use: Veto("not on Sundays") if use.name == "mail" else None)
    """

    before_model: Callable[[ModelRequest], Maybe[ModelRequest | Veto]] | None = None
    after_model: Callable[[Message], Maybe[Message | Veto]] | None = None
    before_tool: Callable[[ToolUse], Maybe[Mapping[str, Json] | Veto]] | None = None
    after_tool: Callable[[ToolUse, Output], Maybe[Output | Veto]] | None = None
    before_compaction: Callable[[Compaction], Maybe[str | Veto]] | None = None
    after_compaction: Callable[[Compaction], Maybe[str | Veto]] | None = None
    before_journal: Callable[[RecordedEvent], RecordedEvent | Veto | None] | None = None
    after_journal: Callable[[RecordedEvent], object] | None = None
    before_finish: Callable[[RunState], Maybe[str | Message]] | None = None
    after_step: Callable[[RunState], Maybe[bool]] | None = None

    def __new__(cls, **given: Any) -> Hooks:
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in given if name not in known]:
            raise UsageError(f"there is no hook called {', '.join(map(repr, unknown))}; use {', '.join(known)}")
        return object.__new__(cls)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not callable(value):
                raise UsageError(f"hook {field.name} is {value!r}; use a function")
            if "journal" in field.name and _is_async(value):
                raise UsageError(f"hook {field.name} is async; an event and its record are one step, so use 'def'")
            if value is not None:
                _check_parameters(field.name, value)


_CALLED_WITH = {
    "before_model": ("request",), "after_model": ("message",), "before_tool": ("use",), "after_tool": ("use", "output"),
    "before_compaction": ("middle",), "after_compaction": ("middle",), "before_journal": ("event",),
    "after_journal": ("event",), "before_finish": ("state",), "after_step": ("state",),
}  # fmt: skip


def _check_parameters(name: str, hook: Callable[..., Any]) -> None:
    """It can be called as it will be: else each run would find out that it cannot."""
    values = _CALLED_WITH[name]
    try:
        signature = inspect.signature(hook)
    except (TypeError, ValueError):
        return  # written in C, and does not say
    try:
        signature.bind(*values)
    except TypeError as error:
        raise UsageError(f"hook {name} is called with {', '.join(values)}: {error}") from error


# `__new__` would hide the names from help() and from completion.
_init = inspect.signature(Hooks.__init__)
Hooks.__signature__ = _init.replace(parameters=list(_init.parameters.values())[1:])  # type: ignore[attr-defined]


class HookFailed(TurncellError):
    """A hook raised, stalled, or returned what it must not. A value for the runtime: it never reaches users' code."""


class Vetoed(TurncellError):
    """A hook said no."""


class HookSet:
    """The hooks of an agent, as the runtime asks them."""

    def __init__(self, hooks: tuple[Hooks, ...] = ()) -> None:
        self._of = {
            field.name: tuple(fn for hook in hooks if (fn := getattr(hook, field.name)) is not None)
            for field in fields(Hooks)
        }
        self._async = {id(hook) for each in self._of.values() for hook in each if _is_async(hook)}
        """Found out once: they live as long as this set."""

    def has(self, name: str) -> bool:
        return bool(self._of[name])

    def each(self, name: str) -> tuple[Callable[..., Any], ...]:
        return self._of[name]

    async def said(self, name: str, hook: Callable[..., Any], value: Any, kind: type, *more: Any) -> Any:
        """What one hook says: a value of this kind, or None. Raises Vetoed and HookFailed."""
        said = await self._said(name, hook, value, *more)
        return None if said is None else _checked(name, hook, said, None, kind)

    async def ask(self, name: str, value: T, kind: type) -> T:
        """`value` as the hooks of this name leave it. Raises Vetoed and HookFailed."""
        for hook in self._of[name]:
            said = await self.said(name, hook, value, kind)
            value = value if said is None else said
        return value

    def ask_now(self, name: str, value: T, kind: type) -> T:
        """The same for the sync hooks around the journal."""
        for hook in self._of[name]:
            try:
                said = hook(value)
            except BaseException as error:  # sys.exit() too: it would skip the journal and end the loop of all runs
                raise HookFailed(f"{_named(name, hook)} raised {say(error)}") from error
            if name.startswith("before"):
                value = _checked(name, hook, said, value, kind)
        return value

    async def first(self, name: str, state: RunState, kind: tuple[type, ...]) -> Any:
        """What the first of these hooks says that says anything. Raises HookFailed."""
        for hook in self._of[name]:
            said = await self._said(name, hook, state)
            if said is not None and not isinstance(said, kind):
                raise HookFailed(f"{_named(name, hook)} returned {said!r}")
            if said:
                return said
        return None

    async def _said(self, name: str, hook: Callable[..., Any], *values: Any) -> Any:
        began = time.monotonic()
        try:
            return await (within(HOOK_TIMEOUT_S, hook(*values)) if id(hook) in self._async else called(hook, *values))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # A TimeoutError may also be the hook's own, of what it asked itself.
            if isinstance(error, TimeoutError) and time.monotonic() - began >= HOOK_TIMEOUT_S:
                raise HookFailed(f"{_named(name, hook)} has not answered within {HOOK_TIMEOUT_S:g} s") from error
            raise HookFailed(f"{_named(name, hook)} raised {say(error)}") from error


NO_HOOKS = HookSet()


async def called(fn: Callable[..., Any], *values: Any) -> Any:
    """Call people's code, sync in a thread or async here, within HOOK_TIMEOUT_S. Raises what it raises, or TimeoutError."""
    began = time.monotonic()
    try:
        if _is_async(fn):
            return await within(HOOK_TIMEOUT_S, fn(*values))
        async with asyncio.timeout(HOOK_TIMEOUT_S):
            said = await in_thread(fn, *values)
            return await said if inspect.isawaitable(said) else said
    except TimeoutError as error:
        # It may also be the function's own, of what it asked itself.
        if time.monotonic() - began < HOOK_TIMEOUT_S:
            raise
        raise TimeoutError(f"no answer within {HOOK_TIMEOUT_S:g} s") from error


def _is_async(fn: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)


def _checked(name: str, hook: Callable[..., Any], said: Any, value: T, kind: type | tuple[type, ...]) -> T:
    if said is None:
        return value
    if isinstance(said, Veto):
        raise Vetoed(f"{_named(name, hook)} said no" + (f": {said.reason}" if said.reason else ""))
    if not isinstance(said, kind):
        raise HookFailed(f"{_named(name, hook)} returned {said!r}")
    return said  # type: ignore[return-value]


def _named(name: str, hook: Callable[..., Any]) -> str:
    return f"the hook {name} ({getattr(hook, '__qualname__', type(hook).__name__)})"
