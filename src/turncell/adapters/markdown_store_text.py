"""What a person reads in a session's document: a heading for each run, messages, calls, results.

Nothing is read back from it. All text from outside stands in a block quote: its lines begin with `>`, an open fence ends
with the quote, and its headings are not ours. `<` before a letter is escaped: a viewer must not make HTML of it. (In
code one therefore reads `&lt;`; whoever needs it to the letter takes the record.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from turncell.core import codec
from turncell.core.parts import Json
from turncell.runtime.ports import Record

MAX_SHOWN_CHARS = 20_000
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def clock(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "at an unknown time"


def one_line(text: str) -> str:
    """For headings and spans of code."""
    return _TAG.sub("&lt;", " ".join(_CONTROL.sub("\ufffd", text[:300]).split())).replace("`", "'")


def head(session_id: str, title: str, project: str, at: float) -> str:
    place = f" in `{one_line(project)}`" if project.strip() else ""
    return f"{title_line(title)}\nSession `{session_id}`, begun {clock(at)}{place}.\n"


def title_line(title: str) -> str:
    return f"# {one_line(title) or 'Untitled'}\n"


def rendered(record: Record) -> str:
    """What a record looks like; empty for those that say nothing to a reader."""
    try:
        event = codec.decode_json(record.payload)
        return _event(record, event, record.blobs) if isinstance(event, dict) else ""
    except (ValueError, RecursionError, TypeError, AttributeError, KeyError):
        return ""  # not an event that we know; its record is there all the same


def _event(record: Record, event: dict[str, Json], blobs: Mapping[str, bytes]) -> str:
    def text(value: Json) -> str:
        return _text(value, blobs)

    match record.type:
        case "RunStarted":
            words = ", ".join(one_line(text(event.get(name))) for name in ("model", "mode") if event.get(name))
            return f"\n## Run, {clock(record.at)}\n\n{words}\n"
        case "MessageAdded" | "Steered":
            message = event["message"]
            name = {"user": "Message", "assistant": "Answer"}.get(message["role"], one_line(str(message["role"])))
            shown = "".join(_part(part, blobs) for part in message["parts"])
            return f"\n### {name}\n{shown}" if shown else ""
        case "CallProposed":
            problem = f"\nIt cannot run: {one_line(text(event['problem']))}\n" if event.get("problem") else ""
            arguments = json.dumps(event.get("arguments"), ensure_ascii=False, indent=2)
            return f"\n#### Call of `{one_line(text(event['name']))}`\n{_fenced(arguments, 'json')}{problem}"
        case "RequestAnswered":
            return f"\nAnswered: {one_line(text(event['answer']))}, by {one_line(text(event['by']))}.\n"
        case "CallFinished":
            return f"\nResult: {one_line(text(event['status']))}\n{_fenced(text(event['content']))}"
        case "StepFailed":
            return f"\nThe model failed: {one_line(text(event['message']))}\n"
        case "RunEnded":
            why = f": {one_line(text(event['message']))}" if event.get("message") else ""
            closing = _quoted(text(event["text"])) if event.get("text") else ""
            return f"{closing}\n*{one_line(text(event['status']))}{why}*\n"
    return ""


def _part(part: dict[str, Json], blobs: Mapping[str, bytes]) -> str:
    match part.get("type"):
        case "text":
            return _quoted(_text(part["text"], blobs))
        case "reasoning":
            return f"\nThought:\n{_quoted(_text(part['text'], blobs))}"
        case "image":
            where = "" if part.get("media_type") else f" at {one_line(_text(part.get('data'), blobs))}"
            return f"\n(an image{where})\n"
    return ""  # calls and results have events of their own


def _text(value: Json, blobs: Mapping[str, bytes]) -> str:
    """A text of an event, also where it has become a blob."""
    if isinstance(value, dict) and isinstance(value.get("$blob"), str):
        data = blobs.get(value["$blob"])
        return f"(the text {value['$blob'][:12]}…)" if data is None else data.decode("utf-8", "replace")
    return value if isinstance(value, str) else str(value)


def _quoted(text: str) -> str:
    lines = _TAG.sub("&lt;", _shown(text)).splitlines()
    return "\n" + "".join(f"> {line}".rstrip() + "\n" for line in lines) if lines else ""


def _fenced(text: str, language: str = "") -> str:
    text = _shown(text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return "\n" + "".join(f"> {line}\n" for line in (fence + language, *text.splitlines(), fence))


def _shown(text: str) -> str:
    more = len(text) - MAX_SHOWN_CHARS
    cut = text if more <= 0 else f"{text[:MAX_SHOWN_CHARS]}\n… {more} characters more"
    return _CONTROL.sub("\ufffd", cut)
