"""JSON Schemas that somebody else wrote: validated against, and trusted with nothing.

They are used on the loop of all runs, where a schema made to be slow would stop everything. So no pattern of theirs is
tried (the server tries its own), no reference is fetched, and references are counted: a few lines of them can ask for
more work than there is time. What is left out here, the server checks itself. A schema of the user's own is tried whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from turncell.core.parts import Json
from turncell.errors import ToolError

MOST_CHARS = 100_000
"""Of one schema, as JSON: more than a model could be told of."""
MOST_REFERENCES = 5_000
"""That one validation follows."""


class ForeignSchema:
    """The arguments of one tool. ToolError for a schema that cannot be offered to a model."""

    def __init__(self, tool: str, schema: Mapping[str, Any], *, is_own: bool = False) -> None:
        try:
            size_chars = len(json.dumps(schema, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise ToolError(f"its schema is no JSON: {error}") from error
        if size_chars > MOST_CHARS:
            raise ToolError(f"its schema has {size_chars:,} characters, where {MOST_CHARS:,} are the most")
        if schema.get("type", "object") != "object":
            raise ToolError(f"its schema is of type {schema['type']!r}; arguments are an object")
        self.tool = tool
        self.schema: dict[str, Json] = {"properties": {}, **schema, "type": "object"}
        self._validator: Any = None
        if is_own:
            self._validator = _own_validator(self.schema)
        self._followed = [0]
        """How many references the validation that runs has followed."""

    def validate(self, arguments: Mapping[str, Json]) -> dict[str, Json]:
        """The arguments as they are. Raises ToolError that a model can act on."""
        try:
            if self._validator is None:
                self._validator = _validator(self.schema, self._followed)
            self._followed[0] = 0
            found = list(islice(self._validator.iter_errors(dict(arguments)), 5))
        except (_TooMuch, RecursionError):
            return dict(arguments)  # the server will say what it thinks of them
        except Exception as error:
            raise ToolError(f"{self.tool} cannot be called: its schema is wrong: {str(error)[:300]}") from error
        if found:
            problems = "; ".join(
                f"{'.'.join(map(str, e.absolute_path)) or 'arguments'}: {e.message[:300]}" for e in found
            )
            raise ToolError(f"arguments of {self.tool} are not valid: {problems}")
        return dict(arguments)


def as_told(schema: Mapping[str, Json]) -> dict[str, Json]:
    """The schema as every provider takes it: nothing at its top chooses between others.

    Anthropic and OpenAI refuse a whole request for one such tool. The properties of the choices become those of the tool,
    what is asked of them stands in words, and the arguments are validated against the whole.

    >>> as_told({"type": "object", "properties": {"a": {}, "b": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]})
    {'type': 'object', 'properties': {'a': {}, 'b': {}}, 'description': 'Must also fit: {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}'}
    """
    choices = {name: schema[name] for name in (*_CHOICES, "not", "enum") if name in schema}
    if not choices:
        return dict(schema)
    found: dict[str, list[Json]] = {}
    for name in _CHOICES:
        branches = choices.get(name)
        for branch in branches if isinstance(branches, list) else ():
            for key, value in _mapping(_resolved(branch, schema).get("properties")).items():
                if value not in found.setdefault(key, []):
                    found[key].append(value)
    told = {name: value for name, value in schema.items() if name not in choices}
    of_choices = {key: values[0] if len(values) == 1 else {"anyOf": values} for key, values in found.items()}
    told["properties"] = of_choices | _mapping(schema.get("properties"))
    words = f"Must also fit: {json.dumps(choices, ensure_ascii=False)}"
    told["description"] = f"{schema.get('description') or ''} {words}".strip()
    return told


def _resolved(branch: Any, schema: Mapping[str, Json]) -> dict[str, Json]:
    reference = str(_mapping(branch).get("$ref", ""))
    if reference.startswith("#/$defs/"):
        branch = _mapping(schema.get("$defs")).get(reference.removeprefix("#/$defs/"))
    return _mapping(branch)


def _mapping(value: Any) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


_CHOICES = ("oneOf", "anyOf", "allOf")


class _TooMuch(Exception):
    pass


def _own_validator(schema: Mapping[str, Any]) -> Any:
    from jsonschema import SchemaError, validators
    from jsonschema.validators import Draft202012Validator
    from referencing import Registry

    kind = validators.validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        raise ToolError(f"its schema is wrong: {error.message[:300]}") from error
    made: Any = kind(schema, registry=Registry())  # an empty one: what is not in the schema is not fetched
    return made


def _validator(schema: Mapping[str, Any], followed: list[int]) -> Any:
    from jsonschema import validators
    from jsonschema.validators import Draft202012Validator
    from referencing import Registry

    kind = validators.validator_for(schema, default=Draft202012Validator)
    references = [name for name in ("$ref", "$dynamicRef", "$recursiveRef") if name in kind.VALIDATORS]
    counted = {name: _counted(kind.VALIDATORS[name], followed) for name in references}
    untried = dict.fromkeys(("pattern", "patternProperties"), _nothing)
    more = {"additionalProperties": _without_patterns(kind.VALIDATORS["additionalProperties"])}
    made: Any = validators.extend(kind, {**counted, **untried, **more})
    # An empty registry: the default one would fetch what a reference names.
    return made(schema, registry=Registry())


def _nothing(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
    return iter(())


def _without_patterns(keyword: Any) -> Any:
    def checked(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        return iter(()) if schema.get("patternProperties") else keyword(validator, value, instance, schema)

    return checked


def _counted(keyword: Any, followed: list[int]) -> Any:
    def follow(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        followed[0] += 1
        if followed[0] > MOST_REFERENCES:
            raise _TooMuch
        yield from keyword(validator, value, instance, schema) or ()

    return follow
