"""The secrets of this process: what is never written down, whoever writes.

Values of the environment whose names speak of secrets, texts in the shapes of keys, and what people declare. They are
kept from the journal (and so from exports and tables), from what is left in a notebook, and from logs. The model of the
running turn sees what tools return; what it is told in a later program comes from the journal.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import cast

from turncell.core.redaction import LEAST_CHARS, Redactor, is_secret_name
from turncell.errors import UsageError

_lock = threading.Lock()
_declared: dict[str, str] = {}
_patterns: list[str] = []
_from_environment: dict[str, str] = {}
_redactor: Redactor | None = None


def redactor() -> Redactor:
    """What applies now."""
    global _redactor
    found = _redactor
    if found is None:
        refresh()
        found = _redactor
    assert found is not None
    return found


def refresh() -> None:
    """Look at the environment again: a notebook may have loaded its keys meanwhile. Each run begins with it."""
    global _redactor, _from_environment
    found = {
        value: name
        for name, value in os.environ.items()
        if len(value) >= LEAST_CHARS and is_secret_name(name) and not os.path.exists(value)
    }
    with _lock:
        if _redactor is None or found != _from_environment:
            _from_environment = found
            _redactor = Redactor({**found, **_declared}, _patterns)


def redact(*secrets: str, patterns: tuple[str, ...] | list[str] = ()) -> None:
    """Declare secrets of this process, and regular expressions of what else is one. They are never written down.

    >>> redact("correct horse battery staple", patterns=[r"customer-[0-9]{6}"])
    >>> redactor().text("staple: correct horse battery staple, of customer-123456")
    'staple: [redacted: a declared secret], of [redacted: a pattern]'
    """
    global _redactor
    for secret in secrets:
        if not isinstance(cast(object, secret), str) or len(secret) < LEAST_CHARS:
            raise UsageError(f"a secret is a text of {LEAST_CHARS} characters or more; found one of {len(str(secret))}")
    if isinstance(cast(object, patterns), str):
        raise UsageError("patterns is a list of regular expressions; found a text")
    refresh()
    with _lock:
        made = Redactor(
            {**_from_environment, **_declared, **dict.fromkeys(secrets, "a declared secret")}, [*_patterns, *patterns]
        )
        _declared.update(dict.fromkeys(secrets, "a declared secret"))
        _patterns.extend(patterns)
        _redactor = made


class RedactingFilter(logging.Filter):
    """Keeps secrets out of log records. The logger `turncell` has one."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        said = redactor().text(message)
        if said != message:
            record.msg, record.args = said, None
        if record.exc_info and record.exc_info[1] is not None:
            text = logging.Formatter().formatException(record.exc_info)
            clean = redactor().text(text)
            if clean != text:
                record.exc_info, record.exc_text = None, clean
        return True
