"""How the embedded model reads a message: which tools it mentions, and with which arguments.

Three steps, none of them clever. The message is cut into clauses at "and", "then" and punctuation. Each clause is
compared with the words of each tool: those of its name weigh most, and a word that many tools share weighs less. A
clause that names no tool of its own belongs to the one before, unless that one is complete and the clause is only a
value ("the weather in Oslo and Bergen"): then it is the same call again. Arguments come from what stands beside a
parameter's name, else from what looks like its type: quoted text, numbers, capitalised words.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from turncell.core.parts import Json
from turncell.runtime.ports import ToolSpec

_STOP = frozenset(
    [
        "a",
        "about",
        "after",
        "all",
        "also",
        "am",
        "an",
        "and",
        "any",
        "are",
        "as",
        "at",
        "be",
        "been",
        "being",
        "but",
        "by",
        "can",
        "could",
        "did",
        "do",
        "does",
        "down",
        "each",
        "else",
        "for",
        "from",
        "had",
        "has",
        "have",
        "he",
        "hello",
        "her",
        "here",
        "hey",
        "hi",
        "him",
        "his",
        "how",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "just",
        "know",
        "let",
        "like",
        "may",
        "me",
        "might",
        "my",
        "need",
        "no",
        "not",
        "now",
        "of",
        "off",
        "ok",
        "okay",
        "on",
        "one",
        "or",
        "our",
        "out",
        "over",
        "please",
        "shall",
        "she",
        "should",
        "so",
        "some",
        "such",
        "than",
        "thank",
        "thanks",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "those",
        "to",
        "today",
        "tonight",
        "tomorrow",
        "too",
        "up",
        "us",
        "use",
        "using",
        "very",
        "want",
        "was",
        "we",
        "well",
        "were",
        "what",
        "what's",
        "when",
        "where",
        "which",
        "while",
        "who",
        "whom",
        "whose",
        "why",
        "will",
        "with",
        "would",
        "yes",
        "you",
        "your",
    ]
)
_VERBS = frozenset(
    [
        "get",
        "give",
        "show",
        "tell",
        "find",
        "fetch",
        "look",
        "make",
        "run",
        "call",
        "list",
        "read",
        "write",
        "set",
        "create",
        "open",
        "check",
        "return",
    ]
)
"""Too common in names of tools to mean one of them alone."""
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
_THRESHOLD = 1.5

_QUOTED = r"```.*?```|`[^`\n]+`|\"[^\"]*\"|“[^”]*”|«[^»]*»|(?<!\w)'[^'\n]*'(?!\w)"
_NUMBER = r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w]|\.\d)"
_WORD = r"[^\W\d_][\w'’-]*"
_ODD = r"(?=\S*[\w])[\w~/:@+-]*[./@_\\:=][\w./@:+\\=-]*[\w/]"
"""Paths, addresses and identifiers: words that no sentence has by chance."""
_TOKEN = re.compile(rf"({_QUOTED})|({_NUMBER})|({_ODD})|({_WORD})", re.S)
_CUT = re.compile(
    rf"(?P<keep>{_QUOTED})|(?P<cut>(?:[,;.!?]+(?=\s|$)|\n+|\s)\s*(?:(?:and|then|afterwards|after that|&)(?=\s|$)\s*)*)",
    re.S | re.I,
)


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


def read(prompt: str, tools: Sequence[ToolSpec]) -> list[list[Wish]]:
    """The calls that a message wants: a list for each step. A wish with `missing` parameters cannot be called."""
    scores = _Scores(tools)
    clauses = _clauses(prompt)
    wishes: list[Wish] = []
    is_after = False
    loose = ""
    for number, (glue, text) in enumerate(clauses):
        is_after = is_after or bool(re.search("then|after", glue, re.I))
        tool, words = scores.best(text)
        last = wishes[-1] if wishes else None
        is_list = last is not None and any(schema.get("type") == "array" for schema in _properties(last.tool).values())
        if last and tool is None and not last.missing and not is_list and _is_value(text) and _joins(clauses, number):
            again = _wish(last.tool, text, last.words, is_after)
            if not again.missing:
                wishes.append(again)
                continue
        alone = None if tool is None else _wish(tool, loose + text, words, is_after and bool(wishes))
        if alone is None and last is None:
            loose += text + glue
        elif last is not None and (alone is None or _goes_on(last, alone)):
            wishes[-1] = _wish(last.tool, last.text + glue + text, (*last.words, *words), last.is_after)
        elif alone is not None:
            wishes.append(alone)
            is_after, loose = False, ""
    if not wishes:
        tool, words = scores.best(prompt)
        wishes = [_wish(tool, prompt, words, False)] if tool is not None else []
    # "The weather and the forecast for Oslo": what one clause lacks may stand in another.
    for place, wish in enumerate(wishes):
        if wish.missing:
            whole = _wish(wish.tool, prompt, wish.words, wish.is_after)
            wishes[place] = whole if len(whole.missing) < len(wish.missing) else wish
    steps: list[list[Wish]] = []
    for wish in wishes:
        if steps and not wish.is_after:
            steps[-1].append(wish)
        else:
            steps.append([wish])
    return steps


def _goes_on(last: Wish, clause: Wish) -> bool:
    """Whether a clause says more about the call before it, rather than asking for the same tool once more."""
    return clause.tool is last.tool and bool(last.missing or clause.missing or not clause.arguments)


def stem(word: str) -> str:
    """The word without its ending, roughly.

    >>> stem("Variables"), stem("calculating"), stem("cities")
    ('variabl', 'calculat', 'city')
    """
    word = re.sub(r"['’]s$", "", word.lower())
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    for ending in ("ing", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: -len(ending)]
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def _name_words(name: str) -> list[str]:
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)


def _stems(words: Iterable[str]) -> set[str]:
    return {stem(word) for word in words if word.lower() not in _STOP and len(word) > 1}


class _Scores:
    """What each word says about each tool."""

    def __init__(self, tools: Sequence[ToolSpec]) -> None:
        self.tools = tools
        weights: list[dict[str, float]] = []
        for tool in tools:
            words: dict[str, float] = {}
            properties = _properties(tool)
            # The first sentence: later ones explain, and explanations mention anything.
            summary = re.split(r"\.\s|\n", tool.description, maxsplit=1)[0]
            choices = (str(choice) for schema in properties.values() for choice in schema.get("enum", ()))
            for weight, source in (
                (1.0, _stems(word for name in properties for word in _name_words(name))),
                (1.5, _stems(re.findall(_WORD, summary))),
                (2.0, _stems(word for choice in choices for word in re.findall(_WORD, choice))),
                (3.0, _stems(_name_words(tool.name))),
            ):
                words.update((word, min(weight, 1.0) if word in _VERB_STEMS else weight) for word in source)
            weights.append(words)
        shared = Counter(word for words in weights for word in words)
        self.weights = [{word: weight / shared[word] for word, weight in words.items()} for words in weights]

    def best(self, text: str) -> tuple[ToolSpec | None, tuple[str, ...]]:
        """The tool that the text fits best, if it fits at all, and the words that say so."""
        plain = re.sub(_QUOTED, " ", text, flags=re.S)
        found = {stem(word): word for word in re.findall(_WORD, plain) if word.lower() not in _STOP}
        top: tuple[float, ToolSpec | None, tuple[str, ...]] = (0.0, None, ())
        for tool, weights in zip(self.tools, self.weights, strict=True):
            words = tuple(word for root, word in found.items() if root in weights)
            score = sum(weights[stem(word)] for word in words)
            if re.search(rf"(?<![\w-]){re.escape(tool.name)}(?![\w-])", text, re.I):
                score, words = score + 10, (tool.name,)
            elif words and re.search(rf"{_QUOTED}|{_ODD}", text, re.S):
                score += 0.5
            if score > top[0]:
                top = (score, tool, words)
        return (top[1], top[2]) if top[0] >= _THRESHOLD else (None, ())


_VERB_STEMS = _stems(_VERBS)


def _clauses(prompt: str) -> list[tuple[str, str]]:
    """(what stood before it, clause) pairs; quoted text is never cut."""
    clauses: list[tuple[str, str]] = []
    glue, start = "", 0
    for match in _CUT.finditer(prompt):
        cut = match["cut"]
        if cut is None or not re.search(r"[,;.!?\n&]|and|then|after", cut, re.I):
            continue
        if prompt[start : match.start()].strip():
            clauses.append((glue, prompt[start : match.start()]))
            glue = cut
        else:
            glue += cut
        start = match.end()
    if prompt[start:].strip():
        clauses.append((glue, prompt[start:]))
    return clauses


def _is_value(text: str) -> bool:
    kinds = [(match.lastindex or 0, match[0]) for match in _TOKEN.finditer(text)]
    return bool(kinds) and all(kind < 4 or word[0].isupper() or word.lower() in _STOP for kind, word in kinds)


def _joins(clauses: list[tuple[str, str]], number: int) -> bool:
    """Whether a list goes on here: at "and", or at a comma with an "and" later ("Oslo, Bergen and Bodø")."""
    for glue, text in clauses[number:]:
        if re.search(r"and|&|then", glue, re.I):
            return True
        if "," not in glue or not _is_value(text):
            return False
    return False


def _properties(tool: ToolSpec) -> dict[str, dict[str, Json]]:
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


def _wish(tool: ToolSpec, text: str, words: tuple[str, ...], is_after: bool) -> Wish:
    values = _Values(text, _stems([*words, *_name_words(tool.name)]))
    properties = _properties(tool)
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
    ordered = {name: arguments[name] for name in properties if name in arguments}
    return Wish(tool, text, words, ordered, tuple(name for name in required if name not in arguments), is_after)


class _Values:
    """What a clause offers as arguments. Each piece of the text is used once."""

    def __init__(self, text: str, keywords: set[str]) -> None:
        self.text, self.keywords = text, keywords

    def named(self, name: str, schema: dict[str, Json]) -> Json:
        """The value that stands beside the parameter's name, or None."""
        label = r"[\s_-]?".join(map(re.escape, _name_words(name) or [name]))
        kind = schema.get("type")
        for choice in schema.get("enum", ()):
            if self._take(rf"(?<!\w){re.escape(str(choice)).replace('_', '[ _]')}(?!\w)"):
                return choice
        if kind == "boolean":
            no = self._take(rf"\b(?:no|not|without|don't)\s+{label}\b")
            said = no or self._take(rf"\b{label}\b(?:\s*[:=]?\s*(?P<value>true|false|yes|no|on|off)\b)?")
            return None if not said else not no and said["value"] not in ("false", "no", "off")
        if kind in ("integer", "number"):
            said = self._take(rf"\b{label}\b\s*(?:[:=]|is|of|to)?\s*(?P<value>{_NUMBER})")
            said = said or self._take(rf"(?P<value>{_NUMBER})[\s-]*{label}\b")
            return _number(said["value"], kind) if said else None
        if kind in ("array", "object"):
            return self._json(rf"\b{label}\b\s*[:=]?\s*", kind)
        value = rf"(?P<value>{_QUOTED}|{_ODD}|{_NUMBER}"
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
            said = self._take(rf"(?P<value>{_NUMBER})")
            return _number(said["value"], kind) if said else None
        if kind in ("array", "object"):
            return (
                self._json("", kind)
                if kind == "object"
                else (self._json("", kind) or self._all(schema.get("items") or {}))
            )
        said = self._take(rf"(?P<value>{_QUOTED})")
        if said:
            return _unquoted(said["value"])
        if name.lower() in _PROSE:
            return self._phrase(is_required)
        said = self._take(rf"(?P<value>{_ODD})") or self._capitalised()
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
        for run in re.finditer(rf"(?P<value>{_WORD}(?:[ ](?:de |la |of |am |upon )?{_WORD})*)", self.text):
            for match in re.finditer(r"[^\W\d_a-z][\w'’-]*(?: (?:(?:de|la|of|am|upon) )?[^\W\d_a-z][\w'’-]*)*", run[0]):
                words = match[0].split(" ")
                while words and (words[0].lower() in _STOP | _VERBS or stem(words[0]) in self.keywords):
                    words.pop(0)
                while words and stem(words[-1]) in self.keywords:
                    words.pop()
                if words and words[0][0].isupper():
                    return self._take(rf"(?P<value>(?<!\w){re.escape(' '.join(words))}(?!\w))")
        return None

    def _rest(self) -> Json:
        """The last run of words that neither the language nor the tool needs: "the weather in new york"."""
        runs: list[list[str]] = [[]]
        for word in re.findall(rf"{_WORD}|\S", self.text):
            is_free = (
                re.fullmatch(_WORD, word) and word.lower() not in _STOP | _VERBS and stem(word) not in self.keywords
            )
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
            if stem(word) in self.keywords or (word in _STOP | _VERBS and not self.text[start : match.start()].strip()):
                start = match.end()
        phrase = self.text[start:].strip(" ,.!?")
        return phrase or (self.text.strip(" ,") if is_required and not words else None)


def _number(text: str, kind: str) -> int | float:
    return int(float(text)) if kind == "integer" or "." not in text else float(text)


def _unquoted(text: str) -> str:
    if text.startswith("```"):
        return re.sub(r"^```(?:\w*\n)?|\n?```$", "", text)
    if len(text) > 1 and re.fullmatch(_QUOTED, text, re.S):
        return text[1:-1]
    return text
