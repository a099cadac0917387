"""Histories: where they are read from, which runs, what they cost, how they are shown."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pytest

from tests.journals.killed import Killed
from turncell import (
    Agent,
    Budget,
    ModelFailure,
    Session,
    UsageError,
    calls_df,
    cost_by,
    events_df,
    export_ipynb,
    history,
    messages_df,
    runs_df,
    steps_df,
    tool,
)
from turncell.adapters.sql_store import SQLStore
from turncell.frames.costs import CachePrice, cache_savings
from turncell.frames.sources import wanted
from turncell.runtime.journal import Journal
from turncell.testing import ScriptedModel, call, say


@tool
def mail(to: str) -> str:
    """Send a mail."""
    return "sent"


@pytest.mark.feature("B6", "B11", "C11", "E1")
@pytest.mark.parametrize(
    ("is_writing", "going_on", "left"), [(True, "running", "in_doubt"), (False, "waiting", "waiting")]
)
def test_a_run_whose_program_was_killed_is_at_rest_until_it_is_resumed(
    tmp_path: Path, is_writing: bool, going_on: str, left: str
) -> None:
    program = Killed(tmp_path / "h.sqlite", is_writing=is_writing)
    journal = Journal(lambda: SQLStore.sqlite(tmp_path / "h.sqlite"))
    try:
        session = Session.load(program.session_id, journal)
        assert [*runs_df(session).status, *calls_df(session).status] == [going_on, going_on]
        program.kill()
        assert [*runs_df(session).status, *calls_df(session).status] == [left, left]

        run = session.resume(agent=Agent(ScriptedModel(["Ana has it."]), tools=[mail]), is_attended=True)
        run.wait_request(60)
        assert list(runs_df(session).status) == ["waiting"]
        asked = run.requests[0].request
        assert asked is not None
        run.answer(asked.request_id, "approve", digest=asked.digest).result(60)
        run.result(60)
        # Also of the run itself, whose beginning another process has recorded.
        for of in (session, run):
            assert list(runs_df(of).status) == ["completed"] and list(runs_df(of).prompt) == ["Mail Ana."]
            assert list(calls_df(of).content) == ["sent"] and len(steps_df(of)) == 2
    finally:
        program.kill()
        journal.close()


RECORDED = Path(__file__).parents[2] / "notebooks" / "recorded"
PRICE = (2.0, 8.0)


@tool(effect="read")
def weather(city: str) -> str:
    """The weather in a city."""
    return "rain"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(lambda: SQLStore.sqlite(tmp_path / "h.sqlite"))
    yield journal
    journal.close()


@pytest.fixture
def sessions(journal: Journal) -> list[Session]:
    """Two sessions: one with a call and a known cost, one that failed on another model."""
    answers = [["Looking. ", call("weather", city="Oslo")], "Rain.", "You are welcome."]
    first = Session.new(journal, "weather")
    agent = Agent(ScriptedModel(answers, "lab/big", price=PRICE), tools=[weather])
    first.send("How is Oslo?", agent=agent).result(60)
    first.send("Thanks, $5.", agent=agent).result(60)
    second = Session.new(journal, "broken")
    broken = Agent(ScriptedModel([ModelFailure("bad_request", "no")], "lab/small"))
    second.send("Hello?", agent=broken).result(60)
    return [first, second]


@pytest.mark.feature("E1")
class TestWhereAHistoryIsFrom:
    def test_a_run_a_session_and_a_store_have_the_same_rows(self, journal: Journal, sessions: list[Session]) -> None:
        whole = history(journal)
        assert list(whole.runs().status) == ["completed", "completed", "failed"]
        pd.testing.assert_frame_equal(runs_df(sessions[0]), whole.runs()[:2])
        names = ("runs", "steps", "messages", "calls", "events")
        for name, frame in zip(names, whole.tables(), strict=True):
            pd.testing.assert_frame_equal(getattr(whole, name)(), frame)
        assert list(messages_df(sessions[0]).role) == ["user", "assistant", "tool", "assistant", "user", "assistant"]
        assert set(events_df(sessions[0]).run_id) == set(runs_df(sessions[0]).run_id)

    @pytest.mark.parametrize("suffix", [".jsonl", ".md"])
    def test_an_exported_file_says_what_its_session_says(
        self, sessions: list[Session], tmp_path: Path, suffix: str
    ) -> None:
        path = sessions[0].export(tmp_path / f"weather{suffix}")
        for have, want in zip(history(path).tables()[:4], history(sessions[0]).tables(), strict=False):
            pd.testing.assert_frame_equal(have, want)
        assert len(runs_df(tmp_path)) == 2 and len(runs_df([path], session="ses_other")) == 0

    def test_a_file_is_read_where_turncell_runs_nothing(self, sessions: list[Session], tmp_path: Path) -> None:
        path = sessions[0].export(tmp_path / "weather.jsonl")
        code = (
            f"import sys; from turncell import runs_df; print(len(runs_df({str(path)!r})), "
            "[name for name in ('IPython', 'litellm') if name in sys.modules])"
        )
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TURNCELL_STORE": str(tmp_path / "no.sqlite"),
        }
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert done.stdout.strip() == "2 []" and not (tmp_path / "no.sqlite").exists()

    def test_a_store_is_read_from_its_file(self, journal: Journal, sessions: list[Session], tmp_path: Path) -> None:
        pd.testing.assert_frame_equal(runs_df(tmp_path / "h.sqlite"), history(journal).runs())

    @pytest.mark.parametrize("of", [3, [3], "h.txt", "nowhere.sqlite"])
    def test_what_is_no_history_is_refused(self, of: Any) -> None:
        with pytest.raises(UsageError, match=r"3|h\.txt|nowhere"):
            runs_df(of)

    def test_a_run_that_goes_on_shows_what_is_known(self, journal: Journal) -> None:
        written = threading.Event()

        async def hesitate(request: Any) -> str:
            written.set()
            await asyncio.sleep(90)
            return ""

        agent = Agent(ScriptedModel([["Looking. ", call("weather", city="Oslo")], hesitate]), tools=[weather])
        run = Session.new(journal).send("How is Oslo?", agent=agent)
        assert written.wait(60)
        try:
            assert list(runs_df(run).status) == ["running"] and list(calls_df(run).status) == ["ok"]
            assert list(steps_df(run).finish_reason.isna()) == [False, True]
            assert runs_df(run).cost_usd[0] is pd.NA
        finally:
            run.cancel()
            run.result(60)

    def test_a_run_that_goes_on_shows_what_is_being_written(self, journal: Journal) -> None:
        model = ScriptedModel([[say("Once upon", chunk=99), say(" a time", delay_s=90, chunk=99)]])
        run = Session.new(journal).send("A story", agent=Agent(model))
        deadline = time.monotonic() + 60
        while not run.text and time.monotonic() < deadline:
            time.sleep(0.005)
        try:
            last = messages_df(run).iloc[-1]
            assert (last.text, last.is_partial) == ("Once upon", True) and last["at"] is pd.NaT
            assert list(runs_df(run).text) == ["Once upon"]
        finally:
            run.cancel()
            run.result(60)


@pytest.mark.feature("E1")
class TestFilters:
    def test_each_filter_keeps_the_runs_that_it_names(self, journal: Journal, sessions: list[Session]) -> None:
        first, second = sessions

        def found(**filters: Any) -> list[str]:
            return list(history(journal, **filters).runs().prompt)

        assert found(session=second) == found(session=[second.id]) == found(model="lab/small") == ["Hello?"]
        assert found(status="failed") == found(status=["failed", "cancelled"]) == ["Hello?"]
        assert found(model="lab/*") == found(project=os.getcwd()) == found(since="1 hour")
        assert found(since=timedelta(hours=1)) == found(until="2099-01-01") and len(found(since="1 hour")) == 3
        assert found(project="/nowhere") == found(since="2099-01-01") == found(until="1 hour") == []
        assert found(model="lab/big", status="failed") == []
        began = first.runs[1].started_at
        assert found(session=first, since=datetime.fromtimestamp(began, UTC)) == ["Thanks, $5."]

    def test_a_short_word_for_how_long_ago_is_no_hour_of_the_year_one(
        self, journal: Journal, sessions: list[Session]
    ) -> None:
        for ago in ("3h", "3 h", "30m", "10 min", "2d", "1.5 d", "1h30m"):
            assert len(history(journal, since=ago).runs()) == 3 and len(history(journal, until=ago).runs()) == 0, ago
        longer = {"3h": 3 * 3600, "1.5 d": 36 * 3600}
        for ago, seconds in longer.items():
            at = wanted({"since": ago}).since
            assert at is not None and abs(time.time() - seconds - at) < 60
        for text in ("2026-11-21 08:00", "21 Nov 2026 08:00", "2026-11-21T10:00+02:00"):
            assert wanted({"since": text}).since == datetime(2026, 11, 21, 8, tzinfo=UTC).timestamp()

    def test_none_is_no_filter_and_an_empty_list_holds_for_no_run(
        self, journal: Journal, sessions: list[Session]
    ) -> None:
        names = ("session", "project", "model", "status", "since", "until")
        assert len(history(journal, **dict.fromkeys(names)).runs()) == 3  # type: ignore[arg-type]
        for name in ("session", "model", "status"):
            assert len(history(journal, **{name: []}).runs()) == 0, name  # type: ignore[arg-type]

    def test_all_tables_are_of_the_same_runs(self, journal: Journal, sessions: list[Session]) -> None:
        some = history(journal, since=datetime.fromtimestamp(sessions[0].runs[1].started_at, UTC))
        ids = set(some.runs().run_id)
        assert len(ids) == 2 and all(set(frame.run_id) <= ids for frame in some.tables())

    def test_a_store_reads_no_session_without_such_a_run(self, tmp_path: Path, sessions: list[Session]) -> None:
        asked: list[dict[str, Any]] = []

        class Watched(SQLStore):
            def read(self, **which: Any) -> Any:
                asked.append(which)
                return super().read(**which)

        watched = Journal(lambda: Watched.sqlite(tmp_path / "h.sqlite"))
        try:
            assert len(runs_df(watched, status="failed")) == 1
            assert asked == [
                {"session_id": None, "types": ("RunStarted", "RunEnded")},
                {"session_id": sessions[1].id},
            ]
        finally:
            watched.close()

    @pytest.mark.parametrize(
        ("filters", "says"),
        [
            ({"state": "x"}, "state"),
            ({"status": "done"}, "done"),
            ({"status": 3}, "status is 3; use a name"),
            ({"model": [None]}, "model is .None.; use a name"),
            ({"session": 3}, "session is 3; use a Session, its id"),
            ({"project": ["here"]}, "project is .'here'.; use the path of a folder"),
            *(({"since": odd}, f"since is {odd!r}; use a datetime".replace("(", ".").replace(")", ".")) for odd in (
                "soonish", "", "5", "8am", "now", "-7 days", timedelta(days=-7), 7, 1795359081.5, pd.NaT,
            )),
        ],
    )  # fmt: skip
    def test_what_is_no_filter_is_refused(self, filters: Any, says: str) -> None:
        with pytest.raises(UsageError, match=says):
            history(**filters)

    @pytest.mark.parametrize("budget", [{"dollars": 1}, {"usd": "1"}, 0.5, None])
    def test_what_is_no_budget_is_refused(self, journal: Journal, sessions: list[Session], budget: Any) -> None:
        with pytest.raises(UsageError, match=r"budget|limit of usd"):
            history(journal).what_if(budget)

    def test_costs_of_what_is_no_history_are_refused(self, sessions: list[Session]) -> None:
        with pytest.raises(UsageError, match=r"use turncell.history\(...\) of <Session"):
            cost_by(sessions[0], "model")  # type: ignore[arg-type]


@pytest.mark.feature("E2")
class TestOtherTools:
    def test_arrow_has_the_same_types_full_or_empty(self, journal: Journal, sessions: list[Session]) -> None:
        for name in ("runs", "steps", "messages", "calls", "events"):
            full, empty = (history(journal, **kept).arrow(name) for kept in ({}, {"project": "/nowhere"}))  # type: ignore[arg-type]
            assert full.schema == empty.schema and len(full) > len(empty) == 0
            assert pa.table(full.__arrow_c_stream__ and full).schema == full.schema
        with pytest.raises(UsageError, match="tools"):
            history(journal).arrow("tools")  # type: ignore[arg-type]

    def test_polars_reads_a_table_through_the_capsule(self, journal: Journal, sessions: list[Session]) -> None:
        import polars as pl

        frame = pl.DataFrame(history(journal).arrow("runs"))
        assert frame["prompt"].to_list() == list(history(journal).runs().prompt)
        assert frame["cost_usd"].null_count() == 1 and frame["started_at"].dtype == pl.Datetime("us", "UTC")
        assert pl.DataFrame(history(journal).steps()).height == 4

    def test_every_table_becomes_a_parquet_file(
        self, journal: Journal, sessions: list[Session], tmp_path: Path
    ) -> None:
        whole = history(journal)
        paths = whole.to_parquet(tmp_path / "out" / "tables")
        for path, want in zip(paths, whole.tables(), strict=True):
            back = pd.read_parquet(path, dtype_backend="numpy_nullable")
            pd.testing.assert_frame_equal(back.astype(want.dtypes.to_dict()), want)

    def test_names_are_those_of_opentelemetry_on_request(self, journal: Journal, sessions: list[Session]) -> None:
        plain, otel = history(journal).steps(), steps_df(journal, otel=True)
        assert list(otel["gen_ai.usage.input_tokens"]) == list(plain.input_tokens)
        assert {"gen_ai.request.model", "gen_ai.conversation.id", "turncell.cost_usd"} <= set(otel.columns)
        assert all(column.startswith(("gen_ai.", "turncell.", "error.")) for column in otel.columns)

    @pytest.mark.parametrize("table", ["runs", "steps", "calls"])
    def test_the_views_of_the_file_say_what_the_tables_say(
        self, tmp_path: Path, sessions: list[Session], table: Any
    ) -> None:
        big = Agent(ScriptedModel(["x" * 100_000], "lab/big", price=PRICE))
        sessions[0].send("y" * 100_000, agent=big).result(60)
        with contextlib.closing(sqlite3.connect(tmp_path / "h.sqlite")) as file:
            view = pd.read_sql(f"SELECT * FROM {table}", file)
        frame = getattr(history(tmp_path / "h.sqlite"), table)()
        keys = {"runs": ["run_id"], "steps": ["run_id", "step"], "calls": ["call_id"]}[table]
        both = view.merge(frame, on=keys, suffixes=("_of_view", ""))
        assert len(both) == len(view) == len(frame)
        for name in set(view) & set(frame) - set(keys):
            have, want = both[f"{name}_of_view"], both[name]
            if isinstance(want.dtype, pd.DatetimeTZDtype):
                assert ((pd.to_datetime(have, utc=True) - want).abs() <= pd.Timedelta("1ms")).all(), name
            else:
                assert [None if pd.isna(v) else v for v in have] == [
                    None if pd.isna(v) else pytest.approx(v) if isinstance(v, float) else v for v in want
                ], name


@pytest.mark.feature("E3")
class TestCosts:
    @pytest.mark.parametrize("by", ["model", "session", "day", "run", "step", "tool"])
    def test_whatever_it_is_by_the_sums_are_those_of_the_runs(self, by: Any) -> None:
        whole = history(RECORDED)
        costs = cost_by(whole, by)
        runs = whole.runs()
        assert costs.known_usd.sum() == pytest.approx(whole.steps().cost_usd.sum())
        assert abs(costs.input_tokens.sum() - runs.input_tokens.sum()) <= len(costs)
        assert (
            costs.calls.sum() == runs.calls.sum() and costs.unknown_steps.sum() == whole.steps().cost_usd.isna().sum()
        )
        assert cost_by(history(RECORDED, project="x"), by).dtypes.to_dict() == costs.dtypes.to_dict()

    def test_one_unknown_cost_makes_its_group_unknown(self, journal: Journal, sessions: list[Session]) -> None:
        costs = cost_by(history(journal), "model").set_index("model")
        assert costs.cost_usd["lab/small"] is pd.NA and costs.cost_basis["lab/small"] == "none"
        assert costs.cost_basis["lab/big"] == "user" and costs.cost_usd["lab/big"] > 0
        with pytest.raises(UsageError, match="colour"):
            cost_by(history(journal), "colour")  # type: ignore[arg-type]

    def test_the_cache_has_saved_what_its_tokens_would_have_cost_more(self) -> None:
        lab = history(RECORDED, model="lab/large")
        run = lab.runs()
        saved = cache_savings(lab, prices={"lab/large": CachePrice(3.0, 0.3, 3.75)})
        want = (run.cache_read_tokens.sum() * 2.7 - run.cache_write_tokens.sum() * 0.75) / 1e6
        assert list(saved.saved_usd) == [pytest.approx(want)] and 0 < saved.read_share[0] < 1
        assert cache_savings(lab).saved_usd.isna().all()  # no list has that model

    @pytest.mark.parametrize(
        ("budget", "limit", "steps"),
        [
            ({"steps": 2}, "steps", 2),
            ({"tokens": 1}, "tokens", 1),
            ({"usd": 0.001}, "usd", 1),
            ({"calls": 1}, "calls", 1),
            ({"seconds": 0.5}, "seconds", 1),
            (Budget(steps=1), "steps", 1),
        ],
    )
    def test_a_budget_would_have_stopped_a_run_before_the_next_step(self, budget: Any, limit: str, steps: int) -> None:
        whole = history(RECORDED)
        first = whole.what_if(budget).iloc[0]
        mine = whole.steps().query("run_id == @first.run_id")
        assert (first.is_stopped, first.limit, first.steps) == (True, limit, steps)
        assert first.spared_steps == len(mine) - steps and first.stopped_at == mine.started_at.iloc[steps]
        assert first.cost_usd + first.spared_usd == pytest.approx(mine.cost_usd.sum())

    def test_a_budget_in_dollars_says_where_costs_are_unknown(self) -> None:
        found = history(RECORDED, model="local/*").what_if({"usd": 1.0}).iloc[0]
        assert not found.is_stopped and not found.is_certain
        found = history(RECORDED, model="local/*").what_if({"usd": 1.0, "unknown_prices": "stop"}).iloc[0]
        assert found.is_stopped and found.steps == 1


@pytest.mark.feature("E5")
class TestPlots:
    @pytest.fixture(autouse=True)
    def _no_window(self) -> Iterator[None]:
        import matplotlib
        import matplotlib.pyplot as plt

        matplotlib.use("Agg")

        yield
        plt.close("all")

    def test_bars_are_as_high_as_the_days_have_cost(self) -> None:
        whole = history(RECORDED)
        for ax, total, unit in (
            (whole.plot.tokens(), whole.runs().input_tokens.sum() + whole.runs().output_tokens.sum(), "tokens"),
            (whole.plot.cost(), whole.steps().cost_usd.sum(), "US dollars"),
        ):
            assert sum(bar.get_height() for bar in ax.patches) == pytest.approx(total)
            assert ax.get_ylabel() == unit and ax.figure.patch.get_alpha() == 0
        assert "2 model calls of unknown cost" in ax.get_title(loc="left")

    def test_tools_are_counted_by_how_they_ended(self) -> None:
        ax = history(RECORDED).plot.tools()
        assert sum(bar.get_width() for bar in ax.patches) == len(history(RECORDED).calls())
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ok", "not ok"]

    def test_a_timeline_has_the_model_the_tools_and_the_waiting(self) -> None:
        whole = history(RECORDED)
        run = whole.runs().query("waiting_s > 0 and approved == 1").iloc[0]
        ax = whole.plot.timeline(run.run_id)
        widths: dict[str, float] = {}
        for bars in ax.containers:
            name = bars.get_label() if not bars.get_label().startswith("_") else "more"
            widths[name] = widths.get(name, 0) + sum(bar.get_width() for bar in bars)
        assert widths["waiting for an answer"] == pytest.approx(run.waiting_s, abs=1e-3)
        assert {"model", "tool"} <= widths.keys() and "seconds" in ax.get_xlabel()

    def test_a_prompt_is_no_formula_and_no_run_no_failure(self, journal: Journal, sessions: list[Session]) -> None:
        ax = history(sessions[0]).plot.timeline()
        [title] = ax.findobj(lambda one: getattr(one, "get_text", str)().startswith("Thanks, $5."))
        assert not title.get_parse_math()
        ax.figure.canvas.draw()
        with pytest.raises(UsageError, match="run_x"):
            history(journal).plot.timeline("run_x")
        for name in ("tokens", "cost", "tools"):
            getattr(history(journal, project="/nowhere").plot, name)().figure.canvas.draw()

    def test_of_more_days_than_can_be_told_apart_there_are_weeks(self, tmp_path: Path) -> None:
        [first] = RECORDED.glob("1-*.jsonl")
        lines = [orjson.loads(line) for line in first.read_bytes().splitlines()]
        for days in (0, 400, 2000):  # the last one, and a year and more than two years before it
            text = b"\n".join(
                orjson.dumps(one | {"at": one["at"] - days * 86_400} if "at" in one else one) for one in lines
            )
            text = text.replace(b'"ses_', b'"ses_%d' % days).replace(b'"run_1', b'"run_1%d' % days)
            (tmp_path / f"{days}.jsonl").write_bytes(text + b"\n")
        whole = history(tmp_path)
        assert len(whole.runs()) == 3 * len(runs_df(first))
        ax = whole.plot.tokens()
        assert ax.get_title(loc="left") == "Tokens per week, the last 106 weeks"
        tokens = runs_df(first).input_tokens.sum() + runs_df(first).output_tokens.sum()
        assert sum(bar.get_height() for bar in ax.patches) == 2 * tokens  # without the oldest
        assert all("\n20" in label.get_text() for label in ax.get_xticklabels())
        assert history(first).plot.tokens().get_title(loc="left") == "Tokens per day"

    def test_a_day_that_no_calendar_has_costs_no_other_its_bar(self, tmp_path: Path) -> None:
        [first] = RECORDED.glob("1-*.jsonl")
        lines = [orjson.loads(line) for line in first.read_bytes().splitlines()]
        begun = next(number for number, one in enumerate(lines) if one.get("type") == "StepStarted")
        lines[begun]["at"] = 1e15
        (tmp_path / "odd.jsonl").write_bytes(b"\n".join(map(orjson.dumps, lines)) + b"\n")
        of_step = steps_df(first)[["input_tokens", "output_tokens"]].sum(axis=1)
        bars = history(tmp_path / "odd.jsonl").plot.tokens().patches
        assert sum(bar.get_height() for bar in bars) == of_step.sum() - of_step[0]

    def test_a_timeline_has_the_unit_that_fits(self, journal: Journal, sessions: list[Session]) -> None:
        run = history(sessions[0]).runs().iloc[0]
        ax = history(sessions[0]).plot.timeline(run.run_id)
        unit = ax.get_xlabel().split()[0]
        assert unit == ("seconds" if run.duration_s >= 2 else "milliseconds")
        end_s = max(bar.get_x() + bar.get_width() for bar in ax.patches) * (1 if unit == "seconds" else 1e-3)
        last = history(sessions[0]).steps().query("run_id == @run.run_id").iloc[-1]
        written_s = (last.started_at - run.started_at).total_seconds() + last.duration_s
        assert written_s / 2 <= end_s <= run.duration_s + 1e-6

    def test_where_nothing_is_no_axis_has_numbers(self, journal: Journal) -> None:
        for ax in (history(journal).plot.tokens(), history(journal).plot.cost(), history(journal).plot.tools()):
            assert [text.get_text() for text in ax.texts] == ["nothing yet"]
            assert not ax.get_xticks().size and not ax.get_yticks().size

    def test_without_matplotlib_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
        with pytest.raises(UsageError, match=r"turncell\[plot\]"):
            history(RECORDED).plot.cost()


@pytest.mark.feature("E1", "C13")
class TestHowTheyShowThemselves:
    def test_a_history_says_how_much_there_is_and_what_it_cost(self) -> None:
        text = repr(history(RECORDED, session=[]))
        assert "0 runs" in text
        text = repr(history(RECORDED))
        assert "9 runs in 6 sessions" in text and "2 steps of unknown cost" in text and "2026-09-07" in text
        assert "Send Ana a line" in history(RECORDED)._repr_html_()

    def test_nothing_that_shows_itself_has_markup_or_secrets_of_the_model(
        self, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LAB_API_KEY", "verysecret-1234567890")
        text = "<script>alert(1)</script> verysecret-1234567890"
        session = Session.new(journal, text)
        run = session.send(text, agent=Agent(ScriptedModel([text]))).result(60)
        shown = [run._repr_html_(), session._repr_html_(), history(journal)._repr_html_(), history(run)._repr_html_()]
        shown.append(export_ipynb(session.runs, text))
        frames = [frame.to_csv() for of in (run, session) for frame in history(of).tables()]
        assert not any("verysecret" in one for one in [*shown, *frames])
        assert not any("<script" in one for one in shown[:4]) and all("alert(1)" in one for one in shown)

    @pytest.mark.feature("E6")
    def test_a_session_becomes_a_notebook(self, sessions: list[Session]) -> None:
        import nbformat

        book = nbformat.reads(export_ipynb(sessions[0].runs, "Weather"), as_version=4)
        nbformat.validate(book)
        cells = [cell for cell in book.cells if cell.source.startswith("%%agent")]
        assert [cell.source for cell in cells] == ["%%agent\nHow is Oslo?", "%%agent\nThanks, $5."]
        assert all(set(cell.outputs[0].data) == {"text/plain", "text/markdown", "text/html"} for cell in cells)
        assert "Rain." in cells[0].outputs[0].data["text/plain"]
