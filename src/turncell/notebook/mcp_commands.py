"""What `%agent mcp` and `%agent trust` do: words in, text out. UsageError and StoreError say what is wrong.

%agent mcp                          the servers, how they are, and what is wrong with them
%agent mcp add NAME -- COMMAND ...  %agent mcp add NAME URL       into the user's own file
%agent mcp remove NAME              %agent mcp tools NAME         %agent mcp restart NAME
%agent trust                        what the folder's files say, and whether they are accepted
%agent trust accept [DIGEST]        %agent trust revoke
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from turncell import settings
from turncell.adapters.mcp_config import Configured, add_server, mcp_servers, remove_server, user_file
from turncell.adapters.mcp_tools import McpServer
from turncell.errors import UsageError
from turncell.runtime import trust as trusting
from turncell.runtime.project import with_project
from turncell.runtime.secrets import redactor

MCP_USAGE = "%agent mcp [list] | add NAME -- COMMAND ... | add NAME URL | remove NAME | tools NAME | restart NAME"
TRUST_USAGE = "%agent trust [accept [DIGEST] | revoke]"
_SHOWN_CHARS = 10_000


def servers(folder: str | Path = ".") -> list[McpServer]:
    """Those that a cell's agent has, besides the tools it was given: `Agent(tools=[*tools, *servers()])`."""
    return list(mcp_servers(folder).servers.values())


def mcp(words: Sequence[str], folder: str | Path = ".") -> str:
    """`%agent mcp ...`, without these two words."""
    match list(words):
        case [] | ["list"]:
            return _listed(mcp_servers(folder))
        case ["add", name, "--", command, *args]:
            add_server(name, {"command": command, "args": args})
            return f"{name}: added to {user_file()}; it starts when a turn first needs it"
        case ["add", name, url] if url.startswith(("http://", "https://")):
            add_server(name, {"url": url})
            return f"{name}: added to {user_file()}; it is connected to when a turn first needs it"
        case ["remove", name]:
            return _removed(name, folder)
        case ["tools", name]:
            return _tools(_server(name, folder))
        case ["restart", name]:
            server = _server(name, folder)
            server.restart()
            return _line(server)
        case ["tools" | "restart" | "remove"]:
            raise UsageError(f"%agent mcp {words[0]}: a name is missing; write {MCP_USAGE}")
        case _:
            raise UsageError(f"%agent mcp {' '.join(words)}: write {MCP_USAGE}")


def trust(words: Sequence[str], folder: str | Path = ".") -> str:
    """`%agent trust ...`, without these two words."""
    match list(words):
        case []:
            return _shown(trusting.read_project(folder))
        case ["accept"]:
            return _accepted(trusting.trust(folder))
        case ["accept", digest]:
            project = trusting.read_project(folder)
            if len(digest) < 8 or not project.digest.startswith(digest):
                raise UsageError(
                    f"the files of {project.folder} are not those that were shown; look again: %agent trust"
                )
            return _accepted(trusting.trust(folder, digest=project.digest))
        case ["revoke"]:
            was_accepted = trusting.untrust(folder)
            mcp_servers(folder)  # ends what had been started
            where = Path(folder).expanduser().resolve()
            return f"{where} is no longer accepted" if was_accepted else f"{where} was not accepted"
        case _:
            raise UsageError(f"%agent trust {' '.join(words)}: write {TRUST_USAGE}")


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


def _removed(name: str, folder: str | Path) -> str:
    if not remove_server(name):
        found = mcp_servers(folder)
        if name in found.origins:
            raise UsageError(f"{name} is not from your own file but from {found.origins[name]}; take it out there")
        raise UsageError(
            f"there is no server {name!r} in {user_file()}; there are {', '.join(found.servers) or 'none'}"
        )
    mcp_servers(folder)  # ends it
    return f"{name}: removed from {user_file()}"


def _server(name: str, folder: str | Path) -> McpServer:
    found = mcp_servers(folder)
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
        lines += ["", f"what counts of it now:\n{with_project(settings.current(), project.folder)}"]
    if not project.is_trusted:
        lines += ["", f"%agent trust accept {project.digest[:12]}  accepts this; the programs it names then run as you"]
    return redactor().text("\n".join(lines))


def _accepted(project: trusting.Project) -> str:
    if not project.files:
        return f"{project.folder} has none of {', '.join(trusting.project_files())}; there is nothing to accept"
    return (
        f"{project.folder} is accepted as it is now ({', '.join(project.files)}); after a change it is asked about anew"
    )
