"""How the embedded model reads a message: which tools it mentions, and with which arguments.

Three steps, none of them clever. The message is cut into clauses at "and", "then" and punctuation. Each clause is
compared with the words of each tool: those of its name weigh most, and a word that many tools share weighs less. A
clause that names no tool of its own belongs to the one before, unless that one is complete and the clause is only a
value ("the weather in Oslo and Bergen"): then it is the same call again. Arguments are found by `rules_values`.

All of this runs on the loop of all runs and looks at the text again and again, so what is read is bounded: of a long
message its two ends, and of these so many clauses. An argument that would reach over the gap is none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from turncell.adapters.rules_values import Wish, new_wish, properties_of
from turncell.adapters.rules_words import GAP, NUMBER, ODD, QUOTED, STOP, VERBS, WORD, name_words, stem, stems
from turncell.runtime.ports import ToolSpec

END_CHARACTERS = 2000
"""How much is read of each end of a message that is longer than two of them."""
_CLAUSES_AT_MOST = 24
_THRESHOLD = 1.5

_TOKEN = re.compile(rf"({QUOTED})|({NUMBER})|({ODD})|({WORD})", re.S)
_CUT = re.compile(
    rf"(?P<keep>{QUOTED})|(?P<cut>(?:[,;.!?]+(?=\s|$)|\n+|\s)\s*(?:(?:and|then|afterwards|after that|&)(?=\s|$)\s*)*)",
    re.S | re.I,
)


def excerpt(text: str) -> str:
    """The text, or its two ends around a GAP."""
    if len(text) <= 2 * END_CHARACTERS:
        return text
    return f"{text[:END_CHARACTERS]}\n{GAP}\n{text[-END_CHARACTERS:]}"


def read(prompt: str, tools: Sequence[ToolSpec]) -> list[list[Wish]]:
    """The calls that a message wants: a list for each step. A wish with `missing` parameters cannot be called."""
    prompt = excerpt(prompt)
    scores = _Scores(tools)
    clauses = _clauses(prompt)
    wishes: list[Wish] = []
    is_after = False
    loose = ""
    for number, (glue, text) in enumerate(clauses):
        is_after = is_after or bool(re.search("then|after", glue, re.I))
        tool, words = scores.best(text)
        last = wishes[-1] if wishes else None
        is_list = last is not None and any(
            schema.get("type") == "array" for schema in properties_of(last.tool).values()
        )
        if last and tool is None and not last.missing and not is_list and _is_value(text) and _joins(clauses, number):
            again = new_wish(last.tool, text, last.words, is_after)
            if not again.missing:
                wishes.append(again)
                continue
        alone = None if tool is None else new_wish(tool, loose + text, words, is_after and bool(wishes))
        if alone is None and last is None:
            loose += text + glue
        elif last is not None and (alone is None or _goes_on(last, alone)):
            wishes[-1] = new_wish(last.tool, last.text + glue + text, (*last.words, *words), last.is_after)
        elif alone is not None:
            wishes.append(alone)
            is_after, loose = False, ""
    if not wishes:
        tool, words = scores.best(prompt)
        wishes = [new_wish(tool, prompt, words, False)] if tool is not None else []
    # "The weather and the forecast for Oslo": what one clause lacks may stand in another.
    for place, wish in enumerate(wishes):
        if wish.missing:
            whole = new_wish(wish.tool, prompt, wish.words, wish.is_after)
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


class _Scores:
    """What each word says about each tool."""

    def __init__(self, tools: Sequence[ToolSpec]) -> None:
        self.tools = tools
        weights: list[dict[str, float]] = []
        for tool in tools:
            words: dict[str, float] = {}
            properties = properties_of(tool)
            # The first sentence: later ones explain, and explanations mention anything.
            summary = re.split(r"\.\s|\n", tool.description, maxsplit=1)[0]
            choices = (str(choice) for schema in properties.values() for choice in schema.get("enum", ()))
            for weight, source in (
                (1.0, stems(word for name in properties for word in name_words(name))),
                (1.5, stems(re.findall(WORD, summary))),
                (2.0, stems(word for choice in choices for word in re.findall(WORD, choice))),
                (3.0, stems(name_words(tool.name))),
            ):
                words.update((word, min(weight, 1.0) if word in _VERB_STEMS else weight) for word in source)
            weights.append(words)
        shared = Counter(word for words in weights for word in words)
        self.weights = [{word: weight / shared[word] for word, weight in words.items()} for words in weights]

    def best(self, text: str) -> tuple[ToolSpec | None, tuple[str, ...]]:
        """The tool that the text fits best, if it fits at all, and the words that say so."""
        plain = re.sub(QUOTED, " ", text, flags=re.S)
        found = {stem(word): word for word in re.findall(WORD, plain) if word.lower() not in STOP}
        top: tuple[float, ToolSpec | None, tuple[str, ...]] = (0.0, None, ())
        for tool, weights in zip(self.tools, self.weights, strict=True):
            words = tuple(word for root, word in found.items() if root in weights)
            score = sum(weights[stem(word)] for word in words)
            if re.search(rf"(?<![\w-]){re.escape(tool.name)}(?![\w-])", text, re.I):
                score, words = score + 10, (tool.name,)
            elif words and re.search(rf"{QUOTED}|{ODD}", text, re.S):
                score += 0.5
            if score > top[0]:
                top = (score, tool, words)
        return (top[1], top[2]) if top[0] >= _THRESHOLD else (None, ())


_VERB_STEMS = stems(VERBS)


def _clauses(prompt: str) -> list[tuple[str, str]]:
    """(what stood before it, clause) pairs; quoted text is never cut."""
    clauses: list[tuple[str, str]] = []
    glue, start = "", 0
    for match in _CUT.finditer(prompt):
        cut = match["cut"]
        if cut is None or not re.search(r"[,;.!?\n&]|and|then|after", cut, re.I):
            continue
        if len(clauses) == _CLAUSES_AT_MOST - 1:
            break
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
    return bool(kinds) and all(kind < 4 or word[0].isupper() or word.lower() in STOP for kind, word in kinds)


def _joins(clauses: list[tuple[str, str]], number: int) -> bool:
    """Whether a list goes on here: at "and", or at a comma with an "and" later ("Oslo, Bergen and Bodø")."""
    for glue, text in clauses[number:]:
        if re.search(r"and|&|then", glue, re.I):
            return True
        if "," not in glue or not _is_value(text):
            return False
    return False
