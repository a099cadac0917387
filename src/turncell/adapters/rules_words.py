"""The words of the embedded model: which carry no meaning, which mean the same, and what looks like a value."""

from __future__ import annotations

import re
from collections.abc import Iterable

STOP = frozenset(
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
"""Words that every sentence has."""
VERBS = frozenset(
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

GAP = "\ue000"
"""Stands where a message was too long to be read; a private character, which nobody types."""
QUOTED = r"```.*?```|`[^`\n]+`|\"[^\"]*\"|“[^”]*”|«[^»]*»|(?<!\w)'[^'\n]*'(?!\w)"
NUMBER = r"(?<![\w.])-?\d{1,300}(?:\.\d{1,300})?(?![\w]|\.\d)"
WORD = r"[^\W\d_][\w'’-]*"
ODD = r"(?<![\w~/:@+-])(?=\S{0,99}\w)[\w~/:@+-]*[./@_\\:=][\w./@:+\\=-]*[\w/]"
"""Paths, addresses and identifiers: words that no sentence has by chance."""


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


def name_words(name: str) -> list[str]:
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)


def stems(words: Iterable[str]) -> set[str]:
    return {stem(word) for word in words if word.lower() not in STOP and len(word) > 1}
