"""The life of a turn in a kernel: interrupted at any moment, restarted, killed, seen twice, one of five cells in a row."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from turncell.core import events as ev

from .conftest import NOTEBOOK, Kernel, Message, keyboard_after, wait_until_recorded
from .page import Page
from .test_turn import ended, final, turn

pytestmark = pytest.mark.newest_kernel

IDLE_WITHIN_S = 20.0
"""From the press of the interrupt button to a kernel that is free again, where much else runs; the bench has the figure.
What nobody ends goes on for longer."""

TOOLS = '''
import asyncio, threading, time

began = []

@tool(effect="read")
def slow_look(seconds: float = 60) -> str:
    """Look for a long time, in a thread."""
    began.append("thread")
    time.sleep(seconds)
    return "seen"

@tool(effect="read")
async def slow_wait(seconds: float = 60) -> str:
    """Wait for a long time, on the loop."""
    began.append("loop")
    await asyncio.sleep(seconds)
    return "waited"
'''


def until(kernel: Kernel, condition: str) -> None:
    """Wait in a cell until an expression of the kernel is true."""
    kernel.run(
        f"import time; end_s = time.monotonic() + 50\nwhile not ({condition}) and time.monotonic() < end_s: time.sleep(0.01)"
    )
    assert kernel.value(f"bool({condition})"), condition


# -- interrupted


@pytest.mark.feature("D4")
@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("script(say('never said', delay_s=60))", ev.StepStarted),
        ("script(think('word ' * 5000, delay_s=0.03))", ev.ReasoningDelta),
        ("script(say('word ' * 5000, delay_s=0.03))", ev.TextDelta),
        ("script(call('slow_look'), 'never said')", ev.CallStarted),
        ("script(call('slow_wait'), 'never said')", ev.CallStarted),
        ("script(call('send_note', to='Ana'), 'never said')", ev.RequestOpened),
    ],
    ids=["silent", "thinking", "speaking", "a tool in a thread", "a tool on the loop", "asking"],
)
def test_the_interrupt_button_frees_the_kernel_whatever_the_turn_is_doing(
    notebook: Kernel, script: str, kind: type[ev.Event]
) -> None:
    notebook.run(TOOLS)
    notebook.run(script + "; demo = Agent(model, tools=[send_note, slow_look, slow_wait])")
    cell = turn(notebook)
    queued = notebook.execute("ran = True")
    page = Page(notebook, cell)
    page.hear(kind)
    notebook.idle(page.ready)
    pressed_s = time.monotonic()
    notebook.interrupt()
    reply = ended(page)
    assert time.monotonic() - pressed_s < IDLE_WITHIN_S
    assert (reply["status"], reply["traceback"]) == ("error", ["turn interrupted"])
    assert notebook.reply(queued)["status"] == "aborted"
    assert page.state.status == "cancelled" and final(page)["text/plain"]
    assert notebook.value("'ran' in globals(), outbox, statuses()") == (False, [], ["cancelled"])


@pytest.mark.feature("D4")
def test_a_turn_that_is_queued_behind_an_interrupted_cell_never_begins(notebook: Kernel) -> None:
    notebook.run("import time; script('never said')")
    sleeping = notebook.execute("input(); print('asleep', flush=True); time.sleep(60)", allow_stdin=True)
    notebook.hear_input_request()
    queued = turn(notebook)
    notebook.answer_input("the turn is queued")
    notebook.hear_print(sleeping, "asleep")
    notebook.interrupt()
    assert notebook.reply(sleeping)["ename"] == "KeyboardInterrupt"
    assert notebook.reply(queued)["status"] == "aborted"
    assert notebook.value("statuses(), len(model.requests)") == ([], 0)


@pytest.mark.feature("D4")
def test_an_interrupt_between_queue_and_start_leaves_no_run_that_nobody_sees(notebook: Kernel) -> None:
    notebook.run("script(*[call('send_note', to='Ana')] * 30)")
    chance = random.Random(7)
    for _ in range(15):
        cell = notebook.execute("%%agent -a demo --new\nTell Ana.", allow_stdin=True)
        # Before a kernel says so it has not begun the cell, and what ipykernel does with the button there is its own.
        notebook.hear(lambda cell=cell: notebook.children(cell, "execute_input"), "the beginning of the cell")  # type: ignore[misc]
        time.sleep(chance.random() * 0.04)
        notebook.interrupt()
        assert notebook.reply(cell)["status"] == "error"
        notebook.idle(cell)
        notebook.run("pass")  # the next one is no longer aborted
    until(notebook, "set(statuses()) <= {'cancelled'}")
    assert notebook.value("outbox") == []
    assert notebook.value("get_ipython().kernel.shell_stream._recv_callback.__class__.__name__") != "_Stage"


# -- restarted, and killed

ENDS_WITHIN_S = 30.0


def start_again(kernel: Kernel, how: str, setup: str) -> float:
    """Restart it politely or kill it; how many seconds it took to end."""
    asked_s = time.monotonic()
    if how == "killed":
        pid = kernel.manager.provisioner.pid  # type: ignore[union-attr]
        os.kill(pid, signal.SIGKILL)
        while kernel.manager.is_alive():
            time.sleep(0.02)
    else:
        kernel.manager.shutdown_wait_time = 80  # after half of it, one that does not end by itself is ended
        kernel.manager.shutdown_kernel(restart=True)
    took_s = time.monotonic() - asked_s
    if how == "killed":
        kernel.manager.shutdown_kernel(now=True, restart=True)
    kernel.manager.start_kernel()
    kernel.client.wait_for_ready(timeout=60)
    kernel.heard.clear()
    kernel.run(setup)
    return took_s


@pytest.mark.feature("D4", "C11")
@pytest.mark.parametrize("how", ["restarted", pytest.param("killed", marks=pytest.mark.full)])
def test_a_kernel_that_ends_under_a_turn_ends_at_once_and_the_turn_can_be_resumed(
    kernel: Kernel, own_history: Path, how: str
) -> None:
    setup = NOTEBOOK.replace("HISTORY", str(own_history))
    kernel.run(setup)
    kernel.run("script([say('I write. '), say('word ' * 2000, delay_s=0.02)])")
    page = Page(kernel, turn(kernel))
    page.hear_text("word word word")
    wait_until_recorded(own_history, "PartialSaved")
    assert start_again(kernel, how, setup) < ENDS_WITHIN_S
    kernel.run("script('All said.')")
    cell = kernel.execute("%agent resume -a demo", allow_stdin=True)
    Page(kernel, cell)
    assert "All said." in shown(kernel, cell)["text/plain"]
    assert kernel.value("statuses()") == ["completed"]

    kernel.run("script(call('send_note', to='Ana'), 'never said')")
    Page(kernel, turn(kernel, "Tell Ana.", "-a demo --new")).hear(ev.RequestOpened)
    wait_until_recorded(own_history, "RequestOpened")
    assert start_again(kernel, how, setup) < ENDS_WITHIN_S
    kernel.run("script('Ana knows.')")
    page = Page(kernel, kernel.execute("%agent resume -a demo", allow_stdin=True))
    asked = page.hear_message("snapshot")["run"]["steps"][-1]["calls"][-1]["request"]
    page.say("answer", request_id=asked["request_id"], digest=asked["digest"], decision="approve")
    assert "Ana knows." in shown(kernel, page.cell)["text/plain"]
    assert kernel.value("outbox, statuses()") == ([("Ana", "hello")], ["completed", "completed"])


def shown(kernel: Kernel, cell: str) -> Message:
    """What stays in a cell that has run well."""
    assert kernel.reply(cell, timeout_s=60)["status"] == "ok"
    kernel.idle(cell)
    data: Message = kernel.children(cell, "update_display_data")[-1]["data"]
    return data


# -- five cells in a row


@pytest.mark.feature("D12", "D2")
@pytest.mark.parametrize(
    ("entry", "options", "status"),
    [
        ("RuntimeError('no power')", "", "failed"),
        ("[say('x ' * 50), call('send_note', to='Ana')]", "--budget tokens=3", "budget"),
        ("say('word ' * 500, delay_s=0.05)", "--timeout 0.3", "timeout"),
        ("say('word ' * 5000, delay_s=0.05)", "", "interrupted"),
    ],
    ids=lambda value: value if value.isidentifier() else "",
)
def test_a_second_cell_that_fails_stops_run_all(notebook: Kernel, entry: str, options: str, status: str) -> None:
    notebook.run(f"script('one', {entry}, *['more'] * 4)")
    before = notebook.execute("input()", allow_stdin=True)
    notebook.hear_input_request()
    cells = [turn(notebook, f"Cell {n}.", f"-a demo {options if n == 2 else ''}") for n in range(1, 6)]
    notebook.answer_input("all are queued")
    assert notebook.reply(before)["status"] == "ok"
    if status == "interrupted":
        Page(notebook, cells[1]).hear_text("word")
        notebook.interrupt()
    replies = [notebook.reply(cell, timeout_s=60)["status"] for cell in cells]
    assert replies == ["ok", "error", "aborted", "aborted", "aborted"]
    notebook.idle(cells[1])
    said = "\n".join(notebook.children(cells[1], "error")[0]["traceback"])
    assert said.startswith("turn interrupted" if status == "interrupted" else f"{status}: ") and "\n" not in said
    left = "cancelled" if status == "interrupted" else status
    assert notebook.value("statuses()") == ["completed", left]


@pytest.mark.feature("D12", "D2")
@pytest.mark.parametrize(
    ("entry", "options", "decision", "status"),
    [
        ("['half an ans', stop('length')]", "", "", "truncated"),
        ("call('send_note', to='Ana')", "--max-steps 1", "deny", "max_steps"),
        ("call('send_note', to='Ana')", "", "deny", "completed"),
        ("call('send_note', to='Ana')", "", "stop", "cancelled"),
    ],
    ids=["truncated", "max_steps", "denied", "stopped by the card"],
)
def test_a_second_cell_that_ends_as_a_person_or_its_limit_wanted_lets_run_all_go_on(
    notebook: Kernel, entry: str, options: str, decision: str, status: str
) -> None:
    notebook.run(f"from turncell.testing import stop; script('one', {entry}, *['more'] * 4)")
    cells = [turn(notebook, f"Cell {n}.", f"-a demo {options if n == 2 else ''}") for n in range(1, 6)]
    if decision:
        page = Page(notebook, cells[1])
        request = page.hear(ev.RequestOpened)
        notebook.listen(0.1)
        assert not notebook.children(cells[2], "execute_input"), "what is queued behind a question waits"
        page.say("stop") if decision == "stop" else page.answer(request, decision)
    assert [notebook.reply(cell, timeout_s=60)["status"] for cell in cells] == ["ok"] * 5
    assert notebook.value("statuses()") == ["completed", status, *["completed"] * 3]
    assert notebook.value("outbox") == []


# -- seen twice


@pytest.mark.feature("D5", "D2")
def test_a_second_view_of_a_run_answers_for_both(notebook: Kernel) -> None:
    notebook.run("script([say('I write. '), call('send_note', to='Ana')], 'Ana knows.')")
    first = Page(notebook, notebook.execute("%%agent -a demo --detach -o run\nTell Ana.", allow_stdin=True))
    first.hear(ev.RequestOpened)
    second = Page(notebook, notebook.execute("%agent show", allow_stdin=True))
    second.answer(second.hear(ev.RequestOpened), "approve")
    for page in (first, second):
        page.hear(ev.RunEnded)
        assert page.state.status == "completed" and page.state.text == "Ana knows."
        notebook.hear(lambda page=page: display_updates(page), "the transcript")  # type: ignore[misc]
        assert "Ana knows." in final_of(page)["text/plain"]
    assert notebook.value("outbox") == [("Ana", "hello")]


def display_id(page: Page) -> str:
    shown = page.kernel.children(page.cell, "display_data")
    return str(shown[0]["transient"]["display_id"])


def display_updates(page: Page) -> list[Message]:
    """Of the page's own output, whatever cell they came from."""
    updates = [msg["content"] for _, msg in page.kernel.heard if msg["header"]["msg_type"] == "update_display_data"]
    return [update for update in updates if update["transient"]["display_id"] == display_id(page)]


def final_of(page: Page) -> Message:
    data: Message = display_updates(page)[-1]["data"]
    return data


@pytest.mark.feature("D5", "D2")
def test_two_tabs_of_one_notebook_see_the_same_and_the_first_answer_counts(notebook: Kernel) -> None:
    notebook.run("script([say('I write. '), call('send_note', to='Ana')], call('send_note', to='Bo'), 'Both know.')")
    page = Page(notebook, turn(notebook))
    request = page.hear(ev.RequestOpened)
    page.say("hello")  # the second tab, on the same comm
    page.say("ready", have=-1)
    told = page.hear_message("snapshot")["run"]
    assert told["steps"][-1]["calls"][-1]["request"]["digest"] == request.digest
    page.answer(request, "approve")
    page.answer(request, "deny")
    assert "not open any more" in page.hear_message("refused")["problem"]
    page.answer(page.hear(ev.RequestOpened, 2), "approve")
    assert ended(page)["status"] == "ok"
    assert notebook.value("outbox") == [("Ana", "hello"), ("Bo", "hello")]


# -- without its cell


@pytest.mark.feature("D3")
def test_a_detached_turn_ends_in_its_own_cell_while_another_cell_runs(notebook: Kernel) -> None:
    notebook.run("import time; script(say('word ' * 20, delay_s=0.05))")
    page = Page(notebook, notebook.execute("%%agent -a demo --detach -o run\nTalk.", allow_stdin=True))
    page.hear_text("word")
    busy = notebook.execute("while not run.done.done(): time.sleep(0.01)\ntime.sleep(0.3); print('mine')")
    assert notebook.reply(busy, timeout_s=60)["status"] == "ok"
    notebook.idle(busy)
    assert notebook.printed(busy) == "mine\n" and not notebook.children(busy, "display_data")
    notebook.hear(lambda: display_updates(page), "the transcript")
    assert "word word" in final_of(page)["text/plain"]


@pytest.mark.feature("D3")
def test_two_detached_turns_go_on_side_by_side_and_are_answered_in_any_order(notebook: Kernel) -> None:
    notebook.run(
        "script('unused')\n"
        "one = Agent(ScriptedModel([call('send_note', to='Ana'), 'Ana knows.']), tools=[send_note])\n"
        "two = Agent(ScriptedModel([call('send_note', to='Bob'), 'Bob knows.']), tools=[send_note])"
    )
    first = Page(notebook, notebook.execute("%%agent -a one --detach -o a\nTell Ana.", allow_stdin=True))
    second = Page(notebook, notebook.execute("%%agent -a two --new --detach -o b\nTell Bob.", allow_stdin=True))
    asked = first.hear(ev.RequestOpened), second.hear(ev.RequestOpened)
    second.answer(asked[1], "approve")
    second.hear(ev.RunEnded)
    assert notebook.value("a.status, b.status, outbox") == ("waiting", "completed", [("Bob", "hello")])
    first.answer(asked[0], "approve")
    first.hear(ev.RunEnded)
    assert notebook.value("a.text, b.text, len(outbox)") == ("Ana knows.", "Bob knows.", 2)


@pytest.mark.feature("D3", "D2")
def test_a_detached_turn_is_answered_while_another_turn_s_cell_waits(notebook: Kernel) -> None:
    notebook.run(
        "script('unused')\n"
        "one = Agent(ScriptedModel([call('send_note', to='Ana'), 'Ana knows.']), tools=[send_note])\n"
        "two = Agent(ScriptedModel([call('send_note', to='Bob'), 'Bob knows.']), tools=[send_note])"
    )
    detached = Page(notebook, notebook.execute("%%agent -a one --detach -o a\nTell Ana.", allow_stdin=True))
    asked = detached.hear(ev.RequestOpened)
    waiting = Page(notebook, turn(notebook, "Tell Bob.", "-a two --new"))
    other = waiting.hear(ev.RequestOpened)
    detached.answer(asked, "approve")
    detached.hear(ev.RunEnded)
    assert not notebook.children(waiting.cell, "execute_reply"), "the other cell still waits for its own answer"
    waiting.answer(other, "approve")
    assert ended(waiting)["status"] == "ok"
    assert notebook.value("outbox") == [("Ana", "hello"), ("Bob", "hello")]


@pytest.mark.feature("D3", "D4")
@pytest.mark.parametrize("runs", ["a cell", "a turn", "nothing"])
def test_an_interrupt_belongs_to_the_cell_that_runs_and_not_to_a_detached_turn(notebook: Kernel, runs: str) -> None:
    notebook.run(
        "import time; script(call('send_note', to='Ana'), 'Ana knows.')\n"
        "other = Agent(ScriptedModel([say('word ' * 5000, delay_s=0.05)]))"
    )
    page = Page(notebook, notebook.execute("%%agent -a demo --detach -o run\nTell Ana.", allow_stdin=True))
    request = page.hear(ev.RequestOpened)
    notebook.idle(page.ready)
    if runs == "nothing":
        notebook.interrupt()
        notebook.listen(0.3)
    else:
        code = "print('word', flush=True); time.sleep(60)" if runs == "a cell" else "%%agent -a other --new\nTalk."
        cell = notebook.execute(code, allow_stdin=True)
        if runs == "a cell":
            notebook.hear_print(cell, "word")
        else:
            Page(notebook, cell).hear_text("word")
        pressed_s = time.monotonic()
        notebook.interrupt()
        assert notebook.reply(cell)["ename"] == ("KeyboardInterrupt" if runs == "a cell" else "TurnInterrupted")
        notebook.idle(cell)
        assert time.monotonic() - pressed_s < IDLE_WITHIN_S
    assert notebook.value("run.status") == "waiting"
    page.answer(request, "approve")
    page.hear(ev.RunEnded)
    assert notebook.value("run.status, outbox") == ("completed", [("Ana", "hello")])


# -- loaded, unloaded, loaded again

TRACES = """
import gc, sys, threading, time

def traces():
    shell = get_ipython()
    stream = shell.kernel.shell_stream
    callbacks = [c for cs in shell.events.callbacks.values() for c in cs]
    where = lambda c: getattr(c, '__module__', None) or type(c).__module__
    threads = {t.name for t in threading.enumerate()} & {'turncell-keyboard', 'turncell-detached'}
    import ipywidgets
    widgets = [w for w in ipywidgets.Widget.widgets.values()] if 'ipywidgets' in sys.modules else []
    return {
        'tap': getattr(stream._recv_callback, '__module__', type(stream._recv_callback).__module__),
        'threads': sorted(threads),
        'callbacks': sorted(c.__qualname__ for c in callbacks if str(where(c)).startswith('turncell')),
        'completers': [f.__qualname__ for f in shell.Completer.custom_matchers if 'turncell' in str(where(f))],
        'widgets': sorted({type(w).__name__ for w in widgets if type(w).__module__.startswith('turncell')}),
        'signal': __import__('signal').getsignal(2).__qualname__,
    }
"""


@pytest.mark.feature("D3", "D8")
def test_reloading_and_unloading_leave_nothing_behind(notebook: Kernel) -> None:
    notebook.run(TRACES)
    notebook.run("%unload_ext turncell")
    until(notebook, "not traces()['threads']")
    before = notebook.value("traces()")
    assert before["callbacks"] == before["threads"] == before["completers"] == []
    notebook.run("%load_ext turncell")
    loaded = notebook.value("traces()")
    for _ in range(3):
        notebook.run("script('Hi.')")
        ended(Page(notebook, turn(notebook)))
        notebook.run("%reload_ext turncell")
    again = notebook.value("traces()")
    assert again["callbacks"] == loaded["callbacks"], "each is there once"
    notebook.run("%unload_ext turncell")
    without_widgets = {**before, "widgets": []}
    until(notebook, f"{{**traces(), 'widgets': []}} == {without_widgets!r}")
    after = notebook.value("traces()")
    assert set(after["widgets"]) <= {"Library"}, "views are closed; the library stays for views that were kept"
    notebook.run("%load_ext turncell")


@pytest.mark.feature("D3", "D8")
def test_a_detached_turn_outlives_a_reload_is_answered_and_leaves_nothing_behind(notebook: Kernel) -> None:
    notebook.run(TRACES)
    notebook.run("import time; script(call('send_note', to='Ana'), 'Ana knows.')")
    page = Page(notebook, notebook.execute("%%agent -a demo --detach -o run\nTell Ana.", allow_stdin=True))
    request = page.hear(ev.RequestOpened)
    notebook.run("%reload_ext turncell")
    busy = notebook.execute("print('busy', flush=True); time.sleep(0.5)")
    notebook.hear_print(busy, "busy")
    page.answer(request, "approve")
    page.hear(ev.RunEnded)
    notebook.hear(lambda: display_updates(page), "the transcript")
    notebook.reply(busy)
    assert notebook.value("run.status, outbox") == ("completed", [("Ana", "hello")])
    notebook.run("%unload_ext turncell")
    until(notebook, "not traces()['threads'] and not traces()['tap'].startswith('turncell')")
    left = notebook.value("traces()")
    assert left["callbacks"] == left["completers"] == [] and "RunView" not in left["widgets"]
    notebook.run("%load_ext turncell")


@pytest.mark.feature("D3", "D8")
def test_unloading_under_a_detached_turn_takes_everything_away_but_the_turn(notebook: Kernel) -> None:
    notebook.run(TRACES)
    notebook.run("import time; script(call('send_note', to='Ana'), 'Ana knows.')")
    page = Page(notebook, notebook.execute("%%agent -a demo --detach -o run\nTell Ana.", allow_stdin=True))
    request = page.hear(ev.RequestOpened)
    notebook.run("%unload_ext turncell")
    until(notebook, "not traces()['tap'].startswith('turncell')")
    left = notebook.value("traces()")
    assert left["callbacks"] == left["completers"] == []
    page.answer(request, "approve")
    page.hear(ev.RunEnded)
    notebook.hear(lambda: display_updates(page), "the transcript")
    until(notebook, "not traces()['threads']")
    assert "RunView" not in notebook.value("traces()")["widgets"]
    assert notebook.value("run.status, outbox") == ("completed", [("Ana", "hello")])
    notebook.run("%load_ext turncell")


@pytest.mark.feature("D8")
def test_autoreload_leaves_one_of_everything_and_reloads_the_person_s_own_tools(
    notebook: Kernel, tmp_path: Path
) -> None:
    module = tmp_path / "own_tools.py"
    module.write_text(OWN_TOOL.replace("ANSWER", "old"))
    notebook.run(TRACES)
    notebook.run(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.dont_write_bytecode = True")
    notebook.run("%load_ext autoreload\n%autoreload 2\nimport own_tools")
    try:
        before = notebook.value("traces()")["callbacks"]
        notebook.run("script(call('own'), 'Done.'); demo = Agent(model, tools=[own_tools.own])")
        ended(Page(notebook, turn(notebook)))
        assert notebook.value("told()") == ["old"]
        module.write_text(OWN_TOOL.replace("ANSWER", "newer"))
        os.utime(module, (time.time() + 5, time.time() + 5))
        notebook.run("script(call('own'), 'Done.'); demo = Agent(model, tools=[own_tools.own])")
        ended(Page(notebook, turn(notebook)))
        assert notebook.value("told()")[-1] == "newer"
        assert set(notebook.value("traces()")["callbacks"]) - set(before) <= {
            "KernelBridge._cell_begins",
            "KernelBridge._cell_ends",
        }
        callbacks = notebook.value("traces()")["callbacks"]
        assert len(callbacks) == len(set(callbacks))
    finally:
        notebook.run("%autoreload 0\nsys.path.pop(0); sys.modules.pop('own_tools')")


OWN_TOOL = '''
from turncell import tool

@tool(effect="read")
def own() -> str:
    """Own."""
    return "ANSWER"
'''


# -- where clicks cannot arrive


@pytest.mark.feature("D2", "D7")
def test_where_a_private_name_is_gone_a_page_s_clicks_do_not_arrive_and_the_keyboard_is_asked(
    kernel: Kernel, own_history: Path
) -> None:
    kernel.run(NOTEBOOK.replace("HISTORY", str(own_history)))
    keyboard_after(kernel, 3.0)
    kernel.run(HIDING)
    kernel.run("script(call('send_note', to='Ana'), 'Ana knows.')")
    asked_s = time.monotonic()
    cell = turn(kernel)
    page = Page(kernel, cell)
    prompt = kernel.hear_input_request()["prompt"]
    assert 2.5 < time.monotonic() - asked_s < 50
    assert "send_note" in prompt
    kernel.hear_print(cell, "keyboard")
    kernel.answer_input("y")
    assert ended(page)["status"] == "ok"
    assert page.state.text == "Ana knows.", "what the kernel says still reaches the page"
    assert kernel.value("outbox") == [("Ana", "hello")]

    kernel.run("script(call('send_note', to='Bob'), 'Bob knows.')")
    page = Page(kernel, kernel.execute("%%agent -a demo --detach -o run\nTell Bob.", allow_stdin=True))
    page.answer(page.hear(ev.RequestOpened), "approve")
    page.hear(ev.RunEnded)
    assert kernel.value("outbox[-1]") == ("Bob", "hello"), "between cells clicks need no tap"


HIDING = """
import sys
stream = get_ipython().kernel.shell_stream

class Hiding(type(stream)):
    def __getattribute__(self, name):
        if name == '_recv_callback' and sys._getframe(1).f_globals['__name__'] == 'turncell.notebook.tap':
            raise AttributeError(name)
        return super().__getattribute__(name)

stream.__class__ = Hiding
"""
