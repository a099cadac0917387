"""Histories as tables: the columns that are documented, the values that the fold has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import turncell
from conftest import STORIES, Drive, as_records
from turncell import redact
from turncell.core.events import CallFinished, CallStarted, RequestAnswered, RequestOpened, Resumed, TextDelta
from turncell.core.fold import CallState, RunState, at_rest
from turncell.frames.schemas import SCHEMAS, document, schema_text
from turncell.frames.tables import (
    EVENT_TYPES,
    calls_frame,
    events_frame,
    messages_frame,
    runs_frame,
    steps_frame,
    tables,
)

BACKENDS = ("numpy_nullable", "pyarrow")
FRAMES = {
    "runs": runs_frame,
    "steps": steps_frame,
    "messages": messages_frame,
    "calls": calls_frame,
    "events": events_frame,
}
ARROW = {
    "string": "string[pyarrow]", "Int64": "int64[pyarrow]", "Float64": "double[pyarrow]", "boolean": "bool[pyarrow]",
    "datetime64[us, UTC]": "timestamp[us, tz=UTC][pyarrow]", "category": "category",
}  # fmt: skip


def events_of(session: list[Drive]) -> list[Any]:
    return [event for drive in session for event in drive.recorded]


def run_id(story: str) -> str:
    return f"run_{list(STORIES).index(story) + 1}"


def value(cell: Any) -> Any:
    return None if pd.isna(cell) else cell


def wall_s(spans: list[tuple[float | None, float | None]]) -> float:
    """Seconds covered by the spans that have ended; a span that has not keeps the stretch it is part of open."""
    edges = sorted(
        [(a, 1) for a, _ in spans if a is not None] + [(b, -1) for _, b in spans if b is not None],
        key=lambda e: (e[0], e[1]),
    )
    total, depth, since = 0.0, 0, 0.0
    for at, change in edges:
        if depth == 0:
            since = at
        depth += change
        if depth == 0:
            total += at - since
    return total


def approved(call: CallState) -> bool:
    request = call.request
    is_answered = request is not None and not request.name and request.answer in ("approve", "edit")
    has_begun = call.started_at is not None or (request is not None and request.kind == "in_doubt")
    return call.verdict == "ask" and (has_begun or is_answered)


def spans(events: list[Any], begins: type, ends: type, name: str) -> list[tuple[float | None, float | None]]:
    """From the beginning of each to its end. How long one went on that a restart has cut off nobody knows."""
    open_at: dict[str, float | None] = {}
    found: list[tuple[float | None, float | None]] = []
    for event in events:
        if isinstance(event, begins):
            open_at[getattr(event, name)] = event.at
        elif isinstance(event, ends) and getattr(event, name) in open_at:
            found.append((open_at.pop(getattr(event, name)), event.at))
        elif isinstance(event, Resumed):
            open_at.clear()
    return found + [(at, None) for at in open_at.values()]


def expected_run(run: RunState, events: list[Any]) -> dict[str, Any]:
    first = next((s for s in run.steps if s.first_token_s is not None), None)
    usage = run.usage
    bases = {s.cost_basis for s in run.steps} if run.cost_usd is not None else {"none"}
    return {
        "run_id": run.run_id, "session_id": run.session_id, "previous": run.previous,
        "copy_of": run.started.copy_of, "is_imported": run.started.is_imported, "parent_run_id": run.parent_run_id,
        "root_run_id": run.root_run_id, "depth": run.depth, "agent": run.agent, "is_tainted": run.is_tainted,
        "provider": run.model.partition("/")[0] if "/" in run.model else "",
        "tier": next((s.tier for s in reversed(run.steps) if s.tier), ""), "status": run.status, "model": run.model, "mode": run.mode, "is_attended": run.is_attended,
        "prompt": run.prompt.text if run.prompt else None, "text": run.text, "steps": len(run.steps), "calls": len(run.calls),
        "approved": sum(approved(c) for c in run.calls), "denied": sum(c.status == "denied" for c in run.calls),
        "input_tokens": usage.input_tokens, "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens, "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens, "is_estimated": usage.is_estimated, "cost_usd": run.cost_usd,
        "cost_basis": bases.pop() if len(bases) == 1 else "mixed", "started_at": run.started_at, "ended_at": run.ended_at,
        "duration_s": None if run.ended_at is None else run.ended_at - run.started_at,
        "first_token_s": first and first.started_at - run.started_at + (first.first_token_s or 0),
        "model_s": sum(s.duration_s or 0 for s in run.steps), "tools_s": wall_s(spans(events, CallStarted, CallFinished, "call_id")),
        "waiting_s": wall_s(spans(events, RequestOpened, RequestAnswered, "request_id")),
        "error_kind": run.error_kind, "error": run.error, "cell_id": run.cell_id,
    }  # fmt: skip


def expected_call(run: RunState, call: CallState) -> dict[str, Any]:
    request = call.request
    return {
        "call_id": call.call_id, "run_id": run.run_id, "session_id": run.session_id, "step": call.step, "name": call.name,
        "effect": call.effect, "status": call.status, "digest": call.digest, "verdict": call.verdict,
        "judged_by": call.judged_by or None, "answer": request and request.answer, "answered_by": request and request.by,
        "reason": (request and request.reason) or call.reason or None, "content": call.content,
        "waited_s": call.waited_s if request and (request.answered_at or call.waited_s) else None,
        "scope": request.scope if request and request.answer else None, "requests": call.requests, "files": len(call.files),
        "question": (request and request.question) or None, "result": request and request.result,
        "proposed_at": call.proposed_at, "started_at": call.started_at, "ended_at": call.ended_at, "duration_s": call.duration_s,
        "arguments": call.arguments, "proposed_arguments": call.proposed_arguments,
    }  # fmt: skip


def expected_messages(run: RunState) -> list[tuple[Any, ...]]:
    """The prompt; of each step the answer, the results of its closed calls, what was said after; what is half written."""
    assert run.prompt is not None
    found: list[tuple[Any, ...]] = [("user", "person", run.prompt.text, None, False, False)]
    for step in run.steps:
        if step.message is not None:
            found.append(("assistant", "model", step.message.text, None, step.message.is_partial, False))
            found += [
                ("tool", "tool", call.content or "", call.call_id, False, call.status != "ok")
                for call in step.calls
                if not call.is_open
            ]
        elif step.blocks:
            text = "".join(block.text for block in step.blocks if block.kind == "text")
            found.append(("assistant", "model", text, None, True, False))
        found += [("user", said.by, said.message.text, None, False, False) for said in step.after]
    return found


def check(row: dict[Any, Any], expected: dict[str, Any]) -> None:
    assert list(row) and set(row) == set(expected)
    for name, want in expected.items():
        have = value(row[name])
        if name.endswith("_at") and have is not None:
            have = have.timestamp()
        if name in ("arguments", "proposed_arguments") and have is not None:
            have = json.loads(have)
        assert have == (pytest.approx(want, abs=1e-6) if isinstance(want, float) else want), name


@pytest.mark.feature("E1")
class TestWhatTheTablesSay:
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_run_says_what_the_fold_says(self, session: list[Drive], backend: Any) -> None:
        frame = runs_frame(as_records(events_of(session)), backend=backend)
        assert len(frame) == len(session)
        for row, drive in zip(frame.to_dict("records"), session, strict=True):
            check(row, expected_run(drive.run, drive.recorded))

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_step_says_what_the_fold_says(self, session: list[Drive], backend: Any) -> None:
        frame = steps_frame(as_records(events_of(session)), backend=backend)
        pairs = [(drive.run, step) for drive in session for step in drive.run.steps]
        names = ("step", "model", "answered_by", "finish_reason", "cost_usd", "cost_basis", "started_at", "duration_s", "first_token_s",
                 "longest_gap_s", "tier", "error_kind", "error")  # fmt: skip
        counts = (
            "input_tokens",
            "output_tokens",
            "cache_read_tokens",
            "cache_write_tokens",
            "reasoning_tokens",
            "is_estimated",
        )
        for row, (run, step) in zip(frame.to_dict("records"), pairs, strict=True):
            want = {name: getattr(step, name) for name in names} | {name: getattr(step.usage, name) for name in counts}
            retries = [
                note for note in run.notes if note.kind == "retry" and note.step == step.step and not note.call_id
            ]
            more = {"session_id": run.session_id, "calls": len(step.calls), "attempts": 1 + len(retries)}
            more["is_prefix_broken"] = any(edit.step == step.step for edit in run.edits)
            check(row, want | {"run_id": run.run_id} | more)

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_a_call_says_what_the_fold_says(self, session: list[Drive], backend: Any) -> None:
        frame = calls_frame(as_records(events_of(session)), backend=backend)
        pairs = [(drive.run, call) for drive in session for call in drive.run.calls]
        for row, (run, call) in zip(frame.to_dict("records"), pairs, strict=True):
            check(row, expected_call(run, call))

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_the_messages_are_those_of_the_fold(self, session: list[Drive], backend: Any) -> None:
        told = messages_frame(as_records(events_of(session)), backend=backend).groupby("run_id", sort=False)
        for drive in session:
            rows = told.get_group(drive.run.run_id)
            assert list(rows.number) == list(range(1, len(rows) + 1))
            want = expected_messages(drive.run)
            have = [(r.role, r.by, r.text, value(r.call_id), r.is_partial, r.is_error) for r in rows.itertuples()]
            assert have == want
            assert rows.calls.sum() == len(drive.run.calls)

    @pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.full)])
    def test_it_agrees_after_every_single_event(self, session: list[Drive], step: int) -> None:
        """Or after every third, counted from the end."""
        from turncell.core.fold import fold

        for drive in session:
            for length in range(len(drive.recorded), 0, -step):
                events = drive.recorded[:length]
                run = fold(events)  # type: ignore[arg-type]
                check(runs_frame(events).to_dict("records")[0], expected_run(run, events))
                for row, call in zip(calls_frame(events).to_dict("records"), run.calls, strict=True):
                    check(row, expected_call(run, call))

    def test_events_records_and_dicts_are_read_alike(self, session: list[Drive]) -> None:
        events = events_of(session)
        records = as_records(events)
        whole = tables(records)
        for source in (events, [json.loads(r.payload) for r in records]):
            for have, want in zip(tables(source), whole, strict=True):
                pd.testing.assert_frame_equal(have, want)
        for name, frame in zip(FRAMES, whole, strict=True):
            pd.testing.assert_frame_equal(FRAMES[name](records), frame)

    def test_runs_may_be_interleaved_and_passing_events_change_nothing(self, session: list[Drive]) -> None:
        queues = [list(drive.events) for drive in session]
        mixed = [queue[n] for n in range(max(map(len, queues))) for queue in queues if n < len(queue)]
        assert any(isinstance(event, TextDelta) for event in mixed)
        have, want = tables(mixed), tables(events_of(session))
        for one, other in zip(have[:4], want[:4], strict=True):
            pd.testing.assert_frame_equal(one, other)
        pd.testing.assert_frame_equal(have.events.sort_values("seq", ignore_index=True), want.events)

    def test_a_store_needs_to_be_asked_only_for_the_types_that_are_read(self, session: list[Drive]) -> None:
        records = as_records(events_of(session))
        some = [r for r in records if r.type in EVENT_TYPES]
        pd.testing.assert_frame_equal(runs_frame(some), runs_frame(records))

    def test_an_open_run_that_nobody_drives_is_interrupted(self, session: list[Drive]) -> None:
        records = as_records(events_of(session))
        told = runs_frame(records).set_index("run_id").status
        known = runs_frame(records, alive={"run_9"}).set_index("run_id").status
        assert (told["run_9"], told["run_10"]) == ("waiting", "running")
        assert (known["run_9"], known["run_10"], known["run_1"]) == ("waiting", "interrupted", "completed")

    @pytest.mark.feature("B6", "C11")
    @pytest.mark.parametrize("story", STORIES)
    def test_what_nobody_drives_any_more_is_at_rest_as_the_fold_says(self, story: str) -> None:
        drive = STORIES[story]()
        rest = at_rest(drive.run)
        assert list(runs_frame(drive.recorded, alive=()).status) == [rest.status]
        calls = calls_frame(drive.recorded, alive=())
        assert [(row.status, pd.isna(row.started_at)) for row in calls.itertuples()] == [
            (call.status, call.started_at is None) for call in rest.calls
        ]

    @pytest.mark.feature("C13")
    def test_what_is_declared_a_secret_changes_no_table_of_events_in_hand(self) -> None:
        drive = STORIES["edited_by_a_hook"]()
        before = tables(drive.recorded, alive=())
        redact("run_shell", "claude-sonnet-5", "rm -rf exports", patterns=[r"ls|a b|run_\d"])
        for have, want in zip(tables(STORIES["edited_by_a_hook"]().recorded, alive=()), before, strict=True):
            pd.testing.assert_frame_equal(have, want)

    @pytest.mark.feature("B6", "C11")
    def test_a_write_that_its_program_has_left_open_is_in_doubt(self, session: list[Drive]) -> None:
        left = tables(events_of(session), alive=())
        assert left.runs.set_index("run_id").status[run_id("cut_off")] == "in_doubt"
        calls = left.calls.set_index("run_id")
        assert list(calls.loc[run_id("cut_off")].status) == ["ok", "allowed", "in_doubt"]
        assert [list(calls.loc[run_id(story)].status) for story in ("run_again", "has_happened", "skipped")] == [
            ["ok", "ok", "ok"], ["ok", "ok", "ok"], ["ok", "ok", "skipped"],
        ]  # fmt: skip

    @pytest.mark.feature("C11")
    def test_the_time_in_which_no_program_ran_is_counted_as_nothing(self) -> None:
        run = runs_frame(STORIES["run_again"]().recorded).loc[0]
        # The first read to its end; after the restart the other read, then the write, which was asked about meanwhile.
        assert run.tools_s == pytest.approx(5 + 2 + 3 + 4) and run.waiting_s == pytest.approx(2 + 3 + 7)
        assert run.approved == 1

    def test_requests_that_wait_side_by_side_are_counted_once(self) -> None:
        run = (
            Drive()
            .begin("Tidy up")
            .asks_for(("remove", {"path": "a"}), ("remove", {"path": "b"}))
            .finishes("tool_calls")
        )
        run.judged(("write", "ask"), ("write", "ask")).answered(1, "deny", seconds=2).answered(2, "deny", seconds=3)
        frame = runs_frame(run.recorded)
        assert frame.waiting_s[0] == pytest.approx(5)
        assert list(calls_frame(run.recorded).waited_s) == pytest.approx([2, 5])
        assert sum(isinstance(event, RequestAnswered) for event in run.recorded) == 2

    def test_a_call_that_asks_several_times_has_waited_for_all_of_them(self, session: list[Drive]) -> None:
        calls = calls_frame(events_of(session)).set_index("run_id")
        asked = calls.loc[run_id("asked")]
        assert (asked.requests, asked.question, asked.result) == (3, "Which paper?", "matt")
        assert (asked.answer, asked.answered_by) == ("result", "time limit")
        assert asked.waited_s == pytest.approx(2 + 3 + 60)
        runs = runs_frame(events_of(session)).set_index("run_id")
        assert runs.waiting_s[run_id("asked")] == pytest.approx(65)
        assert list(runs.approved[[run_id("asked"), run_id("sub_agent"), run_id("asking")]]) == [1, 0, 0]

    def test_steps_tell_attempts_and_tier(self, session: list[Drive]) -> None:
        step = steps_frame(events_of(session)).set_index("run_id").loc[run_id("retried")]
        assert (step.attempts, step.model, step.tier) == (3, "lab/little", "small")
        run = runs_frame(events_of(session)).set_index("run_id").loc[run_id("retried")]
        assert (run.model, run.provider, run.tier) == ("lab/big", "lab", "small")

    def test_trusted_output_taints_nothing(self, session: list[Drive]) -> None:
        is_tainted = runs_frame(events_of(session)).set_index("run_id").is_tainted
        assert (is_tainted[run_id("declined")], is_tainted[run_id("shown")]) == (False, True)

    def test_files_and_scopes_are_counted(self, session: list[Drive]) -> None:
        calls = calls_frame(events_of(session))
        assert calls[calls.run_id == run_id("shown")].files.item() == 2
        assert list(calls[calls.run_id == run_id("steered")].scope) == ["session", "once"]
        assert list(calls[calls.run_id == run_id("steered")].status) == ["ok", "skipped"]


@pytest.mark.feature("E2")
class TestSchemas:
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("name", FRAMES)
    def test_columns_and_dtypes_are_the_documented_ones_full_or_empty(
        self, session: list[Drive], name: Any, backend: Any
    ) -> None:
        full, empty = FRAMES[name](events_of(session), backend=backend), FRAMES[name]([], backend=backend)
        assert full.dtypes.to_dict() == empty.dtypes.to_dict()
        have = {
            column: str(dtype).replace("timestamp[us, UTC]", "timestamp[us, tz=UTC]")
            for column, dtype in full.dtypes.items()
        }
        want = {c.name: c.dtype if backend == "numpy_nullable" else ARROW[c.dtype] for c in SCHEMAS[name]}
        assert list(have.items()) == list(want.items())
        for column in SCHEMAS[name]:
            if column.categories:
                assert tuple(full[column.name].cat.categories) == column.categories

    @pytest.mark.parametrize("name", FRAMES)
    def test_the_documents_are_printed_from_the_schemas(self, name: Any) -> None:
        assert schema_text(name) in (getattr(turncell, f"{name}_df").__doc__ or "")
        assert (Path(__file__).parents[2] / "docs" / "frames.md").read_text("utf-8") == document()

    def test_every_frame_takes_both_backends_and_no_other(self) -> None:
        with pytest.raises(ValueError, match="polars"):
            runs_frame([], backend="polars")  # type: ignore[arg-type]

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_parquet_gives_back_what_it_got(self, session: list[Drive], backend: Any, tmp_path: Path) -> None:
        for name, frame in zip(FRAMES, tables(events_of(session), backend=backend), strict=True):
            path = tmp_path / f"{name}.parquet"
            frame.to_parquet(path)
            back = pd.read_parquet(path, dtype_backend=backend)
            pd.testing.assert_frame_equal(back.astype(frame.dtypes.to_dict()), frame)

    def test_a_word_of_a_later_version_is_kept(self, session: list[Drive]) -> None:
        lines = [json.loads(r.payload) for r in as_records(session[0].recorded)]
        lines[-1]["status"] = "paused"
        status = runs_frame(lines).status
        assert status[0] == "paused" and status.cat.categories[-1] == "paused"

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_an_odd_value_is_unknown_and_costs_no_other_row(self, session: list[Drive], backend: Any) -> None:
        good = [json.loads(r.payload) for r in as_records(session[0].recorded)]
        odd = [{**line, "run_id": "run_odd"} for line in good]
        odd[0] |= {"is_attended": "no", "depth": "deep"}
        frame = runs_frame([*good, *odd], backend=backend)
        assert list(frame.is_attended.isna()) == [False, True] and list(frame.depth.isna()) == [False, True]
        pd.testing.assert_frame_equal(frame[:1], runs_frame(good, backend=backend), check_categorical=False)

    @pytest.mark.parametrize("backend", BACKENDS)
    def test_text_that_is_no_unicode_is_shown_escaped(self, backend: Any) -> None:
        frame = runs_frame(Drive().begin("half a \ud83d pair").recorded, backend=backend)
        assert frame.prompt[0] in ("half a \\ud83d pair", "half a \ud83d pair")

    def test_ids_join(self, session: list[Drive]) -> None:
        runs, steps, _, calls, _ = tables(events_of(session))
        assert runs.run_id.is_unique and calls.call_id.is_unique and not steps.duplicated(["run_id", "step"]).any()
        joined = calls.merge(steps, on=["run_id", "step"], how="left", indicator=True, suffixes=("", "_of_step"))
        assert (joined["_merge"] == "both").all() and len(joined) == len(calls)
        per_run = steps.groupby("run_id").calls.sum()
        assert (runs.set_index("run_id").calls == per_run.reindex(runs.run_id)).all()


@pytest.mark.feature("E3")
class TestUnknownIsNotZero:
    def test_one_step_of_unknown_cost_makes_the_run_unknown(self, session: list[Drive]) -> None:
        runs, steps, *_ = tables(events_of(session))
        run = runs[runs.run_id == "run_3"].iloc[0]
        assert list(steps[steps.run_id == "run_3"].cost_usd.isna()) == [False, True]
        assert run.cost_usd is pd.NA and run.cost_basis == "none"
        assert runs.cost_usd.isna().sum() == sum(drive.run.cost_usd is None for drive in session)

    def test_tokens_that_nobody_counted_are_unknown(self, session: list[Drive]) -> None:
        run = runs_frame(session[0].recorded).iloc[0]
        assert run.cache_read_tokens is pd.NA and run.reasoning_tokens is pd.NA and run.input_tokens == 3100

    def test_cost_of_several_kinds_is_mixed(self) -> None:
        run = (
            Drive()
            .begin("x")
            .asks_for(("read_file", {}))
            .finishes("tool_calls")
            .judged(("read", "allow"))
            .returned(1, "")
        )
        lines = [json.loads(r.payload) for r in as_records(run.writes("y").finishes().recorded)]
        next(line for line in lines if line["type"] == "StepFinished")["cost_basis"] = "provider"
        assert runs_frame(lines).cost_basis[0] == "mixed"


@pytest.mark.feature("C2", "C6")
def test_a_summary_is_paid_by_its_run_and_marks_the_step_whose_prefix_it_broke() -> None:
    kept = json.loads((Path(__file__).parents[1] / "journals" / "compacted.json").read_text())
    runs, steps, *_ = tables(kept["events"])
    assert list(steps.is_prefix_broken) == [False, False, True]
    assert runs.cost_usd[0] == pytest.approx(steps.cost_usd.sum() + 0.002)
    assert runs.output_tokens[0] == steps.output_tokens.sum() + 20


@pytest.mark.feature("E2")
def test_times_are_utc_to_the_microsecond() -> None:
    frame = runs_frame(Drive(at=1_755_172_800.123456).begin("x").recorded)
    assert frame.started_at[0] == pd.Timestamp("2025-08-14 12:00:00.123456", tz="UTC")
    assert frame.ended_at[0] is pd.NaT


def test_every_event_that_is_read_exists() -> None:
    from turncell.core import events

    assert all(hasattr(events, name) for name in EVENT_TYPES)
