"""Cassettes: recorded once, then offline; what is missing is said loudly; the file is plain and stable."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pytests import run_pytest
from turncell import Agent, Image, Message, ModelFailure, Run, StoreError, Text, UsageError, cassette, compare, tool
from turncell.adapters.litellm_model import LiteLLMModel
from turncell.adapters.scripted_model import Entry, ScriptedModel, call, think
from turncell.core.parts import Usage
from turncell.frames.transcript import mimebundle
from turncell.runtime.ports import ModelRequest
from turncell.testing import reply, serve

pytestmark = [pytest.mark.feature("C12"), pytest.mark.feature("G5")]

ROOT = Path(__file__).parents[2]
SANITIZE = ROOT / "notebooks" / "sanitize.cfg"
"""HTML shows how long a turn took."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


@pytest.fixture(autouse=True)
def _nothing_stays_active() -> Iterator[None]:
    yield
    assert Agent(ScriptedModel(["still here"])).run_sync("Hello").text == "still here"


@tool(effect="read")
def weather(city: str) -> str:
    """The weather."""
    return f"rain in {city}"


def agent(*script: Entry, **options: Any) -> Agent:
    model = ScriptedModel(script, options.pop("name", "scripted"), price=options.pop("price", None))
    return Agent(model, tools=[weather], **options)


def record(path: Path, *script: Entry, prompt: str = "How is the weather?", **options: Any) -> Run:
    with cassette(path, mode="record"):
        return agent(*script, **options).run_sync(prompt)


def replayed(path: Path, prompt: str = "How is the weather?", **options: Any) -> Run:
    with cassette(path):
        return agent(**options).run_sync(prompt)


ASKS = call("weather", city="Oslo")


class TestRecordedAndReplayed:
    def test_a_run_is_the_same_again_and_no_model_is_asked(self, path: Path) -> None:
        first = record(path, [think("hm", signature="seal"), "Let me see. ", ASKS, ASKS], "It rains, Tromsø 🌦.")
        again = replayed(path)
        assert again.status == "completed" and compare(first, again) is None
        assert again.state.steps[0].message is not None
        assert [part.type for part in again.state.steps[0].message.parts] == [
            "reasoning",
            "text",
            "tool_call",
            "tool_call",
        ]
        assert again.text == "It rains, Tromsø 🌦."

    def test_it_is_streamed_in_pieces(self, path: Path) -> None:
        text = "It will rain all day long."
        record(path, text)
        pieces: list[str] = []

        async def main() -> None:
            async with cassette(path):
                async for event in agent().stream("How is the weather?"):
                    if event.type == "TextDelta":
                        pieces.append(event.text)

        asyncio.run(main())
        assert "".join(pieces) == text

    def test_usage_and_cost_are_those_of_the_recording_and_the_record_says_that_nobody_was_paid(
        self, path: Path
    ) -> None:
        first = record(path, "It rains all day.", price=(1.0, 2.0))
        again = replayed(path)
        assert first.cost_usd and again.cost_usd == first.cost_usd and again.usage == first.usage
        assert again.state.steps[0].cost_basis == "user"
        assert (first.state.steps[0].answered_by, again.state.steps[0].answered_by) == (
            "scripted",
            "scripted (recorded)",
        )

    def test_a_conversation_is_known_by_all_that_was_said(self, path: Path) -> None:
        with cassette(path, mode="record"):
            session = agent(ASKS, "Rain.", "Tomorrow too.").session()
            texts = [session.send(said).result().text for said in ("How is the weather?", "And tomorrow?")]
        with cassette(path):
            session = agent().session()
            assert [session.send(said).result().text for said in ("How is the weather?", "And tomorrow?")] == texts

    def test_the_same_request_gets_its_answers_in_order_and_then_the_last_again(self, path: Path) -> None:
        with cassette(path, mode="record"):
            one = agent("first", "second")
            _ = [one.run_sync("Again!") for _ in range(2)]
        for _ in range(2):  # each time from the beginning
            with cassette(path):
                assert [agent().run_sync("Again!").text for _ in range(3)] == ["first", "second", "second"]

    def test_a_sub_agent_goes_through_it_too(self, path: Path) -> None:
        def family(outer: tuple[Entry, ...], inner: tuple[Entry, ...]) -> Agent:
            child = Agent(ScriptedModel(inner, "inner"), name="child")
            return Agent(ScriptedModel(outer, "outer"), tools=[child.as_tool()])

        with cassette(path, mode="record"):
            family((call("child", task="look"), "Done."), ("I looked.",)).run_sync("Go")
        with cassette(path):
            again = family((), ()).run_sync("Go")
        assert again.text == "Done." and again.tool_calls[0].content == "I looked."

    def test_a_real_provider_is_recorded_over_http_and_not_needed_again(self, path: Path) -> None:
        def ask(base_url: str) -> Run:
            model = LiteLLMModel(
                "openai/gpt-4o-mini", api_key="sk-abcdefghij0123456789", base_url=base_url, timeout_s=20
            )
            return Agent(model, tools=[weather]).run_sync("How is the weather?")

        script = [
            reply("Let me see.", calls=[call("weather", city="Oslo")]),
            reply("It rains.", usage=Usage(1000, 500)),
        ]
        with serve(script) as server, cassette(path, mode="record"):
            first = ask(server.base_url)
        with cassette(path):
            again = ask("http://127.0.0.1:9/v1")
        assert len(server.requests) == 2 and compare(first, again) is None
        assert again.cost_usd == first.cost_usd and again.cost_usd
        assert b"sk-abcdefghij" not in path.read_bytes()

    def test_images_are_part_of_what_was_asked(self, path: Path) -> None:
        def look(url: str) -> Message:
            return Message("user", (Text("What is this?"), Image(url)))

        with cassette(path, mode="record"):
            agent("A cat.").run_sync(look("https://example.org/cat.png"))
        with cassette(path):
            assert agent().run_sync(look("https://example.org/cat.png")).text == "A cat."
        with pytest.raises(ModelFailure, match=r"image from character 21"), cassette(path):
            agent().run_sync(look("https://example.org/dog.png"))


class TestMisses:
    def test_a_miss_fails_the_run_at_once_and_names_the_nearest_recording_and_the_first_difference(
        self, path: Path
    ) -> None:
        with cassette(path, mode="record"):
            agent("Rain.").run_sync("How is the weather in Oslo?")
            agent("Sun.").run_sync("What time is it?")
        asked = ScriptedModel(["never said"])
        tape = cassette(path).start()
        run = Agent(asked).run_sync("How is the weather in Bergen?")
        tape.stop()
        assert run.status == "failed" and run.state.error_kind == "bad_request" and asked.requests == []
        assert len(tape.misses) == 1, "it was not tried again"
        error = run.state.error or ""
        assert f"{str(path)!r} has no answer of model 'scripted' for step 1 of run {run.id!r}" in error
        assert "the nearest is recording 1 of 2" in error
        assert "mode='auto' adds what is missing" in error

    @pytest.mark.parametrize(
        ("changed", "difference"),
        [
            ({"prompt": "How is the weather!"}, "message 1 (user) differs: from character 19"),
            ({"instructions": "Be brief."}, "its instructions differ: from character 1 '' against 'Be brief.'"),
            ({"name": "other"}, "its model differs: from character 1 'scripted' against 'other'"),
            ({"temperature": 0.5}, 'its options differ: {} against {"temperature": 0.5}'),
        ],
    )
    def test_the_first_difference_is_said(self, path: Path, changed: dict[str, Any], difference: str) -> None:
        record(path, "Rain.")
        with pytest.raises(ModelFailure) as caught:
            replayed(path, **changed)
        assert difference in str(caught.value)

    def test_another_tool_is_another_request(self, path: Path) -> None:
        record(path, "Rain.")
        with pytest.raises(ModelFailure, match="its tools differ"), cassette(path):
            Agent(ScriptedModel([])).run_sync("How is the weather?")

    def test_a_tool_that_returns_something_else_is_a_miss_that_shows_both_results(self, path: Path) -> None:
        record(path, ASKS, "It rains.")

        @tool(name="weather", effect="read")
        def sunny(city: str) -> str:
            """The weather."""
            return f"sun in {city}"

        with (
            pytest.raises(ModelFailure, match=r"message 3 .tool. differs: content from .* 'rain in Oslo'"),
            cassette(path),
        ):
            Agent(ScriptedModel([]), tools=[sunny]).run_sync("How is the weather?")

    def test_a_miss_in_a_sub_agent_is_not_silent_though_the_run_above_goes_on(self, path: Path) -> None:
        def family(*inner: Entry, **options: Any) -> Agent:
            child = Agent(ScriptedModel(inner, "inner"), name="child", **options)
            return Agent(
                ScriptedModel([call("child", task="look"), "Done.", "Never mind."], "outer"), tools=[child.as_tool()]
            )

        with cassette(path, mode="record"):
            family("I looked.").run_sync("Go")
        with (
            pytest.raises(ModelFailure, match=r"has no answer of model 'inner'.*its instructions differ"),
            cassette(path),
        ):
            family(instructions="Look twice.").run_sync("Go")

    def test_an_error_of_the_block_itself_is_not_covered(self, path: Path) -> None:
        record(path, "Rain.")
        with pytest.raises(KeyError), cassette(path):
            agent().run_sync("Something else")
            raise KeyError("mine")

    def test_an_empty_cassette_says_that_it_is_empty(self, path: Path) -> None:
        path.write_text('{"turncell_cassette":1}\n')
        with pytest.raises(ModelFailure, match="it is empty"):
            replayed(path)


class TestModes:
    def test_auto_replays_what_is_there_and_records_what_is_not(self, path: Path) -> None:
        record(path, "Rain.")
        model = ScriptedModel(["Sun."])
        for _ in range(2):
            with cassette(path, mode="auto"):
                one = Agent(model, tools=[weather])
                texts = [one.run_sync(said).text for said in ("How is the weather?", "And tomorrow?")]
            assert texts == ["Rain.", "Sun."] and len(model.requests) == 1
        assert replayed(path, "And tomorrow?").text == "Sun."

    def test_auto_begins_without_a_file_and_replay_does_not(self, path: Path) -> None:
        with pytest.raises(StoreError, match=r"there is no cassette .* mode='record' or mode='auto'"):
            replayed(path)
        with cassette(path.parent / "new" / "answers.jsonl", mode="auto"):
            assert agent("Rain.").run_sync("How is the weather?").text == "Rain."
        assert replayed(path.parent / "new" / "answers.jsonl").text == "Rain."

    def test_record_replaces_what_was_there_and_not_before_there_is_something_new(self, path: Path) -> None:
        record(path, "Rain.")
        before = path.read_bytes()
        with cassette(path, mode="record"):
            assert agent(ModelFailure("auth", "no key")).run_sync("How is the weather?").status == "failed"
        assert path.read_bytes() == before
        record(path, "Sun.")
        assert replayed(path).text == "Sun." and b"Rain" not in path.read_bytes()

    def test_a_decorated_test_has_a_cassette_of_its_own_each_time(self, path: Path) -> None:
        record(path, "Rain.")

        @cassette(path)
        def check(prompt: str) -> str:
            return agent().run_sync(prompt).text

        @cassette(path)
        async def check_async(prompt: str) -> str:
            return (await agent().run(prompt)).text

        assert [check("How is the weather?") for _ in range(2)] == ["Rain.", "Rain."]
        assert asyncio.run(check_async("How is the weather?")) == "Rain."
        assert check.__name__ == "check" and asyncio.iscoroutinefunction(check_async)

    def test_a_cell_that_starts_one_may_be_run_again(self, path: Path) -> None:
        record(path, "Rain.")
        for _ in range(2):
            tape = cassette(path).start()
            assert agent().run_sync("How is the weather?").text == "Rain."
        tape.stop()
        tape.stop()

    def test_only_one_is_active(self, path: Path) -> None:
        record(path, "Rain.")
        with cassette(path), pytest.raises(UsageError, match="a cassette is active already"):
            cassette(path.parent / "other.jsonl", mode="auto").start()
        with cassette(path):
            for begin in (cassette(path).__enter__, cassette(path).start):
                with pytest.raises(UsageError, match="a cassette is active already"):
                    begin()
            assert agent().run_sync("How is the weather?").text == "Rain.", "the outer one goes on"

    def test_what_it_cannot_be_is_said(self, path: Path) -> None:
        with pytest.raises(UsageError, match="mode is 'play'; use one of replay, record, auto"):
            cassette(path, mode="play")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="delay_s is -1"):
            cassette(path, delay_s=-1)

    def test_budgets_count_what_is_replayed_as_what_was_paid(self, path: Path) -> None:
        record(path, ASKS, "It rains.", price=(1e4, 1e4))
        assert replayed(path, price=(1e4, 1e4), budget={"usd": 0.01}).status == "budget"


class TestTheFile:
    def test_it_is_lines_that_a_person_reads(self, path: Path) -> None:
        record(path, ["Let me see.", ASKS], "It rains in Tromsø.", instructions="Be brief.")
        header, *lines = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
        assert header == {"turncell_cassette": 1} and len(lines) == 2
        assert lines[0]["answer"]["parts"] == [
            {"text": "Let me see."}, {"call": "weather", "arguments": '{"city": "Oslo"}'}
        ]  # fmt: skip
        assert lines[1]["request"]["messages"] == [
            {"role": "user", "parts": ["How is the weather?"]},
            {
                "role": "assistant",
                "parts": [
                    "Let me see.",
                    {"call": "call_1", "name": "weather", "arguments": '{"city": "Oslo"}'},
                ],
            },
            {
                "role": "tool",
                "parts": [{"result": "call_1", "name": "weather", "content": "rain in Oslo", "is_error": False}],
            },
        ]
        assert "Tromsø" in path.read_text(encoding="utf-8")

    def test_recording_the_same_again_changes_no_byte(self, path: Path) -> None:
        contents = set()
        for _ in range(2):
            record(path, [ASKS, ASKS], "It rains.")
            contents.add(path.read_bytes())
        assert len(contents) == 1

    def test_runs_side_by_side_are_kept_in_the_order_in_which_they_asked(self, path: Path) -> None:
        async def main() -> None:
            async with cassette(path, mode="record"):
                is_asked = asyncio.Event()
                loop = asyncio.get_running_loop()

                async def slowly(request: ModelRequest) -> str:
                    loop.call_soon_threadsafe(is_asked.set)
                    await asyncio.sleep(0.2)
                    return "slow"

                slow = Agent(ScriptedModel(slowly)).start("first")
                await is_asked.wait()
                await Agent(ScriptedModel(["quick"])).run("second")
                await slow

        asyncio.run(main())
        said = [json.loads(line)["answer"]["parts"] for line in path.read_text().splitlines()[1:]]
        assert said == [[{"text": "slow"}], [{"text": "quick"}]]

    def test_nothing_else_is_left_beside_it(self, path: Path) -> None:
        record(path, "Rain.")
        assert [entry.name for entry in path.parent.iterdir() if not entry.name.startswith("history")] == [path.name]

    def test_secrets_are_blanked_and_it_is_found_all_the_same(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SHOP_TOKEN", "correct horse")
        prompt = "My password is correct horse and the key sk-proj-abcdefghij0123456789."
        record(path, "I will not repeat 'correct horse'.", prompt=prompt)
        content = path.read_text()
        assert "correct horse" not in content and "abcdefghij" not in content and content.count("[redacted: ") == 3
        assert replayed(path, prompt).text == "I will not repeat '[redacted: SHOP_TOKEN]'."

    def test_what_every_text_may_hold_survives(self, path: Path) -> None:
        nasty = 'a\u2028b\x00c\ud800d \\n "quoted"\n\n' + "x" * 30
        record(path, nasty, prompt="line\u2028line")
        assert replayed(path, "line\u2028line").text == nasty

    def test_one_process_writes_it(self, path: Path) -> None:
        with cassette(path, mode="record"):
            context = multiprocessing.get_context("spawn")
            with context.Pool(1) as pool:
                assert "is being written by another process" in pool.apply(_try_to_write, (str(path),))

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "is no cassette: its first line is b''"),
            (b"PK\x03\x04 not text", "is no cassette: its first line"),
            (b"[1]\n", "is no cassette"),
            (b'{"turncell_cassette":99}\n', "has version 99"),
            (b"[" * 100_000, "is no cassette"),
            (b'{"turncell_cassette":1}\n{"request":{"messages":[]},"answer":{"parts":[]', "line 2 .* is no recording"),
            (b'{"turncell_cassette":1}\n' + b'{"a":' * 100_000, "line 2 .* is no recording"),
            (b'{"turncell_cassette":1}\n{"request":{"messages":[7]},"answer":{"parts":[]}}\n', "request.messages"),
            (
                b'{"turncell_cassette":1}\n{"request":{"messages":[]},"answer":{"parts":[{"text":1}]}}\n',
                "line 2 .* is no recording .answer.parts.0.text is 1: input should be a valid string",
            ),
            (b'{"turncell_cassette":1}\n{"answer":{"parts":[]}}\n', r"is no recording \(request is missing\)"),
            (b'{"turncell_cassette":1}\n[1]\n', r"an object with request and answer is needed, not \[1\]"),
            (b'{"turncell_cassette":1}\n{"request":{"messages":[]},"answer":{"parts":[{}]}}\n', "a part is one of"),
            (
                b'{"turncell_cassette":1}\n{"request":{"messages":[]},"answer":{"parts":[],"run":"rm -rf"}}\n',
                "answer.run is no field of it",
            ),
            (
                b'{"turncell_cassette":1}\n{"request":{"messages":[],"__class__":"os"},"answer":{"parts":[]}}\n',
                "are no fields of it",
            ),
            (
                b'{"turncell_cassette":1}\n{"request":{"messages":[]},"answer":{"parts":[],"usage":{"self":1}}}\n',
                "are no tokens",
            ),
        ],
    )
    def test_a_file_that_is_none_is_refused_and_left_alone(self, path: Path, content: bytes, said: str) -> None:
        path.write_bytes(content)
        for mode in ("replay", "auto"):
            with pytest.raises(StoreError, match=said), cassette(path, mode=mode):  # type: ignore[arg-type]
                pass
        assert path.read_bytes() == content

    def test_recording_does_not_replace_a_file_of_somebody_else(self, path: Path) -> None:
        path.write_text("my notes")
        with pytest.raises(StoreError, match="is no cassette"):
            record(path, "Rain.")
        assert path.read_text() == "my notes"

    def test_a_pipe_is_refused_and_not_waited_for(self, path: Path) -> None:
        os.mkfifo(path)
        with pytest.raises(StoreError, match="is no regular file"), cassette(path):
            pass

    def test_a_disk_that_refuses_is_a_failed_run_and_nothing_is_paid_twice(self, path: Path) -> None:
        model = ScriptedModel(["Rain.", "Rain."])
        with cassette(path, mode="record"):
            path.mkdir()
            run = Agent(model).run_sync("How is the weather?")
        assert run.status == "failed" and "cannot be written" in (run.state.error or "") and len(model.requests) == 1
        assert not path.with_name(f"{path.name}.new").exists()


class TestNotebooks:
    CELLS = (
        """import os
from turncell import Agent, cassette, tool
tape = cassette("answers.jsonl", mode=os.environ.get("ANSWERS", "replay")).start()""",
        """@tool(effect="read")
def weather(city: str) -> str:
    "The weather."
    return f"rain in {city}"

guide = Agent("openai/gpt-4o-mini", tools=[weather])
guide.run_sync("How is the weather in Oslo?").raise_for_status().text""",
        """%load_ext turncell
from turncell import Settings, settings
settings.use(Settings(model="openai/gpt-4o-mini"))""",
        """%%agent
Say hello to everybody""",
    )

    def test_one_with_a_cassette_beside_it_runs_offline_with_the_outputs_that_it_has(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import nbformat
        from nbclient import NotebookClient

        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in self.CELLS])
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        script = [
            reply("Let me see.", calls=[call("weather", city="Oslo")]),
            reply("It rains."),
            reply("Hello, everybody!"),
        ]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        with serve(script) as server, monkeypatch.context() as online:
            online.setenv("OPENAI_API_KEY", "sk-abcdefghij0123456789")
            online.setenv("OPENAI_BASE_URL", server.base_url)
            online.setenv("OPENAI_API_BASE", server.base_url)
            online.setenv("ANSWERS", "record")
            NotebookClient(book, timeout=100, resources={"metadata": {"path": str(tmp_path)}}).execute()
        assert len(server.requests) == 3 and "It rains." in book.cells[1].outputs[0]["data"]["text/plain"]
        nbformat.write(book, tmp_path / "guide.ipynb")
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
        monkeypatch.setenv("OPENAI_API_BASE", "http://127.0.0.1:9/v1")
        checked = run_pytest(
            tmp_path, "--nbval", "--nbval-current-env", "--nbval-sanitize-with", str(SANITIZE), "guide.ipynb",
            plugins=["nbval.plugin", "pytest_timeout"],  # this project's settings name the limit
        )  # fmt: skip
        assert checked.returncode == 0, checked.stdout
        assert "4 passed" in checked.stdout


@pytest.mark.parametrize("is_called", [True, False])
def test_a_thought_that_took_longer_is_no_difference_to_nbval(is_called: bool) -> None:
    """Of a quick one no time is said at all."""
    patterns = re.findall("^regex: (.*)$\n^replace: (.*)$", SANITIZE.read_text(), re.MULTILINE)  # as nbval reads it
    guide = (ROOT / "docs" / "cassettes.md").read_text(encoding="utf-8")
    assert len(patterns) == 2 and all(f"regex: {regex}\nreplace: {by}\n" in guide for regex, by in patterns)

    def shown(delay_s: float) -> str:
        thought = think("Hm.", delay_s=delay_s, chunk=99)
        script: list[Entry] = [[thought, call("weather", city="Oslo")], "Rain."] if is_called else [[thought, "Rain."]]
        html = mimebundle(Agent(ScriptedModel(script), tools=[weather]).run_sync("Go.").state)["text/html"]
        for regex, by in patterns:
            html = re.sub(regex, by, html)
        return html

    quick = shown(0)
    assert "hought" in quick and quick == shown(0.8)


def _try_to_write(path: str) -> str:
    try:
        cassette(path, mode="auto").start()
    except StoreError as error:
        return str(error)
    return "it was written"
