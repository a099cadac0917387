"""Tools: what a signature says is what the model sees, and what cannot be said is refused when the tool is made."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import enum
import functools
import inspect
import math
import sys
import threading
import time
import typing
import warnings
from collections.abc import Callable, Coroutine
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator
from typing_extensions import TypedDict

from turncell import Agent, Check, Tool, ToolContext, ToolError, tool
from turncell.adapters.scripted_model import ScriptedModel, call
from turncell.runtime.threads import Work

if TYPE_CHECKING:
    from nowhere import Result

T = TypeVar("T")
pytestmark = pytest.mark.feature("B1")
CONTEXT = ToolContext("call_1", "run_1", "ses_1", lambda text: None, lambda: False)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(coroutine)


def called(made: Tool, **arguments: Any) -> Any:
    """What the function gives back when a model asks for it: validated, shown, and run with what was shown."""
    return run(made.call(made.validate(arguments), CONTEXT))


class Unit(enum.Enum):
    celsius = "c"
    fahrenheit = "f"


class Place(BaseModel):
    city: str
    country: str = "NO"


class Level(enum.IntEnum):
    low = 1
    high = 2


class Strictly(BaseModel):
    model_config = ConfigDict(strict=True)

    at: datetime
    unit: Unit
    pair: tuple[int, int]


class Node(BaseModel):
    name: str
    children: list[Node] = []


class Box(TypedDict, total=False):
    width_cm: int
    label: str


class Pair(NamedTuple):
    a: int
    b: str = "b"


@dataclasses.dataclass
class Stay:
    place: Place
    nights: int = 1


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
    assert said in str(caught.value) and "\n" not in str(caught.value)


def _many(*args: int) -> None: ...


def _fine(x: int) -> None: ...


def _odd(x: ToolError) -> None: ...


def test_one_parameter_is_the_context() -> None:
    def save(path: str, context: ToolContext, again: ToolContext) -> str:
        """Save."""
        return path

    with pytest.raises(ToolError, match="tool 'save' takes context and again as its context; one is enough"):
        tool(save)


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


def _steady(value: Any) -> str:
    """The name of a case; a set has no order, and workers must agree on the names."""
    return str(sorted(value, key=str)) if isinstance(value, set | frozenset) else str(value)


class Everything:
    """Types, what a model would write, and what the function gets."""

    cases = [  # noqa: RUF012
        (datetime, "2026-03-01T10:00:00Z", datetime.fromisoformat("2026-03-01T10:00:00+00:00")),
        (date, "2026-03-01", date(2026, 3, 1)),
        (timedelta, "PT90S", timedelta(seconds=90)),
        (UUID, "6f1b2f3e-0000-4000-8000-000000000001", UUID("6f1b2f3e-0000-4000-8000-000000000001")),
        (Decimal, "1.10", Decimal("1.10")),
        (Decimal, 2.5, Decimal("2.5")),
        (Path, "a/b.txt", Path("a/b.txt")),
        (bytes, "abc", b"abc"),
        (set[str], ["b", "a", "b"], {"a", "b"}),
        (frozenset[int], [8, 0], frozenset({0, 8})),
        (tuple[int, str], [1, "x"], (1, "x")),
        (tuple[int, ...], [1, 2], (1, 2)),
        (dict[str, set[int]], {"k": [2, 1]}, {"k": {1, 2}}),
        (dict[int, str], {"1": "a"}, {1: "a"}),
        (list[Place], [{"city": "Oslo"}], [Place(city="Oslo")]),
        (Node, {"name": "a", "children": [{"name": "b"}]}, Node(name="a", children=[Node(name="b")])),
        (Stay, {"place": {"city": "Oslo"}}, Stay(Place(city="Oslo"))),
        (Box, {"width_cm": 3}, {"width_cm": 3}),
        (Pair, [1], Pair(1, "b")),
        (Unit, "c", Unit.celsius),
        (Level, 2, Level.high),
        (Literal["a", 1], "a", "a"),
        (int | None, None, None),
        (int | str, "x", "x"),
        (int | Place, {"city": "Oslo"}, Place(city="Oslo")),
        (Annotated[int, Field(ge=1)], 3, 3),
        (bool, True, True),
        (Any, {"a": [1]}, {"a": [1]}),
        (int, 10**30, 10**30),
        (Strictly, {"at": "2026-03-01T10:00:00", "unit": "c", "pair": [1, 2]},
         Strictly(at=datetime(2026, 3, 1, 10), unit=Unit.celsius, pair=(1, 2))),
    ]  # fmt: skip


@pytest.mark.parametrize(("hint", "written", "got"), Everything.cases, ids=_steady)
def test_every_type_arrives_as_itself(hint: Any, written: Any, got: Any) -> None:
    def take(value):  # type: ignore[no-untyped-def]
        """Take."""
        return value

    take.__annotations__ = {"value": hint}
    made = Tool(take, effect="read")
    value = called(made, value=written)
    assert value == got and type(value) is type(got)
    assert made.validate(made.validate({"value": written})) == made.validate({"value": written})
    assert references(made.spec.schema) <= {f"#/$defs/{name}" for name in made.spec.schema.get("$defs", {})}


def references(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return {found for item in schema for found in references(item)}
    if not isinstance(schema, dict):
        return set()
    own = {schema["$ref"]} if isinstance(schema.get("$ref"), str) else set()
    return own | {found for item in schema.values() for found in references(item)}


@pytest.mark.parametrize(
    ("hint", "wrong"),
    [
        (datetime, "yesterday"),
        (set[int], ["x"]),
        (Place, {"town": "Oslo"}),
        (Unit, "kelvin"),
        (Literal["a"], "b"),
        (int | None, "x"),
        (tuple[int, str], [1]),
        (Stay, {}),
        (str, "\ud800"),
        (float, math.nan),
        (Any, {"deep": [math.inf]}),
        (Any, Ellipsis),
        (Annotated[int, Field(ge=1)], 0),
    ],
    ids=str,
)
@pytest.mark.parametrize("parameter", ["value", "model_config", "_x"])
def test_a_wrong_value_is_refused_by_the_name_of_its_parameter(hint: Any, wrong: Any, parameter: str) -> None:
    def take(**_: Any) -> None: ...

    take.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(parameter, inspect.Parameter.KEYWORD_ONLY, annotation=hint)]
    )
    with pytest.raises(ToolError, match=f"^arguments of take are not valid: {parameter}\\b"):
        Tool(take).validate({parameter: wrong})


def test_every_name_that_python_allows_is_the_name_that_the_model_sees() -> None:
    names = [
        "model_config", "model_dump", "model_fields", "model_x", "_x", "__y", "schema", "json", "copy", "dict", "validate",
        "construct", "fields", "title", "type", "self_", "cls", "name", "arguments", "fn", "function", "context", "größe",
        "argument_model_config", "str", "int",
    ]  # fmt: skip
    space: dict[str, Any] = {}
    exec(f"def take({', '.join(f'{name}: int' for name in names)}) -> list:\n return list(locals().items())", space)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        take = Tool(space["take"])
        given = {name: place for place, name in enumerate(names)}
        assert take.validate(given) == given
        assert called(take, **given) == list(given.items())
    assert list(take.spec.schema["properties"]) == names == take.spec.schema["required"]
    with pytest.raises(ToolError, match="model_config: Field required"):
        take.validate({})
    with pytest.raises(ToolError, match="argument_model_dump: Extra inputs are not permitted"):
        take.validate(given | {"argument_model_dump": 1})


def test_what_is_said_of_a_parameter_is_in_the_schema() -> None:
    @tool
    def look(
        a: Annotated[int, "a text beside the type"],
        b: Annotated[int, Field(ge=1, description="by Field")],
        c: Annotated[int, Field(ge=1)],
        d: int = Field(3, ge=1),
        model_x: int = 1,
    ) -> None:
        """Look.

        Args:
            a: not this
            b: nor this
            c: by the docstring
            d: by the docstring too
            model_x: also for odd names
        """

    properties = look.spec.schema["properties"]
    assert [properties[name]["description"] for name in properties] == [
        "a text beside the type", "by Field", "by the docstring", "by the docstring too", "also for odd names",
    ]  # fmt: skip
    assert properties["d"]["minimum"] == 1 and properties["d"]["default"] == 3


class Connection:
    """Something that JSON cannot say."""


def test_defaults_that_json_cannot_say_are_passed_and_not_shown() -> None:
    connection = Connection()

    @tool
    def save(
        text: str,
        to: Any = connection,
        limit: int = None,  # type: ignore[assignment]  # noqa: RUF013
        day: date = date(2026, 3, 1),
        tags: list[str] = Field(default_factory=lambda: ["new"]),  # noqa: B008
        model_where: Path = Path("."),
        json: Any = connection,
    ) -> list[Any]:
        """Save."""
        return [text, to, limit, day, tags, model_where, json]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown = save.validate({"text": "x"})
        assert shown == {"text": "x", "day": "2026-03-01", "tags": ["new"], "model_where": "."}
        assert called(save, text="x") == ["x", connection, None, date(2026, 3, 1), ["new"], Path("."), connection]
    assert called(save, text="x", to="here", limit=3)[1:3] == ["here", 3]
    assert "default" not in save.spec.schema["properties"]["limit"]


def test_a_default_of_a_set_is_shown_in_one_order() -> None:
    @tool
    def take(tags: set[str] = {"c", "a", "b"}) -> list[str]:  # noqa: B006
        """Take."""
        return sorted(tags)

    assert take.validate({}) == {"tags": ["a", "b", "c"]} == take.validate({"tags": ["b", "c", "a"]})


class Shop:
    """Where functions of all kinds are found."""

    def buy(self, what: str, count: int = 1) -> str:
        """Buy."""
        return f"{count} {what}"

    buy_two = functools.partialmethod(buy, count=2)

    @classmethod
    def sell(cls, what: str) -> str:
        """Sell."""
        return f"{cls.__name__}: {what}"

    @staticmethod
    def look(what: str) -> str:
        """Look."""
        return what

    async def __call__(self, what: str) -> str:
        """Ask."""
        return f"{what}?"


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


@pytest.mark.parametrize(
    ("function", "name", "description", "result"),
    [
        (Shop().buy, "buy", "Buy.", "1 tea"),
        (Shop().buy_two, "buy", "Buy.", "2 tea"),
        (functools.partial(Shop().buy, count=3), "buy", "Buy.", "3 tea"),
        (functools.partial(functools.partial(Shop.buy, Shop()), count=4), "buy", "Buy.", "4 tea"),
        (Shop.sell, "sell", "Sell.", "Shop: tea"),
        (Shop.look, "look", "Look.", "tea"),
        (vars(Shop)["look"], "look", "Look.", "tea"),
        (logged(Shop().buy), "buy", "Buy.", "1 tea"),
        (logged(Shop().__call__), "__call__", "Ask.", "tea?"),
        (functools.lru_cache(Shop.look), "look", "Look.", "tea"),
        (Shop(), "Shop", "Where functions of all kinds are found.", "tea?"),
        (functools.partial(Shop()), "Shop", "Where functions of all kinds are found.", "tea?"),
    ],
)
def test_whatever_can_be_called_by_name_can_be_a_tool(function: Any, name: str, description: str, result: str) -> None:
    made = Tool(function)
    assert (made.name, made.description, called(made, what="tea")) == (name, description, result)


def test_what_a_partial_has_bound_is_not_offered_to_the_model() -> None:
    made = Tool(functools.partial(Shop().buy, count=3))
    assert list(made.spec.schema["properties"]) == ["what"]
    with pytest.raises(ToolError, match="count: Extra inputs are not permitted"):
        made.validate({"what": "tea", "count": 9})


def test_the_attributes_of_a_callable_object_stay_its_own() -> None:
    class Named(Shop):
        def __init__(self) -> None:
            self.name, self.effect = "somebody", "read"

    made = Tool(Named())
    assert (made.name, made.effect) == ("Named", "write")


def test_the_annotation_of_a_result_need_not_exist() -> None:
    def find(what: str) -> Result:
        """Find."""
        return what

    assert called(Tool(find), what="x") == "x"


def test_an_optional_context_is_no_argument_either() -> None:
    @tool
    def who(context: ToolContext | None = None) -> str:
        """Who."""
        return context.call_id if context else "nobody"

    assert called(who) == "call_1" and who() == "nobody" and who.spec.schema["properties"] == {}


def test_a_context_of_which_something_is_said_is_no_argument_either() -> None:
    @tool
    def who(
        a: str, context: Annotated[ToolContext, "where it runs"], more: Annotated[str | None, "the rest"] = None
    ) -> str:
        """Who."""
        return context.call_id

    assert called(who, a="x") == "call_1" and list(who.spec.schema["properties"]) == ["a", "more"]

    @tool
    def maybe(context: Annotated[ToolContext | None, "where it runs"] = None) -> str:
        """Maybe."""
        return context.call_id if context else "nobody"

    assert called(maybe) == "call_1" and maybe.spec.schema["properties"] == {}


def test_a_typed_dict_that_cannot_be_read_says_which_one_can() -> None:
    def take(given: Any) -> None: ...

    take.__annotations__["given"] = typing.TypedDict("Given", {"n": int})  # type: ignore[operator]
    if sys.version_info >= (3, 12):  # from there on pydantic reads it
        assert Tool(take).spec.schema["required"] == ["given"]
        return
    with pytest.raises(ToolError, match="typing_extensions import TypedDict") as caught:
        Tool(take)
    assert "partial" not in str(caught.value)


def test_a_validator_that_fails_refuses_the_arguments() -> None:
    class Odd(BaseModel):
        n: int

        @field_validator("n")
        @classmethod
        def _fail(cls, n: int) -> int:
            raise LookupError("no table")

    def take(odd: Any) -> None: ...

    take.__annotations__["odd"] = Odd
    with pytest.raises(ToolError, match="arguments of take are not valid: LookupError: no table"):
        Tool(take).validate({"odd": {"n": 1}})


def test_a_schema_is_the_callers_own() -> None:
    made = Tool(_fine)
    made.spec.schema["properties"].clear()
    assert list(made.spec.schema["properties"]) == ["x"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: Tool(Shop.buy),
            "'buy' is a method without its object; make a tool of the bound one: tool(object.buy)",
        ),
        (lambda: Tool(vars(Shop)["sell"]), "a classmethod is bound by its class"),
        (lambda: Tool(Shop), "'Shop' is a class; make an object of it, and give that: Shop(...)"),
        (lambda: Tool(Counter), "'Counter' is a class; make an object of it"),
        (lambda: Tool(), "a tool is a function; found None"),
        (lambda: Idle(), "Idle has no method run(...), which is what a call of it would do; write one"),
        (lambda: Agent(ScriptedModel([]), tools=[Busy()]), "Busy has no method run(...)"),
        (lambda: tool("name"), "a tool is a function; found 'name'"),  # type: ignore[call-overload]
        (lambda: Tool(len), "tool 'len'"),
        (lambda: Tool(lambda: 1), "tool(name=...) gives it one"),
        (lambda: Tool(_connected), "functools.partial(function, parameter=value)"),
        (lambda: Tool(_aliased), "parameter 'x' has an alias or is excluded"),
    ],
)
def test_what_cannot_be_a_tool_says_what_to_do(make: Any, said: str) -> None:
    with pytest.raises(ToolError) as caught:
        make()
    assert said in str(caught.value)


class Idle(Tool):
    """Do nothing."""


class Busy(Tool):
    """Do nothing, with a state."""

    def __init__(self) -> None:
        self.calls = 0


def _connected(connection: Connection) -> None: ...


def _aliased(x: Annotated[int, Field(alias="y")]) -> None: ...


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout_s": math.nan}, "timeout_s is nan; use seconds, more than 0, or None"),
        ({"timeout_s": math.inf}, "timeout_s is inf"),
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"timeout_s": -1}, "timeout_s is -1"),
        ({"timeout_s": "5"}, "timeout_s is '5'"),
        ({"timeout_s": True}, "timeout_s is True"),
        ({"retries": -1, "effect": "read"}, "retries is -1; use a whole number, 0 or more"),
        ({"retries": 1.5, "effect": "read"}, "retries is 1.5"),
        ({"retries": True, "effect": "read"}, "retries is True"),
        ({"retries": 1}, "a write runs at most once"),
        ({"retry_wait_s": -0.1}, "retry_wait_s is -0.1"),
        ({"retry_wait_s": math.nan}, "retry_wait_s is nan"),
        ({"concurrency": 0}, "concurrency is 0; use a whole number, 1 or more, or None"),
        ({"concurrency": 2.0}, "concurrency is 2.0"),
        ({"parallel": 1}, "parallel is 1; use True or False"),
        ({"terminate": "yes"}, "terminate is 'yes'"),
        ({"polling": None}, "polling is None"),
        ({"trusted": 0}, "trusted is 0"),
        ({"edits_notebook": 0}, "edits_notebook is 0"),
        ({"description": 3}, "description is 3; use a text"),
        ({"name": 3}, "tool name 3"),
        ({"name": "two words"}, "tool name 'two words'"),
        ({"effect": None}, "effect is None"),
        ({"check": "allow"}, "check is 'allow'; use a function or None"),
        ({"check": lambda: "allow"}, "its check is called with x"),
        ({"preview": lambda x, y: ""}, "its preview is called with x: missing a required argument: 'y'"),
        ({"on_denied": lambda reason: ""}, "its on_denied is called with arguments, reason"),
        ({"loop_key": lambda: ""}, "its loop_key is called with arguments"),
        ({"efect": "read"}, "a tool has no option 'efect'; the options are name, description, effect"),
    ],
)
def test_an_option_that_cannot_be_is_refused_when_the_tool_is_made(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ToolError) as caught:
        tool(**options)(_fine)
    assert said in str(caught.value)


def test_options_are_attributes() -> None:
    def key(arguments: dict[str, Any]) -> str:
        return ""

    options: dict[str, Any] = {
        "name": "n", "description": "d", "effect": "idempotent", "timeout_s": 2, "retries": 2, "retry_wait_s": 0,
        "concurrency": 1, "parallel": True, "terminate": True, "polling": True, "loop_key": key, "trusted": True,
        "edits_notebook": True, "check": lambda x: None, "on_denied": lambda a, r: None, "preview": lambda x: "",
    }  # fmt: skip
    made = Tool(_fine, **options)
    assert {option: getattr(made, option) for option in options} == options
    assert repr(Tool(_fine, retries=2, effect="read", loop_key=key)) == (
        "Tool('_fine', effect='read', retries=2, loop_key=...)"
    )


@pytest.mark.feature("B3")
class TestWhatAToolSaysOfACall:
    def test_check_and_preview_get_values_of_the_types_of_the_tool(self) -> None:
        seen: list[Any] = []

        async def check(**arguments: Any) -> str:
            seen.append(arguments)
            return "deny"

        @tool(check=check, preview=lambda at, unit: f"{at:%d.%m.} {unit.name}")
        def book(at: datetime, unit: Unit = Unit.celsius) -> None:
            """Book."""

        arguments = book.validate({"at": "2026-03-01T10:00"})
        assert run(book.run_check(arguments)) == Check("deny")
        assert seen == [{"at": datetime(2026, 3, 1, 10), "unit": Unit.celsius}]
        assert run(book.run_preview(arguments)) == "01.03. celsius"

    @pytest.mark.parametrize(
        ("said", "check"),
        [
            (None, None),
            ("allow", Check("allow")),
            ("ask", Check("ask", "", ())),
            (Check("deny", "too much", ["a", "b"]), Check("deny", "too much", ("a", "b"))),  # type: ignore[arg-type]
        ],
    )
    def test_a_check_is_a_verdict_or_no_opinion(self, said: Any, check: Check | None) -> None:
        assert run(Tool(_fine, check=lambda x: said).run_check({"x": 1})) == check

    @pytest.mark.parametrize("said", [True, "maybe", 1, ["deny"]])
    def test_a_check_that_says_something_else_is_an_error_that_names_it(self, said: Any) -> None:
        with pytest.raises(
            ToolError, match=r"the check of '_fine' returned .*; return 'allow', 'deny', 'ask'"
        ) as caught:
            run(Tool(_fine, check=lambda x: said).run_check({"x": 1}))
        assert repr(said) in str(caught.value)

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("perhaps",), "a check says 'perhaps'"),
            (("deny", 3), "the message of a check is a text; found 3"),
            (("deny", "", "reason"), "in a tuple; found 'reason'"),
        ],
    )
    def test_a_check_cannot_be_made_of_anything(self, arguments: Any, said: str) -> None:
        with pytest.raises(ToolError, match=said):
            Check(*arguments)

    def test_on_denied_gets_the_arguments_as_json(self) -> None:
        def told(arguments: dict[str, Any], reason: str) -> str:
            return f"{arguments} {reason}"

        @tool(on_denied=told)
        def book(at: date) -> None:
            """Book."""

        assert run(book.run_on_denied({"at": "2026-03-01"}, "no")) == "{'at': '2026-03-01'} no"
        with pytest.raises(ToolError, match="on_denied of '_fine' returned 3; return a text or None"):
            run(Tool(_fine, on_denied=lambda a, r: 3).run_on_denied({"x": 1}, "no"))

    def test_a_tool_that_says_nothing_says_nothing(self) -> None:
        made = Tool(_fine)
        assert run(made.run_check({"x": 1})) is None is run(made.run_preview({"x": 1}))
        assert run(made.run_on_denied({"x": 1}, "no")) is None

    def test_what_they_raise_is_the_callers_business(self) -> None:
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise LookupError("no table")

        made = Tool(_fine, check=fail, preview=fail, on_denied=fail)
        for said in (made.run_check({"x": 1}), made.run_preview({"x": 1}), made.run_on_denied({"x": 1}, "")):
            with pytest.raises(LookupError, match="no table"):
                run(said)

    def test_one_that_blocks_does_not_block_the_loop(self) -> None:
        may_end = threading.Event()

        def slow(x: int) -> str:
            return "seen" if may_end.wait(60) else "late"

        async def main() -> str | None:
            waiting = asyncio.create_task(Tool(_fine, preview=slow).run_preview({"x": 1}))
            await asyncio.sleep(0.02)
            may_end.set()
            return await waiting

        assert run(main()) == "seen"


@pytest.mark.feature("B4")
class TestCalling:
    def test_a_sync_function_runs_in_a_daemon_thread_with_the_context_of_its_caller(self) -> None:
        who = contextvars.ContextVar("who", default="nobody")

        @tool
        def look() -> list[Any]:
            """Look."""
            return [threading.current_thread(), who.get()]

        async def main() -> list[Any]:
            who.set("ana")
            return list(await look.call({}, CONTEXT))

        thread, name = run(main())
        assert thread.daemon and thread is not threading.main_thread() and name == "ana"

    def test_a_thread_that_was_left_behind_is_known(self) -> None:
        may_end = threading.Event()
        behind: list[Work[Any]] = []

        @tool
        def hang() -> None:
            """Hang."""
            may_end.wait(60)

        async def main() -> None:
            async with asyncio.timeout(0.05):
                await hang.call({}, CONTEXT, on_background=behind.append)

        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            run(main())
        assert time.monotonic() - begin < 20 and not behind[0].done()
        may_end.set()
        deadline = time.monotonic() + 60
        while not behind[0].done() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert behind[0].done()

    def test_a_hundred_calls_that_block_run_side_by_side(self) -> None:
        meeting = threading.Barrier(100, timeout=60)

        @tool
        def meet() -> int:
            """Meet."""
            return meeting.wait()

        async def main() -> list[int]:
            return await asyncio.gather(*(meet.call({}, CONTEXT) for _ in range(100)))

        assert sorted(run(main())) == list(range(100))

    def test_an_async_function_runs_on_the_loop(self) -> None:
        @tool
        async def look() -> Any:
            """Look."""
            return threading.current_thread()

        behind: list[Work[Any]] = []
        assert run(look.call({}, CONTEXT, on_background=behind.append)) is threading.current_thread() and behind == []


class Counter(Tool):
    """Count up."""

    name = "count"
    effect = "idempotent"
    retries = 2

    def __init__(self, start: int) -> None:
        self.total = start

    def run(self, by: int) -> int:
        self.total += by
        return self.total

    def check(self, by: int) -> str:
        return "deny" if by < 0 else "allow"


class TestToolsWithState:
    def test_class_attributes_are_its_options_and_methods_its_callables(self) -> None:
        one, two = Counter(1), Counter(start=10)
        assert called(one, by=1) == 2 and called(one, by=1) == 3 and called(two, by=1) == 11
        assert (one.name, one.description, one.effect, one.retries) == ("count", "Count up.", "idempotent", 2)
        assert run(one.run_check({"by": -1})) == Check("deny")
        assert list(Agent("embedded", tools=[one]).tools) == ["count"]

    def test_it_may_have_no_init_and_an_async_run_with_a_context(self) -> None:
        class Echo(Tool):
            async def run(self, text: str, context: ToolContext) -> str:
                """Echo."""
                return f"{context.call_id} {text}"

        assert called(Echo(), text="x") == "call_1 x" and Echo().name == "Echo" and Echo().description == "Echo."

    def test_it_may_give_options_of_its_own_when_it_is_made(self) -> None:
        class Wait(Tool):
            timeout_s = 1.0

            def __init__(self, name: str, timeout_s: float) -> None:
                super().__init__(name=name, timeout_s=timeout_s)

            def run(self) -> str:
                """Wait."""
                return self.name

        made = Wait("wait_long", 60)
        assert (made.name, made.timeout_s, called(made)) == ("wait_long", 60, "wait_long")
        with pytest.raises(ToolError, match="tool 'bad': timeout_s is 0"):
            Wait("bad", 0)

    def test_an_option_that_cannot_be_is_refused_when_it_is_made(self) -> None:
        class Bad(Counter):
            effect = "write"

        with pytest.raises(ToolError, match="tool 'count': retries is 2; use 0: a write runs at most once"):
            Bad(1)


CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "pattern": "^[A-Z]"}},
    "required": ["city"],
}


@pytest.mark.feature("B1")
class TestAJsonSchemaThatIsThereAlready:
    def test_takes_the_place_of_the_signature(self) -> None:
        class Weather(Tool):
            name = "weather"
            description = "The weather."
            effect = "read"
            parameters = CITY

            async def run(self, context: ToolContext, **arguments: Any) -> str:
                context.progress("looking")
                return f"rain in {arguments['city']}"

        model = ScriptedModel([call("weather", city="oslo"), call("weather"), call("weather", city="Oslo"), "Rain."])
        run = Agent(model, tools=[Weather()]).run_sync("go")
        assert [one.status for one in run.tool_calls] == ["invalid", "invalid", "ok"]
        assert "city: 'oslo' does not match" in (run.tool_calls[0].problem or "")
        assert run.tool_calls[2].content == "rain in Oslo" and model.requests[0].tools[0].schema == CITY

    def test_may_be_the_option_of_a_function_which_stays_what_it_is(self) -> None:
        def look(city, days=1):  # type: ignore[no-untyped-def]
            """Look."""
            return f"{city}, {days}"

        made = tool(look, parameters=CITY)
        assert made("Oslo") == "Oslo, 1" and made.validate({"city": "Oslo"}) == {"city": "Oslo"}
        assert repr(made) == "Tool('look', effect='write', parameters=...)" and made.description == "Look."

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("city", "parameters are 'city'; use a JSON Schema"),
            ({"type": "array"}, "arguments are an object"),
            ({"properties": {"city": {"type": "text"}}}, "tool 'look': its schema is wrong: 'text'"),
            (
                {"properties": {"town": {}}},
                "by its schema it is called with town: .*unexpected keyword argument 'town'",
            ),
            ({"properties": {"days": {}}}, "by its schema it is called with days: missing a required argument: 'city'"),
        ],
    )
    def test_is_refused_where_it_is_none_or_does_not_fit(self, given: Any, message: str) -> None:
        def look(city: str, days: int = 1) -> str:
            return city

        with pytest.raises(ToolError, match=message):
            tool(look, parameters=given)
