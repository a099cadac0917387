"""The notebook's own tools, and tools on the notebook's own loop, on real kernels."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.runtime.pieces import until
from turncell.core import events as ev

from .conftest import Kernel
from .page import Page

PRELUDE = """
import asyncio, threading, time
from turncell import notebook_tools
from turncell.notebook import bridge as _bridge
tools_of_notebook = notebook_tools(limit_s=30)

def code(text, *more):
    "An agent whose model runs this code."
    global model, coder
    calls = [call("run_python", code=one) for one in (text, *more)]
    model = ScriptedModel([*calls, say("Done.")])
    coder = Agent(model, tools=tools_of_notebook, mode="auto")

def result(run, number=0):
    return run.state.calls[number].content
"""


def touching(folder: Path) -> str:
    """Code that leaves a sign that it has begun."""
    return f"__import__('pathlib').Path({str(folder / 'begun')!r}).touch()"


@pytest.fixture
def coding(notebook: Kernel) -> Kernel:
    notebook.run(PRELUDE)
    return notebook


def wait_for_run(kernel: Kernel) -> None:
    """Until `run` has ended, in cells that come and go."""
    until(lambda: kernel.value("run.done.done()"))


def ended(kernel: Kernel, cell: str, status: str = "ok") -> str:
    reply = kernel.reply(cell, timeout_s=60)
    kernel.idle(cell)
    assert reply["status"] == status, "\n".join(reply.get("traceback", [])) or reply
    return kernel.printed(cell)


@pytest.mark.feature("D11", "B15")
def test_code_is_approved_as_it_stands_on_the_card_and_runs_on_the_main_thread(coding: Kernel) -> None:
    coding.run("x = 20\ncode('import threading\\ny = x + 1\\nprint(threading.current_thread().name)\\ny * 2')")
    coding.run("coder = Agent(model, tools=tools_of_notebook, mode='ask')")
    cell = coding.execute("%%agent -a coder -o run\nDouble it.", allow_stdin=True)
    page = Page(coding, cell)
    request = page.hear(ev.RequestOpened)
    assert "y = x + 1" in str(page.state.calls[0].arguments)
    page.answer(request, "approve")
    ended(coding, cell)
    assert coding.value("(y, result(run))") == (21, "MainThread\n42")
    assert not any("MainThread" in str(content) for content in coding.children(cell, "stream")), "only on the card"


@pytest.mark.feature("D11")
def test_code_that_a_person_edits_is_the_code_that_runs(coding: Kernel) -> None:
    coding.run("code('y = 1'); coder = Agent(model, tools=tools_of_notebook, mode='ask')")
    cell = coding.execute("%%agent -a coder\nSet y.", allow_stdin=True)
    page = Page(coding, cell)
    page.answer(page.hear(ev.RequestOpened), "edit", arguments=json.dumps({"code": "y = 'edited'"}))
    ended(coding, cell)
    assert coding.value("y") == "edited"


@pytest.mark.feature("D11")
def test_where_nobody_attends_code_is_denied_and_the_model_is_told(coding: Kernel) -> None:
    coding.run("code('y = 1'); coder = Agent(model, tools=tools_of_notebook, mode='ask')\nglobals().pop('y', None)")
    coding.run("%%agent -a coder -o run\nSet y.")
    assert coding.value("run.state.calls[0].status") == "denied"
    assert coding.value("'y' in globals()") is False
    assert "denied" in coding.value("told()")[0]


@pytest.mark.feature("D11")
def test_figures_of_code_stand_on_the_card_and_not_in_the_cell(coding: Kernel) -> None:
    coding.run("%matplotlib inline\nimport matplotlib.pyplot as plt")
    coding.run("code('plt.plot([1, 2]);', 'plt.plot([2, 1])\\nplt.show()')")
    cell = coding.execute("%%agent -a coder -o run\nPlot.")
    ended(coding, cell)
    images = [content for content in coding.children(cell, "display_data") if "image/png" in content["data"]]
    assert images == []
    shown = coding.value("[sorted(bundle) for one in run.state.calls for bundle in one.display]")
    assert [[kind for kind in kinds if kind.startswith("image/")] for kinds in shown] == [["image/png"]] * 2
    assert coding.value("plt.get_fignums()") == []


@pytest.mark.feature("D11")
def test_top_level_await_uses_what_belongs_to_the_notebook_s_loop(coding: Kernel) -> None:
    coding.run(
        "answer = asyncio.get_running_loop().create_future()\nasyncio.get_running_loop().call_later(0.5, answer.set_result, 42)"
    )
    coding.run("code('await asyncio.sleep(0.1)', 'await answer')")
    first = coding.execute("%%agent -a coder -o run\nWait.")
    second = coding.execute("order = [run.status]")
    ended(coding, first)
    ended(coding, second)
    assert coding.value("(result(run, 1), order)") == ("42", ["completed"])


@pytest.mark.feature("D11")
def test_code_runs_between_cells_for_a_run_that_no_cell_waits_for(coding: Kernel) -> None:
    coding.run("code('where = threading.current_thread().name')")
    coding.run("run = coder.start('Go on.')")
    wait_for_run(coding)
    assert coding.value("(where, run.status)") == ("MainThread", "completed")


@pytest.mark.feature("D11")
def test_code_of_another_run_waits_for_the_end_of_an_async_cell(coding: Kernel) -> None:
    coding.run("marks = []\ncode('marks.append(\"code\")')")
    first = coding.execute("run = coder.start('Go on.')")
    second = coding.execute("marks.append('begin')\nawait asyncio.sleep(1.5)\nmarks.append('end')")
    ended(coding, first)
    ended(coding, second)
    wait_for_run(coding)
    marks = coding.value("marks")
    assert sorted(marks) == ["begin", "code", "end"]
    assert marks.index("end") == marks.index("begin") + 1, "not between two awaits of somebody else's cell"


@pytest.mark.feature("D11")
def test_a_cell_that_awaits_its_own_run_serves_it(coding: Kernel) -> None:
    coding.run("code('y = 7\\ny', 'await asyncio.sleep(0.1)\\n8')")
    coding.run("run = await coder.run('Go on.')")
    assert coding.value("(y, result(run), result(run, 1))") == (7, "7", "8")


@pytest.mark.feature("D11")
def test_a_cell_that_blocks_without_serving_is_told_what_to_do(coding: Kernel) -> None:
    coding.run("code('y = 7')\n_bridge.BEGIN_S = 0.5\nrun = coder.run_sync('Go on.')\n_bridge.BEGIN_S = 60.0")
    said = coding.value("result(run)")
    assert "nothing was run: the notebook is busy" in said and "await agent.run" in said


@pytest.mark.feature("D11", "D5")
@pytest.mark.parametrize("code", ["time.sleep(60)", "await asyncio.sleep(60)"])
def test_the_interrupt_button_stops_the_code(coding: Kernel, tmp_path: Path, code: str) -> None:
    coding.run(f"code({touching(tmp_path)!r} '\\n{code}\\nafter = 1')\nglobals().pop('after', None)")
    cell = coding.execute("%%agent -a coder -o run\nGo on.", allow_stdin=True)
    page = Page(coding, cell)
    page.hear(ev.CallStarted)
    until((tmp_path / "begun").exists)
    coding.interrupt()
    began_s = time.monotonic()
    ended(coding, cell, "error")
    assert time.monotonic() - began_s < 30
    assert coding.value("('after' in globals(), run.status)") == (False, "cancelled")
    assert "was stopped" in coding.value("result(run)")
    coding.run("code('1 + 1')")
    coding.run("%%agent -a coder -o run\nOnce more.")
    assert coding.value("result(run)") == "2"


@pytest.mark.feature("D11", "D5")
def test_stop_on_the_page_stops_the_code_where_the_kernel_hears_it(
    coding: Kernel, tmp_path: Path, kernel_version: str
) -> None:
    # ipykernel 6 hears the page only on the main thread, which the code has; awaiting code gives it back.
    code = "time.sleep(60)" if kernel_version >= "7" else "await asyncio.sleep(60)"
    coding.run(f"code({touching(tmp_path)!r} '\\n{code}\\nafter = 1')\nglobals().pop('after', None)")
    cell = coding.execute("%%agent -a coder -o run\nGo on.", allow_stdin=True)
    page = Page(coding, cell)
    until((tmp_path / "begun").exists)
    page.say("stop")
    assert coding.reply(cell, timeout_s=60)["status"] in ("ok", "error")
    assert coding.value("'after' in globals()") is False


@pytest.mark.feature("D11", "D5")
def test_stop_is_not_lost_in_the_moment_in_which_it_is_heard(coding: Kernel, tmp_path: Path) -> None:
    # Another thread of the kernel that computes: the run hears of the click before the main thread has let go of it.
    coding.run(
        "busy = True\ndef compute():\n    while busy: sum(range(1000))\nthreading.Thread(target=compute).start()"
    )
    try:
        for _ in range(3):
            (tmp_path / "begun").unlink(missing_ok=True)
            code = touching(tmp_path) + "\nawait asyncio.sleep(60)\nafter = 1"
            coding.run(f"code({code!r})\nglobals().pop('after', None)")
            cell = coding.execute("%%agent -a coder -o run\nGo on.", allow_stdin=True)
            page = Page(coding, cell)
            until((tmp_path / "begun").exists)
            page.say("stop")
            assert coding.reply(cell, timeout_s=60)["status"] in ("ok", "error")
            assert coding.value("(run.status, 'after' in globals())") == ("cancelled", False)
    finally:
        coding.run("busy = False", timeout_s=60)


@pytest.mark.feature("D11", "D5")
def test_the_interrupt_button_stops_code_between_cells_and_its_result_says_so(coding: Kernel, tmp_path: Path) -> None:
    coding.run(f"code('print(1)\\n' {touching(tmp_path)!r} '\\ntime.sleep(60)')")
    coding.run("run = coder.start('Go on.')")
    until((tmp_path / "begun").exists)
    coding.interrupt()
    assert coding.value("run.done.result(60).status") == "completed"
    assert coding.value("result(run)").startswith("1\n[interrupted by the person")


# -- tools on the notebook's own loop

POOL = """
from turncell import tool

class Pool:
    "As a database pool: it belongs to the loop that it was opened on."
    def __init__(self):
        self.loop = asyncio.get_running_loop()
        self.queries = []
    async def query(self, text):
        assert asyncio.get_running_loop() is self.loop, "another loop"
        done = self.loop.create_future()
        self.loop.call_later(0.2, done.set_result, len(text))
        self.queries.append(text)
        return await done

pool = Pool()

@tool(effect="read", loop="caller")
async def query(text: str) -> int:
    "Ask the database."
    return await pool.query(text)

def asking(*texts, **options):
    global model, asker
    model = ScriptedModel([[call("query", text=text) for text in texts], say("Done.")])
    asker = Agent(model, tools=[query], **options)
"""


@pytest.fixture
def pooled(coding: Kernel) -> Kernel:
    coding.run(f"await asyncio.sleep(0)\n{POOL}")
    return coding


@pytest.mark.feature("B2")
def test_a_tool_uses_the_notebook_s_loop_while_a_cell_blocks_it(pooled: Kernel) -> None:
    pooled.run("asking('one', 'three')")
    first = pooled.execute("%%agent -a asker -o run\nAsk.")
    second = pooled.execute("seen = list(pool.queries)")
    ended(pooled, first)
    ended(pooled, second)
    assert pooled.value("[one.content for one in run.state.calls]") == ["3", "5"]
    assert pooled.value("sorted(seen)") == ["one", "three"], "the queued cell came after"


@pytest.mark.feature("B2")
def test_a_tool_uses_the_notebook_s_loop_while_a_cell_awaits_and_between_cells(pooled: Kernel) -> None:
    pooled.run("asking('one')\nrun = await asker.run('Ask.')")
    assert pooled.value("run.state.calls[0].content") == "3"
    pooled.run("asking('three')\nrun = asker.start('Ask.')")
    wait_for_run(pooled)
    assert pooled.value("run.state.calls[0].content") == "5"


@pytest.mark.feature("B2", "D5")
def test_the_page_is_heard_while_the_notebook_s_loop_goes_on(pooled: Kernel) -> None:
    pooled.run("asking('one')\npool.query = lambda text: asyncio.sleep(60)")
    cell = pooled.execute("%%agent -a asker -o run\nAsk.", allow_stdin=True)
    page = Page(pooled, cell)
    page.hear(ev.CallStarted)
    time.sleep(0.5)
    page.say("stop")
    began_s = time.monotonic()
    pooled.reply(cell, timeout_s=60)
    assert time.monotonic() - began_s < 30
    assert pooled.value("1 + 1") == 2


@pytest.mark.feature("B2", "D5")
def test_interrupting_leaves_a_loop_that_goes_on(pooled: Kernel) -> None:
    pooled.run("asking('one')\npool.query = lambda text: asyncio.sleep(60)")
    cell = pooled.execute("%%agent -a asker -o run\nAsk.", allow_stdin=True)
    page = Page(pooled, cell)
    page.hear(ev.CallStarted)
    time.sleep(0.5)
    pooled.interrupt()
    ended(pooled, cell, "error")
    pooled.run("await asyncio.sleep(0.1)\ndel pool.query\nasking('one')")
    pooled.run("%%agent -a asker -o run\nAsk.")
    assert pooled.value("run.state.calls[0].content") == "3"
