"""What can go wrong, as exceptions. Each says who, what was found, and what to do.

TurncellError
├── UsageError              a mistake in how turncell is called (also a ValueError)
│   ├── ToolError           a tool that cannot be offered to a model
│   ├── UnknownModelError   a model name that nothing answers to
│   ├── SettingError        a setting with a value it cannot have
│   └── SessionInDoubt      an interrupted write must be decided before the session goes on
├── ModelFailure            a model call ended without an answer; raised by adapters, a status for everybody else
├── RunError                raised by `run.raise_for_status()` and by a cell whose run did not end well
├── StoreError              a journal cannot be read or written
│   ├── SessionBusy         another process writes this session
│   └── StoreBusy           another process has the lock of the history; the same can be tried again
├── Declined                raised in a tool whose question got no answer
├── CallFailed              a call failed, and the message is told as it stands: a traceback, the words of an MCP server
└── AnswerRefused           an answer to a request that cannot be taken: late, for other arguments, or invalid

Failures of the world (a provider, a tool, a person who says no) are statuses of a run and of its calls, not exceptions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from turncell.core.parts import Json, Usage


class TurncellError(Exception):
    """Base of all exceptions raised here. Each can be pickled: one that could not would break a whole pool of processes."""

    def __reduce__(self) -> tuple[Any, ...]:
        """By its fields, not by calling it with its message, which Python does and some cannot be made from."""
        return _made_again, (type(self), self.args), vars(self)


class UsageError(TurncellError, ValueError):
    """A mistake in how turncell is called."""


class ToolError(UsageError):
    """A tool that cannot be offered to a model."""


class UnknownModelError(UsageError):
    """A model name that nothing answers to."""


class SettingError(UsageError):
    """A setting with a value it cannot have."""


class SessionInDoubt(UsageError):
    """A write had begun when the program ended, and nobody has said yet what became of it; nothing was changed."""


FailureKind: TypeAlias = Literal[
    "auth", "not_found", "bad_request", "context_length", "rate_limit", "overloaded", "connection", "timeout", "protocol", "filter", "unknown"
]  # fmt: skip


class ModelFailure(TurncellError):
    """A model call ended without an answer.

    `kind` is one word of `FailureKind`, UsageError for any other; `message` a text, or the exception that was caught;
    `status_code` and `retry_after_s` where the provider gave them.
    """

    def __init__(
        self,
        kind: FailureKind,
        message: str | BaseException,
        *,
        status_code: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        # All of it is recorded, and read again: models are other people's.
        if kind not in get_args(FailureKind):
            raise UsageError(f"the kind of a ModelFailure is {kind!r}; use one of {', '.join(get_args(FailureKind))}")
        if not isinstance(retry_after_s, int | float | None):
            raise UsageError(f"retry_after_s is {retry_after_s!r}; use a number of seconds, or None")
        message = say(message) if isinstance(message, BaseException) else str(message)
        super().__init__(message)
        self.kind: FailureKind = kind
        self.message = message
        self.status_code = status_code
        self.retry_after_s = retry_after_s
        self.usage: Usage | None = None
        """What the provider had said of tokens before it failed."""


class RunError(TurncellError):
    """A run that did not end well. `status` and `kind` are those of its last event."""

    def __init__(self, status: str, kind: str | None, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


class StoreError(TurncellError):
    """A journal cannot be read or written."""


class SessionBusy(StoreError):
    """Another process writes this session; the message says which, where and since when."""


class StoreBusy(StoreError):
    """Another process has held the lock of the history for too long; nothing was changed, and the same can be tried again."""


class Declined(TurncellError):
    """A question got no answer: the person declined, nobody was there, or nobody answered in time."""


class CallFailed(TurncellError):
    """A call failed. The model and the person read the message as it stands, without the name of this class.

    `details` are for programs, as those of an `Output`.
    """

    def __init__(self, message: str, details: Json = None) -> None:
        super().__init__(message)
        self.details = details


class AnswerRefused(TurncellError):
    """An answer to a request that cannot be taken. Nothing has changed; the message says what to do."""


def _made_again(kind: type[TurncellError], args: tuple[Any, ...]) -> TurncellError:
    return kind.__new__(kind, *args)


def causes(error: BaseException) -> list[BaseException]:
    """What an exception group (of a TaskGroup) holds, at any depth; any other exception is its own only cause."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [cause for inner in error.exceptions for cause in causes(inner)]


def say(error: BaseException) -> str:
    """An exception in one line, whatever its `__str__` does; of an exception group what went wrong inside.

    >>> say(ExceptionGroup("unhandled errors in a TaskGroup", [KeyError("a")]))
    "KeyError: 'a'"
    """
    found = causes(error)
    said = "; ".join(map(_say, found[:_MOST_CAUSES]))
    return said + (f"; and {len(found) - _MOST_CAUSES} more" if len(found) > _MOST_CAUSES else "")


_MOST_CAUSES = 5


def _say(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = "(its message cannot be shown)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def first_line(error: BaseException) -> str:
    """What pydantic says of a type, without the advice to who writes types that it adds; no full stop at its end."""
    return str(error).partition("\n")[0].partition(". Set `arbitrary_types_allowed")[0].rstrip(".")
