"""What a function takes, as a model is told it: a JSON Schema and a validator of its parameters, both by pydantic.

Two rules hold here. What is shown is what runs: validated arguments are JSON that validates to itself, so that a card
can show it, a digest can name it, and the function gets the same values from it later. And every parameter is called
by its own name, in the schema as in what is said of a wrong value, also where pydantic could not have a field of that
name: such a field gets another name and an alias.

A default that JSON cannot say (an open connection, `None` for an `int`) is not shown: it is left out of the validated
arguments, and the function gets it as it would in Python.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import typing
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal

import orjson

from turncell.core.digest import canonical_json
from turncell.core.parts import Json
from turncell.core.values import copied
from turncell.errors import ToolError, first_line
from turncell.runtime import defaults


def origin(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a functools.partial is of; anything else is itself."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def code_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that runs: of a partial, of an object that is callable, or itself."""
    function = origin(function)
    if inspect.isroutine(function) or hasattr(function, "__wrapped__"):
        return function
    return typing.cast(Callable[..., Any], type(function).__call__.__get__(function))


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of one function. `context` is the one that wants a ToolContext and is no argument."""

    tool: str
    model: Any
    fields: dict[str, str]
    """Field of the model by parameter."""
    unshown: frozenset[str]
    """Fields whose default JSON cannot say."""
    schema: dict[str, Json]
    context: str | None

    def parse(self, arguments: Mapping[str, Json]) -> dict[str, Any]:
        """The arguments as values of the annotated types. Raises ToolError that a model can act on."""
        return self._values(self._parsed(_json_of(self.tool, arguments)))

    def validate(self, arguments: Mapping[str, Json]) -> dict[str, Json]:
        """The arguments as they will be passed, as JSON values. Raises ToolError that a model can act on."""
        text = _json_of(self.tool, arguments)
        valid = self._shown(self._parsed(text))
        shown = _json_of(self.tool, valid)
        if shown == text:
            return valid
        again = self._shown(self._parsed(shown))
        if again != valid:
            # What is shown is validated once more when it runs; it must still be what was shown.
            raise ToolError(f"arguments of {self.tool} cannot be approved: validating {valid!r} again gives {again!r}")
        return valid

    def _parsed(self, text: bytes) -> Any:
        """From JSON, not from Python values: a strict model takes a date from a JSON string, but not from a Python one."""
        try:
            return self.model.model_validate_json(text)
        except Exception as error:  # pydantic's, or of a validator of somebody else's type
            raise ToolError(f"arguments of {self.tool} are not valid: {_problems(error)}") from error

    def _values(self, parsed: Any) -> dict[str, Any]:
        return {name: getattr(parsed, field) for name, field in self.fields.items()}

    def _shown(self, parsed: Any) -> dict[str, Json]:
        hidden = self.unshown - parsed.model_fields_set if self.unshown else None
        try:
            shown: dict[str, Json] = parsed.model_dump(mode="json", by_alias=True, exclude=hidden, warnings=False)
        except Exception as error:
            raise ToolError(f"arguments of {self.tool} cannot be shown as JSON: {error}") from error
        for name, value in shown.items():
            if isinstance(value, list | dict):
                shown[name] = _in_order(value, getattr(parsed, self.fields[name]))
        return shown


@dataclass(frozen=True, slots=True)
class GivenParameters:
    """What a function takes by a JSON Schema that was given: validated against it, and passed as the JSON values that they are."""

    tool: str
    schema: dict[str, Json]
    fields: dict[str, str]
    context: str | None
    _check: Callable[[Mapping[str, Json]], dict[str, Json]]

    def parse(self, arguments: Mapping[str, Json]) -> dict[str, Any]:
        return dict(self.validate(arguments))

    def validate(self, arguments: Mapping[str, Json]) -> dict[str, Json]:
        given: dict[str, Json] = copied(self._check(arguments))  # what runs may change them, and may run again
        return given


def given_parameters(
    name: str, function: Callable[..., Any], context_type: type, given: Mapping[str, Any]
) -> GivenParameters:
    """Take a JSON Schema. Raises ToolError for one that is none, or that the function does not fit."""
    try:
        checked = defaults.schema(name, given)
    except ToolError as error:
        raise ToolError(f"tool {name!r}: {error}") from error
    hints: dict[str, Any] = {}
    with suppress(Exception):  # a type that exists for type checkers only
        hints = typing.get_type_hints(inspect.unwrap(code_of(function)))
    context = next((one for one, hint in hints.items() if _is_context(hint, context_type)), None)
    names = dict.fromkeys(typing.cast(Mapping[str, Any], checked.schema["properties"]))
    needed = set(checked.schema.get("required", ())) | ({context} if context else set())
    try:
        signature = inspect.signature(function)
        signature.bind_partial(**names)
        signature.bind(**dict.fromkeys(needed))
    except (TypeError, ValueError) as error:
        wanted = ", ".join(names) or "nothing"
        raise ToolError(f"tool {name!r}: by its schema it is called with {wanted}: {error}") from error
    return GivenParameters(name, checked.schema, {one: one for one in names}, context, checked.validate)


def parameters_of(name: str, function: Callable[..., Any], context_type: type) -> Parameters:
    """Read a signature. Raises ToolError for one that cannot be told to a model."""
    from pydantic import ConfigDict, create_model

    _, docs = read_docstring(inspect.getdoc(origin(function)) or "")
    context: str | None = None
    fields: dict[str, str] = {}
    definitions: dict[str, Any] = {}
    annotated = _annotated(name, function)
    taken = {parameter.name for parameter, _ in annotated}
    for parameter, hint in annotated:
        if _is_context(hint, context_type):
            if context is not None:
                raise ToolError(f"tool {name!r} takes {context} and {parameter.name} as its context; one is enough")
            context = parameter.name
            continue
        field = fields[parameter.name] = _field_name(parameter.name, taken)
        taken.add(field)
        default: Any = ... if parameter.default is parameter.empty else parameter.default
        definitions[field] = (_described(hint, docs.get(parameter.name)), default)
    names = {field: parameter for parameter, field in fields.items()}
    config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        # Types without a configuration of their own (a TypedDict) inherit this one: other names stay as they are.
        alias_generator=lambda field: names.get(field, field),
    )
    try:
        model: Any = create_model(f"{name}_arguments", __config__=config, **definitions)
        schema = model.model_json_schema(schema_generator=_quiet_schema())
    except Exception as error:
        why = first_line(error)
        if "typing_extensions" in why:  # of a TypedDict, and says what to do
            raise ToolError(f"tool {name!r}: {why}; 'from typing_extensions import TypedDict' is one") from error
        raise ToolError(
            f"tool {name!r}: its parameters have no JSON Schema: {why}. "
            "What a model cannot give can be bound before: functools.partial(function, parameter=value)"
        ) from error
    for field, info in model.model_fields.items():
        if {info.alias, info.validation_alias, info.serialization_alias} != {names[field]} or info.exclude:
            raise ToolError(
                f"tool {name!r}: parameter {names[field]!r} has an alias or is excluded; a card could not show it"
            )
    if '"writeOnly"' in json.dumps(schema):
        raise ToolError(f"tool {name!r}: a secret is no argument for a model; let the tool read it itself")
    schema.pop("title", None)
    for described in schema.setdefault("properties", {}).values():
        described.pop("title", None)
    unshown = frozenset(field for field in names if not _default_can_be_shown(model, field))
    for field in unshown:
        schema["properties"][names[field]].pop("default", None)
    return Parameters(name, model, fields, unshown, schema, context)


def _annotated(name: str, function: Callable[..., Any]) -> list[tuple[inspect.Parameter, Any]]:
    """The parameters that a caller may give, each with its type."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ToolError(f"tool {name!r}: its signature cannot be read: {error}") from error
    # What a partial has bound by name is decided; Python would still let a caller change it.
    bound = function.keywords if isinstance(function, functools.partial) else {}
    parameters = [parameter for parameter in signature.parameters.values() if parameter.name not in bound]
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ToolError(
                f"tool {name!r}: parameter '{parameter}' has no name a model could use; give it a name and a type"
            )
    inner = inspect.unwrap(code_of(function))
    wanted = {parameter.name for parameter in parameters}
    holder = SimpleNamespace(
        # Without the annotation of the result, which may name what exists for type checkers only.
        __annotations__={key: hint for key, hint in getattr(inner, "__annotations__", {}).items() if key in wanted},
        __type_params__=getattr(inner, "__type_params__", ()),
    )
    try:
        hints = typing.get_type_hints(holder, globalns=getattr(inner, "__globals__", {}), include_extras=True)
    except Exception as error:
        raise ToolError(
            f"tool {name!r}: its signature cannot be read: {error}; "
            "the types of parameters must exist, outside of any function, when the tool is made"
        ) from error
    for parameter in parameters:
        if hints.get(parameter.name, parameter.annotation) is not parameter.empty:
            continue
        if parameter is parameters[0] and parameter.name in ("self", "cls"):
            raise ToolError(
                f"tool {name!r} is a method without its object; make a tool of the bound one: tool(object.{name})"
            )
        raise ToolError(
            f"tool {name!r}: parameter {parameter.name!r} has no type annotation; write '{parameter.name}: str', for example"
        )
    return [(parameter, hints.get(parameter.name, parameter.annotation)) for parameter in parameters]


def _is_context(hint: Any, context_type: type) -> bool:
    """`ToolContext`, also `ToolContext | None` and with something said of it in Annotated."""
    hint = _bare(hint)
    is_union = typing.get_origin(hint) in (typing.Union, UnionType)
    kinds = [_bare(one) for one in typing.get_args(hint)] if is_union else [hint]
    return context_type in kinds and all(one in (context_type, NoneType) for one in kinds)


def _bare(hint: Any) -> Any:
    return _bare(hint.__origin__) if typing.get_origin(hint) is typing.Annotated else hint


def _field_name(parameter: str, taken: Collection[str]) -> str:
    """A name that pydantic can have as a field: not one of its own, not private."""
    from pydantic import BaseModel

    if not parameter.startswith(("_", "model_")) and not hasattr(BaseModel, parameter):
        return parameter
    field = f"argument_{parameter}"
    while field in taken:
        field += "_"
    return field


def _described(hint: Any, doc: str | None) -> Any:
    """The type with what is said of the parameter: by Field, else by a text in Annotated, else by the docstring."""
    from pydantic import Field
    from pydantic.fields import FieldInfo

    extras = getattr(hint, "__metadata__", ())
    if any(isinstance(extra, FieldInfo) and extra.description for extra in extras):
        return hint
    texts = [text for extra in extras if isinstance(text := getattr(extra, "documentation", extra), str)]
    text = texts[0] if texts else doc
    return typing.Annotated[hint, Field(description=text)] if text else hint


def _default_can_be_shown(model: Any, field: str) -> bool:
    """Whether a default survives JSON. What a factory makes is seen when it is made."""
    from pydantic_core import PydanticUndefined

    info = model.model_fields[field]
    if info.default_factory is not None or info.default is PydanticUndefined:
        return True
    # No default is taken and no factory called: every field has a value.
    blank = model.model_construct(**{other.alias: None for other in model.model_fields.values()})
    object.__setattr__(blank, "__dict__", {**vars(blank), field: info.default})

    def shown() -> Json:
        return blank.model_dump(mode="json", include={field}, by_alias=True, warnings="error")[info.alias]

    try:
        first = shown()
        blank.__pydantic_validator__.validate_assignment(blank, field, first)
        return bool(shown() == first or isinstance(info.default, set | frozenset))
    except Exception:
        return False


def _problems(error: Exception) -> str:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"
    return "; ".join(f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors())


@functools.cache
def _quiet_schema() -> Any:
    from pydantic.json_schema import GenerateJsonSchema

    class QuietSchema(GenerateJsonSchema):
        """A default that is no JSON is left out; warning of it in somebody's notebook would help nobody."""

        ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic's own form

    return QuietSchema


def _json_of(tool: str, arguments: Mapping[str, Json]) -> bytes:
    try:
        text = orjson.dumps(dict(arguments), option=_PLAIN_ONLY)
        if b"null" not in text:  # which may be a NaN
            return text
    except TypeError:  # a lone surrogate, a large integer, or what is no JSON at all
        pass
    return b"{%s}" % b",".join(
        b"%s:%s" % (_json(tool, name, name), _json(tool, name, value)) for name, value in arguments.items()
    )


_PLAIN_ONLY = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


def _json(tool: str, name: str, value: Json) -> bytes:
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        said = name.encode("utf-8", "replace").decode()  # a name, too, may hold half a character
        raise ToolError(f"arguments of {tool} are not valid: {said}: not JSON: {error}") from error


def _in_order(shown: Json, value: Any) -> Json:
    """A set has no order, and what is shown and digested needs one."""
    if isinstance(value, set | frozenset) and isinstance(shown, list):
        return sorted(shown, key=canonical_json)
    if isinstance(value, dict) and isinstance(shown, dict) and len(value) == len(shown):
        return {key: _in_order(item, inner) for (key, item), inner in zip(shown.items(), value.values(), strict=True)}
    if isinstance(value, list | tuple) and isinstance(shown, list) and len(value) == len(shown):
        return [_in_order(item, inner) for item, inner in zip(shown, value, strict=True)]
    if isinstance(shown, dict) and value is not None:
        return {key: _in_order(item, getattr(value, key, None)) for key, item in shown.items()}
    return shown


_SECTION = re.compile(r"^(Args|Arguments|Parameters|Params|Returns|Yields|Raises|Examples?|Notes?)\s*:?\s*$")
_PARAMETER = re.compile(r"^\s*(?::param\s+)?\*{0,2}(\w+)\s*(?:\([^)]*\))?\s*:\s*(\S.*)$")


def read_docstring(doc: str) -> tuple[str, dict[str, str]]:
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
