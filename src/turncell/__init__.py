"""turncell runs AI agents in notebook cells.

    %load_ext turncell          then  %%agent  in a cell, and  %agent help
    Agent, tool, Rule           the same from Python
    history, runs_df, calls_df  what happened, as DataFrames
    turncell.testing            tests without a provider

Public names are loaded when first used: importing the package imports neither LiteLLM, pandas, IPython nor anywidget.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from turncell.adapters import otel
    from turncell.adapters.cassette import cassette
    from turncell.adapters.cassette_file import write_cassette
    from turncell.adapters.http_stream import Patience
    from turncell.adapters.markdown_store import MarkdownStore
    from turncell.adapters.mcp_tools import McpServer
    from turncell.adapters.price import Price
    from turncell.adapters.replay import cassette_of, reask, replay, replayed_tools
    from turncell.adapters.sql_store import SQLStore
    from turncell.core.compare import compare
    from turncell.core.events import File, Option, Passage
    from turncell.core.nucleus import Nucleus, Transition
    from turncell.core.parts import Image, Message, Text, Usage
    from turncell.core.policy import Rule
    from turncell.errors import (
        AnswerRefused,
        Declined,
        ModelFailure,
        RunError,
        SessionBusy,
        SessionInDoubt,
        StoreError,
        ToolError,
        TurncellError,
        UsageError,
    )
    from turncell.frames.costs import cost_by
    from turncell.frames.export import export_html, export_markdown
    from turncell.frames.history import (
        History,
        calls_df,
        events_df,
        history,
        messages_df,
        runs_df,
        steps_df,
    )
    from turncell.frames.ipynb import export_ipynb
    from turncell.notebook.namespace import notebook_tools
    from turncell.notebook.turn import show
    from turncell.runtime.agent import Agent
    from turncell.runtime.ask_user import ask_user
    from turncell.runtime.budget import Budget
    from turncell.runtime.context import ToolContext
    from turncell.runtime.defaults import model
    from turncell.runtime.hooks import Hooks, ToolUse, Veto
    from turncell.runtime.images import image
    from turncell.runtime.journal import Journal
    from turncell.runtime.models import Route, Router, Tiers
    from turncell.runtime.output import Output
    from turncell.runtime.portable import move, prune
    from turncell.runtime.room import Context
    from turncell.runtime.rulebook import rulebook
    from turncell.runtime.run import Run
    from turncell.runtime.run_turn import run_turn
    from turncell.runtime.secrets import redact
    from turncell.runtime.session import Session
    from turncell.runtime.sources import Source
    from turncell.runtime.step_policy import LoopDetection, StepLimit
    from turncell.runtime.telemetry import JsonLinesWriter, MemoryWriter, RunRecord
    from turncell.runtime.tools import Check, Tool, tool
    from turncell.runtime.trace import TraceFilter
    from turncell.settings import Settings

__version__ = "0.1.0"

# Quiet unless somebody listens: without a handler, warnings would be printed into cells.
logging.getLogger("turncell").addHandler(logging.NullHandler())


def _without_secrets(record: logging.LogRecord) -> bool:
    from turncell.runtime.secrets import RedactingFilter

    return RedactingFilter().filter(record)


logging.getLogger("turncell").addFilter(_without_secrets)

# `otel` is not in __all__: `import *` must not need OpenTelemetry.
_HOME = {
    "Agent": "runtime.agent",
    "AnswerRefused": "errors",
    "Budget": "runtime.budget",
    "Check": "runtime.tools",
    "Context": "runtime.room",
    "Declined": "errors",
    "File": "core.events",
    "History": "frames.history",
    "Hooks": "runtime.hooks",
    "Image": "core.parts",
    "image": "runtime.images",
    "Journal": "runtime.journal",
    "JsonLinesWriter": "runtime.telemetry",
    "LoopDetection": "runtime.step_policy",
    "MarkdownStore": "adapters.markdown_store",
    "McpServer": "adapters.mcp_tools",
    "MemoryWriter": "runtime.telemetry",
    "Message": "core.parts",
    "ModelFailure": "errors",
    "Nucleus": "core.nucleus",
    "Option": "core.events",
    "Output": "runtime.output",
    "Passage": "core.events",
    "Patience": "adapters.http_stream",
    "Price": "adapters.price",
    "Route": "runtime.models",
    "Router": "runtime.models",
    "Rule": "core.policy",
    "Run": "runtime.run",
    "RunError": "errors",
    "RunRecord": "runtime.telemetry",
    "SQLStore": "adapters.sql_store",
    "Session": "runtime.session",
    "SessionBusy": "errors",
    "SessionInDoubt": "errors",
    "Settings": "settings",
    "Source": "runtime.sources",
    "StepLimit": "runtime.step_policy",
    "StoreError": "errors",
    "Text": "core.parts",
    "Tiers": "runtime.models",
    "Tool": "runtime.tools",
    "ToolContext": "runtime.context",
    "ToolError": "errors",
    "ToolUse": "runtime.hooks",
    "TraceFilter": "runtime.trace",
    "Transition": "core.nucleus",
    "TurncellError": "errors",
    "Usage": "core.parts",
    "UsageError": "errors",
    "Veto": "runtime.hooks",
    "ask_user": "runtime.ask_user",
    "calls_df": "frames.history",
    "cassette": "adapters.cassette",
    "cassette_of": "adapters.replay",
    "compare": "core.compare",
    "cost_by": "frames.costs",
    "events_df": "frames.history",
    "export_html": "frames.export",
    "export_ipynb": "frames.ipynb",
    "export_markdown": "frames.export",
    "history": "frames.history",
    "messages_df": "frames.history",
    "model": "runtime.defaults",
    "move": "runtime.portable",
    "notebook_tools": "notebook.namespace",
    "otel": "adapters.otel",
    "prune": "runtime.portable",
    "reask": "adapters.replay",
    "redact": "runtime.secrets",
    "replay": "adapters.replay",
    "replayed_tools": "adapters.replay",
    "rulebook": "runtime.rulebook",
    "run_turn": "runtime.run_turn",
    "runs_df": "frames.history",
    "show": "notebook.turn",
    "steps_df": "frames.history",
    "tool": "runtime.tools",
    "write_cassette": "adapters.cassette_file",
}

__all__ = [
    "Agent",
    "AnswerRefused",
    "Budget",
    "Check",
    "Context",
    "Declined",
    "File",
    "History",
    "Hooks",
    "Image",
    "Journal",
    "JsonLinesWriter",
    "LoopDetection",
    "MarkdownStore",
    "McpServer",
    "MemoryWriter",
    "Message",
    "ModelFailure",
    "Nucleus",
    "Option",
    "Output",
    "Passage",
    "Patience",
    "Price",
    "Route",
    "Router",
    "Rule",
    "Run",
    "RunError",
    "RunRecord",
    "SQLStore",
    "Session",
    "SessionBusy",
    "SessionInDoubt",
    "Settings",
    "Source",
    "StepLimit",
    "StoreError",
    "Text",
    "Tiers",
    "Tool",
    "ToolContext",
    "ToolError",
    "ToolUse",
    "TraceFilter",
    "Transition",
    "TurncellError",
    "Usage",
    "UsageError",
    "Veto",
    "__version__",
    "ask_user",
    "calls_df",
    "cassette",
    "cassette_of",
    "compare",
    "cost_by",
    "events_df",
    "export_html",
    "export_ipynb",
    "export_markdown",
    "history",
    "image",
    "load_ipython_extension",
    "messages_df",
    "model",
    "move",
    "notebook_tools",
    "prune",
    "reask",
    "redact",
    "replay",
    "replayed_tools",
    "rulebook",
    "run_turn",
    "runs_df",
    "show",
    "steps_df",
    "tool",
    "unload_ipython_extension",
    "write_cassette",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'turncell' has no attribute {name!r}")
    module = import_module(f"turncell.{home}")
    value = getattr(module, name, module)  # `otel` is a module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *__all__})


def load_ipython_extension(shell: InteractiveShell) -> None:
    """What `%load_ext turncell` calls."""
    from turncell.notebook.extension import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """What `%unload_ext turncell` calls."""
    from turncell.notebook.extension import unload

    unload(shell)
