"""Keys: given, from the environment, or from the system's keyring; never written down.

A key that is not of the environment is declared as a secret the first time that it is used, so that the journal, the page
and what stays in a notebook do not have it, should anybody ever say it.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from turncell.core.parts import Json
from turncell.core.redaction import LEAST_CHARS
from turncell.errors import ModelFailure, UsageError
from turncell.runtime import secrets
from turncell.runtime.threads import in_thread

Key: TypeAlias = str | Callable[[], str | Awaitable[str]]
SERVICE = "turncell"
"""Of the keyring; its accounts are providers, "provider/model", or the hosts of servers."""
_MOST_DECLARED = 100
"""Keys of one process: a function may make a new one for each call, and each is looked for in all that is written."""
_declared: set[str] = set()
_from_keyring: dict[str, str] = {}


_WANTED = {"api_key": "a key, as text", "auth": "headers, as texts by name"}
"""What these functions of the user's must return."""


def as_key(given: object) -> Key | None:
    """None for an empty text too, which stands for a variable that is not set. UsageError for what can give no key."""
    if isinstance(given, str):
        return given.strip() or None
    if given is None or callable(given):
        return given
    raise UsageError(f"api_key is a text or a function that returns one; found {_sort(given)}")


def as_headers(given: Mapping[str, str] | None) -> dict[str, str]:
    """UsageError for what are no headers: they would fail only when something is asked."""
    headers = given or {}
    if (wrong := _no_headers(headers)) is not None:
        raise UsageError(f"headers are texts by name; found {wrong}")
    return dict(headers)


def as_fields(given: Mapping[str, Json] | None) -> dict[str, Json]:
    """UsageError for what are no fields of a request."""
    if given is not None and not isinstance(given, Mapping):
        raise UsageError(f"extra_body are fields of the request by name; found {_sort(given)}")
    return dict(given or {})


async def key_of(model: str, api_key: Key | None, limit_s: float) -> str | None:
    """The key, asked for where it is a function (see `asked`). Blanks around it are not a part of it."""
    if callable(api_key):
        said = await asked(model, "api_key", api_key, limit_s=limit_s)
        api_key = said.strip() if isinstance(said, str) else None
        if not api_key:
            raise _returned(model, "api_key", "an empty text" if api_key == "" else _sort(said))
    return None if api_key is None else _kept_secret(api_key)


async def headers_of(model: str, auth: Callable[..., Any], url: str, body: bytes, limit_s: float) -> dict[str, str]:
    """The headers that `auth` makes for this request (see `asked`)."""
    made = await asked(model, "auth", auth, url, body, limit_s=limit_s)
    if (wrong := _no_headers(made)) is not None:
        raise _returned(model, "auth", wrong)
    return dict(made)


async def asked(model: str, name: str, function: Callable[..., Any], *values: Any, limit_s: float) -> Any:
    """What a function of the user's gives for a request of this model. ModelFailure where it raises or takes longer.

    It may ask a vault, a program or a person, and hang: it runs in a thread of its own, with the caller's context, so that all
    other runs go on, and whoever stops waiting leaves the thread behind. What is async is awaited here.
    """
    try:
        async with asyncio.timeout(limit_s) as limit:
            said = await in_thread(function, *values)
            return await said if inspect.isawaitable(said) else said
    except (Exception, SystemExit) as error:
        if limit.expired():
            text = f"{name}() has given nothing in {limit_s:g} s; give timeout_s=Patience(connect_s=...) if it needs longer"
            raise ModelFailure("timeout", f"{model}: {text}") from error
        text = f"{model}: {name}() raised {type(error).__name__}; it must return {_WANTED[name]}"
        raise ModelFailure("auth", text) from error


def _returned(model: str, name: str, what: str) -> ModelFailure:
    return ModelFailure("auth", f"{model}: {name}() returned {what}; it must return {_WANTED[name]}")


def _sort(value: object) -> str:
    """What it is, and not more: it may be a key."""
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _no_headers(value: object) -> str | None:
    """Why these are no headers; None where they are."""
    if not isinstance(value, Mapping):
        return _sort(value)
    for name, one in value.items():
        if not isinstance(name, str) or not isinstance(one, str):
            return f"a header {name!r} of type {type(one).__name__}"
    return None


def environment_key(variable: str) -> str | None:
    return (os.environ.get(variable) or "").strip() or None


async def keyring_key(*accounts: str) -> str | None:
    """The key of the first of these accounts that has one. None too where there is no keyring, or it is locked."""
    for account in accounts:
        if account in _from_keyring:
            return _from_keyring[account]
    if not has_keyring():
        return None
    # It may ask the user to unlock it, for which a person has the time that the run has; it talks to other processes in any case.
    found = await in_thread(_look_up, accounts)
    if found is None:
        return None
    account, key = found
    _from_keyring[account] = _kept_secret(key)
    return key


def has_keyring() -> bool:
    return importlib.util.find_spec("keyring") is not None


def host_of(base_url: str) -> str:
    """The account of a server: its host, with the port if it has one.

    >>> host_of("https://gateway.example.org/v1"), host_of("http://10.0.0.1:8000/v1")
    ('gateway.example.org', '10.0.0.1:8000')
    """
    parts = urlsplit(base_url)
    return (parts.hostname or "") + (f":{parts.port}" if parts.port else "")


def _look_up(accounts: Iterable[str]) -> tuple[str, str] | None:
    try:
        keyring = importlib.import_module("keyring")
        for account in accounts:
            key = keyring.get_password(SERVICE, account)
            if isinstance(key, str) and key.strip():
                return account, key.strip()
    except Exception:
        return None  # without a backend, or locked: the provider will say that there is no key
    return None


def _kept_secret(key: str) -> str:
    if len(key) >= LEAST_CHARS and key not in _declared and len(_declared) < _MOST_DECLARED:
        _declared.add(key)
        secrets.redact(key)
    return key


def remedy(variables: Iterable[str], account: str) -> str:
    """What to do where a key is missing that one of these variables of the environment would have."""
    return (
        f"{', '.join(variables)} not set in the environment; set it before the kernel starts, give `api_key`, "
        f"or `keyring set turncell {account}`"
    )
