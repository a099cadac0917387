"""Secrets: what must never reach the journal, a notebook file, an export or a log.

Three kinds are known: values of environment variables whose names speak of secrets, texts in the shapes that keys have,
and patterns that people give. What is found is replaced by `[redacted: <why>]`; the length of a secret says nothing.

Shapes (source: the public documentation of each provider): OpenAI `sk-…`, Anthropic `sk-ant-…`, GitHub `ghp_…` and
`github_pat_…`, AWS `AKIA…`, Google `AIza…`, Slack `xox?-…`, Hugging Face `hf_…`, Stripe `sk_live_…`, JSON Web Tokens, and
PEM private keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from turncell.core.values import evolve
from turncell.errors import UsageError

V = TypeVar("V")

_NAMES = re.compile(
    r"(?:^|_)(?:API_?KEY|ACCESS_?KEY|SECRET|TOKEN|PASSWORD|PASSWD|PRIVATE_?KEY|CREDENTIALS?|KEY)(?:$|_)", re.I
)
_SHAPES = (
    ("a key", r"\bsk-[A-Za-z0-9_-]{20,}", "sk-"),
    ("a key", r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}", "k_"),
    ("a key", r"\bgh[pousr]_[A-Za-z0-9]{30,}\b", "gh"),
    ("a key", r"\bgithub_pat_[A-Za-z0-9_]{40,}", "github_pat_"),
    ("a key", r"\bA[KS]IA[0-9A-Z]{16}\b", "IA"),
    ("a key", r"\bAIza[0-9A-Za-z_-]{35}", "AIza"),
    ("a key", r"\bxox[abeoprs]-[0-9A-Za-z-]{20,}", "xox"),
    ("a key", r"\bhf_[A-Za-z0-9]{30,}\b", "hf_"),
    ("a token", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}", "eyJ"),
    (
        "a private key",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
        "PRIVATE KEY",
    ),
)
"""Why, the shape, and a text that every match contains: looking for it first costs next to nothing."""
LEAST_CHARS = 8
"""A shorter value of the environment is no secret worth the name: replacing it would spoil every text."""


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret.

    >>> is_secret_name("OPENAI_API_KEY"), is_secret_name("DB_PASSWORD"), is_secret_name("KEYBOARD")
    (True, True, False)
    """
    return _NAMES.search(name) is not None


class Redactor:
    """Replaces secrets in texts and values.

    `values` maps secrets to what they are called; `patterns` are regular expressions, UsageError for one that is none.

    >>> redactor = Redactor({"abcdefgh12345": "MY_API_KEY"}, [r"customer-\\d+"])
    >>> redactor.text("key abcdefgh12345 of customer-77")
    'key [redacted: MY_API_KEY] of [redacted: a pattern]'
    """

    def __init__(self, values: Mapping[str, str] | None = None, patterns: Iterable[str] = ()) -> None:
        known = {value: why for value, why in (values or {}).items() if len(value) >= LEAST_CHARS}
        # The longest first: one secret may be the beginning of another.
        self._rules = [(why, re.compile(re.escape(value))) for value, why in sorted(known.items(), key=_by_length)]
        self._rules += [(why, re.compile(shape)) for why, shape, _ in _SHAPES]
        for pattern in patterns:
            try:
                self._rules.append(("a pattern", re.compile(pattern)))
            except re.error as error:
                raise UsageError(f"redact: {pattern!r} is no regular expression: {error}") from error
        self._has_patterns = len(self._rules) > len(known) + len(_SHAPES)
        # As they stand in JSON, where quotes, backslashes and what is not ASCII may be escaped.
        forms = {
            form
            for value in known
            for form in (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])
        }
        self._marks = [form.encode("utf-8", "surrogatepass") for form in forms] + [
            mark.encode() for *_, mark in _SHAPES
        ]

    def may_be_in(self, data: bytes) -> bool:
        """Whether JSON may hold a secret: quick, and never wrong about a no."""
        for mark in self._marks:  # a loop: this is asked of every record, and `any` costs three times as much
            if mark in data:
                return True
        return self._has_patterns

    def text(self, text: str) -> str:
        for why, rule in self._rules:
            text = rule.sub(f"[redacted: {why}]", text)
        return text

    def value(self, value: V) -> V:
        """The same value with the texts in it redacted: JSON values and dataclasses. What has no secret is kept as it is."""
        return self._value(value)  # type: ignore[no-any-return]

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value) if len(value) >= LEAST_CHARS else value
        if isinstance(value, list | tuple):
            new = [self._value(item) for item in value]
            return value if all(a is b or a == b for a, b in zip(new, value, strict=True)) else type(value)(new)
        if isinstance(value, Mapping):
            changed = {self._value(key): self._value(item) for key, item in value.items()}
            return value if changed == value else changed
        if is_dataclass(value) and not isinstance(value, type):
            olds = {field.name: getattr(value, field.name) for field in fields(value)}
            changes = {name: new for name, old in olds.items() if (new := self._value(old)) is not old and new != old}
            return evolve(value, **changes) if changes else value
        return value


def _by_length(item: tuple[str, str]) -> int:
    return -len(item[0])
