"""Keys: given, from the environment, or from the system's keyring; never written down.

A key that is not of the environment is declared as a secret the first time that it is used, so that the journal, the page
and what stays in a notebook do not have it, should anybody ever say it.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias
from urllib.parse import urlsplit

from turncell.core.redaction import LEAST_CHARS
from turncell.errors import ModelFailure
from turncell.runtime import secrets

Key: TypeAlias = str | Callable[[], str | Awaitable[str]]
SERVICE = "turncell"
"""Of the keyring; its accounts are providers, "provider/model", or the hosts of servers."""
_MOST_DECLARED = 100
"""Keys of one process: a function may make a new one for each call, and each is looked for in all that is written."""
_declared: set[str] = set()
_from_keyring: dict[str, str] = {}


async def key_of(model: str, api_key: Key | None) -> str | None:
    """The key, asked for where it is a function (sync or async). Blanks around it are not a part of it."""
    if api_key is None:
        return None
    try:
        key = api_key() if callable(api_key) else api_key
        if not isinstance(key, str):
            key = await key
    except Exception as error:
        text = f"{model}: api_key() raised {type(error).__name__}; it must return a key"
        raise ModelFailure("auth", text) from error
    return _kept_secret(key.strip())


def environment_key(variable: str) -> str | None:
    return (os.environ.get(variable) or "").strip() or None


async def keyring_key(*accounts: str) -> str | None:
    """The key of the first of these accounts that has one. None too where there is no keyring, or it is locked."""
    for account in accounts:
        if account in _from_keyring:
            return _from_keyring[account]
    if not has_keyring():
        return None
    # It may ask the user to unlock it, and talks to other processes in any case.
    found = await asyncio.to_thread(_look_up, accounts)
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
