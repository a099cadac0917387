"""The bridge on real kernels: what reaches a cell that waits, what does not, and how it ends."""

from __future__ import annotations

import time
from typing import Any

import pytest

from .conftest import Kernel, shared

pytestmark = pytest.mark.matrix

# A run that ends when the page says so or when it is asked to. It stands for the runtime, which the bridge never sees.
PRELUDE = """
import concurrent.futures, threading, time
from comm import create_comm
from turncell.notebook.bridge import KernelBridge

bridge = KernelBridge.current()

class Turn:
    def __init__(self, stops=True):
        self.done, self.clicks, self.stops, self.asked_to_stop = concurrent.futures.Future(), [], stops, 0
        self.comm = create_comm(target_name='turncell.test', comm_id='button')
        self.comm.on_msg(lambda msg: self.on_click(msg['content']['data']['content'], []))   # the normal path
        bridge.register('button', self.on_click)

    def on_click(self, content, buffers):
        self.clicks.append(content)
        if 'then' in content:
            exec(content['then'], globals())
        if content.get('end') and not self.done.done():
            self.done.set_result(None)

    def on_interrupt(self):
        self.asked_to_stop += 1
        self.comm.send('asked to stop')
        if self.stops:
            self.done.set_result(None)

    def wait(self, *jobs, **options):
        # Said by the first job, and not by a print: then the wait is really there, and an interrupt meets it.
        bridge.run_on_main(self.comm.send, 'waiting')
        self.jobs = [bridge.run_on_main(job) for job in jobs]
        bridge.wait(self.done, on_interrupt=self.on_interrupt, **options)

def on_another_thread(fn, *args):
    future = concurrent.futures.Future()
    threading.Thread(target=lambda: future.set_result(fn(*args)), daemon=True).start()
    return future
"""


@pytest.fixture
def ready(started_kernels: dict[str, Kernel], kernel_version: str) -> Kernel:
    kernel = shared(started_kernels, kernel_version)
    kernel.run(PRELUDE)
    return kernel


@pytest.fixture
def alone(kernel: Kernel) -> Kernel:
    """A kernel of its own, for what changes more of it than names."""
    kernel.run(PRELUDE)
    return kernel


def start_waiting(kernel: Kernel, code: str = "turn = Turn(); turn.wait()", **options: Any) -> str:
    cell = kernel.execute(code, **options)
    hear_comm(kernel, cell, "waiting")
    return cell


def hear_comm(kernel: Kernel, cell: str, data: str) -> None:
    kernel.hear(lambda: {"comm_id": "button", "data": data} in kernel.children(cell, "comm_msg"), data)


def seconds_since(start_s: float) -> float:
    return time.monotonic() - start_s


SOON_S = 30.0
"""At once, on a machine that does much else. What does not come at once here comes after a minute, or never."""


def has_arrived(kernel: Kernel) -> None:
    """Whatever was sent so far has reached the kernel: messages are not overtaken by a click."""
    kernel.idle(kernel.click(type="nothing"))


# -- clicks


@pytest.mark.every_kernel
def test_a_click_reaches_a_waiting_cell_once_and_at_once(ready: Kernel) -> None:
    cell = start_waiting(ready)
    clicked_s = time.monotonic()
    ready.click(end=True, answer="yes")
    assert ready.reply(cell)["status"] == "ok"
    assert seconds_since(clicked_s) < SOON_S
    ready.idle(cell)
    assert ready.value("turn.clicks") == [{"end": True, "answer": "yes"}]


@pytest.mark.every_kernel
def test_300_clicks_between_other_messages_come_once_and_in_order_and_nothing_queued_runs_early(
    ready: Kernel,
) -> None:
    before = ready.run(
        "order = []; foreign = create_comm(target_name='foreign', comm_id='foreign')\n"
        "foreign.on_msg(lambda msg: order.append(msg['content']['data']['content']['n']))"
    )
    cell = start_waiting(ready, "turn = Turn(); turn.wait(); order.append('waited')")
    queued, replies = [], []
    for n in range(300):
        ready.click(n=n)
        if n % 9 == 0:
            ready.execute(f"order.append({n})")
            queued.append(n)
        if n % 10 == 5:
            ready.click("foreign", n=n)
            queued.append(n)
        if n % 30 == 7:
            replies.append((ready.send("complete_request", {"code": "orde", "cursor_pos": 4}), "complete_reply"))
            replies.append((ready.send("kernel_info_request", {}), "kernel_info_reply"))
    ready.click(end=True)
    ready.reply(cell, timeout_s=60)
    for msg_id, msg_type in replies:
        assert ready.reply(msg_id, msg_type, timeout_s=60)["status"] == "ok"
    last = ready.execute("order.append('last')")
    ready.reply(last, timeout_s=60)

    assert ready.value("[click.get('n') for click in turn.clicks]") == [*range(300), None]
    assert ready.value("order") == ["waited", *queued, "last"]
    assert ready.children(last, "execute_reply")[0]["execution_count"] == before["execution_count"] + 1 + 34 + 1


def test_a_cell_that_raises_after_its_turn_aborts_the_cells_behind_it(ready: Kernel) -> None:
    cell = start_waiting(ready, "turn = Turn(); turn.wait(); raise ValueError('after the turn')")
    queued = []
    for n in range(23):
        ready.click(n=n)
        queued.append(ready.execute("ran = True"))
    ready.click(end=True)
    assert ready.reply(cell)["ename"] == "ValueError"
    assert {ready.reply(msg_id)["status"] for msg_id in queued} == {"aborted"}
    assert ready.value("len(turn.clicks), 'ran' in globals()") == (24, False)


def test_a_click_before_the_wait_is_not_lost_if_the_cell_listens(ready: Kernel) -> None:
    cell = start_waiting(
        ready,
        "turn = Turn()\n"
        "with bridge.listening():\n"
        "    turn.comm.send('waiting'); time.sleep(1)\n"
        "    bridge.wait(turn.done, on_interrupt=turn.on_interrupt)",
    )
    ready.click(end=True)
    assert ready.reply(cell)["status"] == "ok"
    assert ready.value("len(turn.clicks)") == 1


def test_a_click_between_turns_takes_the_normal_path(ready: Kernel) -> None:
    cell = start_waiting(ready)
    ready.click(end=True)
    ready.reply(cell)
    ready.idle(ready.click(n=2))
    assert ready.value("turn.clicks") == [{"end": True}, {"n": 2}]
    assert ready.value("type(get_ipython().kernel.shell_stream._recv_callback).__name__") != "_Stage"


def test_messages_that_are_not_well_formed_disturb_nobody(alone: Kernel) -> None:
    cell = start_waiting(alone)
    malformed: list[dict[str, Any]] = [
        {},
        {"comm_id": ["button"]},
        {"comm_id": "button", "data": "custom"},
        {"comm_id": "button"},
    ]
    for content in malformed:
        alone.send("comm_msg", content)
    alone.send("comm_msg", {"comm_id": "button", "data": {"method": "update", "state": {}}})
    alone.send("comm_open", {})
    alone.click(then="raise RuntimeError('in the handler')")
    alone.click(end=True)
    assert alone.reply(cell)["status"] == "ok"
    assert alone.run("1 + 1")["status"] == "ok"


def test_a_handler_gets_the_buffers(ready: Kernel) -> None:
    ready.run("got = []; turn = Turn(); bridge.register('button', lambda c, b: (got.append([*map(bytes, b)]), "
              "turn.done.set_result(None)))")  # fmt: skip
    cell = start_waiting(ready, "turn.wait()")
    content = {"comm_id": "button", "data": {"method": "custom", "content": {}}}
    session = ready.client.session
    session.send(ready.client.shell_channel.socket, "comm_msg", content, buffers=[b"one", b"two"])
    ready.reply(cell)
    assert ready.value("got") == [[b"one", b"two"]]


def test_an_unregistered_comm_is_left_alone(ready: Kernel) -> None:
    cell = start_waiting(ready, "turn = Turn(); bridge.unregister('button'); turn.wait(grace_s=0.1)")
    ready.click(end=True)
    ready.interrupt()
    assert ready.reply(cell)["status"] == "error"
    ready.idle(ready.click(n=1))
    assert ready.value("turn.clicks") == [{"end": True}, {"n": 1}], "after the cell, by the normal path"


# -- what the page sees meanwhile


def test_busy_and_idle_carry_the_click_and_the_cell_is_called_busy_again(ready: Kernel) -> None:
    cell = start_waiting(ready)
    heard_before = len(ready.statuses())
    click = ready.click(n=1)
    ready.hear(lambda: len(ready.statuses()) >= heard_before + 3, "three statuses")
    assert ready.statuses()[heard_before:] == [("busy", click), ("idle", click), ("busy", cell)]
    ready.click(end=True)
    ready.reply(cell)
    ready.idle(cell)
    assert ready.statuses()[-1] == ("idle", cell)


def test_clicks_leave_the_output_and_the_figures_of_the_cell_alone(alone: Kernel) -> None:
    alone.run("fired = []; get_ipython().events.register('post_execute', lambda: fired.append(1))")
    cell = start_waiting(alone, "turn = Turn(); fired.clear(); turn.wait(); print('fired', len(fired))")
    for n in range(3):
        alone.click(n=n)
    alone.click(end=True)
    alone.reply(cell)
    alone.hear_print(cell, "fired 0")


def test_a_page_that_is_reloaded_gets_its_answers_while_the_cell_waits(alone: Kernel) -> None:
    alone.run("import ipywidgets; slider = ipywidgets.IntSlider(value=7); model_id = slider.model_id")
    model_id = alone.value("model_id")
    cell = start_waiting(alone)

    assert alone.reply(alone.send("kernel_info_request", {}), "kernel_info_reply")["status"] == "ok"
    comms = alone.reply(alone.send("comm_info_request", {"target_name": "jupyter.widget"}), "comm_info_reply")
    assert model_id in comms["comms"]

    version = {"version": "1.0.0"}
    opened = {"comm_id": "control", "target_name": "jupyter.widget.control", "data": {}}
    alone.idle(alone.send("comm_open", opened, metadata=version))
    request = alone.send("comm_msg", {"comm_id": "control", "data": {"method": "request_states"}}, metadata=version)
    alone.idle(request)
    states = alone.hear(
        lambda: [
            msg["content"]["data"]["states"]
            for _, msg in alone.heard
            if msg["content"].get("comm_id") == "control" and msg["header"]["msg_type"] == "comm_msg"
        ],
        "the states of the widgets",
    )
    assert states[0][model_id]["state"]["value"] == 7
    alone.idle(alone.send("comm_msg", {"comm_id": model_id, "data": {"method": "request_state"}}))
    alone.idle(alone.send("comm_close", {"comm_id": "control", "data": {}}))

    alone.hear(lambda: alone.statuses()[-1] == ("busy", cell), "busy again")
    assert not alone.children(cell, "execute_reply"), "the cell still waits"
    alone.click(end=True)
    assert alone.reply(cell)["status"] == "ok"


# -- the end


@pytest.mark.every_kernel
def test_an_interrupt_asks_the_run_to_end_and_shows_one_line(ready: Kernel) -> None:
    cell = start_waiting(ready, "turn = Turn(); turn.wait(grace_s=60)")
    queued = ready.execute("ran = True")
    has_arrived(ready)
    pressed_s = time.monotonic()
    ready.interrupt()
    reply = ready.reply(cell)
    assert seconds_since(pressed_s) < SOON_S
    assert (reply["status"], reply["ename"], reply["traceback"]) == (
        "error",
        "TurnInterrupted",
        ["turn interrupted"],
    )
    assert ready.reply(queued)["status"] == "aborted"
    assert ready.run("1 + 1")["status"] == "ok"
    assert ready.value("turn.asked_to_stop, 'ran' in globals()") == (1, False)


def test_a_run_that_does_not_end_in_time_is_left(ready: Kernel) -> None:
    def left_after_s() -> float:
        cell = start_waiting(ready, "turn = Turn(stops=False); turn.wait(grace_s=0.5)")
        pressed_s = time.monotonic()
        ready.interrupt()
        assert ready.reply(cell)["ename"] == "TurnInterrupted"
        took_s = seconds_since(pressed_s)
        ready.run("pass")  # a cell after it is no longer aborted
        return took_s

    assert 0.4 < min(left_after_s() for _ in range(2)) < 4


def test_the_second_press_leaves_at_once(ready: Kernel) -> None:
    cell = start_waiting(ready, "turn = Turn(stops=False); turn.wait(grace_s=60)")
    ready.interrupt()
    hear_comm(ready, cell, "asked to stop")
    ready.listen(0.2)
    assert not ready.children(cell, "execute_reply"), "the first press only asks"
    pressed_s = time.monotonic()
    ready.interrupt()
    assert ready.reply(cell)["ename"] == "TurnInterrupted"
    assert seconds_since(pressed_s) < SOON_S
    assert ready.value("turn.asked_to_stop") == 1


def test_a_job_on_the_main_thread_can_be_interrupted(ready: Kernel) -> None:
    cell = start_waiting(ready, "turn = Turn(); turn.wait(lambda: (print('asleep', flush=True), time.sleep(60)))")
    ready.hear_print(cell, "asleep")
    pressed_s = time.monotonic()
    ready.interrupt()
    assert ready.reply(cell)["ename"] == "TurnInterrupted"
    assert seconds_since(pressed_s) < SOON_S
    assert ready.value("type(turn.jobs[0].exception()).__name__") == "JobInterrupted"
    assert ready.run("1 + 1")["status"] == "ok"


def test_an_interrupt_after_the_turn_is_an_ordinary_one(ready: Kernel) -> None:
    cell = start_waiting(ready)
    ready.click(end=True)
    ready.reply(cell)
    sleeping = ready.execute("print('asleep', flush=True); time.sleep(20)")
    ready.hear_print(sleeping, "asleep")
    ready.interrupt()
    assert ready.reply(sleeping)["ename"] == "KeyboardInterrupt"


def test_a_restart_while_a_cell_waits_is_quick(alone: Kernel) -> None:
    start_waiting(alone)
    alone.manager.shutdown_wait_time = 80  # after half of it, one that does not end by itself is ended
    asked_s = time.monotonic()
    alone.manager.shutdown_kernel(restart=True)
    assert seconds_since(asked_s) < SOON_S
    alone.manager.start_kernel()
    alone.client.wait_for_ready(timeout=60)
    assert alone.run("1 + 1")["status"] == "ok"


# -- the main thread


@pytest.mark.every_kernel
def test_jobs_run_on_the_main_thread_in_the_context_of_who_asked(ready: Kernel) -> None:
    ready.run(
        "import contextvars; who = contextvars.ContextVar('who', default='nobody')\n"
        "def job(): return threading.current_thread() is threading.main_thread(), who.get()\n"
        "def asks():\n"
        "    who.set('agent'); value = bridge.run_on_main(job).result(); turn.done.set_result(None); return value"
    )
    cell = start_waiting(ready, "turn = Turn(); answer = on_another_thread(asks); turn.wait()")
    ready.reply(cell)
    assert ready.value("answer.result()") == (True, "agent")


def test_a_click_during_a_long_job_comes_at_once_or_at_least_after_it(ready: Kernel) -> None:
    has_thread = ready.value("getattr(get_ipython().kernel, 'shell_channel_thread', None) is not None")
    job = f"lambda: (print('at work', flush=True), clicked.wait({60 if has_thread else 1}))"
    cell = start_waiting(ready, f"clicked = threading.Event(); turn = Turn(); turn.wait({job})")
    ready.hear_print(cell, "at work")
    ready.idle(ready.click(then="clicked.set()"))
    ready.click(end=True)
    assert ready.reply(cell)["status"] == "ok"
    assert ready.value("turn.clicks") == [{"then": "clicked.set()"}, {"end": True}]
    assert ready.value("turn.jobs[0].result()[1]") is has_thread


def test_a_wait_inside_of_a_job_works(ready: Kernel) -> None:
    cell = start_waiting(
        ready,
        "turn = Turn(); inner = concurrent.futures.Future()\n"
        "def nested():\n"
        "    print('nested', flush=True)\n"
        "    bridge.wait(inner, on_interrupt=lambda: None)\n"
        "turn.wait(nested)",
    )
    ready.hear_print(cell, "nested")
    ready.click(then="inner.set_result(None)")
    ready.click(end=True)
    assert ready.reply(cell)["status"] == "ok"
    assert ready.value("turn.jobs[0].exception()") is None


def test_a_wait_on_another_thread_only_waits(ready: Kernel) -> None:
    ready.run("turn = Turn(); waiting = on_another_thread(lambda: bridge.wait(turn.done, on_interrupt=None))")
    ready.idle(ready.click(end=True))
    ready.run("waiting.result(timeout=60)")
    assert ready.value("len(turn.clicks)") == 1


# -- who is there


@pytest.mark.parametrize("allowed", [True, False])
def test_allow_stdin_is_what_the_front_end_said(ready: Kernel, allowed: bool) -> None:
    ready.run("said = bridge.allow_stdin()", allow_stdin=allowed)
    assert ready.value("said") is allowed


def test_the_cell_id_is_the_front_ends(ready: Kernel) -> None:
    ready.run("said = bridge.cell_id()", metadata={"cellId": "c-17"})
    assert ready.value("said") == "c-17"
    ready.run("said = bridge.cell_id()")
    assert ready.value("said") is None


def test_a_line_can_be_asked_for_while_the_cell_waits(ready: Kernel) -> None:
    code = (
        "turn = Turn()\n"
        "def asks(): line = bridge.ask_line('Approve? '); turn.done.set_result(None); return line\n"
        "answer = on_another_thread(asks)\n"
        "turn.wait()"
    )
    cell = ready.execute(code, allow_stdin=True)
    assert ready.hear_input_request()["prompt"] == "Approve? "
    ready.answer_input("yes")
    assert ready.reply(cell)["status"] == "ok"
    assert ready.value("answer.result()") == "yes"


def test_a_line_that_was_asked_for_can_be_interrupted(ready: Kernel) -> None:
    cell = start_waiting(ready, "turn = Turn(); turn.wait(lambda: input('Approve? '))", allow_stdin=True)
    ready.hear_input_request()
    ready.interrupt()
    assert ready.reply(cell)["ename"] == "TurnInterrupted"


# -- where the tap cannot stand


@pytest.mark.every_kernel
def test_without_the_private_names_messages_take_the_normal_path(alone: Kernel) -> None:
    alone.run(
        "import sys; stream = get_ipython().kernel.shell_stream\n"
        "class Hiding(type(stream)):\n"
        "    def __getattribute__(self, name):\n"
        "        if name == '_recv_callback' and sys._getframe(1).f_globals['__name__'] == 'turncell.notebook.tap':\n"
        "            raise AttributeError(name)\n"
        "        return super().__getattribute__(name)\n"
        "stream.__class__ = Hiding"
    )
    assert alone.value("bridge.tap.available") is False
    cell = start_waiting(alone, "turn = Turn(); threading.Timer(1, turn.done.set_result, [None]).start(); turn.wait()")
    click = alone.click(n=1)
    assert alone.reply(cell)["status"] == "ok"
    alone.idle(click)
    assert alone.value("turn.clicks") == [{"n": 1}]


def test_another_wrapper_around_the_stream_survives_our_turns(alone: Kernel) -> None:
    alone.run(
        "passed = []\n"
        "def wrap():\n"
        "    inner = stream._recv_callback\n"
        "    def outer(frames): passed.append(1); return inner(frames)\n"
        "    stream.on_recv(outer, copy=False)\n"
        "def on_stream_thread(fn):\n"
        "    done = threading.Event()\n"
        "    if getattr(get_ipython().kernel, 'shell_channel_thread', None) is None: fn()\n"
        "    else: stream.io_loop.add_callback(lambda: (fn(), done.set())); done.wait(60)\n"
        "stream = get_ipython().kernel.shell_stream"
    )
    cell = start_waiting(
        alone,
        "turn = Turn()\nwith bridge.listening():\n    on_stream_thread(wrap); turn.wait()",
    )
    alone.click(end=True)
    assert alone.reply(cell)["status"] == "ok"
    for _ in range(2):
        cell = start_waiting(alone)
        alone.click(n=1)
        alone.click(end=True)
        assert alone.reply(cell)["status"] == "ok"
        assert alone.value("len(turn.clicks)") == 2
    assert alone.value("len(passed)") == 6, "all but the clicks that newer taps took in front of it"


def test_a_closed_bridge_leaves_nothing_behind(alone: Kernel) -> None:
    alone.run("job = bridge.run_on_main(print, 'never'); turn = Turn(); bridge.close()")
    assert alone.value("job.cancelled(), KernelBridge.current() is bridge") == (True, False)
    alone.idle(alone.click(n=1))
    assert alone.value("turn.clicks") == [{"n": 1}], "by the normal path"
