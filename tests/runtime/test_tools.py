"""Tools: what a signature says is what the model sees, and what cannot be said is refused when the tool is made."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from turncell import Agent, Tool, ToolContext, ToolError, tool
from turncell.adapters.scripted_model import ScriptedModel

pytestmark = pytest.mark.feature("B1")


class Unit(enum.Enum):
    celsius = "c"
    fahrenheit = "f"


class Place(BaseModel):
    city: str
    country: str = "NO"


def test_a_signature_becomes_a_schema() -> None:
    @tool(effect="read")
    def forecast(
        place: Place,
        days: Annotated[int, Field(ge=1, le=7, description="how many")] = 3,
        unit: Unit = Unit.celsius,
        detail: Literal["low", "high"] = "low",
    ) -> str:
        """The forecast.

        Args:
            place: where
            detail: how much,
                on two lines
        """
        return f"{place.city} {days} {unit.value} {detail}"

    schema = forecast.spec.schema
    assert forecast.description == "The forecast."
    assert schema["required"] == ["place"]
    assert schema["properties"]["days"] == {
        "default": 3,
        "description": "how many",
        "maximum": 7,
        "minimum": 1,
        "type": "integer",
    }
    assert schema["properties"]["detail"]["enum"] == ["low", "high"]
    assert schema["properties"]["detail"]["description"] == "how much, on two lines"
    assert forecast.validate({"place": {"city": "Oslo"}})["place"] == {"city": "Oslo", "country": "NO"}


def test_a_tool_gets_its_arguments_as_their_types() -> None:
    got: list[Any] = []

    @tool(effect="read")
    def take(place: Place, unit: Unit) -> str:
        """Take."""
        got.extend([place, unit])
        return "ok"

    from turncell.adapters.scripted_model import call

    Agent(ScriptedModel([call("take", place={"city": "Oslo"}, unit="f"), "ok"]), tools=[take]).run_sync("go")
    assert got == [Place(city="Oslo"), Unit.fahrenheit]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Tool(lambda x: x, name="f"), "parameter 'x' has no type annotation; write 'x: str'"),
        (lambda: Tool(lambda: 1), "tool name '<lambda>'"),
        (lambda: Tool(3), "a tool is a function; found 3"),  # type: ignore[arg-type]
        (lambda: Tool(_many), "has no name a model could use"),
        (lambda: tool(effect="destroy")(_fine), "effect is 'destroy'; use 'read', 'write' or 'idempotent'"),
        (lambda: Agent("embedded", tools=[_fine, _fine]), "two tools are called '_fine'"),
        (lambda: Tool(_odd), "its parameters have no JSON Schema"),
    ],
)
def test_what_cannot_be_said_to_a_model_is_refused(make: Any, said: str) -> None:
    with pytest.raises(ToolError) as caught:
        make()
    assert said in str(caught.value)


def _many(*args: int) -> None: ...


def _fine(x: int) -> None: ...


def _odd(x: ToolError) -> None: ...


def test_the_context_is_not_an_argument() -> None:
    @tool
    def save(path: str, context: ToolContext) -> str:
        """Save."""
        return context.call_id

    assert list(save.spec.schema["properties"]) == ["path"]
    with pytest.raises(ToolError, match="Extra inputs are not permitted"):
        save.validate({"path": "x", "context": 1})


def test_a_tool_still_is_its_function() -> None:
    @tool
    def add(a: int, b: int = 1) -> int:
        """Add."""
        return a + b

    assert add(2) == 3 and add.__doc__ == "Add." and repr(add) == "Tool('add', effect='write')"


def test_a_tool_with_state_is_a_tool_too() -> None:
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def bump(self, by: int) -> int:
            """Count."""
            self.count += by
            return self.count

    counter = Counter()
    assert Tool(counter.bump).spec.name == "bump"
