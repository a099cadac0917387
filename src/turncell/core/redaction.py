"""Secrets: what must never reach the journal, a notebook file, an export or a log.

Three kinds are known: values of environment variables whose names speak of secrets, texts in the shapes that keys have,
and patterns that people give. What is found is replaced by `[redacted: <why>]`; the length of a secret says nothing.

Shapes (source: the public documentation of each provider): OpenAI `sk-…`, Anthropic `sk-ant-…`, GitHub `ghp_…` and
`github_pat_…`, AWS `AKIA…`, Google `AIza…`, Slack `xox?-…`, Hugging Face `hf_…`, Stripe `sk_live_…`, JSON Web Tokens, and
PEM private keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from turncell.core.values import evolve

V = TypeVar("V")

_NAMES = re.compile(
    r"(?:^|_)(?:API_?KEY|ACCESS_?KEY|SECRET|TOKEN|PASSWORD|PASSWD|PRIVATE_?KEY|CREDENTIALS?|KEY)(?:$|_)", re.I
)
_SHAPES = (
    ("a key", r"\bsk-(?:ant-|proj-|or-)?[A-Za-z0-9_-]{20,}"),
    ("a key", r"\b(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}"),
    ("a key", r"\b(?:ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{30,}\b|\bgithub_pat_[A-Za-z0-9_]{40,}"),
    ("a key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("a key", r"\bAIza[0-9A-Za-z_-]{35}"),
    ("a key", r"\bxox[abeoprs]-[0-9A-Za-z-]{20,}"),
    ("a key", r"\bhf_[A-Za-z0-9]{30,}\b"),
    ("a token", r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    ("a private key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"),
)
LEAST_CHARS = 8
"""A shorter value of the environment is no secret worth the name: replacing it would spoil every text."""


class Redactor:
    """Replaces secrets in texts and values.

    `environment` maps names to values: those whose names speak of secrets are taken. `patterns` are regular expressions;
    a mistake in one is an `re.error` here.

    >>> redactor = Redactor({"MY_API_KEY": "abcdefgh12345"}, [r"customer-\\d+"])
    >>> redactor.text("key abcdefgh12345 of customer-77")
    'key [redacted: MY_API_KEY] of [redacted: a pattern]'
    """

    def __init__(self, environment: Mapping[str, str] | None = None, patterns: Iterable[str] = ()) -> None:
        self._values = {
            value: name
            for name, value in (environment or {}).items()
            if _NAMES.search(name) and len(value) >= LEAST_CHARS and not value.isspace() and "/" not in value[:1]
        }
        groups: list[tuple[str, str]] = [
            ("", re.escape(value)) for value in sorted(self._values, key=len, reverse=True)
        ]
        groups += _SHAPES
        own = [("a pattern", pattern) for pattern in patterns]
        for _, pattern in own:
            re.compile(pattern)
        self._whys = [why for why, _ in (*groups, *own)]
        self._pattern = re.compile("|".join(f"(?P<g{n}>{pattern})" for n, (_, pattern) in enumerate((*groups, *own))))

    def text(self, text: str) -> str:
        return self._pattern.sub(self._replaced, text)

    def _replaced(self, found: re.Match[str]) -> str:
        group = found.lastgroup or "g0"
        why = (
            next(
                (
                    self._whys[int(name[1:])]
                    for name, value in found.groupdict().items()
                    if name[0] == "g" and name[1:].isdigit() and value is not None
                ),
                "",
            )
            if group
            else ""
        )
        return f"[redacted: {why or self._values.get(found[0], 'a secret')}]"

    def value(self, value: V) -> V:
        """The same value with the texts in it redacted: JSON values and dataclasses. What has no secret is kept as it is."""
        return self._value(value)  # type: ignore[no-any-return]

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value) if len(value) >= LEAST_CHARS else value
        if isinstance(value, list | tuple):
            new = [self._value(item) for item in value]
            return value if all(a is b for a, b in zip(new, value, strict=True)) else type(value)(new)
        if isinstance(value, Mapping):
            changed = {key: self._value(item) for key, item in value.items()}
            return value if all(changed[key] is value[key] for key in changed) else changed
        if is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in fields(value)]
            changes = {name: new for name in names if (new := self._value(old := getattr(value, name))) is not old}
            return evolve(value, **changes) if changes else value
        return value
