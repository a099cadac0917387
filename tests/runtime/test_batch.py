"""`agent.map`: one run for each row, and no row is lost, whatever becomes of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import BaseModel

from tests.runtime.pieces import Gate
from tests.runtime.rows import labeller, pid, sender
from turncell import Agent, Budget, MemoryWriter, ModelFailure, Price, Session, UsageError, model, runs_df, tool
from turncell.runtime.batch import Progress
from turncell.runtime.journal import Journal
from turncell.runtime.ports import ModelRequest
from turncell.testing import ScriptedModel, call, fault, reply, serve


def echo(request: ModelRequest) -> str:
    return request.messages[-1].text.upper()


def echoing(**options: Any) -> Agent:
    return Agent(ScriptedModel(echo, name="rows/echo", price=(1.0, 1.0)), **options)


def asked(agent: Agent) -> int:
    """How many model calls it has made."""
    model: Any = agent.model
    return len(model.requests)


@pytest.mark.feature("F1")
class TestRows:
    def test_a_frame_keeps_its_columns_its_order_and_its_index(self) -> None:
        frame = pd.DataFrame({"text": ["fox", "fails", "hen", "fox"], "n": [1, 2, 3, 4]}, index=["d", "a", "c", "a"])
        found = labeller().map(frame, "Classify: {text}", progress=False)
        assert list(found.index) == ["d", "a", "c", "a"]
        assert list(found.columns) == [
            "text", "n", "label", "length", "status", "error", "tokens", "cost_usd", "run_id",
        ]  # fmt: skip
        assert found["label"].tolist()[:1] + found["label"].tolist()[2:] == ["fox", "hen", "fox"]
        assert list(found["status"]) == ["completed", "failed", "completed", "completed"]
        assert found["error"].iloc[1] == "no key" and pd.isna(found["label"].iloc[1])
        assert found["run_id"].nunique() == 4
        assert list(frame.columns) == ["text", "n"]  # what was given is as it was

    def test_each_run_is_a_row_of_the_history(self) -> None:
        found = labeller().map(["fox", "hen"], "Classify: {text}", progress=False).set_index("run_id")
        history = runs_df().set_index("run_id").loc[list(found.index)]
        assert list(history["status"]) == list(found["status"])
        assert list(history["cost_usd"]) == list(found["cost_usd"])
        assert list(history["input_tokens"] + history["output_tokens"]) == list(found["tokens"])

    @pytest.mark.parametrize(
        "rows", [["a", "b"], pd.Series(["a", "b"]), [{"text": "a"}, {"text": "b"}], pd.DataFrame({"text": ["a", "b"]})]
    )
    def test_rows_may_be_of_any_kind(self, rows: Any) -> None:
        found = echoing().map(rows, progress=False)
        assert list(found["text"]) == ["a", "b"] and list(found["answer"]) == ["A", "B"]

    def test_a_series_keeps_its_name_and_a_prompt_may_be_a_function(self) -> None:
        found = echoing().map(pd.Series(["a", "b"], name="letter"), lambda row: f"{row['letter']}!", progress=False)
        assert list(found.columns)[:2] == ["letter", "answer"] and list(found["answer"]) == ["A!", "B!"]

    def test_a_type_without_fields_is_one_column(self) -> None:
        agent = Agent(ScriptedModel(lambda request: call("final_answer", value=["x", "y"])))
        found = agent.map(["a"], output=list[str], progress=False)
        assert found["output"].tolist() == [["x", "y"]]

    def test_columns_of_the_same_name_are_kept_apart(self) -> None:
        found = echoing().map(pd.DataFrame({"text": ["a"], "status": ["new"]}), "{text}", progress=False)
        assert found["status"].tolist() == ["new"] and found["status_run"].tolist() == ["completed"]

    def test_a_field_of_the_answer_may_be_called_as_a_column_of_the_run(self) -> None:
        class Verdict(BaseModel):
            status: str
            error: int
            text_run: str
            text: str

        said = call("final_answer", status="angry", error=3, text_run="b", text="a")
        found = Agent(ScriptedModel([said])).map(["x"], output=Verdict, progress=False)
        assert list(found.columns) == [
            "text", "status", "error", "text_run", "text_run_run", "status_run", "error_run", "tokens", "cost_usd", "run_id",
        ]  # fmt: skip
        row = found.iloc[0]
        assert [row["status"], row["error"], row["text_run"], row["text_run_run"]] == ["angry", 3, "b", "a"]
        assert row["status_run"] == "completed" and row["text"] == "x"

    def test_columns_on_two_levels_are_kept(self) -> None:
        frame = pd.DataFrame([["a", "b"]], columns=pd.MultiIndex.from_tuples([("text", "en"), ("status", "old")]))
        found = echoing().map(frame, lambda row: row["('text', 'en')"], progress=False)
        assert found[("status", "old")].tolist() == ["b"] and found["status_run"].tolist() == ["completed"]

    def test_a_prompt_may_name_any_column(self) -> None:
        frame = pd.DataFrame({0: ["a"], "user.name": ["Ada"], "first word": ["hi"], "x": [1.234]})
        found = echoing().map(frame, "{0} {user.name} {first word!r} {x:.1f} {{x}}", progress=False)
        assert found["answer"].tolist() == ["A ADA 'HI' 1.2 {X}"]
        with pytest.raises(UsageError, match="more than one column called 1"):
            echoing().map(pd.DataFrame({1: ["a"], "1": ["b"]}), "{1}")

    def test_a_row_whose_only_text_is_missing_is_not_asked(self) -> None:
        agent = echoing()
        found = agent.map(pd.DataFrame({"text": ["a", None, float("nan"), pd.NA]}), progress=False)
        assert list(found["status"]) == ["completed", "failed", "failed", "failed"] and asked(agent) == 1
        assert found["error"].iloc[1] == "no prompt could be made of this row: its text is missing"

    def test_a_row_of_which_no_prompt_can_be_made_is_a_failed_row(self) -> None:
        found = echoing().map([{"n": 1}, {"n": 0}], lambda row: f"{1 / row['n']}", progress=False)
        assert list(found["status"]) == ["completed", "failed"]
        assert "ZeroDivisionError" in found["error"].iloc[1] and pd.isna(found["run_id"].iloc[1])
        assert echoing().map(["a", " "], progress=False)["error"].iloc[1].startswith("the prompt is empty")

    def test_no_rows_are_no_runs(self) -> None:
        found = echoing().map(pd.DataFrame({"text": []}), "{text}", progress=False)
        assert len(found) == 0 and "status" in found

    def test_mistakes_are_said_before_anything_runs(self) -> None:
        agent = echoing()
        with pytest.raises(UsageError, match=r"wants 'txt'; the columns are \['text'\]"):
            agent.map(["a"], "{txt}")
        with pytest.raises(UsageError, match="which column is the prompt"):
            agent.map([{"a": 1, "b": 2}])
        with pytest.raises(UsageError, match="map takes a DataFrame"):
            agent.map("a text")
        with pytest.raises(UsageError, match="a budget has no limit called 'dollars'; use steps, tokens, usd"):
            agent.map(["a"], budget={"dollars": 1})
        with pytest.raises(UsageError, match=r"budget is 0.5; use a Budget or a mapping"):
            agent.map(["a"], budget=0.5)
        with pytest.raises(TypeError, match=r"Agent.map\(\) got an unexpected keyword argument 'mode'"):
            agent.map(["a"], mode="auto")  # type: ignore[call-arg]
        with pytest.raises(UsageError, match="concurrency is 0"):
            agent.map(["a"], concurrency=0)
        with pytest.raises(UsageError, match="executor is 3"):
            agent.map(["a"], executor=3)
        with pytest.raises(UsageError, match="progress is 'x'"):
            agent.map(["a"], progress="x")
        assert asked(agent) == 0

    def test_a_tool_may_map_and_its_rows_are_children_of_its_run(self) -> None:
        inner = echoing()

        @tool(effect="read")
        def shout(words: list[str]) -> str:
            """Shout."""
            return " ".join(inner.map(words, progress=False)["answer"])

        outer = Agent(ScriptedModel([call("shout", words=["a", "b"]), "Done."]), tools=[shout])
        run = outer.run_sync("Shout.")
        assert run.tool_calls[0].content == "A B"
        children = runs_df()[lambda df: df["parent_run_id"] == run.id]
        assert len(children) == 2

    def test_from_the_loop_it_says_how_to_wait(self) -> None:
        @tool(effect="read")
        async def shout() -> str:
            """Shout."""
            return str(echoing().map(["a"], progress=False))

        run = Agent(ScriptedModel([call("shout"), "Done."]), tools=[shout]).run_sync("Shout.")
        assert "asyncio.to_thread(agent.map" in str(run.tool_calls[0].content)

    def test_inside_a_running_event_loop_it_works_from_a_thread(self) -> None:
        async def main() -> Any:
            return await asyncio.to_thread(echoing().map, ["a"], progress=False)

        assert list(asyncio.run(main())["answer"]) == ["A"]


@pytest.mark.feature("F1")
class TestProgress:
    def test_a_callback_hears_of_every_row_in_the_thread_of_the_caller(self) -> None:
        told: list[tuple[Progress, Any]] = []
        labeller().map(
            ["fox", "fails", "hen"],
            "Classify: {text}",
            progress=lambda progress: told.append((progress, threading.current_thread())),
        )
        assert [progress.done for progress, _ in told] == [0, 1, 2, 3]
        assert {thread for _, thread in told} == {threading.current_thread()}
        last = told[-1][0]
        assert (last.total, last.failed, last.reused) == (3, 1, 0) and last.tokens > 0 and last.cost_usd > 0

    def test_one_that_raises_costs_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        def broken(progress: Progress) -> None:
            raise RuntimeError("broken")

        assert list(echoing().map(["a", "b"], progress=broken)["status"]) == ["completed"] * 2
        assert "broken" in caplog.text

    def test_the_bar_says_how_many(self, capfd: pytest.CaptureFixture[str]) -> None:
        echoing().map(["a", "b"], progress=True)
        assert "2/2" in capfd.readouterr().err


@pytest.mark.feature("F1")
class TestAgain:
    def test_rows_that_have_completed_are_not_paid_again(self) -> None:
        agent = labeller()
        rows = ["fox", "fails", "fox"]
        first = agent.map(rows, "Classify: {text}", resume="animals", progress=False)
        told: list[Progress] = []
        before = asked(agent)
        again = agent.map([*rows, "hen"], "Classify: {text}", resume="animals", progress=told.append)
        assert asked(agent) - before == 2  # the one that failed, and the new one
        assert list(again["run_id"])[:3:2] == list(first["run_id"])[::2]
        assert list(again["label"])[2:] == ["fox", "hen"]
        assert told[-1].reused == 2

    def test_the_batch_of_a_frame_can_be_gone_on_with_by_its_id(self) -> None:
        agent = echoing()
        first = agent.map(["a"], progress=False)
        assert list(agent.map(["a"], resume=first.attrs["batch"], progress=False)["run_id"]) == list(first["run_id"])

    def test_what_is_asked_otherwise_is_asked_anew(self) -> None:
        first = echoing().map(["a"], resume="x", progress=False)
        for other in (
            echoing(instructions="Shout.").map(["a"], resume="x", progress=False),
            echoing(temperature=0.5).map(["a"], resume="x", progress=False),
            echoing().map(["a"], resume="y", progress=False),
        ):
            assert other["run_id"].iloc[0] != first["run_id"].iloc[0]

    def test_a_row_that_failed_keeps_its_session_and_the_new_run_takes_the_place_of_the_old(self) -> None:
        model = ScriptedModel([ModelFailure("auth", "no key"), "Fine."])
        agent = Agent(model, attempts=1)
        first = agent.map(["a"], resume="x", progress=False)
        again = agent.map(["a"], resume="x", progress=False)
        assert list(again["answer"]) == ["Fine."]
        runs = runs_df().set_index("run_id")
        ids = [first["run_id"].iloc[0], again["run_id"].iloc[0]]
        assert runs.loc[ids, "session_id"].nunique() == 1
        assert [run.run_id for run in Session.load(runs.loc[ids[0], "session_id"]).runs] == ids[1:]

    def test_one_that_has_written_and_then_failed_is_not_begun_again(self) -> None:
        sent = []

        @tool
        def mail(to: str) -> str:
            """Send."""
            sent.append(to)
            return "sent"

        model = ScriptedModel([call("mail", to="a"), ModelFailure("auth", "no key")])
        agent = Agent(model, tools=[mail], mode="auto")
        agent.map(["Write to a."], resume="x", progress=False)
        again = agent.map(["Write to a."], resume="x", progress=False)
        assert sent == ["a"] and again["status"].iloc[0] == "failed"
        assert "is not run again" in again["error"].iloc[0]

    @pytest.mark.parametrize("depth", [1, 2])
    def test_nor_is_one_in_which_another_agent_has_written(self, depth: int) -> None:
        sent = []

        @tool
        def mail(to: str) -> str:
            """Send."""
            sent.append(to)
            return "sent"

        inner = Agent(ScriptedModel([call("mail", to="a"), "Sent."] * 2), name="clerk", tools=[mail], mode="auto")
        if depth == 2:
            script = [call("clerk", task="mail a"), "Sent."] * 2
            inner = Agent(ScriptedModel(script), name="chief", tools=[inner.as_tool()], mode="auto")
        model = ScriptedModel([call(inner.name, task="mail a"), ModelFailure("auth", "no key")] * 2)
        agent = Agent(model, tools=[inner.as_tool()], mode="auto", attempts=1)
        agent.map(["Write to a."], resume="x", progress=False)
        again = agent.map(["Write to a."], resume="x", progress=False)
        assert sent == ["a"] and again["status"].iloc[0] == "failed"
        assert "is not run again" in again["error"].iloc[0]

    def test_one_in_which_another_agent_has_only_read_is_run_again(self) -> None:
        @tool(effect="read")
        def look() -> str:
            """Look."""
            return "seen"

        inner = Agent(ScriptedModel([call("look"), "Seen."] * 2), name="scout", tools=[look])
        script = [call("scout", task="look"), ModelFailure("auth", "no key"), call("scout", task="look"), "Fine."]
        agent = Agent(ScriptedModel(script), tools=[inner.as_tool()], attempts=1)
        agent.map(["Look."], resume="x", progress=False)
        assert list(agent.map(["Look."], resume="x", progress=False)["answer"]) == ["Fine."]


@pytest.mark.feature("F1")
class TestStopped:
    def test_an_interrupt_ends_it_with_what_is_done(self) -> None:
        gate = Gate()

        async def answer(request: ModelRequest) -> str:
            if request.messages[0].text == "waits" and not gate.opened.is_set():
                await gate.wait_async()
            return "Fine."

        def interrupt(progress: Progress) -> None:
            if progress.done == 1:
                gate.was_reached()
                raise KeyboardInterrupt

        agent = Agent(ScriptedModel(answer, name="rows/interrupted"))
        rows = ["a", "waits", "b"]
        found = agent.map(rows, concurrency=1, resume="x", progress=interrupt)
        assert list(found["status"]) == ["completed", "cancelled", "cancelled"] and found.attrs["is_interrupted"]
        gate.open()
        rest = agent.map(rows, resume="x", progress=False)
        assert list(rest["status"]) == ["completed"] * 3 and rest["run_id"].iloc[0] == found["run_id"].iloc[0]

    def test_a_program_that_is_interrupted_gets_its_frame(self, tmp_path: Path) -> None:
        program = tmp_path / "program.py"
        program.write_text(
            "import asyncio, signal, sys\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background inherit that it is ignored\n"
            "from turncell import Agent\n"
            "from turncell.testing import ScriptedModel\n"
            "async def answer(request):\n"
            "    if request.messages[0].text != 'a':\n"
            "        print('waiting', flush=True)\n"
            "        await asyncio.sleep(60)\n"
            "    return 'Fine.'\n"
            "found = Agent(ScriptedModel(answer)).map(['a', 'b', 'c'], concurrency=1, progress=False)\n"
            "print(list(found['status']), found.attrs['is_interrupted'])\n"
        )
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        child = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True, env=environment)
        assert child.stdout is not None
        assert child.stdout.readline() == "waiting\n"
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=60)[0] == "['completed', 'cancelled', 'cancelled'] True\n"

    def test_one_budget_is_for_all_rows(self) -> None:
        agent = echoing()
        found = agent.map([f"row {n}" for n in range(10)], budget={"steps": 4}, resume="x", progress=False)
        assert list(found["status"].value_counts().sort_index()) == [6, 4] and asked(agent) == 4
        assert "budget" in found.loc[found["status"] == "budget", "error"].iloc[-1]
        more = agent.map([f"row {n}" for n in range(10)], resume="x", progress=False)
        assert set(more["status"]) == {"completed"} and asked(agent) == 10

    def test_a_budget_of_the_agent_holds_for_each_row_and_one_that_is_shared_for_all(self) -> None:
        each = echoing(budget={"steps": 1}).map(["a", "b", "c"], progress=False)
        assert list(each["status"]) == ["completed"] * 3
        shared = Budget(steps=2)
        both = echoing(budget=shared).map(["a", "b", "c"], progress=False)
        assert sorted(both["status"]) == ["budget", "completed", "completed"] and shared.spent.steps == 2

    def test_no_row_is_left_out_while_there_is_something_left(self) -> None:
        """What an answer may take is a guess: of the rows that begin together the first one sets aside all there is."""
        with serve([reply("Fine.")] * 12) as server:
            priced = model("some", base_url=server.base_url, api_key="none", price=Price(10.0, 20.0))
            budget = Budget(usd=0.01)
            found = Agent(priced).map([f"row {n}" for n in range(12)], budget=budget, progress=False)
        assert list(found["status"]) == ["completed"] * 12
        assert budget.spent.usd == pytest.approx(found["cost_usd"].sum()) and budget.spent.usd < 0.005


@pytest.mark.feature("F2")
def test_a_provider_that_asks_to_be_left_alone_is_left_alone() -> None:
    """Over HTTP: some of the rows are refused with 429 and a Retry-After, and all complete."""
    answers = [reply("Fine."), fault(429, retry_after_s=0.3), *[reply("Fine.") for _ in range(9)]]
    with serve(answers) as server:
        from turncell.adapters.direct_chat import DirectChat

        model = DirectChat("openai/gpt-5", base_url=server.base_url, api_key="none")
        found = Agent(model).map([f"row {n}" for n in range(10)], progress=False)
    assert list(found["status"]) == ["completed"] * 10


@pytest.mark.feature("F3")
class TestDask:
    @pytest.fixture
    def executor(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Executor]:
        from distributed import Client, LocalCluster

        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        with (
            LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None) as cluster,
            Client(cluster) as client,
        ):
            yield client.get_executor(pure=False, retries=0)

    def test_rows_run_on_the_cluster_and_none_is_written_twice(self, executor: Executor, tmp_path: Path) -> None:
        prefix = "a function of this test, which no worker can import: "
        agent = Agent(ScriptedModel(lambda request: prefix + request.messages[0].text, name="rows/dask"))
        found = agent.map([f"row {n}" for n in range(6)], executor=executor, progress=False)
        assert list(found["answer"]) == [f"{prefix}row {n}" for n in range(6)]
        assert set(runs_df()["run_id"]) == set(found["run_id"])
        # The scheduler hands out the task of a dead worker again, whatever `retries` says.
        path = tmp_path / "sent"
        rows = [f"send {path} one", f"send {path} dies"]
        found = sender().map(rows, executor=executor, concurrency=1, progress=False)
        assert list(found["status"]) == ["completed", "in_doubt"]
        assert path.read_text() == "one\ndies\n"


@pytest.mark.feature("F3")
class TestWorkers:
    @pytest.fixture
    def pool(self) -> Any:
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            yield pool

    def test_rows_run_in_processes_and_are_in_this_history(self, pool: Executor) -> None:
        writer = MemoryWriter()
        found = labeller(telemetry=writer).map(["fox", "fails", "hen"], "Classify: {text}", executor=pool)
        assert list(found["status"]) == ["completed", "failed", "completed"]
        assert list(found["label"])[::2] == ["fox", "hen"]
        assert set(runs_df()["run_id"]) == set(found["run_id"])
        assert {record.run_id for record in writer.records} == set(found["run_id"])

    def test_they_are_other_processes(self, pool: Executor) -> None:
        found = Agent(ScriptedModel(pid, name="rows/pid")).map(["a", "b"], executor=pool, progress=False)
        assert str(os.getpid()) not in set(found["answer"]) and all(map(str.isdigit, found["answer"]))

    def test_rows_that_have_completed_are_not_run_again(self, pool: Executor) -> None:
        first = labeller().map(["fox", "fails"], "Classify: {text}", executor=pool, resume="x", progress=False)
        again = labeller().map(["fox", "fails"], "Classify: {text}", executor=pool, resume="x", progress=False)
        assert again["run_id"].iloc[0] == first["run_id"].iloc[0]
        assert again["run_id"].iloc[1] != first["run_id"].iloc[1]

    def test_one_budget_is_for_all_rows_here_too(self, pool: Executor) -> None:
        budget = Budget(steps=3)
        rows = [f"row {n}" for n in range(6)]
        found = labeller().map(rows, "Classify: {text}", executor=pool, budget=budget, concurrency=2, progress=False)
        assert sorted(found["status"]) == ["budget"] * 3 + ["completed"] * 3
        assert budget.spent.steps == 3

    def test_a_worker_that_dies_after_a_write_leaves_it_in_doubt_and_nothing_is_written_twice(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "sent"
        rows = [f"send {path} one", f"send {path} dies"]
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found = sender().map(rows, executor=pool, concurrency=1, resume="x", progress=False)
        assert list(found["status"]) == ["completed", "in_doubt"]
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            again = sender().map(rows, executor=pool, concurrency=1, resume="x", progress=False)
        agent = sender()
        here = agent.map(rows, resume="x", progress=False)
        assert list(again["status"]) == list(here["status"]) == ["completed", "in_doubt"]
        assert path.read_text() == "one\ndies\n"
        session_id = runs_df().set_index("run_id").loc[here["run_id"].iloc[1], "session_id"]
        assert session_id in here["error"].iloc[1]
        decided = Session.load(session_id).resume(agent=agent, is_attended=True)
        decided.wait_request(60)
        decided.reply("sent")
        assert decided.result(60).status == "completed"
        assert list(agent.map(rows, resume="x", progress=False)["status"]) == ["completed"] * 2
        assert path.read_text() == "one\ndies\n"

    def test_a_row_whose_worker_died_in_a_read_goes_on_where_it_was(self, tmp_path: Path) -> None:
        rows = [f"die {tmp_path / 'mark'}"]
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found = sender().map(rows, executor=pool, resume="x", progress=False)
        assert list(found["status"]) == ["interrupted"] and "worker failed" in found["error"].iloc[0]
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            again = sender().map(rows, executor=pool, resume="x", progress=False)
        assert list(again["status"]) == ["completed"] and list(again["run_id"]) == list(found["run_id"])

    def test_what_cannot_travel_is_said_before_anything_runs(self, pool: Executor, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="cannot be sent to workers"):
            Agent(ScriptedModel([threading.Lock()])).map(["a"], executor=pool)  # type: ignore[list-item]
        from turncell import SQLStore

        own = Journal(lambda: SQLStore.sqlite(tmp_path / "own.sqlite"))
        with pytest.raises(UsageError, match="has a journal of its own"):
            echoing(journal=own).map(["a"], executor=pool)
        own.close()
