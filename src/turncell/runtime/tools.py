"""Tools: functions that a model may ask for.

`@tool` turns a function's signature and docstring into a JSON Schema and a validator, both by pydantic. Arguments are
validated before anyone is asked and before anything runs. A tool that cannot be described (a parameter without an
annotation, a bad name) is refused when it is made, not when a model first calls it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

from turncell.core.parts import Json
from turncell.core.policy import Effect
from turncell.errors import ToolError
from turncell.runtime.ports import ToolSpec

F = TypeVar("F", bound=Callable[..., Any])
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a running tool may want besides its arguments: annotate a parameter with this type to get it.

    `progress(text)` shows a line in the card, from any thread; `is_cancelled()` says whether the run was stopped;
    `call_id` is unique for ever, which makes it a good idempotency key.
    """

    call_id: str
    run_id: str
    session_id: str
    progress: Callable[[str], None]
    is_cancelled: Callable[[], bool]


class Tool:
    """A function as a model sees it.

    `effect` says what it does to the world: "read", "write" (the default) or "idempotent". Async functions run on
    the background loop, others in a thread. `preview(**arguments)` returns the text that a card shows. `timeout_s`
    bounds one call. `edits_notebook` marks tools that change nothing but the notebook (mode "edits").
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        effect: Effect = "write",
        preview: Callable[..., str] | None = None,
        timeout_s: float | None = None,
        edits_notebook: bool = False,
    ) -> None:
        if not callable(function):
            raise ToolError(f"a tool is a function; found {function!r}")
        self.function = function
        self.name: str = name or str(getattr(function, "__name__", type(function).__name__))
        if not _NAME.fullmatch(self.name):
            raise ToolError(
                f"tool name {self.name!r}: use letters, digits, '_' and '-', at most 64, beginning with a letter or '_'"
            )
        if effect not in ("read", "write", "idempotent"):
            raise ToolError(f"tool {self.name!r}: effect is {effect!r}; use 'read', 'write' or 'idempotent'")
        doc, parameter_docs = _docstring(inspect.getdoc(function) or "")
        self.description = description or doc
        self.effect: Effect = effect
        self.preview = preview
        self.timeout_s = timeout_s
        self.edits_notebook = edits_notebook
        code = _code_of(function)
        if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
            raise ToolError(
                f"tool {self.name!r} is a generator, which runs nothing when called; return a value instead"
            )
        self._is_async = inspect.iscoroutinefunction(code)
        self._context_parameter, self._arguments = _arguments_model(self.name, function, parameter_docs)
        functools.update_wrapper(self, function)

    @property
    def spec(self) -> ToolSpec:
        schema = self._arguments.model_json_schema()
        schema.pop("title", None)
        schema.setdefault("properties", {})
        for field in schema["properties"].values():
            field.pop("title", None)
        return ToolSpec(self.name, self.description, schema)

    def validate(self, arguments: Mapping[str, Json]) -> dict[str, Json]:
        """The arguments as they will be passed, as JSON values. Raises ToolError that a model can act on."""
        from pydantic import ValidationError

        try:
            valid = dict(self._arguments.model_validate(dict(arguments)).model_dump(mode="json"))
            again = self._arguments.model_validate(valid).model_dump(mode="json")
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors())
            raise ToolError(f"arguments of {self.name} are not valid: {problems}") from error
        if again != valid:
            # What is shown is validated once more when it runs; it must still be what was shown.
            raise ToolError(f"arguments of {self.name} cannot be approved: validating {valid!r} again gives {again!r}")
        return valid

    async def call(self, arguments: Mapping[str, Json], context: ToolContext) -> Any:
        """Run with validated arguments. Raises whatever the function raises."""
        parsed = self._arguments.model_validate(dict(arguments))
        values: dict[str, Any] = {name: getattr(parsed, name) for name in type(parsed).model_fields}
        if self._context_parameter:
            values[self._context_parameter] = context
        if self._is_async:
            return await self.function(**values)
        result = await asyncio.to_thread(self.function, **values)
        return await result if inspect.isawaitable(result) else result

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """A tool still is the function that it was made from."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Tool({self.name!r}, effect={self.effect!r})"


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    effect: Effect = "write",
    preview: Callable[..., str] | None = None,
    timeout_s: float | None = None,
    edits_notebook: bool = False,
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(function: Callable[..., Any] | None = None, /, **options: Any) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool of a function.

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


def toolbox(tools: Iterable[Tool | Callable[..., Any]]) -> dict[str, Tool]:
    """Tools by name; plain functions are taken as tools. Two of one name are refused."""
    box: dict[str, Tool] = {}
    for item in tools:
        made = item if isinstance(item, Tool) else Tool(item)
        if made.name in box:
            raise ToolError(f"two tools are called {made.name!r}; give one of them another name with tool(name=...)")
        box[made.name] = made
    return box


def _code_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself, or the `__call__` of an object that is callable."""
    return function if inspect.isroutine(function) else type(function).__call__.__get__(function)


def _arguments_model(name: str, function: Callable[..., Any], docs: Mapping[str, str]) -> tuple[str | None, Any]:
    """A pydantic model of the parameters, and the name of the parameter that wants a ToolContext."""
    from pydantic import ConfigDict, Field, create_model
    from pydantic.fields import FieldInfo

    try:
        signature = inspect.signature(function)
        hints = typing.get_type_hints(_code_of(function), include_extras=True)
    except (TypeError, ValueError, NameError) as error:
        raise ToolError(f"tool {name!r}: its signature cannot be read: {error}") from error
    context_parameter: str | None = None
    fields: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ToolError(
                f"tool {name!r}: parameter '{parameter}' has no name a model could use; give it a name and a type"
            )
        hint = hints.get(parameter.name, parameter.empty)
        if hint is parameter.empty:
            raise ToolError(
                f"tool {name!r}: parameter {parameter.name!r} has no type annotation; write '{parameter.name}: str', for example"
            )
        if hint is ToolContext:
            context_parameter = parameter.name
            continue
        default: Any = ... if parameter.default is parameter.empty else parameter.default
        described = any(
            isinstance(extra, FieldInfo) and extra.description for extra in getattr(hint, "__metadata__", ())
        )
        if not isinstance(default, FieldInfo) and not described and parameter.name in docs:
            default = Field(default, description=docs[parameter.name])
        fields[parameter.name] = (hint, default)
    try:
        model = create_model(f"{name}_arguments", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)
        schema = model.model_json_schema()
    except Exception as error:
        raise ToolError(f"tool {name!r}: its parameters have no JSON Schema: {error}") from error
    for field, info in model.model_fields.items():
        if info.alias or info.validation_alias or info.serialization_alias or info.exclude:
            raise ToolError(f"tool {name!r}: parameter {field!r} has an alias or is excluded; a card could not show it")
    if '"writeOnly"' in json.dumps(schema):
        raise ToolError(f"tool {name!r}: a secret is no argument for a model; let the tool read it itself")
    return context_parameter, model


_SECTION = re.compile(r"^(Args|Arguments|Parameters|Params|Returns|Yields|Raises|Examples?|Notes?)\s*:?\s*$")
_PARAMETER = re.compile(r"^\s*(?::param\s+)?\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(\S.*)$")


def _docstring(doc: str) -> tuple[str, dict[str, str]]:
    """The description, and what is said of each parameter (`name: text` lines in an Args section, or `:param name:`)."""
    description: list[str] = []
    parameters: dict[str, str] = {}
    section: Literal["", "args", "other"] = ""
    last = ""
    for line in doc.splitlines():
        title = _SECTION.match(line.strip())
        if title and not line.startswith("    "):
            section = "args" if title[1].lower() in ("args", "arguments", "parameters", "params") else "other"
            continue
        found = _PARAMETER.match(line) if section == "args" or line.lstrip().startswith(":param") else None
        if found:
            last = found[1]
            parameters[last] = found[2].strip()
        elif section == "args" and last and line.strip() and not set(line.strip()) <= {"-"}:
            parameters[last] += " " + line.strip()
        elif section == "" and not line.lstrip().startswith(":"):
            description.append(line)
    return "\n".join(description).strip(), parameters
