"""The embedded model: rules that call the tools they are given, and say what they are."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from turncell.adapters.rules_model import RulesModel
from turncell.adapters.rules_reading import read
from turncell.core.deltas import Finished, Fragment, assemble
from turncell.core.parts import Json, Message, Part, Reasoning, Text, ToolCall, ToolResult
from turncell.runtime.ports import Model, ModelRequest, ToolSpec

pytestmark = pytest.mark.feature("G4")

STRING, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}


def tool(name: str, description: str, required: tuple[str, ...] = (), /, **properties: Json) -> ToolSpec:
    return ToolSpec(name, description, {"type": "object", "properties": properties, "required": list(required)})


UNITS = {"anyOf": [{"$ref": "#/$defs/Units"}, {"type": "null"}], "default": None}
WEATHER = ToolSpec(
    "weather",
    "Weather now in a city.",
    {
        "type": "object",
        "properties": {"city": STRING, "units": UNITS},
        "required": ["city"],
        "$defs": {"Units": {"enum": ["celsius", "fahrenheit"], "type": "string"}},
    },
)
TOOLS = (
    WEATHER,
    tool("forecast", "Forecast of the coming days for a city", ("city",), city=STRING, days=INTEGER),
    tool("list_variables", "List the variables of the notebook."),
    tool("inspect_variable", "Show type and shape of a variable", ("name",), name=STRING),
    tool("run_python", "Run Python code", ("code",), code=STRING),
    tool("add", "Add two numbers", ("a", "b"), a=NUMBER, b=NUMBER),
    tool("send_email", "Send an e-mail", ("to", "subject"), to=STRING, subject=STRING, body=STRING),
    tool("search", "Search the web", ("query",), query=STRING),
    tool("read_file", "Read a text file", ("path",), path=STRING),
    tool("save_note", "Save a note", ("title", "text"), title=STRING, text=STRING, pinned={"type": "boolean"}),
    tool("plot", "Draw a histogram", ("values",), values={"type": "array", "items": NUMBER}),
)


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("What's the weather in Oslo?", [[("weather", {"city": "Oslo"})]]),
        ("Weather Oslo", [[("weather", {"city": "Oslo"})]]),
        ("the weather in new york, please", [[("weather", {"city": "new york"})]]),
        ("weather in Paris and Berlin", [[("weather", {"city": "Paris"}), ("weather", {"city": "Berlin"})]]),
        (
            "Weather in Oslo, Bergen and Bodø in fahrenheit",
            [
                [
                    ("weather", {"city": "Oslo"}),
                    ("weather", {"city": "Bergen"}),
                    ("weather", {"city": "Bodø", "units": "fahrenheit"}),
                ]
            ],
        ),
        (
            "What is the weather and the forecast in São Paulo?",
            [[("weather", {"city": "São Paulo"}), ("forecast", {"city": "São Paulo"})]],
        ),
        ("forecast for Paris, 3 days", [[("forecast", {"city": "Paris", "days": 3})]]),
        (
            "forecast for New York for 5 days, then list my variables",
            [[("forecast", {"city": "New York", "days": 5})], [("list_variables", {})]],
        ),
        ("inspect the variable df", [[("inspect_variable", {"name": "df"})]]),
        ("run python `df.describe() and 1`", [[("run_python", {"code": "df.describe() and 1"})]]),
        (
            "run python:\n```python\nimport os\nprint(1, 2)\n```",
            [[("run_python", {"code": "import os\nprint(1, 2)"})]],
        ),
        ("add 2 and 3", [[("add", {"a": 2, "b": 3})]]),
        ("please add 2.5 to -4", [[("add", {"a": 2.5, "b": -4})]]),
        ("add a=7, b=8", [[("add", {"a": 7, "b": 8})]]),
        (
            'send an email to bob@example.com with subject "Hi" and body "Hello and bye"',
            [[("send_email", {"to": "bob@example.com", "subject": "Hi", "body": "Hello and bye"})]],
        ),
        ("search for the best ramen in Tokyo", [[("search", {"query": "best ramen in Tokyo"})]]),
        ("read data/x.csv", [[("read_file", {"path": "data/x.csv"})]]),
        (
            "Save a note, title: Shopping list, text: milk, pinned",
            [[("save_note", {"title": "Shopping list", "text": "milk", "pinned": True})]],
        ),
        ("plot 1, 2, 3 and 4", [[("plot", {"values": [1, 2, 3, 4]})]]),
        ("tell me a joke about a city", []),
        ("Good morning! How are you?", []),
        ("", []),
    ],
)
def test_a_message_becomes_calls(prompt: str, wanted: list[Any]) -> None:
    steps = read(prompt, TOOLS)
    assert [[(wish.tool.name, wish.arguments) for wish in step] for step in steps] == wanted
    assert not [wish for step in steps for wish in step if wish.missing]


def ask(*messages: Message, tools: tuple[ToolSpec, ...] = TOOLS) -> ModelRequest:
    return ModelRequest(messages=messages, tools=tools)


def user(text: str) -> Message:
    return Message("user", (Text(text),))


def hear(request: ModelRequest, *, reasons: bool = True) -> tuple[tuple[Part, ...], Finished, int]:
    async def main() -> list[list[Fragment]]:
        return [burst async for burst in RulesModel(delay_s=0, reasons=reasons).stream(request)]

    bursts = asyncio.run(main())
    fragments = [fragment for burst in bursts for fragment in burst]
    last = fragments.pop()
    assert isinstance(last, Finished)
    return assemble(fragments), last, len(bursts)


def text_of(request: ModelRequest) -> str:
    parts, _, _ = hear(request, reasons=False)
    return "".join(part.text for part in parts if isinstance(part, Text))


def talk(prompt: str, *contents: str | ToolResult, tools: tuple[ToolSpec, ...] = TOOLS) -> str:
    """Answer the calls with these contents, one step after another, and return the last text."""
    messages = [user(prompt)]
    given = list(contents)
    for _ in range(5):
        parts, end, _ = hear(ask(*messages, tools=tools), reasons=False)
        calls = [part for part in parts if isinstance(part, ToolCall)]
        if not calls:
            assert not given, "not every result was asked for"
            return "".join(part.text for part in parts if isinstance(part, Text))
        assert end.finish_reason == "tool_calls"
        messages.append(Message("assistant", parts))
        results = []
        for call in calls:
            content = given.pop(0)
            is_error = isinstance(content, ToolResult)
            text = content.content if isinstance(content, ToolResult) else content
            results.append(ToolResult(call.call_id, call.name, text, is_error))
        messages.append(Message("tool", tuple(results)))
    raise AssertionError("it never stopped calling")


def error(content: str) -> ToolResult:
    return ToolResult("", "", content, is_error=True)


def test_it_calls_and_reports_as_a_table() -> None:
    text = talk("What's the weather in Oslo?", json.dumps({"sky": "rain | sleet", "celsius": 4.5, "is_day": False}))
    assert text.splitlines() == [
        "**`weather`** (city: Oslo) says:",
        "",
        "|  | value |",
        "| --- | --- |",
        "| sky | rain \\| sleet |",
        "| celsius | 4.5 |",
        "| is_day | no |",
    ]


def test_lists_of_objects_are_tables_with_a_limit() -> None:
    text = talk("list my variables", json.dumps([{"name": f"x{n}", "size": n} for n in range(25)]))
    assert "| name | size |" in text
    assert "| x19 | 19 |" in text
    assert "| x20 | 20 |" not in text
    assert text.endswith("… and 5 more")


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ('["a", "b"]', "- a\n- b"),
        ("5", "**5**"),
        ("Rain until noon.\nThen sun.", "> Rain until noon.\n> Then sun."),
        ("", "*(nothing)*"),
        ("{}", "*(nothing)*"),
        ('{"now": {"sky": "rain"}}', "**now**\n\n|  | value |\n| --- | --- |\n| sky | rain |"),
    ],
)
def test_each_kind_of_result_has_its_form(content: str, shown: str) -> None:
    assert talk("list my variables", content) == f"**`list_variables`** says:\n\n{shown}"


def test_then_waits_for_the_results_before() -> None:
    text = talk("add 1 and 2, then list my variables", "3", '["x"]')
    assert text == "**`add`** (a: 1, b: 2) says:\n\n**3**\n\n**`list_variables`** says:\n\n- x"


def test_a_denial_is_explained_and_ends_the_plan() -> None:
    denied = error("run_python was not run: denied by the user: not on this machine")
    text = talk("run python `rm()` then list my variables", denied)
    assert text == (
        "**`run_python`** (code: rm()) was denied by the user: not on this machine. It did not run.\n\n"
        "So I did not go on with `list_variables`."
    )


def test_an_error_is_quoted() -> None:
    text = talk("read data/x.csv", error("FileNotFoundError: data/x.csv"))
    assert text == "**`read_file`** (path: data/x.csv) failed:\n\n> FileNotFoundError: data/x.csv"


@pytest.mark.parametrize("prompt", ["Who are you?", "are you a language model?", "help", "what can you do"])
def test_it_says_that_it_is_rules(prompt: str) -> None:
    text = text_of(ask(user(prompt)))
    assert "rules, not a language model" in text
    for spec in TOOLS:
        assert f"`{spec.name}`" in text


def test_without_a_fitting_tool_it_says_so_and_lists_its_tools() -> None:
    text = text_of(ask(user("Write a sonnet about autumn")))
    assert text.startswith("None of my tools fits this message.")
    assert "rules, not a language model" in text
    assert "- **`weather`**: Weather now in a city (`city`, `units`)" in text


def test_without_tools_it_says_so() -> None:
    assert "I was given none" in text_of(ask(user("Write a sonnet"), tools=()))


def test_it_names_what_it_did_not_find() -> None:
    text = text_of(ask(user("what about the weather?")))
    assert "`weather` would fit, but I did not find `city`" in text
    assert "`city: …`" in text


def test_a_new_question_begins_anew() -> None:
    earlier = (
        user("weather in Oslo"),
        Message("assistant", (ToolCall("c1", "weather", '{"city": "Oslo"}'),)),
        Message("tool", (ToolResult("c1", "weather", "rain"),)),
        Message("assistant", (Text("rain"),)),
    )
    parts, _, _ = hear(ask(*earlier, user("and the weather in Rome?")))
    assert [part.arguments_text for part in parts if isinstance(part, ToolCall)] == ['{"city": "Rome"}']


def test_it_streams_word_by_word_and_can_be_seen_thinking() -> None:
    parts, end, bursts = hear(ask(user("weather in Oslo")))
    assert isinstance(parts[0], Reasoning)
    assert "weather → weather" in parts[0].text
    assert bursts > 10
    assert end.usage.is_estimated
    assert end.usage.input_tokens
    assert end.usage.output_tokens
    assert (end.cost_usd, end.cost_basis) == (0.0, "prices")


def test_a_long_answer_is_not_told_word_by_word() -> None:
    request = ask(user("Who are you?"), tools=tuple(tool(f"t{n}", "word " * 50) for n in range(100)))
    _, _, bursts = hear(request)
    assert bursts < 300


def test_words_take_their_time() -> None:
    async def main() -> float:
        began = time.monotonic()
        async for _ in RulesModel(delay_s=0.005).stream(ask(user("Who are you?"), tools=())):
            pass
        return time.monotonic() - began

    assert asyncio.run(main()) > 0.1


def test_it_is_a_model() -> None:
    assert isinstance(RulesModel(), Model)


@pytest.mark.parametrize(
    "piece", ["word ", "weather in Oslo, and ", "1, ", "Oslo, ", "title: x ", ".,;", "-", "a", "1", '"', "`", "a/b.c "]
)
def test_a_prompt_of_megabytes_does_not_hold_the_loop(piece: str) -> None:
    prompt = "weather and save a note " + piece * (5_000_000 // len(piece))
    request = ask(user(prompt))
    hear(request)  # the first one compiles patterns

    async def main() -> float:
        """The longest time, in seconds, for which nothing else could run."""
        longest = 0.0

        async def watch() -> None:
            nonlocal longest
            while True:
                before = time.perf_counter()
                await asyncio.sleep(0)
                longest = max(longest, time.perf_counter() - before)

        watcher = asyncio.create_task(watch())
        async for _ in RulesModel(delay_s=0).stream(request):
            pass
        watcher.cancel()
        return longest

    assert min(asyncio.run(main()) for _ in range(3)) < 0.5, "some 30 ms on an idle machine"


def test_of_a_long_message_the_two_ends_are_read_and_it_says_so() -> None:
    prompt = "weather in Oslo. " + "Nothing much. " * 1000 + "Then list my variables."
    text = talk(prompt, "rain", '["x"]')
    assert "**`weather`** (city: Oslo) says:" in text and "**`list_variables`** says:" in text
    assert text.endswith("(I have read the first and the last 2,000 characters of this message only.)")


def test_an_argument_that_was_not_read_whole_is_not_used() -> None:
    text = text_of(ask(user("run python ```\n" + "x = 1\n" * 2000 + "```")))
    assert "`run_python` would fit, but I did not find `code`" in text and "2,000 characters" in text
    parts, _, _ = hear(ask(user("run python ```\n" + "x = 1\n" * 500 + "```")))
    assert [len(part.arguments_text) > 3000 for part in parts if isinstance(part, ToolCall)] == [True]


def test_a_number_of_any_length_is_no_failure() -> None:
    assert text_of(ask(user("add " + "1" * 3000 + " and 2")))
    parts, _, _ = hear(ask(user("forecast for Oslo, 12345678901234567891 days")))
    assert [json.loads(p.arguments_text)["days"] for p in parts if isinstance(p, ToolCall)] == [12345678901234567891]


def test_the_cells_above_are_no_wish() -> None:
    above = Text("[from cells]\nIn [1]:\nInspect the variable `city`\n\n")
    notice = Text("[notice] run_python is not there\n\n")
    message = Message("user", (notice, above, Text("Inspect the variable `prices`.")))
    [call] = [part for part in hear(ask(message))[0] if isinstance(part, ToolCall)]
    assert (call.name, json.loads(call.arguments_text)) == ("inspect_variable", {"name": "prices"})
