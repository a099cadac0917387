"""MCP servers from files, in the form that other clients use:

    {"mcpServers": {"time": {"command": "uvx", "args": ["mcp-server-time"], "env": {"TZ": "Europe/Oslo"}},
                    "remote": {"url": "https://example.org/mcp", "headers": {"Authorization": "Bearer ${TOKEN}"}}}}

The user's own file is `mcp.json` in their config folder. A project has `.mcp.json` or `.turncell/mcp.json`; they are
inert until a person has accepted the folder (`runtime/trust.py`). What a project says never takes the place of the
user's own server of that name, and never says which tools only read: that would spare them the question.

`${NAME}` and `${NAME:-otherwise}` in any text are taken from the environment.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from turncell.adapters.mcp_tools import McpServer
from turncell.core.digest import canonical_json
from turncell.errors import StoreError, UsageError
from turncell.runtime.trust import Project, locked, read_project, write_private

_KNOWN = {
    "command", "args", "env", "cwd", "url", "headers", "include", "exclude", "reads", "timeout_s", "start_timeout_s",
}  # fmt: skip
_IGNORED = {"type", "transport", "disabled", "description", "name"}
"""What other clients write there, and what here says nothing or follows from the rest."""
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass(frozen=True, slots=True)
class Configured:
    """What the files say. `problems`: what of it is left out, in words; `waiting`: servers of a folder not accepted."""

    servers: Mapping[str, McpServer] = field(default_factory=dict)
    origins: Mapping[str, Path] = field(default_factory=dict)
    """The file that each server is from."""
    problems: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


def user_file() -> Path:
    """`mcp.json` in the user's config folder, such as `~/.config/turncell`."""
    from platformdirs import user_config_path

    return user_config_path("turncell", appauthor=False) / "mcp.json"


def mcp_servers(folder: str | os.PathLike[str] | None = ".") -> Configured:
    """The servers of the user's file and of a project folder (None: of none). Starts nothing.

    The same entry gives the same McpServer every time, so that a server that runs goes on; one whose entry has changed or
    gone is closed. A file or an entry that cannot be understood is a problem, and the others stand.
    """
    found, problems = _Found(), []
    own = user_file()
    try:
        found.take(own, _entries(own, own.read_bytes()), is_own=True)
    except FileNotFoundError:
        pass
    except (OSError, UsageError) as error:
        problems.append(str(error) if isinstance(error, UsageError) else f"{own} cannot be read: {error}")
    waiting: list[str] = []
    try:
        project = None if folder is None else read_project(folder)
    except StoreError as error:
        project = None
        problems.append(str(error))
    for path, data in _files(project):
        try:
            entries = _entries(path, data)
        except UsageError as error:
            problems.append(str(error))
            continue
        if project is not None and project.is_trusted:
            found.take(path, entries, is_own=False)
        else:
            waiting += [f"{name} ({path})" for name in entries]
    _close_others(folder, found.servers)
    return Configured(found.servers, found.origins, (*problems, *found.problems), tuple(waiting))


def add_server(name: str, entry: Mapping[str, Any]) -> None:
    """Write a server into the user's file, in the place of one of that name. UsageError for what is none."""
    _made(name, dict(entry))
    _change(lambda servers: servers.update({name: dict(entry)}))


def remove_server(name: str) -> bool:
    """Whether it was in the user's file."""
    return bool(_change(lambda servers: servers.pop(name, None) is not None))


def expand(value: Any, environment: Mapping[str, str] | None = None) -> Any:
    """Texts with their variables, anywhere in a value. UsageError for one that is not set.

    >>> expand(["${HOME}/x", "${MISSING:-none}"], {"HOME": "/home/ada"})
    ['/home/ada/x', 'none']
    """
    known = os.environ if environment is None else environment

    def variable(match: re.Match[str]) -> str:
        given = known.get(match[1])
        if given is None and match[2] is None:
            raise UsageError(f"the variable {match[1]} is not set; set it, or write ${{{match[1]}:-something}}")
        return given or match[2] or ""

    if isinstance(value, str):
        return _VARIABLE.sub(variable, value)
    if isinstance(value, list):
        return [expand(item, known) for item in value]
    if isinstance(value, dict):
        return {key: expand(item, known) for key, item in value.items()}
    return value


class _Found:
    def __init__(self) -> None:
        self.servers: dict[str, McpServer] = {}
        self.origins: dict[str, Path] = {}
        self.problems: list[str] = []

    def take(self, path: Path, entries: Mapping[str, Any], *, is_own: bool) -> None:
        for name, entry in entries.items():
            if isinstance(entry, dict) and entry.get("disabled") is True:
                continue
            try:
                if name in self.servers:
                    raise UsageError(f"{self.origins[name]} has a server of that name already")
                if not is_own and isinstance(entry, dict) and "reads" in entry:
                    raise UsageError("'reads' says which tools need no question; a project cannot say that")
                self.servers[name] = _server(name, entry, None if is_own else path)
                self.origins[name] = path
            except UsageError as error:
                self.problems.append(f"{path}: server {name!r} is left out: {error}")


def _files(project: Project | None) -> Iterable[tuple[Path, bytes]]:
    if project is None:
        return []
    return [(project.folder / name, data) for name, data in project.files.items() if name.endswith(".json")]


def _entries(path: Path, data: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(data)
    except ValueError as error:
        raise UsageError(f"{path} is no JSON: {error}") from error
    servers = found.get("mcpServers", {}) if isinstance(found, dict) else None
    if not isinstance(servers, dict):
        raise UsageError(f'{path}: found no {{"mcpServers": {{name: {{...}}}}}}')
    return servers


def _made(name: str, entry: Any, project_file: Path | None = None) -> McpServer:
    if not isinstance(entry, dict):
        raise UsageError(f'an entry is {{"command": ..., "args": [...]}} or {{"url": ...}}; found {entry!r}')
    if unknown := sorted(entry.keys() - _KNOWN - _IGNORED):
        raise UsageError(f"it has {', '.join(unknown)}, which is not known; known are {', '.join(sorted(_KNOWN))}")
    if entry.get("type") == "sse" or entry.get("transport") == "sse":
        raise UsageError(
            "the transport 'sse' is no longer part of the protocol; use the server's streamable HTTP address"
        )
    options = {key: expand(value) for key, value in entry.items() if key in _KNOWN}
    if project_file is not None and options.get("command") is not None and "cwd" not in options:
        parent = project_file.parent
        # What a project's file names is beside the project, wherever the kernel was started.
        options["cwd"] = str(parent if project_file.name == ".mcp.json" else parent.parent)
    try:
        return McpServer(name, **options)
    except TypeError as error:
        raise UsageError(str(error)) from error


_lock = threading.Lock()
_made_before: dict[tuple[str, str, str], McpServer] = {}
"""By name, file and entry with its variables."""


def _server(name: str, entry: Any, project_file: Path | None) -> McpServer:
    key = (name, str(project_file or ""), canonical_json(expand(entry)))
    with _lock:
        if key not in _made_before:
            _made_before[key] = _made(name, entry, project_file)
        return _made_before[key]


def _close_others(folder: object, servers: Mapping[str, McpServer]) -> None:
    """Those of an entry that has changed; other folders keep theirs."""
    kept = set(map(id, servers.values()))
    root = "" if folder is None else str(Path(os.fspath(str(folder))).expanduser().resolve())
    with _lock:
        gone = [
            key for key, server in _made_before.items()
            if id(server) not in kept and (not key[1] or (root and Path(key[1]).is_relative_to(root)))
        ]  # fmt: skip
        closing = [_made_before.pop(key) for key in gone]
    for server in closing:
        server.close()


def _change(change: Callable[[dict[str, Any]], Any]) -> Any:
    """Edit the user's file under its lock; what else stands in it stays."""
    path = user_file()
    with locked(path):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = b"{}"
        servers = _entries(path, data)
        result = change(servers)
        write_private(
            path, orjson.dumps({**orjson.loads(data), "mcpServers": servers}, option=orjson.OPT_INDENT_2) + b"\n"
        )
    return result
