"""The bridge without a kernel: a script, a thread, IPython in a terminal."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pexpect
import pytest

from turncell.notebook.bridge import JobInterrupted, KernelBridge, TurnInterrupted

Done = concurrent.futures.Future[Any]


@pytest.fixture
def bridge() -> Iterator[KernelBridge]:
    bridge = KernelBridge.current()
    # A shell starts what it puts into the background with SIGINT ignored, and so would these tests be.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield bridge
    signal.signal(signal.SIGINT, before)
    bridge.close()


def in_background(fn: Callable[[], Any]) -> Done:
    done: Done = concurrent.futures.Future()

    def run() -> None:
        try:
            done.set_result(fn())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done


def press_after(delay_s: float) -> None:
    threading.Timer(delay_s, os.kill, [os.getpid(), signal.SIGINT]).start()


def press_in_the_wait(bridge: KernelBridge) -> None:
    """However late the thread of this test comes to its wait."""
    bridge.run_on_main(press_after, 0.05)


def sleep_until_pressed() -> None:
    press_after(0.2)
    time.sleep(60)


def test_there_is_one_bridge_and_no_tap(bridge: KernelBridge) -> None:
    assert KernelBridge.current() is bridge
    assert not bridge.tap.available
    assert bridge.cell_id() is None


def test_the_bridge_imports_neither_ipython_nor_zmq() -> None:
    code = "import sys, turncell.notebook.bridge as b; b.KernelBridge.current(); print(*sys.modules)"
    child = pexpect.spawn(sys.executable, ["-c", code], encoding="utf-8", use_poll=True, timeout=60)
    child.expect(pexpect.EOF)
    loaded = set(child.before.split())
    assert "turncell.notebook.bridge" in loaded
    assert not loaded & {"IPython", "zmq", "ipykernel"}


def test_the_run_is_asked_to_end_before_it_hears_that_a_press_has_ended_its_job(bridge: KernelBridge) -> None:
    done: Done = concurrent.futures.Future()
    asked: list[str] = []
    heard: list[list[str]] = []
    job = bridge.run_on_main(sleep_until_pressed)
    job.add_done_callback(lambda _: heard.append(list(asked)))
    job.add_done_callback(lambda _: done.set_result(None))
    with pytest.raises(TurnInterrupted):
        bridge.wait(done, on_interrupt=lambda: asked.append("to end"))
    assert heard == [["to end"]]
    with pytest.raises(JobInterrupted):
        job.result(0)


def test_a_run_gets_jobs_done_in_its_context_while_the_main_thread_waits(bridge: KernelBridge) -> None:
    who = contextvars.ContextVar("who", default="nobody")

    async def run() -> tuple[bool, str]:
        who.set("agent")
        job = bridge.run_on_main(lambda: (threading.current_thread() is threading.main_thread(), who.get()))
        return await asyncio.wrap_future(job)

    done = in_background(lambda: asyncio.run(run()))
    bridge.wait(done, on_interrupt=lambda: None)
    assert done.result() == (True, "agent")


def test_what_ends_code_that_nobody_waits_for_any_more_is_not_complained_of(
    bridge: KernelBridge, caplog: pytest.LogCaptureFixture
) -> None:
    begun = threading.Event()

    def code() -> None:
        begun.set()
        time.sleep(60)

    async def run() -> None:
        task = asyncio.ensure_future(bridge.on_main(code))
        await asyncio.to_thread(begun.wait)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0.1)  # asyncio hears of the code's end by its loop
        gc.collect()

    done = in_background(lambda: asyncio.run(run()))
    bridge.wait(done, on_interrupt=lambda: None)
    assert done.exception() is None and "never retrieved" not in caplog.text


def test_a_failed_run_is_waited_for_and_left_to_the_caller(bridge: KernelBridge) -> None:
    done = in_background(lambda: 1 / 0)
    bridge.wait(done, on_interrupt=lambda: None)
    assert isinstance(done.exception(), ZeroDivisionError)


@pytest.mark.parametrize("left_with", [KeyboardInterrupt, SystemExit, StopIteration, asyncio.CancelledError])
def test_no_job_can_end_the_loop_that_awaits_it(bridge: KernelBridge, left_with: type[BaseException]) -> None:
    def job() -> None:
        raise left_with

    async def run() -> str:
        try:
            await asyncio.wrap_future(bridge.run_on_main(job))
        except JobInterrupted as error:
            return repr(error.__cause__)
        return "nothing"

    done = in_background(lambda: asyncio.run(run()))
    try:
        bridge.wait(done, on_interrupt=lambda: None)
    except TurnInterrupted:
        assert left_with is KeyboardInterrupt, "an interrupt ends the turn as well"
    assert done.result(timeout=60).startswith(left_with.__name__)


def test_a_job_that_was_cancelled_is_not_run(bridge: KernelBridge) -> None:
    ran: list[int] = []
    unwanted = bridge.run_on_main(ran.append, 1)
    wanted = bridge.run_on_main(ran.append, 2)
    unwanted.cancel()
    bridge.wait(wanted, on_interrupt=lambda: None)
    assert ran == [2]


def test_the_interrupt_handler_is_put_back(bridge: KernelBridge) -> None:
    before = signal.getsignal(signal.SIGINT)
    done: Done = concurrent.futures.Future()
    press_in_the_wait(bridge)
    with pytest.raises(TurnInterrupted):
        bridge.wait(done, on_interrupt=lambda: done.set_result(None))
    assert signal.getsignal(signal.SIGINT) is before


def test_the_first_press_waits_for_the_grace_and_the_second_does_not(bridge: KernelBridge) -> None:
    asked: list[float] = []
    start_s = time.monotonic()
    press_in_the_wait(bridge)
    with pytest.raises(TurnInterrupted):
        bridge.wait(concurrent.futures.Future(), on_interrupt=lambda: asked.append(1), grace_s=0.4)
    assert time.monotonic() - start_s > 0.4

    def press_again() -> None:
        asked.append(2)
        press_after(0.2)

    start_s = time.monotonic()
    press_in_the_wait(bridge)
    with pytest.raises(TurnInterrupted):
        bridge.wait(concurrent.futures.Future(), on_interrupt=press_again, grace_s=90)
    assert 0.2 < time.monotonic() - start_s < 60
    assert asked == [1, 2]


def test_a_tool_that_swallows_the_interrupt_does_not_hide_it(bridge: KernelBridge) -> None:
    done: Done = concurrent.futures.Future()

    def stubborn() -> str:
        try:
            sleep_until_pressed()
        except KeyboardInterrupt:
            return "survived"
        return "slept"

    job = bridge.run_on_main(stubborn)
    with pytest.raises(TurnInterrupted):
        bridge.wait(done, on_interrupt=lambda: done.set_result(None))
    assert job.result() == "survived"


def test_an_interrupt_inside_of_a_nested_wait_ends_both(bridge: KernelBridge) -> None:
    ended: list[str] = []
    outer: Done = concurrent.futures.Future()
    inner: Done = concurrent.futures.Future()

    def end(name: str, done: Done) -> None:
        ended.append(name)
        done.set_result(None)

    def wait_inside() -> None:
        press_in_the_wait(bridge)
        bridge.wait(inner, on_interrupt=lambda: end("inner", inner))

    job = bridge.run_on_main(wait_inside)
    with pytest.raises(TurnInterrupted):
        bridge.wait(outer, on_interrupt=lambda: end("outer", outer))
    assert ended == ["inner", "outer"]
    assert isinstance(job.exception(), JobInterrupted)


def test_an_interrupt_is_never_lost_however_close_to_the_ends_of_the_wait(bridge: KernelBridge) -> None:
    for round_ in range(150):
        with pytest.raises(KeyboardInterrupt):
            done: Done = concurrent.futures.Future()
            threading.Timer(0.003, done.set_result, [None]).start()
            threading.Timer(0.002 + round_ * 2e-5, os.kill, [os.getpid(), signal.SIGINT]).start()
            bridge.wait(done, on_interrupt=lambda: None, poll_s=0.001)
            # The press came after the wait and is an ordinary one. Short sleeps: CPython itself sleeps through a
            # signal that comes just before the system call.
            for _ in range(60_000):
                time.sleep(0.001)


def test_a_press_at_the_very_end_of_a_poll_does_not_end_the_polling(bridge: KernelBridge) -> None:
    for _ in range(600):
        done: Done = concurrent.futures.Future()
        rescue = threading.Timer(60, lambda done=done: done.done() or done.set_result("too late"))
        rescue.start()
        with pytest.raises(TurnInterrupted), bridge.holding_interrupts():
            press_after(0.001)
            bridge.wait(done, on_interrupt=lambda done=done: done.set_result("asked"), poll_s=0.00002)  # type: ignore[misc]
        rescue.cancel()
        assert done.result() == "asked"


def test_a_held_press_counts_for_the_wait_that_comes_later(bridge: KernelBridge) -> None:
    done: Done = concurrent.futures.Future()
    steps: list[str] = []
    with pytest.raises(TurnInterrupted), bridge.holding_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        steps.append("started")
        try:
            bridge.wait(done, on_interrupt=lambda: done.set_result(None))
        finally:
            steps.append("closed")
    assert steps == ["started", "closed"] and done.done()


def test_a_held_press_after_the_wait_ends_the_cell_once_all_is_closed(bridge: KernelBridge) -> None:
    done: Done = concurrent.futures.Future()
    done.set_result(None)
    before = signal.getsignal(signal.SIGINT)
    steps: list[str] = []
    with pytest.raises(TurnInterrupted), bridge.holding_interrupts():
        bridge.wait(done, on_interrupt=lambda: steps.append("asked to end"))
        os.kill(os.getpid(), signal.SIGINT)
        steps.append("closed")
    assert steps == ["closed"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_failure_while_interrupts_are_held_stays_the_failure(bridge: KernelBridge) -> None:
    with pytest.raises(ZeroDivisionError), bridge.holding_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        raise ZeroDivisionError


def test_a_job_can_still_be_interrupted_while_interrupts_are_held(bridge: KernelBridge) -> None:
    done: Done = concurrent.futures.Future()
    job = bridge.run_on_main(sleep_until_pressed)
    start_s = time.monotonic()
    with pytest.raises(TurnInterrupted), bridge.holding_interrupts():
        bridge.wait(done, on_interrupt=lambda: done.set_result(None))
    assert time.monotonic() - start_s < 50
    assert isinstance(job.exception(), JobInterrupted)


def test_ipython_in_a_terminal_asks_and_is_interrupted() -> None:
    child = pexpect.spawn(
        sys.executable,
        ["-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor"],
        encoding="utf-8",
        use_poll=True,
        timeout=60,
        env=os.environ | {"TERM": "dumb"},
    )
    child.expect("In ")
    for line in [
        "import concurrent.futures, threading",
        "from turncell.notebook.bridge import KernelBridge; bridge = KernelBridge.current()",
        "def asked(done): done.set_result(bridge.ask_line('Approve? '))\n",
        "def turn(target): done = concurrent.futures.Future(); "
        "threading.Thread(target=target, args=[done], daemon=True).start(); "
        "bridge.wait(done, on_interrupt=lambda: done.cancel()); return done.result()\n",
        "print('stdin', bridge.allow_stdin(), 'tap', bridge.tap.available)",
    ]:
        child.sendline(line)
    child.expect("stdin True tap False")
    child.sendline("turn(asked)")
    child.expect(r"Approve\? ")
    child.sendline("yes")
    child.expect("'yes'")
    child.sendline("turn(lambda done: bridge.run_on_main(print, 'run' + 'ning'))")
    child.expect("running")
    child.sendintr()
    child.expect("turn interrupted")
    child.sendline("print(6 * 7)")
    child.expect("42")
    child.sendline("exit")
    child.expect(pexpect.EOF)


QUESTIONS = """
import random, threading, time
from concurrent.futures import Future
from turncell.notebook.bridge import KernelBridge, QuestionGone
bridge = KernelBridge.current()
ends = {"gone": 0, "said": 0, "interrupted": 0}
for _ in range(40):
    done = Future()
    def ask():
        end_s = time.monotonic() + random.random() * 0.1
        try:
            bridge.ask_line("? ", lambda: time.monotonic() < end_s)
            ends["said"] += 1
        except QuestionGone:
            ends["gone"] += 1
        done.set_result(None)
    threading.Thread(target=ask, daemon=True).start()
    try:
        bridge.wait(done, on_interrupt=lambda: None)
        sum(range(2000))
    except KeyboardInterrupt:
        ends["interrupted"] += 1
print("ends", ends["interrupted"], ends["gone"] > 0, ends["gone"] + ends["said"])
"""


def test_questions_that_are_given_up_at_any_moment_interrupt_nobody() -> None:
    # Without an echo, which may come in the midst of a line that is printed.
    child = pexpect.spawn(sys.executable, ["-c", QUESTIONS], encoding="utf-8", use_poll=True, timeout=60, echo=False)
    while child.expect([r"\? ", r"ends (\d+ \w+ \d+)\r\n"]) == 0:
        if "No answer is needed" in child.before:  # not the first
            child.sendline("y")
    assert child.match is not None and child.match[1] == "0 True 40"
