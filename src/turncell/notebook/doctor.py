"""`%agent doctor`: what is ready, what is missing, and what to do about it. Never a key, only where one was found."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from urllib.request import ProxyHandler, Request, build_opener

import orjson

from turncell import __version__, settings
from turncell.adapters.keys import SERVICE, has_keyring
from turncell.errors import TurncellError
from turncell.frames.visible import visible
from turncell.runtime import defaults
from turncell.runtime.secrets import redactor, refresh

PROVIDERS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "anthropic": (("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"), "anthropic/claude-sonnet-4-5"),
    "openai": (("OPENAI_API_KEY", "OPENAI_BASE_URL"), "openai/gpt-5"),
    "gemini": (("GEMINI_API_KEY", "GOOGLE_API_KEY"), "gemini/gemini-2.5-pro"),
    "mistral": (("MISTRAL_API_KEY",), "mistral/mistral-large-latest"),
    "openrouter": (("OPENROUTER_API_KEY",), "openrouter/anthropic/claude-sonnet-4.5"),
    "groq": (("GROQ_API_KEY",), "groq/openai/gpt-oss-120b"),
    "deepseek": (("DEEPSEEK_API_KEY",), "deepseek/deepseek-chat"),
    "xai": (("XAI_API_KEY",), "xai/grok-4"),
}
"""By provider: the variables of which one is enough, and a model that can call tools."""
SERVERS: Mapping[str, str] = {
    "Ollama": "http://localhost:11434",
    "LM Studio": "http://localhost:1234",
    "vLLM": "http://localhost:8000",
    "llama.cpp": "http://localhost:8080",
}
PATIENCE_S = 0.3
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Server:
    """A server of this machine that speaks OpenAI's format."""

    name: str
    origin: str
    models: tuple[str, ...]


def report(servers: Mapping[str, str] = SERVERS) -> str:
    """The report, in lines for people. Takes a third of a second, for the servers that do not answer."""
    refresh()
    ready, answering = ready_providers(), answering_servers(servers)
    lines = [
        ("turncell", _versions()),
        ("model", _model_line(ready)),
        *_under(
            "keys", [f"{name}: {' and '.join(found)}" for name, found in ready.items()] or ["none in the environment"]
        ),
        ("keyring", _keyring_line()),
        *_under("servers", [_server_line(one) for one in answering] or ["none answers on this machine"]),
        ("store", _store_line()),
        *_under("advice", _advice(ready, answering)),
    ]
    # Names of models are the servers' own words.
    return "\n".join(f"{title:<9}{visible(redactor().text(text))}".rstrip() for title, text in lines)


def ready_providers(environment: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    """Those whose variables are set, with the names of these variables.

    >>> ready_providers({"GROQ_API_KEY": "gsk_...", "XAI_API_KEY": " "})
    {'groq': ['GROQ_API_KEY']}
    """
    environment = os.environ if environment is None else environment
    found = {
        name: [variable for variable in variables if (environment.get(variable) or "").strip()]
        for name, (variables, _) in PROVIDERS.items()
    }
    return {name: variables for name, variables in found.items() if variables}


def answering_servers(servers: Mapping[str, str]) -> list[Server]:
    """All are asked at once: who is not there must not be waited for one by one."""
    with ThreadPoolExecutor(max_workers=max(1, len(servers))) as pool:
        found = pool.map(_ask, servers, servers.values())
        return [server for server in found if server is not None]


def suggestion(ready: Mapping[str, Iterable[str]], answering: Iterable[Server]) -> str | None:
    """A model for the setting, of what is there; None where nothing is that a name alone can reach."""
    for name in ready:
        return PROVIDERS[name][1]
    ollama = next((one for one in answering if one.name == "Ollama" and one.models), None)
    return None if ollama is None else f"ollama_chat/{ollama.models[0]}"


def _ask(name: str, origin: str) -> Server | None:
    # No proxy, whatever the environment says: this machine is asked.
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(Request(f"{origin}/v1/models"), timeout=PATIENCE_S) as answer:
            listed = orjson.loads(answer.read(_MOST_BYTES))["data"]
        return Server(name, origin, tuple(str(model["id"]) for model in listed))
    except Exception:  # refused, too slow, no JSON, another kind of server: not one for us
        return None


def _model_line(ready: Mapping[str, Iterable[str]]) -> str:
    name = settings.current().model
    where = "TURNCELL_MODEL" if os.environ.get("TURNCELL_MODEL") else "the default"
    if name == "embedded":
        return f"{name} ({where}): a stand-in by rules, without network; it answers questions about tools only"
    try:
        defaults.model(name)
    except TurncellError as error:
        return f"{name} ({where}): {error}"
    provider = name.split("/", 1)[0]
    if provider in PROVIDERS and provider not in ready:
        return f"{name} ({where}): {' or '.join(PROVIDERS[provider][0])} is not set in the environment"
    return f"{name} ({where})"


def _keyring_line() -> str:
    if not has_keyring():
        return "not installed (pip install 'turncell[keyring]')"
    try:
        import keyring

        kind = type(keyring.get_keyring()).__name__
        found = [name for name in PROVIDERS if keyring.get_password(SERVICE, name)]
    except Exception as error:
        return f"installed, but it cannot be read: {type(error).__name__}"
    if found:
        return f"{kind}, with keys for {', '.join(found)}"
    return f"{kind}, without a key of ours; `keyring set {SERVICE} openai` keeps one"


def _server_line(server: Server) -> str:
    some = ", ".join(server.models[:5]) + (", …" if len(server.models) > 5 else "")
    count = len(server.models)
    return f"{server.name} at {server.origin}: {count} model{'s' * (count != 1)}" + (f" ({some})" if some else "")


def _store_line() -> str:
    chosen = settings.current()
    try:
        store = defaults.store(chosen)
        try:
            count = len(store.sessions())
        finally:
            store.close()
    except TurncellError as error:
        return f"{chosen.store_kind}, cannot be used: {error}"
    path = chosen.store_path
    at = path if path.exists() else path.parent
    is_closed = chosen.store_kind != "postgresql" and not os.access(at, os.W_OK)
    kept = f"{count} session{'s' * (count != 1)}"
    return f"{chosen.store_kind}, {chosen.store_name}, {kept}" + (f"; {at} cannot be written" if is_closed else "")


def _advice(ready: Mapping[str, Iterable[str]], answering: Iterable[Server]) -> list[str]:
    name = settings.current().model
    best = suggestion(ready, answering)
    provider = name.split("/", 1)[0]
    is_stuck = name == "embedded" or (provider in PROVIDERS and provider not in ready)
    lines = [
        f'Agent(turncell.model("openai/{one.models[0]}", base_url="{one.origin}/v1"))'
        for one in answering
        if one.models and one.name != "Ollama"
    ]
    if is_stuck and best is not None:
        lines.insert(0, f"{best}: set TURNCELL_MODEL={best} before the kernel starts, or write %%agent -m {best}")
    elif is_stuck and not lines:
        names = ", ".join(PROVIDERS[one][0][0] for one in ("anthropic", "openai", "gemini"))
        lines.append(f"set a key before the kernel starts ({names}, …), or start Ollama; never write one into a cell")
    return lines


def _versions() -> str:
    def of(name: str) -> str:
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            return f"{name} not installed"

    others = map(of, ("litellm", "aiohttp", "pydantic", "ipython", "anywidget", "pandas"))
    return ", ".join([__version__, f"Python {platform.python_version()}", *others])


def _under(title: str, lines: Iterable[str]) -> list[tuple[str, str]]:
    """The title only once."""
    return [(title if number == 0 else "", line) for number, line in enumerate(lines)]
