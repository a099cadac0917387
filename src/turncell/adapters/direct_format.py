"""What the bodies of the direct models have in common."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import count as count_from
from typing import Any

from turncell.adapters.chat_format import legal_id
from turncell.core.parts import Image, Json, Message, ToolCall, ToolResult

_UNSUPPORTED = {
    "title", "default", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength",
    "maxLength", "pattern", "format", "minItems", "maxItems", "uniqueItems",
}  # fmt: skip
"""Constraints that a provider's grammar may not know; each is checked again when the answer is parsed."""
_REFUSED = {"oneOf", "allOf", "not", "if", "patternProperties", "prefixItems", "definitions"}
_MOST_SCHEMAS = 1_000
"""In one, with what it refers to in its place: providers take no larger ones, and what refers twice each time doubles."""

_SCHEMA_MODE = re.compile(r"(?:^|/)(?:o[1-9](?!-mini|-preview)|o[3-9]-mini|gpt-4o|gpt-4\.1|gpt-(?:[5-9]|\d\d)|codex)")


def openai_has_schema_mode(name: str) -> bool:
    """
    >>> openai_has_schema_mode("gpt-4o-mini"), openai_has_schema_mode("gpt-4-turbo")
    (True, False)
    """
    return bool(_SCHEMA_MODE.search(name))


class WireIds:
    """The ids of calls as they go back to a provider: legal, and unique in the conversation.

    The model's own ids are kept where that is possible. Some servers name all their calls alike, and a result must
    still find its own.
    """

    def __init__(self) -> None:
        self._by_call: dict[str, str] = {}
        self._taken: set[str] = set()

    def copy(self) -> WireIds:
        ids = WireIds()
        ids._by_call, ids._taken = self._by_call.copy(), self._taken.copy()
        return ids

    def of(self, message: Message) -> dict[str, str]:
        """By `call_id`, those of the calls and results in a message, which comes after all that this was asked for before."""
        found: dict[str, str] = {}
        for part in message.parts:
            if isinstance(part, ToolCall):
                found[part.call_id] = self._of_call(part)
            elif isinstance(part, ToolResult):
                found[part.call_id] = self._by_call.get(part.call_id) or legal_id(part.provider_id or part.call_id)
        return found

    def _of_call(self, call: ToolCall) -> str:
        wire_id = legal_id(call.provider_id or call.call_id)
        if wire_id in self._taken:
            wire_id = legal_id(call.call_id)
        self._taken.add(wire_id)
        self._by_call[call.call_id] = wire_id
        return wire_id


def image_url(image: Image) -> str:
    return f"data:{image.media_type};base64,{image.data}" if image.media_type else image.data


def strict_schema(schema: Mapping[str, Json]) -> dict[str, Json] | None:
    """The schema as both providers hold an answer to one: closed objects, every property required, no constraints.

    Constraints become words of the description, and what is referred to stands where it is. None where the schema says
    what their grammars cannot, such as an object with names of its own choosing, or one inside itself.

    >>> strict_schema({"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}})
    {'type': 'object', 'properties': {'n': {'type': 'integer', 'description': 'minimum: 1'}}, 'additionalProperties': False, 'required': ['n']}
    """
    return _strict(schema, schema.get("$defs") or {}, (), count_from(1))


def _strict(
    schema: Mapping[str, Json], definitions: Mapping[str, Any], inside: tuple[str, ...], numbers: Iterator[int]
) -> dict[str, Json] | None:
    if next(numbers) > _MOST_SCHEMAS:
        return None
    if isinstance(reference := schema.get("$ref"), str):
        name = reference.removeprefix("#/$defs/")
        if name in inside or not isinstance(definitions.get(name), dict):
            return None
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return _strict(definitions[name] | beside, definitions, (*inside, name), numbers)
    if "discriminator" in schema and "oneOf" in schema:  # their tags exclude each other
        others = {key: value for key, value in schema.items() if key not in ("discriminator", "oneOf")}
        schema = others | {"anyOf": schema["oneOf"]}
    if _REFUSED & schema.keys():
        return None

    def inner(value: Json) -> dict[str, Json] | None:
        return _strict(value, definitions, inside, numbers) if isinstance(value, dict) else None

    strict: dict[str, Json] = {}
    notes = [f"{name}: {value}" for name, value in schema.items() if name in _UNSUPPORTED - {"title"}]
    for name, value in schema.items():
        if name in _UNSUPPORTED or name in ("additionalProperties", "required", "$defs"):
            continue
        if name == "properties":
            value = {key: inner(one) for key, one in value.items()}
            if None in value.values():
                return None
        elif name == "items":
            value = inner(value)
            if value is None:
                return None
        elif name == "anyOf":
            value = [inner(one) for one in value]
            if None in value:
                return None
        strict[name] = value
    if schema.get("type") == "object":
        if schema.get("additionalProperties", False) is not False or "properties" not in schema:
            return None
        strict |= {"additionalProperties": False, "required": list(strict["properties"])}
    elif not strict.keys() & {"type", "anyOf", "enum", "const"}:
        return None  # anything at all: no grammar has that
    if notes:
        strict["description"] = "; ".join(filter(None, [schema.get("description"), *notes]))
    return strict


def schema_in_words(schema: Mapping[str, Json]) -> str:
    """For the instructions, where the provider cannot be held to the schema."""
    return f"Answer with JSON of this schema and nothing else:\n{json.dumps(dict(schema))}"


def joined(*texts: str) -> str:
    return "\n\n".join(filter(None, texts))


MOST_TOKENS = 10**12
"""Of one call. More than that nobody reads or writes, and databases and tables have no numbers for any count."""


def as_count(value: Any) -> int | None:
    """A count of tokens; None for what is none, so that it is estimated: what was said and paid counts more than its bill.

    >>> as_count(12), as_count(-3), as_count(True), as_count(1e30)
    (12, None, None, None)
    """
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def count(holder: Any, name: str) -> int | None:
    """`as_count` of a field, where there is one."""
    return as_count(holder.get(name)) if isinstance(holder, dict) else None


def as_object(value: Any) -> dict[str, Any]:
    """What is no object has no fields."""
    return value if isinstance(value, dict) else {}


def as_text(value: Any) -> str | None:
    """None for an empty one too."""
    return value if value and isinstance(value, str) else None
