"""MCP servers, and whether the files of a project folder count."""

from __future__ import annotations

from pathlib import Path

from turncell import settings
from turncell.adapters.mcp_config import Configured, add_server, mcp_servers, remove_server, user_file
from turncell.adapters.mcp_tools import McpServer
from turncell.errors import SettingError, UsageError
from turncell.notebook.commands import command, say
from turncell.notebook.notebook import Notebook
from turncell.runtime import trust as trusting
from turncell.runtime.project import use_project, with_project
from turncell.runtime.secrets import redactor

_MCP = "mcp [list | add NAME -- COMMAND ... | add NAME URL | remove NAME | tools NAME | restart NAME]"
_TRUST = "trust [accept [DIGEST] | revoke]"
_SHOWN_CHARS = 10_000


@command(_MCP, "MCP servers, whose tools all cells have that name no agent")
def mcp(notebook: Notebook, *words: str) -> None:
    match words:
        case () | ("list",):
            say(_listed(mcp_servers()))
        case ("add", name, *_) if name in (known := mcp_servers()).servers and known.origins[name] == user_file():
            raise UsageError(
                f"there is a server {name!r} already ({known.servers[name].target}); %agent mcp remove {name} takes it out first"
            )
        case ("add", name, "--", command, *args):
            add_server(name, {"command": command, "args": args})
            say(f"{name}: added to {user_file()}; it starts when a turn first needs it")
        case ("add", name, url) if url.startswith(("http://", "https://")):
            add_server(name, {"url": url})
            say(f"{name}: added to {user_file()}; it is connected to when a turn first needs it")
        case ("remove", name):
            say(_removed(name))
        case ("tools", name):
            say(_tools(_server(name)))
        case ("restart", name):
            server = _server(name)
            server.restart()
            say(_line(server))
        case ("tools" | "restart" | "remove",):
            raise UsageError(f"%agent mcp {words[0]}: a name is missing; write %agent {_MCP}")
        case _:
            raise UsageError(f"%agent mcp {' '.join(words)}: write %agent {_MCP}")


@command(_TRUST, "what the files of this folder say, and whether it counts")
def trust(notebook: Notebook, *words: str) -> None:
    match words:
        case ():
            say(_shown(trusting.read_project()))
        case ("accept",):
            say(_accepted(trusting.trust()))
        case ("accept", digest):
            project = trusting.read_project()
            if len(digest) < 8 or not project.digest.startswith(digest):
                raise UsageError(
                    f"the files of {project.folder} are not those that were shown; look again: %agent trust"
                )
            say(_accepted(trusting.trust(digest=project.digest)))
        case ("revoke",):
            was_accepted = trusting.untrust()
            mcp_servers()  # ends what had been started
            where = Path.cwd()
            said = f"{where} is no longer accepted" if was_accepted else f"{where} was not accepted"
            say("\n".join(filter(None, (said, use_project()))))
        case _:
            raise UsageError(f"%agent trust {' '.join(words)}: write %agent {_TRUST}")


def _listed(found: Configured) -> str:
    lines = []
    for name, server in found.servers.items():
        lines.append(f"{_line(server)}  [{found.origins[name]}]")
        if server.problem:
            lines.append(f"  {server.problem}")
        if server.state == "ended" and server.stderr:
            lines += ["  the last it wrote to stderr:", *(f"    {line}" for line in server.stderr.splitlines()[-8:])]
    lines += [f"left out: {problem}" for problem in found.problems]
    if found.waiting:
        lines.append(f"not started, because this folder is not accepted: {', '.join(found.waiting)}; see %agent trust")
    return (
        redactor().text("\n".join(lines))
        if lines
        else f"none; add one with %agent mcp add NAME -- COMMAND ..., or in {user_file()}"
    )


def _line(server: McpServer) -> str:
    about = f", {server.about}" if server.about else ""
    count = f", {len(server.known)} tools" if server.known else ""
    return f"{server.name}: {server.state}{about}{count}: {server.target}"


def _tools(server: McpServer) -> str:
    lines = [
        f"{tool.name}  {tool.effect}  {' '.join(tool.description.split())[:100]}".rstrip() for tool in server.tools()
    ]
    if server.problem:
        lines.append(server.problem)
    return "\n".join(lines) or "none"


def _removed(name: str) -> str:
    if not remove_server(name):
        found = mcp_servers()
        if name in found.origins:
            raise UsageError(f"{name} is not from your own file but from {found.origins[name]}; take it out there")
        raise UsageError(
            f"there is no server {name!r} in {user_file()}; there are {', '.join(found.servers) or 'none'}"
        )
    mcp_servers()  # ends it
    return f"{name}: removed from {user_file()}"


def _server(name: str) -> McpServer:
    found = mcp_servers()
    if name not in found.servers:
        raise UsageError(f"there is no MCP server {name!r}; there are {', '.join(found.servers) or 'none'}")
    return found.servers[name]


def _shown(project: trusting.Project) -> str:
    if not project.files:
        return f"{project.folder} has none of {', '.join(trusting.project_files())}; there is nothing to accept"
    lines = [f"{project.folder} is {'accepted' if project.is_trusted else 'not accepted'}. Its files say:"]
    for name, data in project.files.items():
        text = data.decode("utf-8", "replace")
        cut = f"\n[cut here: {len(text) - _SHOWN_CHARS:,} more characters]" if len(text) > _SHOWN_CHARS else ""
        lines += ["", f"{name}:", f"{text[:_SHOWN_CHARS]}{cut}"]
    if any(name.endswith("settings.toml") for name in project.files):
        lines += ["", _counting(project)]
    if not project.is_trusted:
        lines += ["", f"%agent trust accept {project.digest[:12]}  accepts this; the programs it names then run as you"]
    return redactor().text("\n".join(lines))


def _counting(project: trusting.Project) -> str:
    try:
        return f"what its settings change now:\n{with_project(settings.current(), project.folder)}".rstrip(":\n")
    except SettingError as error:  # the files are shown all the same: somebody has to see what is wrong
        return f"its settings do not count: {error}"


def _accepted(project: trusting.Project) -> str:
    if not project.files:
        return f"{project.folder} has none of {', '.join(trusting.project_files())}; there is nothing to accept"
    said = (
        f"{project.folder} is accepted as it is now ({', '.join(project.files)}); after a change it is asked about anew"
    )
    return "\n".join(filter(None, (said, use_project())))
