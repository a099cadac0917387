"""The notebook's own tools, in an IPython shell of this process whose main thread waits for the run."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from turncell import Agent, Run, UsageError, notebook_tools, redact
from turncell.core.fold import CallState
from turncell.core.parts import SEEN, Json
from turncell.notebook import bridge as bridge_module
from turncell.notebook.bridge import KernelBridge, TurnInterrupted
from turncell.notebook.interpolation import interpolate
from turncell.runtime.output import TABLE
from turncell.testing import ScriptedModel, call, say

pytestmark = pytest.mark.feature("B15", "D11")


def waited(agent: Agent) -> Run:
    """A turn as a cell runs it: the main thread waits in the bridge."""
    bridge = KernelBridge.current()
    with bridge.holding_interrupts():
        run = agent.start("Go on.")
        bridge.wait(run.done, on_interrupt=lambda: run.cancel("interrupted"))
    return run


def called(tool: str, /, *, limit_s: float = 30, mode: Any = "auto", **arguments: Json) -> CallState:
    """One call of one tool."""
    model = ScriptedModel([call(tool, **arguments), say("Done.")])
    return waited(Agent(model, tools=notebook_tools(limit_s=limit_s), mode=mode)).state.calls[0]


def ran(code: str, **options: Any) -> CallState:
    return called("run_python", code=code, **options)


def test_code_changes_the_namespace_and_gives_what_it_prints_and_its_last_value(shell: InteractiveShell) -> None:
    shell.run_cell("rate = 3")
    done = ran("total = rate * 2\nprint('counting')\ntotal + 1")
    assert (done.status, done.content) == ("ok", "counting\n7")
    assert shell.user_ns["total"] == 6


def test_code_that_says_nothing_says_so(shell: InteractiveShell) -> None:
    assert ran("x = 1").content == "Done. It printed nothing and its last line has no value."
    assert ran("x;").content == "Done. It printed nothing and its last line has no value."


def test_the_person_s_own_numbers_and_results_stay(shell: InteractiveShell) -> None:
    shell.run_cell("'mine'", store_history=True)
    count = shell.execution_count
    ran("'its'")
    assert shell.execution_count == count
    assert shell.user_ns["_"] == "mine" and shell.user_ns["Out"] == {1: "mine"}
    assert "'its'" not in shell.user_ns["In"]


def test_what_is_printed_and_shown_does_not_reach_the_cell(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        ran("import sys\nprint('out')\nprint('err', file=sys.stderr)\ndisplay('shown')").content == "out\nerr\n'shown'"
    )
    assert capsys.readouterr() == ("", "")


def test_long_output_is_cut_in_the_middle_with_a_mark(shell: InteractiveShell) -> None:
    content = ran("print('start')\nprint('x' * 100_000)\nprint('end')").content or ""
    assert len(content) < 21_000
    assert content.startswith("start") and content.endswith("end")
    assert "[left out: 80,011 characters of 100,011]" in content


def test_colours_and_the_states_of_a_progress_bar_are_left_out(shell: InteractiveShell) -> None:
    assert ran(r"print('\x1b[31mred\x1b[0m'); print('10%\r50%\r100%')").content == "red\n100%"


def test_a_table_is_compact_for_the_model_and_a_table_for_people(shell: InteractiveShell) -> None:
    done = ran("import pandas as pd\npd.DataFrame({'n': range(1000), 'city': 'Oslo'})")
    content = done.content or ""
    assert content.startswith("DataFrame, 1,000 rows × 2 columns: n (int64), city (")
    assert "; the first 5:" in content and len(content.splitlines()) == 7
    assert done.display[0][TABLE]["shape"] == [1000, 2]  # type: ignore[index, call-overload]


def test_a_table_that_is_displayed_is_a_table_for_people_too(shell: InteractiveShell) -> None:
    done = ran("import pandas as pd\ndisplay(pd.DataFrame({'n': [1]}))")
    assert done.display[0][TABLE]["rows"] == [[1]]  # type: ignore[index, call-overload]
    assert "n" in (done.content or "")


def test_an_open_figure_is_an_image_for_people_and_for_the_model(shell: InteractiveShell) -> None:
    done = ran("import matplotlib\nmatplotlib.use('agg')\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]);")
    assert [set(bundle) for bundle in done.display] == [{"image/png", SEEN}]
    assert done.content == "[an image, shown]"
    again = ran("1 + 1")
    assert again.display == (), "a figure is shown by the code that made it"


def test_a_failure_is_told_by_the_person_s_own_frames(shell: InteractiveShell) -> None:
    shell.run_cell("def half(x):\n    return 1 / x", store_history=True)
    done = ran("print('before')\nhalf(0)")
    content = done.content or ""
    assert done.status == "error"
    assert content.startswith("before\nTraceback:\n"), "as a cell shows it, without a class of ours"
    assert "Cell In[1], line 2, in half\n    return 1 / x\nZeroDivisionError: division by zero" in content
    assert "turncell" not in content and "    half(0)" in content


def test_frames_of_libraries_are_left_out_but_for_where_it_was_raised(shell: InteractiveShell) -> None:
    content = ran("import pandas as pd\npd.DataFrame({'a': [1]}).groupby('b')").content or ""
    assert "frames of libraries left out" in content and content.endswith("KeyError: 'b'")
    assert content.count("site-packages") == 1


def test_a_syntax_error_is_only_its_place(shell: InteractiveShell) -> None:
    assert (ran("x = (").content or "").splitlines()[-1] == "SyntaxError: '(' was never closed"


def test_exit_ends_the_call_and_nothing_else(shell: InteractiveShell) -> None:
    done = ran("import sys\nsys.exit(3)")
    assert done.status == "error" and "SystemExit: 3" in (done.content or "")


def test_top_level_await_works(shell: InteractiveShell) -> None:
    assert ran("import asyncio\nawait asyncio.sleep(0.01)\nawait asyncio.sleep(0, 'slept')").content == "slept"


def test_magics_and_shell_lines_work(shell: InteractiveShell) -> None:
    done = ran("!echo from the shell\nfolder = %pwd\nfolder == __import__('os').getcwd()")
    assert done.content == "from the shell\nTrue"


def test_an_agent_inside_is_refused_in_words(shell: InteractiveShell) -> None:
    done = ran("%%agent\nDo it for me.")
    assert done.status == "error" and "do not run inside of an agent's code" in (done.content or "")


def test_other_threads_print_where_they_did(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    code = "import threading\nt = threading.Thread(target=print, args=('beside',))\nt.start(); t.join()\nprint('mine')"
    assert ran(code).content == "mine"
    assert capsys.readouterr().out == "beside\n"


def test_what_is_written_later_to_a_stream_that_the_code_has_kept_is_not_lost(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ran("import sys\nkept = sys.stdout\nprint('now', file=kept)").content == "now"
    shell.run_cell("print('later', file=kept)")
    assert capsys.readouterr().out.endswith("later\n")


@pytest.mark.parametrize("raised", ["asyncio.CancelledError()", "GeneratorExit()", "SystemExit(2)"])
def test_what_code_raises_itself_is_not_taken_for_a_person_who_interrupts(shell: InteractiveShell, raised: str) -> None:
    done = ran(f"import asyncio\nprint('begun')\nraise {raised}")
    assert done.status == "error" and raised.split("(")[0].split(".")[-1] in (done.content or "")
    assert "interrupted by the person" not in (done.content or "")


def test_an_object_that_would_leave_the_program_is_only_told_of(shell: InteractiveShell) -> None:
    shell.run_cell("class Leaves:\n    def __repr__(self): raise SystemExit(3)\nodd = Leaves()")
    done = called("inspect_variable", name="odd")
    assert done.status == "ok" and "cannot be shown: SystemExit" in (done.content or "")
    assert interpolate("What is {odd}?", shell.user_ns).startswith("What is <a Leaves that cannot be shown")  # type: ignore[union-attr]


def test_running_code_asks_and_looking_does_not(shell: InteractiveShell) -> None:
    shell.run_cell("x = 1")
    denied = ran("x = 2", mode="ask")
    assert denied.status == "denied" and shell.user_ns["x"] == 1, "nobody attends"
    assert called("inspect_variable", name="x", mode="ask").content == "int: 1"
    assert called("list_variables", mode="ask").content == "x: int: 1"


def test_a_time_limit_takes_the_main_thread_out_of_the_code(shell: InteractiveShell) -> None:
    for limit_s in (0.3, 3, 30):  # where the machine stalls, it strikes before the first line
        began = time.monotonic()
        done = ran("print('begun')\nimport time\ntime.sleep(90)", limit_s=limit_s)
        assert time.monotonic() - began < 60
        assert done.status == "error" and f"time limit of {limit_s:g} s" in (done.content or "")
        if "begun" in (done.content or ""):
            return
    pytest.fail("what was printed before the limit is not told")


def test_a_time_limit_ends_what_is_awaited_and_what_catches_everything(shell: InteractiveShell) -> None:
    assert "time limit" in (ran("import asyncio\nawait asyncio.sleep(60)", limit_s=0.3).content or "")
    stubborn = (
        "import time\nfor _ in range(2):\n    try:\n        time.sleep(60)\n    except BaseException:\n        pass"
    )
    assert ran(stubborn, limit_s=0.2).status in ("ok", "error")
    assert ran("'alive'").content == "alive"


def test_the_interrupt_button_stops_the_code_and_the_result_says_so(shell: InteractiveShell) -> None:
    model = ScriptedModel(
        [call("run_python", code="print('begun')\npress()\nimport time\ntime.sleep(60)\nafter = 1"), say("Done.")]
    )
    agent = Agent(model, tools=notebook_tools(limit_s=60), mode="auto")
    bridge = KernelBridge.current()
    runs: list[Run] = []
    shell.user_ns["press"] = lambda: threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(TurnInterrupted), bridge.holding_interrupts():
        runs.append(agent.start("Go on."))
        bridge.wait(runs[0].done, on_interrupt=lambda: runs[0].cancel("interrupted"))
    assert runs[0].status == "cancelled" or runs[0].status == "interrupted"
    assert runs[0].tool_calls[0].started_at is not None and "after" not in shell.user_ns


def test_stopping_the_run_from_elsewhere_stops_the_code(shell: InteractiveShell) -> None:
    model = ScriptedModel(
        [call("run_python", code="import time\nbegun = True\nstop()\ntime.sleep(60)\nafter = 1"), say("Done.")]
    )
    agent = Agent(model, tools=notebook_tools(limit_s=60), mode="auto")
    bridge = KernelBridge.current()
    shell.user_ns["stop"] = lambda: threading.Timer(0.2, run.cancel, ["stopped on the page"]).start()
    began = time.monotonic()
    with bridge.holding_interrupts():
        run = agent.start("Go on.")
        bridge.wait(run.done, on_interrupt=lambda: run.cancel("interrupted"))
    assert time.monotonic() - began < 50
    assert shell.user_ns.get("begun") and "after" not in shell.user_ns
    assert ran("'alive'").content == "alive"


def test_where_nobody_serves_the_main_thread_the_error_says_so(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_module, "NOBODY_S", 0.2)
    model = ScriptedModel([call("run_python", code="x = 1"), say("Done.")])
    run = Agent(model, tools=notebook_tools(), mode="auto").run_sync("Go on.")
    assert "nothing was run: no cell waits for this run" in (run.state.calls[0].content or "")
    assert "x" not in shell.user_ns


def test_a_cell_that_is_about_to_wait_is_waited_for(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_module, "NOBODY_S", 0.1)
    model = ScriptedModel([call("run_python", code="x = 1"), say("Done.")])
    bridge = KernelBridge.current()
    with bridge.holding_interrupts():
        run = Agent(model, tools=notebook_tools(), mode="auto").start("Go on.")
        while not (run.tool_calls and run.tool_calls[0].started_at):
            time.sleep(0.01)
        time.sleep(0.3)  # making the view takes its time
        bridge.wait(run.done, on_interrupt=lambda: run.cancel("interrupted"))
    assert run.tool_calls[0].status == "ok" and shell.user_ns["x"] == 1


def test_without_ipython_there_are_no_such_tools() -> None:
    with pytest.raises(UsageError, match="there is no notebook here"):
        notebook_tools()


def test_a_limit_is_a_number(shell: InteractiveShell) -> None:
    with pytest.raises(UsageError, match="limit_s is 0; use a number, more than 0"):
        notebook_tools(limit_s=0)


# -- looking


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("x", "int: 41"),
        ("text", "str: a word"),
        ("d['k'][0]", "int: 7"),
        ("df['n']", "Series 'n', 3 values of int64:\n0    1\n1    2\n2    3"),
        ("half", "function: def half(x):\n    return x / 2"),
        ("bad", "Bad: <a Bad that cannot be shown: RuntimeError>"),
    ],
)
def test_a_variable_is_told_by_its_type(shell: InteractiveShell, name: str, told: str) -> None:
    shell.run_cell(
        "import pandas as pd\nx = 41\ntext = 'a word'\nd = {'k': [7]}\ndf = pd.DataFrame({'n': [1, 2, 3]})\n"
        "def half(x):\n    return x / 2\n"
        "class Bad:\n    def __repr__(self):\n        raise RuntimeError\nbad = Bad()"
    )
    assert (called("inspect_variable", name=name).content or "").strip() == told


@pytest.mark.parametrize("name", ["nobody", "x.nothing", "x()", "d.clear()", "__import__('os')", "x +", ""])
def test_what_is_not_there_or_would_be_called_is_not_looked_at(shell: InteractiveShell, name: str) -> None:
    shell.run_cell("x = 41\nd = {'k': 1}")
    done = called("inspect_variable", name=name)
    assert done.status == "error" and "list_variables says what there is" in (done.content or "")
    assert shell.user_ns["d"] == {"k": 1}


def test_the_list_has_what_cells_defined_and_nothing_of_ipython(shell: InteractiveShell) -> None:
    shell.run_cell("import os\n_private = 1\nrates = [1, 2]\nname = 'Ana'", store_history=True)
    assert called("list_variables").content == "name: str: 'Ana'\nrates: list of 2: [1, 2]"


def test_secrets_in_outputs_are_not_recorded(shell: InteractiveShell, own_history: Path) -> None:
    redact("hunter2-and-more")
    shell.run_cell("password = 'hunter2-and-more'")
    model = ScriptedModel([call("run_python", code="print(password)"), say("Done.")])
    run = waited(Agent(model, tools=notebook_tools(), mode="auto"))
    assert b"hunter2-and-more" not in b"".join(
        path.read_bytes() for path in own_history.parent.rglob("*") if path.is_file()
    )
    assert run.status == "completed"
