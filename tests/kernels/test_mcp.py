"""MCP servers in a kernel, whose `sys.stderr` is no file."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.kernels.conftest import Kernel
from tests.runtime.pieces import until

ODD = Path(__file__).parents[1] / "adapters" / "odd_server.py"
EVERYTHING = Path(__file__).parents[2] / "js/node_modules/@modelcontextprotocol/server-everything/dist/index.js"
pytestmark = [pytest.mark.newest_kernel, pytest.mark.feature("B14")]

SLOW_S = 60.0
"""For the first use of a server: the package `mcp` takes seconds to be imported where others work, too."""

CELLS = f"""
import sys
from turncell import McpServer
server = McpServer("odd", sys.executable, [{str(ODD)!r}])

def go(*entries):
    run = Agent(ScriptedModel([*entries, "Done."]), tools=[server], mode="auto").run_sync("Go on.")
    return [call.content for call in run.state.calls]
"""


def test_a_server_starts_dies_and_comes_back_in_a_kernel(notebook: Kernel) -> None:
    notebook.run(CELLS)
    notebook.run("said = go(call('odd_die'), call('odd_echo', text='hi'))", SLOW_S)
    died, back = notebook.value("said")
    assert "the last words" in died and back == "hi"
    assert notebook.value("server.stderr") == "" and notebook.value("server.state") == "running"


def test_a_server_of_node_works_in_a_kernel(notebook: Kernel) -> None:
    notebook.run(CELLS)
    notebook.run(f"server = McpServer('all', 'node', [{str(EVERYTHING)!r}, 'stdio'])")
    notebook.run("said = go(call('all_echo', message='hi'))", SLOW_S)
    assert notebook.value("said") == ["Echo: hi"]
    notebook.run("server.close()")


def test_a_cell_has_a_server_among_its_tools(notebook: Kernel) -> None:
    notebook.run(CELLS)
    notebook.run(
        "demo = Agent(ScriptedModel([call('odd_echo', text='from the server'), 'It said so.']), tools=[server], mode='auto')"
    )
    notebook.run("%%agent -a demo\nWhat does it say?", SLOW_S)
    assert notebook.value("list(runs_df().status)") == ["completed"]


def test_a_server_ends_with_the_extension_and_with_the_kernel(notebook: Kernel) -> None:
    notebook.run(CELLS)
    notebook.run("[pid] = go(call('odd_pid'))", SLOW_S)
    pid = notebook.value("pid")
    notebook.run("%unload_ext turncell")
    until(lambda: not psutil.pid_exists(int(pid)))
    assert notebook.value("server.state") == "not started"
    notebook.run("%load_ext turncell")
    notebook.run("[pid] = go(call('odd_pid'))", SLOW_S)
    pid = notebook.value("pid")
    process = psutil.Process(int(pid))
    notebook.manager.shutdown_kernel()
    process.wait(60)
