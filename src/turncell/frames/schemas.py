"""The columns of every table: name, dtype and meaning, said once.

The frames are built from this; docs/frames.md and the docstrings of `runs_df` and its like are printed from it
(`python -m turncell.frames.schemas > docs/frames.md`), and a test compares all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from turncell.core.events import Answer, AnsweredBy, CostBasis, FinishReason, MessageBy, RecordedEvent, Scope
from turncell.core.fold import CallStatus, RunStatus
from turncell.core.parts import Role
from turncell.core.policy import Effect, Verdict

Table: TypeAlias = Literal["runs", "steps", "messages", "calls", "events"]
Dtype: TypeAlias = Literal["string", "Int64", "Float64", "boolean", "datetime64[us, UTC]", "category"]

RUN_STATUSES = tuple(str(word) for literal in get_args(RunStatus) for word in get_args(literal))
CALL_STATUSES = tuple(str(word) for literal in get_args(CallStatus) for word in get_args(literal))
EVENT_NAMES: tuple[str, ...] = tuple(event.__name__ for event in get_args(RecordedEvent))
MESSAGES_BY: tuple[str, ...] = (*get_args(MessageBy), "model", "tool")
COST_BASES: tuple[str, ...] = (*get_args(CostBasis), "mixed")


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    dtype: Dtype
    meaning: str
    categories: tuple[str, ...] = ()
    """The words that may stand in it. A word of a later version is kept, as one more category."""


def _text(name: str, meaning: str) -> Column:
    return Column(name, "string", meaning)


def _count(name: str, meaning: str) -> Column:
    return Column(name, "Int64", meaning)


def _number(name: str, meaning: str) -> Column:
    return Column(name, "Float64", meaning)


def _flag(name: str, meaning: str) -> Column:
    return Column(name, "boolean", meaning)


def _time(name: str, meaning: str) -> Column:
    return Column(name, "datetime64[us, UTC]", meaning)


def _word(name: str, meaning: str, categories: tuple[str, ...]) -> Column:
    return Column(name, "category", meaning, categories)


_USAGE = (
    _count("input_tokens", "tokens read by the model, the cached ones included; <NA> if no provider said"),
    _count("cache_read_tokens", "of these, read from the provider's cache"),
    _count("cache_write_tokens", "of these, written to the provider's cache"),
    _count("output_tokens", "tokens written by the model, the reasoning included"),
    _count("reasoning_tokens", "of these, spent on reasoning"),
    _flag("is_estimated", "some of the counts were estimated here, not said by the provider"),
)

SCHEMAS: dict[Table, tuple[Column, ...]] = {
    "runs": (
        _text("run_id", "the run"),
        _text("session_id", "the session it belongs to"),
        _text("previous", "the run before it in the conversation; <NA> for the first"),
        _text("copy_of", "the run that this one is a copy of, made by a fork; else <NA>"),
        _flag("is_imported", "held elsewhere and brought in as messages; tokens, costs and durations are <NA> then"),
        _text("parent_run_id", "the run that started it as a sub-agent, else <NA>"),
        _text("root_run_id", "the outermost of these parents; the run itself if it has none"),
        _count("depth", "0 for a run of its own, 1 for a sub-agent's, 2 for a sub-agent's sub-agent's ..."),
        _text("agent", "the name of the agent; empty if it has none"),
        _word(
            "status",
            "how it ended, or that it is running or waiting for a person; interrupted or in doubt if its program ended before it did",
            RUN_STATUSES,
        ),
        _text("model", "the model that was asked for first; empty if the run was brought in"),
        _text("provider", "the part of the model's name before the slash; empty if there is none"),
        _text("tier", "the tier that the router chose last; empty if none did"),
        _text("mode", "what happened to calls that no rule decided"),
        _flag("is_attended", "somebody was there to be asked"),
        _flag("is_tainted", "the model has read what an untrusted tool returned"),
        _text("prompt", "what the person wrote"),
        _text(
            "text",
            "the answer: the text of the last step that wrote any, or what closed the run: the call that ended it, or a step policy",
        ),
        _count("steps", "model calls"),
        _count("calls", "tool calls"),
        _count("approved", "of these, approved when they asked, edited ones included"),
        _count("denied", "of these, denied, by a person or by the policy"),
        *_USAGE,
        _number("cost_usd", "US dollars; <NA> if the cost of any step is unknown"),
        _word(
            "cost_basis",
            "where the cost comes from; mixed if the steps differ, none if it is unknown",
            COST_BASES,
        ),
        _time("started_at", "when it began, or was brought in"),
        _time("ended_at", "when it ended; <NA> while it is open"),
        _number("duration_s", "seconds from `started_at` to `ended_at`"),
        _number("first_token_s", "seconds from the start of the run to the first token of a model"),
        _number("model_s", "seconds spent on finished model calls"),
        _number("tools_s", "seconds in which at least one tool ran"),
        _number("waiting_s", "seconds in which at least one request waited for an answer"),
        _text("error_kind", "what went wrong, in one word"),
        _text("error", "what went wrong, in the words of whoever said it"),
        _text("cell_id", "the notebook cell it was started from; `#2` behind it: as the second turn of one execution"),
    ),
    "steps": (
        _text("run_id", "the run"),
        _text("session_id", "the session"),
        _count("step", "1, 2, 3 ... within the run"),
        _text("model", "the model that was asked for; empty if the run was brought in"),
        _text("tier", "the tier that the router chose for it; <NA> if none did"),
        _text("answered_by", "the model that the provider says has answered"),
        _word(
            "finish_reason",
            "why the model stopped writing; <NA> if it failed, still writes, or the run was brought in",
            get_args(FinishReason),
        ),
        *_USAGE,
        _number("cost_usd", "US dollars; <NA> if unknown"),
        _word("cost_basis", "where the cost comes from; none if it is unknown", get_args(CostBasis)),
        _time("started_at", "when the model was called"),
        _number("duration_s", "seconds until its last token; <NA> while it writes, or if the run was brought in"),
        _number("first_token_s", "seconds until its first token"),
        _number("longest_gap_s", "the longest silence between two pieces of the answer, in seconds"),
        _count("attempts", "model calls for it, retries and fallbacks included"),
        _count("calls", "tool calls that it asked for"),
        _flag("is_prefix_broken", "before it, part of the conversation was cut or summarised to make room"),
        _text("error_kind", "why the model call failed, in one word"),
        _text("error", "why the model call failed, in the provider's words"),
    ),
    "messages": (
        _text("run_id", "the run"),
        _text("session_id", "the session"),
        _count("step", "the step that it belongs to; 0 for the prompt"),
        _count("number", "1, 2, 3 ... within the run"),
        _word("role", "whose message it is, as a provider is told", get_args(Role)),
        _word("by", "who put it there: a person, the model, a tool, a hook, the runtime", MESSAGES_BY),
        _text("text", "its text; of a tool's message the result"),
        _text("reasoning", "the reasoning of the model; <NA> if it wrote none"),
        _text("call_id", "of a tool's message the call"),
        _text("name", "of a tool's message the tool"),
        _count("calls", "tool calls that it asks for"),
        _count("images", "images in it"),
        _flag("is_partial", "it was cut off, or is still being written"),
        _flag("is_error", "of a tool's message: the call did not end well"),
        _time("at", "when it was complete; <NA> while it is being written"),
    ),
    "calls": (
        _text("call_id", "the call"),
        _text("run_id", "the run"),
        _text("session_id", "the session"),
        _count("step", "the step that asked for it"),
        _text("name", "the tool"),
        _word("effect", "what the tool does to the world", get_args(Effect)),
        _word("status", "how it ended, or how far it is", CALL_STATUSES),
        _text("arguments", "JSON text of the arguments as they ran; <NA> if they were never valid"),
        _text(
            "proposed_arguments",
            "JSON text of what the model had asked for, if a person or a hook edited it; else <NA>",
        ),
        _text("digest", "SHA-256 of tool and arguments: what an approval is bound to"),
        _word("verdict", "what the policy said; <NA> if the call was invalid", get_args(Verdict)),
        _text("judged_by", "the rule, check or mode that decided"),
        _word(
            "answer",
            "what was answered to the latest request; <NA> if nobody was asked or has answered",
            get_args(Answer),
        ),
        _word("answered_by", "who answered", get_args(AnsweredBy)),
        _text("reason", "why, in the words of whoever answered, else of the rule"),
        _word("scope", "for how long the answer holds for later calls", get_args(Scope)),
        _count("requests", "how often somebody was asked: about the call, and by it while it ran"),
        _text("question", "the last question that the call asked; <NA> if there was none"),
        _text(
            "result",
            "the answer to it (a JSON list if there may be several), or the result that a person gave in place of the tool",
        ),
        _number("waited_s", "seconds from the requests to their answers, summed; <NA> if there was none"),
        _text("content", "what the model read as the result"),
        _count("files", "files that it has written"),
        _time("proposed_at", "when the model had written the call"),
        _time("started_at", "when it began to run; <NA> if it never did"),
        _time("ended_at", "when its result came"),
        _number("duration_s", "seconds that it ran"),
    ),
    "events": (
        _text("session_id", "the session it belongs to"),
        _count("seq", "1, 2, 3 ... within the session"),
        _text("run_id", "the run it is about"),
        _count("step", "the step it belongs to; 0 before the first"),
        _word("type", "what happened", EVENT_NAMES),
        _time("at", "when"),
        _text("call_id", "the call it is about, else <NA>"),
        _text("request_id", "the request it is about, else <NA>"),
        _text("payload", "all of it, as JSON text"),
    ),
}

_OF_USAGE = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cache_read_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
}
_OF_ALL = {"session_id": "gen_ai.conversation.id", "error_kind": "error.type"}
_OTEL: dict[Table, dict[str, str]] = {
    "runs": _OF_USAGE | {"model": "gen_ai.request.model", "provider": "gen_ai.provider.name", "agent": "gen_ai.agent.name"},
    "steps": _OF_USAGE
    | {
        "model": "gen_ai.request.model",
        "answered_by": "gen_ai.response.model",
        "finish_reason": "gen_ai.response.finish_reasons",
    },
    "messages": {"call_id": "gen_ai.tool.call.id", "name": "gen_ai.tool.name"},
    "calls": {
        "call_id": "gen_ai.tool.call.id",
        "name": "gen_ai.tool.name",
        "arguments": "gen_ai.tool.call.arguments",
        "content": "gen_ai.tool.call.result",
    },
    "events": {"call_id": "gen_ai.tool.call.id"},
}  # fmt: skip


def otel_name(table: Table, column: str) -> str:
    """The name by OpenTelemetry's conventions for generative AI; what those have no word for begins with `turncell.`.

    >>> otel_name("steps", "input_tokens"), otel_name("steps", "cost_usd")
    ('gen_ai.usage.input_tokens', 'turncell.cost_usd')
    """
    return (_OF_ALL | _OTEL[table]).get(column, f"turncell.{column}")


def schema_table(table: Table) -> str:
    """The columns of one table as a Markdown table."""
    lines = ["| column | dtype | meaning | with `otel=True` |", "|---|---|---|---|"]
    for column in SCHEMAS[table]:
        words = f" ({', '.join(column.categories)})" if column.categories else ""
        name = otel_name(table, column.name)
        other = "" if name.startswith("turncell.") else f"`{name}`"
        lines.append(f"| `{column.name}` | {column.dtype} | {column.meaning}{words} | {other} |")
    return "\n".join(lines)


def schema_text(table: Table) -> str:
    """The columns of one table in plain lines, for a docstring."""
    lines = []
    for column in SCHEMAS[table]:
        words = f" ({', '.join(column.categories)})" if column.categories else ""
        lines.append(f"{column.name:<20} {column.dtype}: {column.meaning}{words}")
    return "\n".join(lines)


def document() -> str:
    """docs/frames.md."""
    intro = (
        "# The columns of the tables\n\n"
        "Examples are in [histories.md](histories.md). `help(turncell.runs_df)` and so on show the same columns.\n\n"
        "- Unknown is `<NA>`, never 0. Times are UTC. Empty tables have the same columns and dtypes as full ones.\n"
        "- All tables join on `run_id`; `steps`, `messages` and `calls` on `run_id, step`; `calls`, `messages` and "
        "`events` on `call_id`. `runs.previous` and `runs.parent_run_id` are run ids too.\n"
        "- Runs that a fork copied are left out, so that sums count everything once. `has_copies=True` adds them, with "
        "the original in `copy_of`. Runs that were undone or replaced are there: they have happened.\n"
        "- `backend=\"pyarrow\"` gives Arrow-backed columns; categories stay pandas categories.\n"
        "- `otel=True` gives columns the names of OpenTelemetry's semantic conventions for generative AI (1.41.0); "
        "columns without a name there are called `turncell.…`.\n"
    )  # fmt: skip
    return intro + "".join(f"\n## {table}\n\n{schema_table(table)}\n" for table in SCHEMAS)


if __name__ == "__main__":
    print(document(), end="")  # noqa: T201
