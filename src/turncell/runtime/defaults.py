"""Defaults: the one place of the runtime that knows adapters (and how things show themselves), lazily, so that importing turncell costs nothing."""

from __future__ import annotations

import inspect
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from turncell import settings
from turncell.errors import ToolError, UnknownModelError, UsageError
from turncell.runtime.journal import Journal, as_journal
from turncell.runtime.ports import Damage, Model, Record, SessionInfo, Store

if TYPE_CHECKING:
    from turncell.adapters.mcp_schema import ForeignSchema
    from turncell.core.fold import RunState
    from turncell.core.parts import Message
    from turncell.runtime.agent import Agent
    from turncell.runtime.run import Run
    from turncell.runtime.session import Session
    from turncell.runtime.tools import Tool

_journals: dict[str, Journal] = {}
_lock = threading.Lock()
_NOT_CHAT = re.compile(
    r"/responses/|-pro\b|codex|deep-research|computer-use|instruct|gpt-5\.([4-9]|\d\d)|gpt-([6-9]|\d\d)"
)
"""OpenAI's models that do not answer chat completions, or (from gpt-5.4) not with tools."""
_EXPLICIT = re.compile(r"^openai/responses/")
_ONLY_LITELLM = re.compile(r"instruct|computer-use")
"""Of these, what has no way but LiteLLM's: plain completions, tools of the provider's own."""


def schema(tool: str, given: Mapping[str, Any]) -> ForeignSchema:
    """A JSON Schema of a tool's author. ToolError for what is none."""
    from turncell.adapters.mcp_schema import ForeignSchema

    if not isinstance(given, Mapping):
        raise ToolError(
            f"parameters are {given!r}; use a JSON Schema, such as {{'type': 'object', 'properties': {{}}}}"
        )
    return ForeignSchema(tool, given, is_own=True)


def model(name: str | Model | None, **options: Any) -> Model:
    """A model by name: "embedded", or any name LiteLLM knows ("ollama/llama3"); a Model is returned as it is.

    "openai/…" is asked without a client in between; where the provider's variables are set, or `base_url`, `api_key` or `auth`
    is given here, "anthropic/…" and "openai/responses/…" are too, as are those of OpenAI's models that only answer at its
    responses. With a `base_url`, a name without a provider is one of a server that speaks OpenAI's format. `options` are those
    of the class that is chosen (`DirectModel`, `LiteLLMModel`): base_url, api_key, headers, extra_body, timeout_s, price, ….

    >>> model("qwen3", base_url="http://localhost:8000/v1")
    DirectChat('qwen3')
    """
    if name is None:
        name = settings.current().model
    if not isinstance(name, str):
        if options:
            raise UsageError(f"{name!r} is built already; give {', '.join(options)} to its class")
        if hasattr(name, "stream") and hasattr(name, "name"):
            return name
        raise UnknownModelError(f"a model is a name or an object with `name` and `stream(request)`; found {name!r}")
    if name == "embedded":
        from turncell.adapters.rules_model import RulesModel

        if options:
            raise UsageError(f"the model 'embedded' takes no options; found {', '.join(options)}")
        return RulesModel()
    if not name.strip() or any(char.isspace() for char in name):
        raise UnknownModelError(f"model {name!r}: use 'embedded' or a name like 'openai/gpt-5' (provider/model)")
    kind = _kind_of(name, options)
    known = [option for option in inspect.signature(kind).parameters if option != "name"]
    if unknown := [option for option in options if option not in known]:
        raise UsageError(
            f"{kind.__name__}, which is asked for {name!r}, has no option {', '.join(map(repr, unknown))}; use {', '.join(known)}"
        )
    made: Model = kind(name, **options)
    return made


def _kind_of(name: str, options: dict[str, Any]) -> type[Any]:
    is_given = any(options.get(one) is not None for one in ("base_url", "api_key", "auth"))
    base_url = options.get("base_url")
    if name.startswith("anthropic/") and (is_given or _is_set("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL")):
        from turncell.adapters.direct_anthropic import DirectAnthropic

        return DirectAnthropic
    # What is said of OpenAI's own names says nothing of another server's.
    not_chat = _EXPLICIT if base_url else _NOT_CHAT
    is_response = name.startswith("openai/") and not_chat.search(name) and not _ONLY_LITELLM.search(name)
    if is_response and (is_given or _is_set("OPENAI_API_KEY", "OPENAI_BASE_URL")):
        from turncell.adapters.direct_responses import DirectResponses

        return DirectResponses
    is_chat = name.startswith("openai/") and not not_chat.search(name)
    if is_chat or (base_url and "/" not in name):
        from turncell.adapters.direct_chat import DirectChat

        return DirectChat
    from turncell.adapters.litellm_model import LiteLLMModel

    return LiteLLMModel


def _is_set(*variables: str) -> bool:
    return any((os.environ.get(name) or "").strip() for name in variables)


def journal(given: Journal | None = None) -> Journal:
    """What was given, or the journal of this process's store, opened when first needed; a forked child opens its own."""
    if given is not None:
        return as_journal(given)
    chosen = settings.current()
    key = (
        chosen.store
        if chosen.store_kind == "postgresql"
        else f"{chosen.store_kind}:{chosen.store_path}:{chosen.meta_dirname}"
    )
    with _lock:
        found = _journals.get(key)
        if found is None or found.pid != os.getpid():
            found = _journals[key] = Journal(lambda: store(chosen))
        return found


def store(chosen: settings.Settings) -> Store:
    """Open the store that the settings name; a session's document is linked from the folder of its project."""
    if chosen.store_kind == "markdown":
        from turncell.adapters.markdown_store import MarkdownStore

        return MarkdownStore(chosen.store_path, links=True, meta_dirname=chosen.meta_dirname)
    from turncell.adapters.sql_store import SQLStore

    if chosen.store_kind == "postgresql":
        return SQLStore.postgres(chosen.store)
    return SQLStore.sqlite(chosen.store_path)


def write_document(file: BinaryIO, info: SessionInfo, records: Iterable[Record], damage: Damage | None = None) -> None:
    """A session as a readable Markdown document, after those that the file has; the records have their blobs in them."""
    from turncell.adapters.markdown_document import write

    write(file, info, records, damage)


def read_document(file: BinaryIO) -> Iterator[tuple[int, SessionInfo, str, Iterator[Record]]]:
    """See `markdown_document.read`. StoreError for anything else."""
    from turncell.adapters.markdown_document import read

    return read(file)


def read_messages(given: Any, instructions: str) -> tuple[Message, ...]:
    """See `foreign_messages.read_messages`."""
    from turncell.adapters.foreign_messages import read_messages

    return read_messages(given, instructions)


def replay(session: Session, tools: Iterable[Tool | Callable[..., Any]] | None) -> list[Run]:
    """See `Session.replay`."""
    from turncell.adapters.replay import replay

    return replay(session, tools=tools)


def reask(
    run: Run, step: int, model: str | Model, tools: Iterable[Tool | Callable[..., Any]] | None, options: dict[str, Any]
) -> Run:
    """See `Run.reask`."""
    from turncell.adapters.replay import reask

    return reask(run, step, model, tools=tools, **options)


def map_frame(agent: Agent, rows: Any, prompt: Any, **options: Any) -> Any:
    """See `Agent.map`."""
    from turncell.frames.batch import map_frame

    return map_frame(agent, rows, prompt, **options)


def run_html(run: RunState, inside: Iterable[RunState]) -> str:
    """How a run shows itself in a notebook."""
    from turncell.frames.reprs import run_html

    return run_html(run, inside)


def session_html(session: Session) -> str:
    """How a session shows itself in a notebook."""
    from turncell.frames.reprs import session_html

    return session_html(session.title, session.id, session.runs)


if hasattr(os, "register_at_fork"):
    # The lock may be held by a thread that does not exist in the child.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
