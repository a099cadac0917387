"""Arguments for a call, out of the text of a clause.

They come from what stands beside a parameter's name, else from what looks like its type: quoted text, numbers,
capitalised words.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

from turncell.adapters.rules_words import GAP, NUMBER, ODD, QUOTED, STOP, VERBS, WORD, name_words, stem, stems
from turncell.core.parts import Json
from turncell.runtime.ports import ToolSpec

_PROSE = frozenset(
    [
        "query",
        "question",
        "text",
        "prompt",
        "message",
        "content",
        "code",
        "expression",
        "topic",
        "note",
        "q",
        "search",
        "task",
        "body",
    ]
)
"""Parameters that want a phrase rather than a name."""


@dataclass(slots=True)
class Wish:
    """One call that the message seems to want."""

    tool: ToolSpec
    text: str
    words: tuple[str, ...]
    """Which words spoke for the tool."""
    arguments: dict[str, Json] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    is_after: bool = False
    """It waits for the calls before it ("then")."""


def new_wish(tool: ToolSpec, text: str, words: tuple[str, ...], is_after: bool) -> Wish:
    values = _Values(text, stems([*words, *name_words(tool.name)]))
    properties = properties_of(tool)
    required = [name for name in tool.schema.get("required") or () if name in properties]
    names = required + [name for name in properties if name not in required]
    arguments: dict[str, Json] = {}
    # What is named belongs to its parameter before anything is guessed.
    for name in names:
        value = values.named(name, properties[name])
        if value is not None:
            arguments[name] = value
    for name in names:
        if name not in arguments and (name in required or not any(n in arguments for n in properties)):
            value = values.guessed(name, properties[name], is_required=name in required)
            if value is not None:
                arguments[name] = value
    # Nobody has written what reaches over a gap.
    whole = {name for name, value in arguments.items() if GAP not in json.dumps(value, ensure_ascii=False)}
    ordered = {name: arguments[name] for name in properties if name in whole}
    return Wish(tool, text, words, ordered, tuple(name for name in required if name not in ordered), is_after)


def properties_of(tool: ToolSpec) -> dict[str, dict[str, Json]]:
    """The parameters of a tool, with references followed and `null` taken out of alternatives."""
    definitions = tool.schema.get("$defs") or {}
    resolved = {}
    for name, schema in (tool.schema.get("properties") or {}).items():
        for _ in range(8):
            if "$ref" in schema:
                schema = definitions.get(str(schema["$ref"]).rsplit("/", 1)[-1], {})
            elif schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
                options = schema.get("anyOf") or schema.get("oneOf") or schema["allOf"]
                schema = next((option for option in options if option.get("type") != "null"), {})
            else:
                break
        resolved[name] = {"enum": [schema["const"]], **schema} if "const" in schema else dict(schema)
    return resolved


class _Values:
    """What a clause offers as arguments. Each piece of the text is used once."""

    def __init__(self, text: str, keywords: set[str]) -> None:
        self.text, self.keywords = text, keywords

    def named(self, name: str, schema: dict[str, Json]) -> Json:
        """The value that stands beside the parameter's name, or None."""
        label = r"[\s_-]?".join(map(re.escape, name_words(name) or [name]))
        kind = schema.get("type")
        for choice in schema.get("enum", ()):
            if self._take(rf"(?<!\w){re.escape(str(choice)).replace('_', '[ _]')}(?!\w)"):
                return choice
        if kind == "boolean":
            no = self._take(rf"\b(?:no|not|without|don't)\s+{label}\b")
            said = no or self._take(rf"\b{label}\b(?:\s*[:=]?\s*(?P<value>true|false|yes|no|on|off)\b)?")
            return None if not said else not no and said["value"] not in ("false", "no", "off")
        if kind in ("integer", "number"):
            said = self._take(rf"\b{label}\b\s*(?:[:=]|is|of|to)?\s*(?P<value>{NUMBER})")
            said = said or self._take(rf"(?P<value>{NUMBER})[\s-]*{label}\b")
            return _number(said["value"], kind) if said else None
        if kind in ("array", "object"):
            return self._json(rf"\b{label}\b\s*[:=]?\s*", kind)
        value = rf"(?P<value>{QUOTED}|{ODD}|{NUMBER}"
        said = self._take(rf"\b{label}\b\s*(?:=|is|of|to|as|named|called|titled)?\s*{value})")
        said = said or self._take(rf"\b{label}\b\s*:\s*(?P<value>[^,;\n]+?)\s*(?=[,;\n]|[.!?]?$)")
        said = said or self._take(rf"\b{label}\b\s*(?:=|named|called|titled)\s*(?P<value>[^\s,;]+)")
        return _unquoted(said["value"]) if said else None

    def guessed(self, name: str, schema: dict[str, Json], *, is_required: bool) -> Json:
        """The value that looks most like what the parameter wants, or None."""
        kind = schema.get("type")
        if kind == "boolean":
            return False if is_required else None
        if "enum" in schema:
            return None
        if kind in ("integer", "number"):
            said = self._take(rf"(?P<value>{NUMBER})")
            return _number(said["value"], kind) if said else None
        if kind in ("array", "object"):
            return (
                self._json("", kind)
                if kind == "object"
                else (self._json("", kind) or self._all(schema.get("items") or {}))
            )
        said = self._take(rf"(?P<value>{QUOTED})")
        if said:
            return _unquoted(said["value"])
        if name.lower() in _PROSE:
            return self._phrase(is_required)
        said = self._take(rf"(?P<value>{ODD})") or self._capitalised()
        if said:
            return said["value"].strip()
        return self._rest() if is_required else None

    def _take(self, pattern: str) -> re.Match[str] | None:
        match = re.search(pattern, self.text, re.S | re.I)
        if match:
            self.text = self.text[: match.start()] + " , " + self.text[match.end() :]
        return match

    def _json(self, before: str, kind: str) -> Json:
        said = self._take(before + (r"(?P<value>\[.*\])" if kind == "array" else r"(?P<value>\{.*\})"))
        try:
            return json.loads(said["value"]) if said else None
        except ValueError:
            return None

    def _all(self, items: dict[str, Json]) -> Json:
        found: list[Json] = []
        for _ in range(50):
            one = self.guessed("", items, is_required=False)
            if one is None:
                break
            found.append(one)
        return found or None

    def _capitalised(self) -> re.Match[str] | None:
        """The first run of capitalised words that are not the tool's own or a sentence's first ("What")."""
        for run in re.finditer(rf"(?P<value>{WORD}(?:[ ](?:de |la |of |am |upon )?{WORD})*)", self.text):
            for match in re.finditer(r"[^\W\d_a-z][\w'’-]*(?: (?:(?:de|la|of|am|upon) )?[^\W\d_a-z][\w'’-]*)*", run[0]):
                words = match[0].split(" ")
                while words and (words[0].lower() in STOP | VERBS or stem(words[0]) in self.keywords):
                    words.pop(0)
                while words and stem(words[-1]) in self.keywords:
                    words.pop()
                if words and words[0][0].isupper():
                    return self._take(rf"(?P<value>(?<!\w){re.escape(' '.join(words))}(?!\w))")
        return None

    def _rest(self) -> Json:
        """The last run of words that neither the language nor the tool needs: "the weather in new york"."""
        runs: list[list[str]] = [[]]
        for word in re.findall(rf"{WORD}|\S", self.text):
            is_free = re.fullmatch(WORD, word) and word.lower() not in STOP | VERBS and stem(word) not in self.keywords
            if is_free:
                runs[-1].append(word)
            elif runs[-1]:
                runs.append([])
        words = next((run for run in reversed(runs) if run), [])
        return " ".join(words) or None

    def _phrase(self, is_required: bool) -> Json:
        """Everything after a colon, or after the tool's own words."""
        if ":" in self.text:
            return self.text.split(":", 1)[1].strip() or None
        words = list(re.finditer(r"\S+", self.text))
        start = 0
        for match in words:
            word = match[0].strip(".,;!?'\"()").lower()
            if stem(word) in self.keywords or (word in STOP | VERBS and not self.text[start : match.start()].strip()):
                start = match.end()
        phrase = self.text[start:].strip(" ,.!?")
        return phrase or (self.text.strip(" ,") if is_required and not words else None)


def _number(text: str, kind: str) -> int | float:
    if "." not in text:
        return int(text)
    return int(float(text)) if kind == "integer" else float(text)


def _unquoted(text: str) -> str:
    if text.startswith("```"):
        return re.sub(r"^```(?:\w*\n)?|\n?```$", "", text)
    if len(text) > 1 and re.fullmatch(QUOTED, text, re.S):
        return text[1:-1]
    return text
