"""Cassettes where people use them: on functions and fixtures, in threads, forgotten, and in notebooks that nbval compares."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.pytests import run_pytest
from turncell import Agent, ModelFailure, UsageError, cassette
from turncell.testing import ScriptedModel, no_cassette_left

pytestmark = [pytest.mark.feature("C12"), pytest.mark.feature("G5")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    with cassette(path, mode="record"):
        Agent(ScriptedModel(["Rain."])).run_sync("How is the weather?")
    return path


@pytest.fixture(autouse=True)
def _nothing_stays_active() -> Iterator[None]:
    with no_cassette_left():
        yield


def ask() -> str:
    """From the cassette: the model itself would fail."""
    return Agent(ScriptedModel([])).run_sync("How is the weather?").text


class TestDecorated:
    def test_a_generator_is_covered_from_its_first_value_to_its_end(self, path: Path) -> None:
        @cassette(path)
        def answers() -> Iterator[str]:
            yield ask()
            yield ask()

        assert inspect.isgeneratorfunction(answers), "pytest asks for this"
        assert list(answers()) == ["Rain.", "Rain."]
        first = answers()
        assert next(first) == "Rain."
        first.close()  # which ends the block too: see the fixture of this module

    def test_what_a_generator_is_sent_and_what_it_returns_get_through(self, path: Path) -> None:
        @cassette(path)
        def echo() -> Any:
            got = yield ask()
            try:
                yield got
            except KeyError:
                return "returned"

        def outer() -> Any:
            return (yield from echo())

        values = outer()
        assert (next(values), values.send("sent")) == ("Rain.", "sent")
        with pytest.raises(StopIteration) as end:
            values.throw(KeyError())
        assert end.value.value == "returned"

    def test_an_async_generator_is_covered_and_gets_what_its_block_raises(self, path: Path) -> None:
        closed: list[str] = []

        @asynccontextmanager
        @cassette(path)
        async def answers() -> AsyncIterator[str]:
            try:
                yield (await Agent(ScriptedModel([])).run("How is the weather?")).text
            except KeyError:
                closed.append("KeyError")
            finally:
                closed.append("end")

        @cassette(path)
        async def two() -> AsyncIterator[str]:
            for _ in range(2):
                yield (await Agent(ScriptedModel([])).run("How is the weather?")).text

        async def main() -> list[str]:
            async with answers() as text:
                assert text == "Rain."
                raise KeyError
            return [text async for text in two()]

        assert asyncio.run(main()) == ["Rain.", "Rain."] and closed == ["KeyError", "end"]

    def test_a_miss_in_a_generator_is_said_at_its_end(self, path: Path) -> None:
        @cassette(path)
        def wrong() -> Iterator[str]:
            yield Agent(ScriptedModel(["paid"])).run_sync("Something else").text

        with pytest.raises(ModelFailure, match="has no answer of model 'scripted'"):
            list(wrong())

    def test_a_class_is_refused_with_what_to_do_instead(self, path: Path) -> None:
        with pytest.raises(UsageError, match=r"Weather is a class; decorate its methods, or put .* autouse fixture"):

            @cassette(path)
            class Weather:
                pass

        with pytest.raises(UsageError, match=r"put @cassette.* next to the `def`"):

            class Other:
                @cassette(path)
                @classmethod
                def ask(cls) -> None: ...

    def test_what_runs_only_after_the_end_is_refused_and_not_paid_for(self, path: Path) -> None:
        @cassette(path)
        @contextmanager
        def block() -> Iterator[str]:
            yield ask()

        async def later() -> None: ...

        for begin in (block, cassette(path)(lambda: later()), cassette(path)(lambda: (ask() for _ in range(2)))):
            with pytest.raises(UsageError, match="runs only after the cassette has ended"):
                begin()

    def test_one_without_a_file_is_told_how_it_is_written(self) -> None:
        with pytest.raises(UsageError, match=r"is no path; write cassette\('answers.jsonl'\)"):
            cassette(ask)  # type: ignore[arg-type]


class TestOneAtATime:
    def test_the_second_is_told_where_the_first_was_begun(self, path: Path) -> None:
        tape = cassette(path).start()
        with pytest.raises(UsageError) as caught:
            cassette(path.parent / "other.jsonl", mode="auto").start()
        tape.stop()
        line = inspect.getsource(type(self).test_the_second_is_told_where_the_first_was_begun).splitlines()[1].strip()
        assert repr(str(path)) in str(caught.value) and f"{__file__}:" in str(caught.value)
        assert f"({line})" in str(caught.value)

    def test_of_a_decorator_the_function_is_named(self, path: Path) -> None:
        @cassette(path)
        def outer() -> None:
            with cassette(path):
                pass

        with pytest.raises(UsageError, match=rf"begun at {__file__}:\d+ \(@cassette\(path\)\)"):
            outer()

    def test_it_is_one_for_all_threads(self, path: Path) -> None:
        said: list[str] = []
        with cassette(path):
            threads = [threading.Thread(target=lambda: said.append(ask())) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

            def begin() -> None:
                with (
                    pytest.raises(UsageError, match=r"all its threads.*begin one around all that asks"),
                    cassette(path),
                ):
                    pass
                said.append("refused")

            thread = threading.Thread(target=begin)
            thread.start()
            thread.join()
        assert said == ["Rain."] * 3 + ["refused"]

    CONFTEST = """
import pytest
from turncell.testing import no_cassette_left

@pytest.fixture(autouse=True)
def _no_cassette_left():
    with no_cassette_left():
        yield
"""
    TESTS = """
from turncell import Agent, cassette
from turncell.testing import ScriptedModel

def test_one_that_forgets():
    tape = cassette("answers.jsonl").start()

def test_the_next():
    with cassette("answers.jsonl"):
        assert Agent(ScriptedModel([])).run_sync("How is the weather?").text == "Rain."
"""

    def test_one_that_is_forgotten_fails_the_test_that_forgot_it_and_no_other(self, path: Path) -> None:
        (path.parent / "conftest.py").write_text(self.CONFTEST)
        (path.parent / "test_mine.py").write_text(self.TESTS)
        done = run_pytest(path.parent, "test_mine.py")
        assert "2 passed, 1 error" in done.stdout, done.stdout
        assert "ERROR test_mine.py::test_one_that_forgets" in done.stdout
        assert "was left active; it was begun at" in done.stdout and "test_mine.py:6" in done.stdout


class TestNotebooks:
    @pytest.mark.full
    def test_a_cell_that_ends_with_start_is_the_same_for_nbval_recorded_and_replayed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import nbformat

        def cell(source: str, shown: str) -> Any:
            output = nbformat.v4.new_output("execute_result", {"text/plain": shown}, execution_count=1)
            return nbformat.v4.new_code_cell(source, outputs=[output], execution_count=1)

        first = """import os
from turncell import Agent, cassette
from turncell.testing import ScriptedModel
cassette("answers.jsonl", mode=os.environ["ANSWERS"]).start()"""
        asked = """model = ScriptedModel(["Rain."] if os.environ["ANSWERS"] == "record" else [])
Agent(model).run_sync("How is the weather?").text"""
        book = nbformat.v4.new_notebook(
            cells=[cell(first, "<cassette 'answers.jsonl'>"), cell(asked, "'Rain.'")],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        )
        nbformat.write(book, tmp_path / "weather.ipynb")
        for mode in ("record", "replay"):
            monkeypatch.setenv("ANSWERS", mode)
            done = run_pytest(tmp_path, "--nbval", "--nbval-current-env", "weather.ipynb", plugins=["nbval.plugin"])
            assert "2 passed" in done.stdout, done.stdout
        assert (tmp_path / "answers.jsonl").read_bytes().count(b"\n") == 2

    def test_what_is_shown_has_no_folder_of_this_machine(self, path: Path) -> None:
        shown = repr(cassette(path))
        with cassette(path) as tape:
            ask()
            assert repr(tape) == shown == "<cassette 'answers.jsonl'>"
        assert repr(cassette("kept/answers.jsonl")) == "<cassette 'kept/answers.jsonl'>"
