"""How the embedded model writes: Markdown from the results of tools."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence

from turncell.core.parts import Json, ToolCall, ToolResult
from turncell.runtime.ports import ToolSpec

_MAX_ROWS = 20
_MAX_COLUMNS = 8
_MAX_LINES = 30
_LABEL = "turncell's embedded model: a few rules, not a language model"


def introduce(tools: Sequence[ToolSpec]) -> str:
    """What it is and what it can do."""
    if not tools:
        return (
            f"I am {_LABEL}. I can only call tools, and I was given none. "
            "Give the agent a tool, or choose a language model, written `provider/model`."
        )
    lines = [
        f"I am {_LABEL}. I compare the words of your message with the tools I was given, call the ones that fit "
        "and show what they return. I can call:",
        "",
    ]
    for tool in tools:
        parameters = ", ".join(f"`{name}`" for name in tool.schema.get("properties") or {})
        summary = re.split(r"\.\s|\n", tool.description.strip(), maxsplit=1)[0].rstrip(".")
        lines.append(
            f"- **`{tool.name}`**" + (f": {summary}" if summary else "") + (f" ({parameters})" if parameters else "")
        )
    return "\n".join([*lines, "", "For anything else choose a language model, written `provider/model`."])


def no_match(tools: Sequence[ToolSpec]) -> str:
    return "None of my tools fits this message.\n\n" + introduce(tools) if tools else introduce(tools)


def ask_for(tool: ToolSpec, missing: Iterable[str]) -> str:
    """What it did not find in the message, and how to write it."""
    names = list(missing)
    found = " and ".join(f"`{name}`" for name in names)
    return (
        f"`{tool.name}` would fit, but I did not find {found} in your message. I only follow rules; write it so: "
        f"`{', '.join(f'{name}: …' for name in names)}`."
    )


def announce(calls: Sequence[tuple[str, dict[str, Json]]]) -> str:
    """One line before the calls."""
    return "I call " + ", ".join(_called(name, arguments) for name, arguments in calls) + ". "


def answer(results: Sequence[tuple[ToolCall, ToolResult]], not_called: Sequence[str]) -> str:
    """The answer: what each call brought, and what was left out after a call that failed."""
    blocks = []
    for call, result in results:
        title = _called(call.name, _arguments(call))
        if not result.is_error:
            blocks.append(f"{title} says:\n\n{_to_markdown(result.content)}")
            continue
        # "denied by the user: reason" and "the run was stopped" are sentences already; the rest is an error's text.
        denial = re.search(r"\bdenied\b.*", result.content, re.S)
        if denial:
            reason = denial[0].removeprefix("denied").strip()
            blocks.append(
                f"{title} was denied{' ' + reason if reason.strip('. ') else ''}".rstrip(".") + ". It did not run."
            )
        else:
            blocks.append(f"{title} failed:\n\n{_quote(result.content or 'without a word')}")
    if not_called:
        blocks.append("So I did not go on with " + ", ".join(f"`{name}`" for name in not_called) + ".")
    return "\n\n".join(blocks)


def _arguments(call: ToolCall) -> dict[str, Json]:
    try:
        arguments = json.loads(call.arguments_text or "{}")
    except ValueError:
        return {}
    return arguments if isinstance(arguments, dict) else {}


def _called(name: str, arguments: dict[str, Json]) -> str:
    shown = ", ".join(f"{key}: {_short(value)}" for key, value in arguments.items())
    return f"**`{name}`**" + (f" ({shown})" if shown else "")


def _short(value: Json, limit: int = 60) -> str:
    text = value if isinstance(value, str) else _scalar(value)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _scalar(value: Json) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _to_markdown(content: str) -> str:
    try:
        value = json.loads(content)
    except ValueError:
        return _quote(content) if content.strip() else "*(nothing)*"
    return _value(value)


def _value(value: Json, depth: int = 0) -> str:
    if isinstance(value, dict) and value:
        flat = {key: item for key, item in value.items() if depth or not isinstance(item, dict | list)}
        blocks = [_table(["", "value"], [[key, item] for key, item in flat.items()])] if flat else []
        blocks += [f"**{key}**\n\n{_value(item, 1)}" for key, item in value.items() if key not in flat]
        return "\n\n".join(blocks)
    if isinstance(value, list) and value:
        if all(isinstance(item, dict) for item in value):
            columns = list(dict.fromkeys(key for item in value for key in item))[:_MAX_COLUMNS]
            return _table(columns, [[item.get(column) for column in columns] for item in value])
        lines = [f"- {_short(item, 200)}" for item in value[:_MAX_ROWS]]
        return "\n".join(lines) + _more(len(value) - _MAX_ROWS)
    if isinstance(value, str):
        return _quote(value) if value.strip() else "*(nothing)*"
    return f"**{_scalar(value)}**" if value not in ({}, []) else "*(nothing)*"


def _table(columns: Sequence[str], rows: Sequence[Sequence[Json]]) -> str:
    lines = [_row(columns), _row(["---"] * len(columns)), *(_row(row) for row in rows[:_MAX_ROWS])]
    return "\n".join(lines) + _more(len(rows) - _MAX_ROWS)


def _row(cells: Iterable[Json]) -> str:
    return "| " + " | ".join(_short(cell, 200).replace("|", "\\|") for cell in cells) + " |"


def _more(count: int) -> str:
    return f"\n\n… and {count} more" if count > 0 else ""


def _quote(text: str) -> str:
    lines = text.strip("\n").splitlines()
    quoted = "\n".join(f"> {line}".rstrip() for line in lines[:_MAX_LINES])
    return quoted + (f"\n\n… and {len(lines) - _MAX_LINES} more lines" if len(lines) > _MAX_LINES else "")
