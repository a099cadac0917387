"""Defaults: the one place of the runtime that knows adapters, lazily, so that importing turncell costs nothing."""

from __future__ import annotations

import os
import threading

from turncell import settings
from turncell.errors import UnknownModelError
from turncell.runtime.journal import Journal
from turncell.runtime.ports import Model, Store

_journals: dict[str, Journal] = {}
_lock = threading.Lock()


def model(name: str | Model | None) -> Model:
    """A model by name: "embedded", or any name LiteLLM knows ("openai/gpt-5", "ollama/llama3"); a Model is returned as it is."""
    if name is None:
        name = settings.current().model
    if not isinstance(name, str):
        if hasattr(name, "stream") and hasattr(name, "name"):
            return name
        raise UnknownModelError(f"a model is a name or an object with `name` and `stream(request)`; found {name!r}")
    if name == "embedded":
        from turncell.adapters.rules_model import RulesModel

        return RulesModel()
    if not name.strip() or any(char.isspace() for char in name):
        raise UnknownModelError(f"model {name!r}: use 'embedded' or a name like 'openai/gpt-5' (provider/model)")
    from turncell.adapters.litellm_model import LiteLLMModel

    return LiteLLMModel(name)


def journal() -> Journal:
    """The journal of this process's store, opened when first needed; a forked child opens its own."""
    path = settings.current().store_path
    with _lock:
        found = _journals.get(str(path))
        if found is None or found.pid != os.getpid():

            def open_store() -> Store:
                from turncell.adapters.sql_store import SQLStore

                return SQLStore.sqlite(path)

            found = _journals[str(path)] = Journal(open_store)
        return found


if hasattr(os, "register_at_fork"):
    # The lock may be held by a thread that does not exist in the child.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
