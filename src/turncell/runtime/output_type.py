"""Structured output: a run that ends with a value of a type, not only with text.

Where the model can be held to a schema (`model.capabilities.schema`), it is, and the text is parsed. Otherwise a tool
`final_answer` has the type as its arguments and ends the run. What does not fit goes back to the model with what was
wrong, `attempts` times in all; then the run has failed with kind "output".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import isroutine
from typing import Any

from turncell.core.fold import RunState
from turncell.core.parts import Json
from turncell.errors import UsageError, first_line, say
from turncell.runtime.ports import ToolSpec

ANSWER_TOOL = "final_answer"
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Misfit:
    """Text or arguments that are no value of the type, and why, in words for the model."""

    problem: str


class OutputType:
    """Any type a pydantic `TypeAdapter` takes: a model class, a dataclass, `list[str]`, `Literal["yes", "no"]`."""

    def __init__(self, type_: Any) -> None:
        from pydantic import TypeAdapter

        if isroutine(type_):  # pydantic would take it for the type of its arguments
            raise UsageError(f"output={type_!r} is a function; use a type")
        try:
            self._adapter = TypeAdapter(type_)
            schema = _resolved(self._adapter.json_schema())
        except Exception as error:
            raise UsageError(f"output={type_!r} has no JSON Schema: {first_line(error)}") from error
        self.name: str = type_.__name__ if isinstance(type_, type) else str(type_).replace("typing.", "")
        self._type = type_
        self._is_wrapped = schema.get("type") != "object" or "properties" not in schema
        self.schema: dict[str, Json] = _wrapped(schema) if self._is_wrapped else schema
        """Always of type object, as providers want it; another type is wrapped as `value`."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of its fields; none for a type that is no class with fields (`list[str]`, a union)."""
        if self._is_wrapped:
            return ()
        known = getattr(self._type, "model_fields", None)  # a pydantic model's own names, where it has aliases
        return tuple(known or self.schema["properties"])

    @property
    def spec(self) -> ToolSpec:
        """The tool that models without a schema mode answer with."""
        text = "Give the final answer. Call this exactly once, when everything else is done; it ends the turn."
        return ToolSpec(ANSWER_TOOL, text, self.schema)

    def of(self, run: RunState) -> Any:
        """The value that a run has ended with, from its record; or a Misfit."""
        last = run.steps[-1] if run.steps else None
        answers = [call for call in last.calls if call.name == ANSWER_TOOL and call.status == "ok"] if last else []
        if answers:
            return self.parse(answers[0].arguments)
        if run.closing is not None:
            return self.parse_text(run.closing)
        return self.parse_text(last.message.text if last is not None and last.message is not None else "")

    def bare(self, arguments: Mapping[str, Json]) -> Json:
        """The value as JSON holds it, of valid arguments of the tool."""
        return arguments["value"] if self._is_wrapped else dict(arguments)

    def parse(self, data: Json) -> Any:
        """The value, or a Misfit. `data` is what JSON holds: the arguments of the tool."""
        from pydantic import ValidationError

        if self._is_wrapped:
            if not isinstance(data, dict) or "value" not in data:
                return Misfit(f"value: missing; found {json.dumps(data)[:200]}")
            data = data["value"]
        try:
            # JSON mode: a date, a set or a tuple is written as text or list there.
            return self._adapter.validate_json(json.dumps(data))
        except ValidationError as error:
            return Misfit("; ".join(f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}" for e in error.errors()))
        except Exception as error:
            # A validator may raise what it likes, and what is nested too deeply cannot be written again.
            return Misfit(f"value: {say(error)}")

    def parse_text(self, text: str) -> Any:
        """The value that a text is the JSON of, or itself, or a Misfit. A fenced block around it is taken off."""
        value = self._parse_json(text.strip())
        if isinstance(value, Misfit) and self._is_wrapped and text.strip():
            as_text = self.parse({"value": text.strip()})  # a model says `yes` rather than `"yes"`
            return value if isinstance(as_text, Misfit) else as_text
        return value

    def _parse_json(self, inner: str) -> Any:
        if inner.startswith("```"):
            inner = inner.partition("\n")[2].rpartition("```")[0]
        try:
            data = json.loads(inner)
        except (ValueError, RecursionError) as error:
            return Misfit(f"the answer is not JSON: {error}")
        if self._is_wrapped and not (isinstance(data, dict) and set(data) == {"value"}):
            data = {"value": data}
        return self.parse(data)


def _resolved(schema: dict[str, Json]) -> dict[str, Json]:
    """A class that refers to itself is a reference at the top, which providers do not take."""
    definitions, reference = schema.get("$defs"), schema.get("$ref")
    if isinstance(definitions, dict) and isinstance(reference, str):
        target = definitions.get(reference.rpartition("/")[2])
        if isinstance(target, dict):
            return {**target, "$defs": definitions}
    return schema


def _wrapped(schema: dict[str, Json]) -> dict[str, Json]:
    definitions = schema.get("$defs")
    inner = {key: value for key, value in schema.items() if key != "$defs"}
    wrapped: dict[str, Json] = {"type": "object", "properties": {"value": inner}, "required": ["value"]}
    return wrapped | ({"$defs": definitions} if definitions else {})
