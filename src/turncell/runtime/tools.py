"""Tools: functions that a model may ask for.

`@tool` turns a function's signature and docstring into a JSON Schema and a validator (`signature.py`). Arguments are
validated before anyone is asked and before anything runs. A tool that cannot be described (a parameter without an
annotation, a bad name), or with an option that it cannot have, is refused when it is made, not when a model first
calls it.
"""

from __future__ import annotations

import asyncio
import copy
import copyreg
import functools
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, NoneType
from typing import Any, ClassVar, Literal, Protocol, Self, TypedDict, Unpack, cast, overload

from turncell.core.parts import Json
from turncell.core.policy import Effect, Verdict
from turncell.core.signals import Traits
from turncell.errors import ToolError, say
from turncell.runtime.caller_loop import on_caller_loop
from turncell.runtime.context import ToolContext
from turncell.runtime.ports import ToolSpec
from turncell.runtime.signature import code_of, given_parameters, origin, parameters_of, read_docstring
from turncell.runtime.threads import Work, in_thread

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Check:
    """What a tool's `check` says of a call: "allow", "deny" or "ask", with a message for people and the model."""

    verdict: Verdict
    message: str = ""
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.verdict not in ("allow", "deny", "ask"):
            raise ToolError(f"a check says {self.verdict!r}; use 'allow', 'deny' or 'ask'")
        message, reasons = cast(tuple[object, object], (self.message, self.reasons))
        if not isinstance(message, str):
            raise ToolError(f"the message of a check is a text; found {message!r}")
        if not isinstance(reasons, list | tuple) or not all(isinstance(reason, str) for reason in reasons):
            raise ToolError(f"the reasons of a check are texts, in a tuple; found {reasons!r}")
        object.__setattr__(self, "reasons", tuple(reasons))


class ToolOptions(TypedDict, total=False):
    """The options of `tool(...)` and `Tool(...)`; `Tool` says what each of them means."""

    name: str | None
    description: str | None
    effect: Effect
    check: Callable[..., Any] | None
    on_denied: Callable[..., Any] | None
    preview: Callable[..., Any] | None
    timeout_s: float | None
    retries: int
    retry_wait_s: float
    concurrency: int | None
    parallel: bool
    terminate: bool
    polling: bool
    loop_key: Callable[[dict[str, Json]], str] | None
    trusted: bool
    edits_notebook: bool
    loop: Literal["own", "caller"]
    parameters: Mapping[str, Any] | None


class Tool:
    """A function that a model can call. Async functions run on the background loop, others in a thread of their own.

    - `name`, `description`: what the model reads; by default those of the function.
    - `effect`: what it does to the world: "read", "write" (the default) or "idempotent". A write runs at most once.
    - `check(**arguments)`: judges a call: "allow", "deny", "ask", a `Check`, or None for no opinion.
    - `preview(**arguments)`: the text that a card shows of a call.
    - `on_denied(arguments, reason)`: what the model reads of a call that was denied; None for the usual words. It gets
      the arguments as JSON; check and preview get them as values of the annotated types. All three may be async.
    - `timeout_s`: seconds for one call.
    - `retries`, `retry_wait_s`: how often a call that failed may run again, and after how many seconds. Not for writes.
    - `concurrency`: how many calls of this tool may run side by side in one run.
    - `parallel`: this write is safe beside other calls.
    - `terminate`: the run ends after a call of it.
    - `polling`: it is meant to be called again and again (see `LoopDetection`). `loop_key(arguments)`: calls with the same
      text count as the same; it gets the arguments as JSON.
    - `trusted`: what it returns was written by nobody outside.
    - `edits_notebook`: it changes nothing but the notebook (mode "edits").
    - `loop`: where an async function runs: "own", the background loop (the default), or "caller", the event loop that
      the run was started from. For objects that belong to that loop: an HTTP session or a database pool opened in a
      cell. In a notebook it works while a cell waits, too. Where no loop was running, it is the background loop.

    - `parameters`: the JSON Schema of the arguments, where there is one already and the signature is not to say it. They
      are passed by name, as the JSON values that they are: a function for any of them takes `**arguments`.

    Validators of the annotated types run on the loop of all runs: they must return at once.

    A tool with state is a subclass with a method `run`. Options are class attributes, or methods where they are
    callables; its `__init__` is its own and need not call this one. The names of the options, and `function`,
    are taken.

    >>> class Counter(Tool):
    ...     "Count up."
    ...     name = "count"
    ...     effect = "idempotent"
    ...
    ...     def __init__(self, start: int) -> None:
    ...         self.total = start
    ...
    ...     def run(self, by: int = 1) -> int:
    ...         self.total += by
    ...         return self.total
    ...
    ...     def preview(self, by: int) -> str:
    ...         return f"from {self.total} to {self.total + by}"
    >>> counter = Counter(start=40)
    >>> counter, counter.description, counter(2)
    (Tool('count', effect='idempotent', preview=...), 'Count up.', 42)
    """

    name: str = ""
    description: str = ""
    effect: Effect = "write"
    check: Callable[..., Any] | None = None
    on_denied: Callable[..., Any] | None = None
    preview: Callable[..., Any] | None = None
    timeout_s: float | None = None
    retries: int = 0
    retry_wait_s: float = 0.5
    concurrency: int | None = None
    parallel: bool = False
    terminate: bool = False
    polling: bool = False
    loop_key: Callable[[dict[str, Json]], str] | None = None
    trusted: bool = False
    edits_notebook: bool = False
    loop: Literal["own", "caller"] = "own"
    parameters: Mapping[str, Any] | None = None
    inside: Mapping[str, Tool] = MappingProxyType({})
    """The tools of the agent that it hands tasks to: rules for them make sense outside too."""
    is_answer: ClassVar[bool] = False
    """Takes the output of a run and touches nothing: not for policies to judge, nor for budgets to count."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        made = super().__new__(cls)
        if cls.__init__ is not Tool.__init__ and hasattr(cls, "run"):
            Tool.__init__(made)  # so that a subclass need not remember to
        return made

    def __init__(self, function: Callable[..., Any] | None = None, **options: Unpack[ToolOptions]) -> None:
        own = getattr(self, "run", None)
        if function is None and own is None and type(self) is not Tool:
            raise ToolError(_NO_RUN.format(type(self).__name__))
        function = _function(own if function is None else function)
        given: dict[str, Any] = dict(options)
        for option in given:
            if option not in _OPTIONS:
                raise ToolError(f"a tool has no option {option!r}; the options are {', '.join(_OPTIONS)}")
        for option in _OPTIONS:
            setattr(self, option, given.get(option, getattr(self, option)))
        self.function = function
        is_subclass = function == getattr(self, "run", None)
        self.name = _name(self.name or type(self).__name__ if is_subclass else self.name, function)
        self._check_options()
        if not self.description:
            documented = [function, type(self)] if is_subclass else [origin(function)]
            self.description = next(filter(None, (read_docstring(inspect.getdoc(d) or "")[0] for d in documented)), "")
        code = code_of(function)
        if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
            raise ToolError(
                f"tool {self.name!r} is a generator, which runs nothing when called; return a value instead"
            )
        self._is_async = inspect.iscoroutinefunction(code)
        if self.loop == "caller" and not self._is_async:
            raise ToolError(f"tool {self.name!r}: loop='caller' is for async functions; write 'async def'")
        self._parameters = (
            parameters_of(self.name, function, ToolContext)
            if self.parameters is None
            else given_parameters(self.name, function, ToolContext, self.parameters)
        )
        self._check_callables()
        # Without `updated`: the attributes of an object that is callable are its own business.
        functools.update_wrapper(self, origin(function), updated=())
        vars(self)["__wrapped__"] = function

    @property
    def spec(self) -> ToolSpec:
        """What the model sees of it: name, description and JSON Schema."""
        return ToolSpec(self.name, self.description, copy.deepcopy(self._parameters.schema))

    @property
    def traits(self) -> Traits:
        """How the loop is to run its calls."""
        return Traits(self.concurrency, self.parallel, self.on_denied is not None, self.is_answer)

    def validate(self, arguments: Mapping[str, Json]) -> dict[str, Json]:
        """The arguments as they will be passed, as JSON values. Raises ToolError that a model can act on."""
        return self._parameters.validate(arguments)

    async def call(
        self,
        arguments: Mapping[str, Json],
        context: ToolContext,
        *,
        on_background: Callable[[Work[Any]], None] | None = None,
    ) -> Any:
        """Run with validated arguments. Raises whatever the function raises.

        `on_background` is told of what goes on in a thread, for a sync function: when the call is cancelled it is left behind,
        and only whoever knows it can see when its work is over.
        """
        values = self._parameters.parse(arguments)
        if self._parameters.context:
            values[self._parameters.context] = context
        if self._is_async:
            made = self.function(**values)
            return await (on_caller_loop(made) if self.loop == "caller" else made)
        work: Work[Any] = Work(asyncio.get_running_loop())
        if on_background is not None:
            on_background(work)
        result = await work.begin(self.function, **values)
        return result if type(result) in _PLAIN else await result if inspect.isawaitable(result) else result

    async def run_check(self, arguments: Mapping[str, Json]) -> Check | None:
        """What the tool's own check says. Raises what it raises, and ToolError where it says something else."""
        if self.check is None:
            return None
        said = await _run(self.check, **self._parameters.parse(arguments))
        if said is None or isinstance(said, Check):
            return said
        if isinstance(said, str) and said in ("allow", "deny", "ask"):
            return Check(cast(Verdict, said))
        raise ToolError(
            f"the check of {self.name!r} returned {said!r}; return 'allow', 'deny', 'ask', None or Check(...)"
        )

    async def run_preview(self, arguments: Mapping[str, Json]) -> str | None:
        """The text for the card. Raises what the tool's preview raises."""
        if self.preview is None:
            return None
        shown = await _run(self.preview, **self._parameters.parse(arguments))
        return None if shown is None else str(shown)

    async def run_on_denied(self, arguments: Mapping[str, Json], reason: str) -> str | None:
        """What the model reads of a denied call. Raises what `on_denied` raises, and ToolError for what is no text."""
        if self.on_denied is None:
            return None
        said = await _run(self.on_denied, dict(arguments), reason)
        if said is None or isinstance(said, str):
            return said
        raise ToolError(f"on_denied of {self.name!r} returned {said!r}; return a text or None")

    def __copy__(self) -> Self:
        made: Self = object.__new__(type(self))
        vars(made).update(vars(self))
        return made

    def __reduce__(self) -> str | tuple[Any, ...]:
        """By its name where it stands at the top of a module, else as its function with its options."""
        if type(self) is not Tool:
            # `__new__` makes again what follows from the class.
            made = {"function", "_parameters", "_is_async", "__wrapped__"}
            state = {name: value for name, value in vars(self).items() if name not in made}
            return copyreg.__newobj__, (type(self),), state  # type: ignore[attr-defined]
        module, name = str(vars(self).get("__module__")), str(vars(self).get("__qualname__"))
        if module != "__main__" and getattr(sys.modules.get(module), name, None) is self:
            return name
        return _made_again, (self.function, {option: getattr(self, option) for option in _OPTIONS})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A tool still is the function that it was made from."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        changed = {option: getattr(self, option) for option in _OPTIONS[3:]}
        # A function would be shown with its address.
        said = [
            f"{option}={'...' if callable(value) or isinstance(value, Mapping) else repr(value)}"
            for option, value in changed.items()
            if value != getattr(Tool, option)
        ]
        return f"Tool({', '.join([repr(self.name), f'effect={self.effect!r}', *said])})"

    def _check_options(self) -> None:
        def refuse(option: str, wanted: str) -> ToolError:
            return ToolError(f"tool {self.name!r}: {option} is {getattr(self, option)!r}; use {wanted}")

        if not isinstance(cast(object, self.description or ""), str):
            raise refuse("description", "a text")
        if self.effect not in ("read", "write", "idempotent"):
            raise refuse("effect", "'read', 'write' or 'idempotent'")
        for option in ("parallel", "terminate", "polling", "trusted", "edits_notebook"):
            if not isinstance(getattr(self, option), bool):
                raise refuse(option, "True or False")
        if self.loop not in ("own", "caller"):
            raise refuse("loop", "'own' or 'caller'")
        if self.timeout_s is not None and not (_is_finite(self.timeout_s) and self.timeout_s > 0):
            raise refuse("timeout_s", "seconds, more than 0, or None")
        if not (_is_finite(self.retry_wait_s) and self.retry_wait_s >= 0):
            raise refuse("retry_wait_s", "seconds, 0 or more")
        if not _is_whole(self.retries) or self.retries < 0:
            raise refuse("retries", "a whole number, 0 or more")
        if self.retries and self.effect == "write":
            raise refuse(
                "retries", "0: a write runs at most once, unless effect='idempotent' says that twice is as once"
            )
        if self.concurrency is not None and (not _is_whole(self.concurrency) or self.concurrency < 1):
            raise refuse("concurrency", "a whole number, 1 or more, or None")
        for option in ("check", "on_denied", "preview", "loop_key"):
            if getattr(self, option) is not None and not callable(getattr(self, option)):
                raise refuse(option, "a function or None")

    def _check_callables(self) -> None:
        """Each of them can be called as it will be."""
        named = dict.fromkeys(self._parameters.fields)
        calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
            ("check", (), named), ("preview", (), named), ("on_denied", ({}, ""), {}), ("loop_key", ({},), {}),
        ]  # fmt: skip
        for option, args, kwargs in calls:
            function = getattr(self, option)
            try:
                signature = inspect.signature(function) if function is not None else None
            except (TypeError, ValueError):
                continue  # written in C, and does not say
            try:
                if signature is not None:
                    signature.bind(*args, **kwargs)
            except TypeError as error:
                wanted = ", ".join(kwargs) or {"on_denied": "arguments, reason"}.get(option, "arguments")
                if option in ("check", "preview") and not kwargs:
                    wanted = "nothing"
                raise ToolError(f"tool {self.name!r}: its {option} is called with {wanted}: {error}") from error


_OPTIONS = tuple(ToolOptions.__annotations__)
_PLAIN = frozenset({str, int, float, bool, NoneType, dict, list})
"""Types of results that are never awaitable, which takes long to ask."""


@dataclass(frozen=True, slots=True)
class Offer:
    """The tools of a source now; `problem`: why some or all are missing, in words for people and the model."""

    tools: tuple[Tool, ...] = ()
    problem: str = ""


class ToolSource(Protocol):
    """Something whose tools are only known when a run begins, such as an MCP server."""

    name: str
    """Unlike that of any other source of the agent."""

    @property
    def known(self) -> tuple[Tool, ...]:
        """The tools as of the last offer. Must not start or ask anything."""
        ...

    async def offer(self) -> Offer:
        """On the loop of all runs, before each run begins. Must end in bounded time, and must not raise for a failure
        of the world: that is a `problem`, and the run goes on with the tools that there are."""
        ...


def is_source(item: object) -> bool:
    return not isinstance(item, Tool | type) and callable(getattr(item, "offer", None)) and hasattr(item, "known")


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(**options: Unpack[ToolOptions]) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    function: Callable[..., Any] | None = None, /, **options: Unpack[ToolOptions]
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool of a function: its signature and docstring are what the model sees. `Tool` describes the options.

    >>> @tool(effect="read")
    ... def add(a: int, b: int = 1) -> int:
    ...     "Add two numbers."
    ...     return a + b
    >>> add.spec.schema["required"], add.validate({"a": "2"}), add(2)
    (['a'], {'a': 2, 'b': 1}, 3)
    """
    if function is not None:
        return Tool(function, **options)
    return lambda function: Tool(function, **options)


def _made_again(function: Callable[..., Any], options: dict[str, Any]) -> Tool:
    return Tool(function, **options)


def toolbox(tools: Iterable[Tool | Callable[..., Any]]) -> dict[str, Tool]:
    """Tools by name; plain functions are taken as tools. Two of one name are refused."""
    box: dict[str, Tool] = {}
    for item in tools:
        if isinstance(item, Tool) and not hasattr(item, "function"):
            raise ToolError(_NO_RUN.format(type(item).__name__))
        made = item if isinstance(item, Tool) else Tool(item)
        if made.name in box:
            raise ToolError(f"two tools are called {made.name!r}; give one of them another name with tool(name=...)")
        box[made.name] = made
    return box


async def gather_tools(own: Mapping[str, Tool], sources: Iterable[ToolSource]) -> tuple[dict[str, Tool], list[str]]:
    """All tools of a run, and what is missing. A tool of the agent itself, or of an earlier source, keeps its name."""
    sources = tuple(sources)
    box, problems = dict(own), []
    for source, offer in zip(sources, await asyncio.gather(*map(_offer, sources)), strict=True):
        if offer.problem:
            problems.append(offer.problem)
        for made in offer.tools:
            if box.setdefault(made.name, made) is not made:
                problems.append(f"The tool {made.name} of {source.name} is left out: another tool has that name.")
    return box, problems


async def _offer(source: ToolSource) -> Offer:
    try:
        return await source.offer()
    except Exception as error:  # somebody else's source, which must not, and does
        return Offer((), f"The tools of {source.name} are missing: {say(error)}")


async def _run(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call what may be sync or async; what is sync may block and gets a thread."""
    if inspect.iscoroutinefunction(code_of(function)):
        return await function(*args, **kwargs)
    result = await in_thread(function, *args, **kwargs)
    return await result if inspect.isawaitable(result) else result


_NO_RUN = "{} has no method run(...), which is what a call of it would do; write one"


def _function(function: Any) -> Callable[..., Any]:
    if isinstance(function, staticmethod):
        function = function.__func__
    if isinstance(function, classmethod):
        raise ToolError(f"a classmethod is bound by its class; make the tool of that: tool(Class.{function.__name__})")
    if isinstance(function, type):
        raise ToolError(
            f"{function.__name__!r} is a class; make an object of it, and give that: {function.__name__}(...)"
        )
    if not callable(function):
        instead = (
            "use agent.as_tool()" if hasattr(function, "as_tool") else "of an object, give a method: object.method"
        )
        raise ToolError(f"a tool is a function; found {function!r}; {instead}")
    return function  # type: ignore[no-any-return]


def _name(name: Any, function: Callable[..., Any]) -> str:
    inner = origin(function)
    name = name or getattr(inner, "__name__", type(inner).__name__)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ToolError(
            f"tool name {name!r}: use letters, digits, '_' and '-', at most 64, beginning with a letter or '_'; "
            "tool(name=...) gives it one"
        )
    return name


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
