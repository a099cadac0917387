"""What stands: status, doctor, help, models, the settings of the notebook, what a model would be told."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path

from turncell import settings
from turncell.adapters.mcp_config import mcp_servers
from turncell.core.policy import MODES
from turncell.errors import UsageError
from turncell.frames.visible import visible
from turncell.notebook.commands import Parser, command, commands, say
from turncell.notebook.notebook import LEFT, Notebook, counted, names_in
from turncell.runtime.agent import Agent

_USAGE_WIDTH = 27
_DOCTOR = Parser("doctor")
_DOCTOR.add_argument("--report", metavar="PATH", required=True)


@command("status", "model, mode, tools, session and history of this notebook")
def status(notebook: Notebook) -> None:
    current, session = settings.current(), notebook.session
    told = f"{session.id}, {counted(len(session.runs), 'run')}" if session else "none yet"
    if session is not None and (left := session.interrupted) is not None:
        told += f"; the last one {LEFT[left.status]}, %agent resume goes on with it"
    if session is not None and session.damage is not None:
        told += "; damaged, %agent fork goes on in a copy"
    lines = [
        f"model    {current.model}",
        f"mode     {current.mode}",
        f"tools    {', '.join(notebook.tools) or 'none'}",
        *_servers(),
        f"session  {told}",
        f"history  {current.store_name}",
    ]
    runs = notebook.runs
    for run in runs:
        lines.append(f"running  {run.id}, {run.status}; %agent stop{f' {run.id}' * (len(runs) > 1)} ends it")
    say("\n".join(lines))


def _servers() -> list[str]:
    """The MCP servers whose tools all cells have, in a line, where there are any or some wait."""
    found = mcp_servers()
    told = [f"{name} ({server.state})" for name, server in found.servers.items()]
    told += ["some of this folder, which is not accepted: %agent trust"] * bool(found.waiting)
    return [f"servers  {', '.join(told)}"] if told else []


@command(
    "doctor [--report PATH]",
    "which keys, servers and packages are there, which model to try; or a file for a bug report",
)
def doctor(notebook: Notebook, *words: str) -> None:
    if words:
        from turncell.notebook.bug_report import write_report

        given = _DOCTOR.parse_args(list(words))
        written = write_report(notebook, Path(given.report).expanduser())
        say(
            f"{written}\nread it before you send it: it has no prompts and no answers, but names of tools and messages of errors"
        )
        return
    from turncell.notebook.doctor import report

    say(report())


@command("help [COMMAND]", "this list, or one command")
def help_(notebook: Notebook, name: str | None = None) -> None:
    every = [one for one in commands().values() if name is None or one.usage.split()[0] == name]
    if not every:
        raise UsageError(f"%agent help {name}: there is no such command; %agent help lists them")
    lines = []
    for one in every:
        is_long = len(one.usage) > _USAGE_WIDTH
        lines += [f"%agent {one.usage}"] * is_long
        lines.append(f"{'' if is_long else f'%agent {one.usage}':<{_USAGE_WIDTH + 9}}{one.does}")
    if name is None:
        lines += ["", "%%agent asks the agent what the cell says; %%agent? shows its options"]
    say("\n".join(lines))


@command("model [NAME]", "the model of cells that name none, for this kernel")
def model(notebook: Notebook, name: str | None = None) -> None:
    if name is not None:
        Agent(name)  # refuses what is no name of a model
        settings.use(dataclasses.replace(settings.current(), model=name))
    say(settings.current().model)
    if name is not None and (near := _near(name)):
        say(f"the price list does not have it: its cost and its window are not known. It has {', '.join(near)}")


def _near(name: str) -> list[str]:
    """Listed models that a name which is not listed may have meant."""
    from turncell.adapters.price_list import listed_models

    provider, _, rest = name.partition("/")
    every = listed_models()
    if rest:
        providers = difflib.get_close_matches(provider, {one.partition("/")[0] for one in every}, 3, 0.8)
        names = [one for one in every if one.partition("/")[0] in providers]
    else:
        names = sorted({one.partition("/")[2] for one in every})
    return [] if name in names else difflib.get_close_matches(name, names, 3, 0.8)


@command("models [PROVIDER]", "models that can be named, with windows and prices")
def models(notebook: Notebook, provider: str = "") -> None:
    from turncell.adapters.price_list import list_price, listed_capabilities, listed_models

    names = listed_models(provider)
    if not names:
        raise UsageError(
            f"the price list has no models of {provider!r}; any provider/model that LiteLLM knows can be named all the same"
        )
    if not provider:
        of = sorted({name.partition("/")[0] for name in names})
        say(f"{counted(len(names), 'model')} of these providers; %agent models PROVIDER lists them\n{' '.join(of)}")
        return
    width = max(map(len, names))
    for name in names:
        from_, _, model_name = name.partition("/")
        price, window = list_price(from_, model_name), listed_capabilities(from_, model_name).context_tokens
        costs = (
            f"{price.input_usd:g} in, {price.output_usd:g} out, USD per million tokens" if price else "price unknown"
        )
        say(f"{name:<{width}}  {window or '?':>9} tokens  {costs}")


@command("mode [MODE]", f"what happens to calls that no rule decides, for this kernel: {', '.join(MODES)}")
def mode(notebook: Notebook, name: str | None = None) -> None:
    if name is not None:
        # The settings refuse what is no mode.
        settings.use(dataclasses.replace(settings.current(), mode=name))  # type: ignore[arg-type]
    say(settings.current().mode)


@command("tools [NAMES | --none]", "the tools of cells that name none")
def tools(notebook: Notebook, *names: str) -> None:
    wanted = names_in(names)
    if "--none" in wanted:
        if wanted != ["--none"]:
            raise UsageError("--none and names do not go together; write %agent tools --none, or the names alone")
        notebook.tools = []
    elif option := next((name for name in wanted if name.startswith("-")), None):
        raise UsageError(f"%agent tools: unrecognized arguments: {option}; write %agent tools [NAMES | --none]")
    elif wanted:
        Agent("embedded", tools=notebook.tools_of(wanted))  # refuses what no model can be offered
        notebook.tools = wanted
    say(", ".join(notebook.tools) or "none")


@command("context [--whole]", "what would be sent to the model next, with tokens")
def context(notebook: Notebook, *words: str) -> None:
    if words not in ((), ("--whole",)):
        raise UsageError(f"%agent context {' '.join(words)}: write %agent context, or %agent context --whole")
    session = notebook.a_session()
    report = session.context_report(session.agent or Agent(tools=notebook.tools_of(notebook.tools)))
    say("\n".join(map(visible, report.table(whole=bool(words)).split("\n"))))
