"""Step policies: whether a run goes on after a step, and how it closes when it may not."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

from turncell.core.digest import canonical_json
from turncell.core.fold import CallState
from turncell.errors import UsageError

if TYPE_CHECKING:
    from turncell.runtime.tools import Tool

log = logging.getLogger("turncell")

_ROUNDS = 3
"""How often two calls follow one another before it is a cycle: A B A B A B."""


class StepPolicy(Protocol):
    """Whether a run goes on. Asked after each step that called tools, when all of its calls have a result.

    `step` is the step that has just ended, 1 ...; `tools_used` are all calls of the run so far, in their order, denied
    and failed ones included. Both methods may be async. They must not change what they are given, and must give the
    same answer for the same arguments: a resumed run asks again.
    """

    def should_continue(self, step: int, tools_used: tuple[CallState, ...]) -> bool | Awaitable[bool]:
        """Whether the model is called again."""
        ...

    def on_limit_reached(self, step: int, tools_used: tuple[CallState, ...]) -> str | Awaitable[str | None] | None:
        """The text that closes the run without another model call; None: the model is asked to sum up."""
        ...


@dataclass(frozen=True, slots=True)
class StepLimit:
    """At most `max_steps` model calls; then the model sums up.

    >>> StepLimit(3).should_continue(2, ()), StepLimit(3).should_continue(3, ())
    (True, False)
    """

    max_steps: int

    def __post_init__(self) -> None:
        _check_count("max_steps", self.max_steps, 1)

    def should_continue(self, step: int, tools_used: tuple[CallState, ...]) -> bool:
        """Whether the model is called again."""
        return step < self.max_steps

    def on_limit_reached(self, step: int, tools_used: tuple[CallState, ...]) -> str | None:
        """None: the model sums up."""
        return None


@dataclass(frozen=True, slots=True)
class LoopDetection:
    """A step limit that also stops a run that goes round in circles.

    A loop is the same call made `repeats` times with nothing new written in between, or two calls in turn, three times
    over (A B A B A B). Calls are the same if tool and arguments are. `keys` maps a tool's name to a function of its
    arguments that returns what counts instead (a path without line numbers). Tools in `polling` may be called again and
    again. What tools say themselves (`loop_key`, `polling`) counts too.

    >>> calls = tuple(CallState(f"c{n}", n, "look", digest="d", arguments={"at": "clock"}) for n in (1, 2, 3))
    >>> policy = LoopDetection()
    >>> policy.should_continue(2, calls[:2]), policy.should_continue(3, calls)
    (True, False)
    >>> policy.on_limit_reached(3, calls)
    'Stopped: look({"at":"clock"}) was called 3 times.'
    >>> LoopDetection(polling={"look"}).should_continue(3, calls)
    True
    """

    max_steps: int = 40
    repeats: int = 3
    keys: Mapping[str, Callable[[dict[str, Any]], str]] = field(default_factory=dict)
    polling: Collection[str] = ()

    def __post_init__(self) -> None:
        _check_count("max_steps", self.max_steps, 1)
        _check_count("repeats", self.repeats, 2)
        polling, keys = self.polling, self.keys
        if isinstance(polling, str) or not isinstance(cast(object, polling), Collection):
            example = polling if isinstance(polling, str) else "status"
            raise UsageError(f"polling is {polling!r}; use a set of names of tools: {{{example!r}}}")
        if not isinstance(cast(object, keys), Mapping):
            raise UsageError(f"keys are {keys!r}; use a mapping of names of tools to functions of their arguments")
        for tool, key in self.keys.items():
            if not callable(key):
                raise UsageError(f"the key of {tool!r} is {key!r}; use a function of the arguments")

    def of_tools(self, tools: Iterable[Tool]) -> LoopDetection:
        """With what these tools say themselves (`loop_key`, `polling`); what was given here goes before."""
        tools = tuple(tools)
        keys = {tool.name: tool.loop_key for tool in tools if tool.loop_key is not None}
        polling = {*self.polling, *(tool.name for tool in tools if tool.polling)}
        return replace(self, keys=keys | dict(self.keys), polling=polling)

    def should_continue(self, step: int, tools_used: tuple[CallState, ...]) -> bool:
        """Whether the model is called again."""
        return step < self.max_steps and self._loop(tools_used) is None

    def on_limit_reached(self, step: int, tools_used: tuple[CallState, ...]) -> str | None:
        """Says which call was repeated. None where the steps were all used without a loop."""
        loop = self._loop(tools_used)
        return None if loop is None else f"Stopped: {loop}."

    def _loop(self, calls: Sequence[CallState]) -> str | None:
        calls = [call for call in calls if call.name not in self.polling]
        names = [self._name(call) for call in calls]
        width = 2 * _ROUNDS
        for start in range(len(names) - width + 1):
            one, other = names[start : start + 2]
            if one != other and names[start : start + width] == [one, other] * _ROUNDS:
                return (
                    f"{_shown(calls[start])} and {_shown(calls[start + 1])} were called in turn, {_ROUNDS} times over"
                )
        counts: Counter[tuple[str, str]] = Counter()
        for name, call in zip(names, calls, strict=True):
            if call.effect != "read" and call.status == "ok" and not counts[name]:
                counts.clear()  # the world has changed: the same question may have another answer now
            counts[name] += 1
            if counts[name] >= self.repeats:
                return f"{_shown(call)} was called {counts[name]} times"
        return None

    def _name(self, call: CallState) -> tuple[str, str]:
        """What makes two calls the same."""
        key = self.keys.get(call.name)
        if key is not None and call.arguments is not None:
            try:
                return call.name, f"key {key(dict(call.arguments))}"
            except Exception as error:
                # A key that fails must not end a run, nor make different calls the same.
                log.warning(
                    "loop detection: the key of %r failed with %r; the arguments count instead", call.name, error
                )
        # A call that was never valid has no digest; the same text is the same mistake.
        return call.name, call.digest or f"text {call.arguments_text}"


def _shown(call: CallState) -> str:
    arguments = call.arguments_text.strip() if call.arguments is None else canonical_json(call.arguments)
    return f"{call.name}({arguments if len(arguments) <= 200 else arguments[:200] + '...'})"


def _check_count(name: str, value: int, least: int) -> None:
    if type(value) is not int or value < least:
        raise UsageError(f"{name} is {value!r}; use a whole number, {least} or more")
