"""The bridge between a run on the background loop and the thread that executes the notebook's cells.

A cell that runs a turn blocks the kernel's main thread in `KernelBridge.wait`. While it waits, that thread

- keeps the tap open (see tap.py), so that clicks and reloaded pages are served,
- runs jobs that need it (`run_on_main`): the user's namespace, matplotlib, `input()`,
- turns the interrupt button into `on_interrupt()`.

Rules that are easy to break:
- While it waits, SIGINT only counts. A KeyboardInterrupt raised inside of the stream's `flush` would lose a queued
  cell. Only while a job runs does SIGINT raise, so that a tool that hangs can be stopped.
- A turn is more than its wait: a KeyboardInterrupt between the start of a run and the wait would leave a run that
  nobody sees, one after the wait a view that nobody closes. `holding_interrupts` makes SIGINT only count there too.
- The first press asks the run to end and gives it `grace_s`; the second leaves at once. Both end the cell with
  `TurnInterrupted`: the reply's status is `error`, so the cells queued behind it are aborted.
- A front end that restarts a kernel presses the button first, and tells it to end a moment later. Then the run is not
  cancelled: its record stays as it is, and somebody can resume it (`RESTART_S`, `is_ending`).
- A job must not let a KeyboardInterrupt or SystemExit out through its future: awaited on the background loop, it
  would end that loop and with it all runs. They arrive as `JobInterrupted`.
- The main thread can be interrupted between any two bytecodes. A job that was interrupted may have had its effect:
  treat it as in doubt, not as undone.
- A question at the keyboard holds the main thread, and may be answered elsewhere meanwhile. It is given up by a SIGINT
  that is simulated, only while that job runs (`_Interrupts.give_up`): once the wait has ended it would hit the user.
- Only the main thread may touch the stream of ipykernel 6 and signal handlers. On another thread `wait` only waits;
  the main thread is then free, and messages take their normal path.

- The loop of the notebook is blocked by the cell that waits. Coroutines that live there (`runtime/caller_loop.py`) go on
  in `_let_loop_go_on`; the cells queued behind do not, because the kernel begins none before the running one has ended.
- A job of `on_main` may also run when no cell waits, but never inside of another cell: neither between two awaits of
  an async one, nor inside of a wait. In the very cell that has started its run it may, for that is who awaits it.

Without a kernel (IPython in a terminal, a script) there is no tap, and everything else is the same. IPython and pyzmq
are never imported from here: if they matter, they are loaded already.
"""

from __future__ import annotations

import _thread
import asyncio
import concurrent.futures
import contextvars
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from types import FrameType, TracebackType
from typing import Any, ClassVar, ParamSpec, TypeVar

from turncell.notebook.line import read_line
from turncell.notebook.reentry import run_here
from turncell.notebook.tap import Handler, ShellTap
from turncell.runtime.caller_loop import called_from, has_work, running_loop

P = ParamSpec("P")
T = TypeVar("T")

_cell_here: contextvars.ContextVar[str | None] = contextvars.ContextVar("turncell_cell", default=None)
"""The cell that this code, or the run that it is part of, was started in. ipykernel 6 knows only the last one."""
GONE = "No answer is needed any more."
ASK_POLL_S = 0.05
BEGIN_S = 60.0
"""How long a job of `on_main` waits for the cell that runs to end."""
NOBODY_S = 3.0
"""The same where nothing but a wait could serve it: a terminal, a script."""
BUSY_POLL_S = 0.1
GIVE_UP_AGAIN_S = 1.0
RESTART_S = 0.1
"""How long a first press may turn out to be the beginning of a restart; the request to end takes a few milliseconds."""
PUMP_POLL_S = 0.005


class TurnInterrupted(KeyboardInterrupt):
    """The person stopped the turn. A KeyboardInterrupt, so that it stops Run All and no `except Exception` eats it."""

    def _render_traceback_(self) -> list[str]:
        return ["turn interrupted"]  # IPython asks for this instead of forty lines of our waiting


class JobInterrupted(RuntimeError):
    """A job on the main thread was interrupted (or left with SystemExit). Whether it had its effect is not known."""


class NotServed(RuntimeError):
    """The main thread did not come to a job in time; nothing of it has run."""


class TookTooLong(RuntimeError):
    """A job reached its time limit and was interrupted. It may have had its effect."""


class QuestionGone(RuntimeError):
    """What was asked at the keyboard needs no answer any more."""


class _GivenUp(BaseException):
    """Takes the main thread out of `input`. No Exception, which ipykernel's loop around stdin would swallow."""


@dataclass(slots=True, eq=False)
class _Job:
    call: Callable[[], Any]
    future: concurrent.futures.Future[Any] = field(default_factory=concurrent.futures.Future)
    begun: concurrent.futures.Future[None] = field(default_factory=concurrent.futures.Future)
    cell: str | None = None
    """The message that executes the cell that wants it."""
    interrupts: _Interrupts | None = None
    """While it runs."""


class _Interrupts:
    """Counts SIGINT while the main thread waits; raises it only while a job runs."""

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        self._wake = wake
        self.presses = 0
        self.is_pumping = False
        """Whether the notebook's loop goes on in the wait: the second press raises there, for sync code in a coroutine."""
        self._raises = False
        self._is_leaving = False
        self._previous: Any = None
        self._job: _Job | None = None
        self._given_up: _Job | None = None
        self._lock = threading.Lock()
        """Held by whoever gives a job up; the main thread does not leave the job meanwhile."""

    def __enter__(self) -> _Interrupts:
        self._previous = signal.signal(signal.SIGINT, self._on_sigint)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        # None: the handler was not installed from Python, and cannot be put back from Python either.
        signal.signal(signal.SIGINT, self._previous or signal.default_int_handler)

    def give_up(self, job: _Job) -> None:
        """Have the main thread leave this job with _GivenUp, if it is in it. Any other thread."""
        with self._lock:
            if self._job is job:
                self._given_up = job
                _interrupt_main()

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        given_up, self._given_up = self._given_up, None
        if given_up is not None:  # nobody has pressed anything
            if given_up is self._job and not self._is_leaving:  # again and again, for code that catches all
                raise _GivenUp
            return
        self.presses += 1
        self._wake()
        if self._raises or (self.is_pumping and self.presses > 1):
            self._raises = False
            raise KeyboardInterrupt

    @contextmanager
    def raising(self, job: _Job) -> Iterator[None]:
        presses_before = self.presses
        self._job, self._raises, self._is_leaving = job, True, False
        job.interrupts = self
        try:
            yield
        except KeyboardInterrupt:
            # A wait inside of the job has its own handler and counted the press itself.
            self.presses = max(self.presses, presses_before + 1)
            raise
        finally:
            self._raises, self._is_leaving = False, True
            with self._lock:
                self._job = job.interrupts = None


class KernelBridge:
    """One per IPython shell. `register`, `unregister` and `run_on_main` may be called on any thread."""

    _current: ClassVar[KernelBridge | None] = None
    _current_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, shell: Any = None) -> None:
        self._shell = shell
        self._kernel = getattr(shell, "kernel", None)
        self.tap = ShellTap(self._kernel)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()  # None only wakes the waiting thread
        self._held: _Interrupts | None = None
        self._serving: _Interrupts | None = None
        self._detached: set[object] = set()
        self._kept: list[Callable[[], None]] | None = []
        self.loop = self._find_loop()
        """The notebook's own loop, as far as it is known: objects of asyncio that cells make belong to it."""
        self._cells: list[str | None] = []
        """The cells that run, one inside the other, by the message that executes them."""
        if self.has_kernel and self.loop is not None and threading.current_thread() is threading.main_thread():
            self._cell_begins(None)  # made by a cell, whose beginning it has not seen
        for event, told in self._events():
            shell.events.register(event, told)

    @classmethod
    def current(cls) -> KernelBridge:
        """The bridge of the running shell; without a shell, the one of this process."""
        shell = running_shell()
        with cls._current_lock:
            if cls._current is None or cls._current._shell is not shell:
                cls._current = cls(shell)
            return cls._current

    def close(self) -> None:
        """Leave nothing behind: no tap, no handlers, no queued jobs (cancelled), no instance."""
        self.tap.unregister_all()
        for token in tuple(self._detached):
            self._leave_clicks(token)
        for event, told in self._events():
            with suppress(ValueError):  # a shell that was made anew in this process never knew of it
                self._shell.events.unregister(event, told)
        kept, self._kept = self._kept, None
        for close in kept or ():
            close()
        with suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    job.future.cancel()
        with KernelBridge._current_lock:
            if KernelBridge._current is self:
                KernelBridge._current = None

    def _events(self) -> tuple[tuple[str, Callable[[Any], None]], ...]:
        if self._kernel is None or not hasattr(self._shell, "events"):
            return ()
        return (("pre_run_cell", self._cell_begins), ("post_run_cell", self._cell_ends))

    def _cell_begins(self, info: object) -> None:
        self.loop = self.loop or self._find_loop()
        self._cells.append(self._cell())
        _cell_here.set(self._cells[-1])
        self.tap.cell_runs(self._parent())

    def _cell_ends(self, result: object) -> None:
        if self._cells:
            self._cells.pop()
        self.tap.cell_runs({})

    def _cell(self) -> str | None:
        name = self._parent().get("header", {}).get("msg_id")
        return name if isinstance(name, str) else None

    def _find_loop(self) -> asyncio.AbstractEventLoop | None:
        if threading.current_thread() is not threading.main_thread():
            return None
        here = running_loop()
        if here is not None or self._shell is None or self._kernel is not None:
            return here
        helpers = sys.modules.get("IPython.core.async_helpers")  # the loop of `await` in a terminal; it stands still
        return helpers.get_asyncio_loop() if helpers is not None else None

    @property
    def has_kernel(self) -> bool:
        """Whether cells are executed for a front end, not typed into a terminal."""
        return self._kernel is not None

    @property
    def is_ending(self) -> bool:
        """Whether the kernel has been told to end, or to restart: nobody waits for anything any more."""
        return self.has_kernel and getattr(self._shell, "exit_now", False) is True

    # -- messages of the page

    def register(self, comm_id: str, handler: Handler) -> None:
        """Call `handler(content, buffers)` for custom messages of this comm while a turn waits.

        The handler may run on any thread and in a foreign context: it should only hand the message over. When no
        turn waits, the message takes its normal path, so the widget's own `on_msg` needs the same handler.
        """
        self.tap.register(comm_id, handler)

    def unregister(self, comm_id: str) -> None:
        self.tap.unregister(comm_id)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take messages already now, from the main thread, until the block ends.

        `wait` listens by itself. This is for the time before it: under ipykernel 7 a message that comes before the
        tap stands is in the main thread's queue and stays there until the cell ends, such as the view's first hello.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.tap.open(self._parent())
        try:
            yield
        finally:
            self.tap.close()

    def take_clicks(self) -> Callable[[], None]:
        """Have clicks arrive beside whatever cell runs, until the returned function is called. Main thread.

        For runs that no cell waits for. Under ipykernel 6 clicks still wait for the end of the cell that runs: its
        stream belongs to the main thread.
        """
        token = object()
        if not self._detached:
            self.tap.hold(self._parent())
        self._detached.add(token)
        return lambda: self._leave_clicks(token)

    def _leave_clicks(self, token: object) -> None:
        if token not in self._detached:
            return
        self._detached.discard(token)
        if not self._detached:
            self.tap.release()

    def keep(self, close: Callable[[], None]) -> None:
        """Call `close` when the extension is unloaded; at once where it is unloaded already. Any thread."""
        if self._kept is None:
            close()
        else:
            self._kept.append(close)

    # -- jobs for the main thread

    def run_on_main(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[T]:
        """Run `fn` on the waiting main thread, in the context of the caller; `await asyncio.wrap_future(...)` it.

        When nobody waits, the job stays queued until the next `wait`: cancel the future of a job that is no longer
        wanted. Calling `.result()` on the main thread itself would wait for ever.
        """
        context = contextvars.copy_context()
        return self._submit(lambda: context.run(fn, *args, **kwargs)).future

    async def on_main(self, fn: Callable[[], T], *, limit_s: float | None = None) -> T:
        """Await `fn()` on the main thread: in a cell that waits, or between the cells where none does.

        Cancelling takes the main thread out of `fn`, as its time limit does (TookTooLong) and the interrupt button
        (JobInterrupted). Raises NotServed where the main thread does not come to it.
        """
        context = contextvars.copy_context()
        job = _Job(lambda: context.run(fn), cell=_cell_here.get())
        can_be_idle = self.has_kernel and self.loop is not None and not self.loop.is_closed()
        self._jobs.put(job)
        if can_be_idle:
            assert self.loop is not None
            self.loop.call_soon_threadsafe(self._serve_between_cells, job)
        is_awaited = self._serving is not None or self._held is not None
        begin_s = BEGIN_S if can_be_idle or is_awaited else NOBODY_S
        try:
            await asyncio.wait([asyncio.wrap_future(job.begun)], timeout=begin_s)
            if not job.begun.done() and job.future.cancel():
                where = "the notebook is busy" if can_be_idle else "no cell waits for this run"
                raise NotServed(
                    f"nothing was run: {where}, and the main thread did not come to it within {begin_s:g} s; "
                    "wait for the run with %%agent or 'await agent.run(...)', or try again when the cell has ended"
                )
            done: asyncio.Future[T] = asyncio.wrap_future(job.future)
            # What the code raises when nobody waits for it any more is no news: asyncio would print it at the end.
            done.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            if (await asyncio.wait([done], timeout=limit_s))[0]:
                return done.result()
            _give_up_until_it_ends(job)
            await asyncio.wait([done])
            if isinstance(done.exception(), QuestionGone):
                raise TookTooLong(f"it was interrupted after its time limit of {limit_s:g} s")
            return done.result()
        except asyncio.CancelledError:
            if not job.future.cancel():
                _give_up_until_it_ends(job)
            raise

    def run_on_loop(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """From a job, on the main thread: the coroutine on the notebook's own loop, which the cell blocks meanwhile."""
        loop = self.loop
        if loop is None:
            coroutine.close()
            raise RuntimeError("'await' needs the event loop of a notebook, and none was found")

        async def listened_to() -> T:
            # The click on Stop is heard in the poll, so what takes the main thread out of the job often strikes there.
            listening, work = loop.create_task(self._poll()), loop.create_task(coroutine)
            try:
                await asyncio.wait([listening, work], return_when=asyncio.FIRST_COMPLETED)
                if listening.done() and not isinstance(listening.exception(), Exception):
                    listening.result()  # a poll that fails by itself costs the code nothing
                return await work
            finally:
                listening.cancel()
                if not work.done():
                    work.cancel()
                    await asyncio.wait([work])

        return run_here(loop, listened_to())

    async def _poll(self) -> None:
        while True:
            self.tap.poll()
            await asyncio.sleep(ASK_POLL_S)

    def _serve_between_cells(self, job: _Job) -> None:
        """On the notebook's loop: run the job when no other cell is in the middle of something."""
        if job.future.done() or job.future.running() or self.loop is None:
            return
        if self._serving is not None or not self._is_for_this_cell(job):
            self.loop.call_later(BUSY_POLL_S, self._serve_between_cells, job)
            return
        try:
            with _Interrupts() as interrupts:
                _run(job, interrupts)
        except KeyboardInterrupt:  # just before our handler stood, or just after it was taken away
            return

    def _is_for_this_cell(self, job: _Job) -> bool:
        """Whether no cell runs, or the one that has started the run of this job."""
        return job.cell is None or not self._cells or self._cells[-1] == job.cell

    def ask_line(self, prompt: str, is_wanted: Callable[[], bool] = lambda: True) -> str:
        """`input(prompt)` on the main thread: the stdin channel of a kernel, the keyboard of a terminal. Blocks.

        `is_wanted` is asked many times a second on this thread; once it is false the prompt is given up, whether the
        main thread has come to it or not, and `QuestionGone` raised. Raises what `input` raises
        (`StdinNotImplementedError`, `EOFError`) and `JobInterrupted`. On a loop, await `run_on_main(input, prompt)`
        instead; on the main thread nobody is left to give it up.
        """
        return self.ask(partial(input if self.has_kernel else read_line, prompt), is_wanted)

    def ask(self, read: Callable[[], str], is_wanted: Callable[[], bool] = lambda: True) -> str:
        """`read()` on the main thread, given up as `ask_line` is."""
        if threading.current_thread() is threading.main_thread():
            return read()

        def ask() -> str:
            try:
                return read()
            except _GivenUp:
                print(GONE if self.has_kernel else f"\n{GONE}")  # noqa: T201  (where the question stands)
                raise

        # In the main thread's own context: ipykernel 7 finds the cell that is asking through it.
        job = self._submit(ask)
        while not concurrent.futures.wait([job.future], ASK_POLL_S).done:
            if is_wanted():
                continue
            if job.future.cancel():
                raise QuestionGone(GONE)
            serving = self._serving
            if serving is not None:
                serving.give_up(job)
        line: str = job.future.result()
        return line

    def _submit(self, call: Callable[[], Any]) -> _Job:
        job = _Job(call)
        self._jobs.put(job)
        return job

    def _next_job(self, timeout_s: float) -> _Job | None:
        try:
            return self._jobs.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def _wake(self) -> None:
        """Any thread, and the signal handler: `put` may be called inside of `get`.

        The handler has to. A signal that comes as the time of `SimpleQueue.get` runs out leaves a negative rest, with
        which it waits for ever (CPython 3.11).
        """
        self._jobs.put(None)

    # -- waiting

    @contextmanager
    def holding_interrupts(self) -> Iterator[None]:
        """Keep a press of the interrupt button for the `wait` in this block; what stands around it must not block.

        A press that no wait has seen raises `TurnInterrupted` at the end of the block.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = self._held
        try:
            self.loop = self.loop or self._find_loop()
            with _Interrupts(self._wake) as self._held, called_from(self.loop):
                held = self._held
                yield
        except KeyboardInterrupt as interrupt:  # pressed just before our handler stood
            raise interrupt if isinstance(interrupt, TurnInterrupted) else TurnInterrupted from None
        finally:
            self._held = before
        if held.presses:
            raise TurnInterrupted

    def wait(
        self,
        done: concurrent.futures.Future[Any],
        *,
        on_interrupt: Callable[[], None],
        grace_s: float = 5.0,
        poll_s: float = 0.02,
    ) -> None:
        """Wait until `done` is finished; its result or exception is left to the caller.

        `on_interrupt` is called at most once, on this thread, and should only ask the run to end.
        Raises `TurnInterrupted` if the interrupt button was pressed, even if the run finished in spite of it.
        A press between the start of a run and this call is an ordinary KeyboardInterrupt, unless both stand in
        `holding_interrupts`: then it counts here.
        """
        if threading.current_thread() is not threading.main_thread():
            concurrent.futures.wait([done])
            return
        asked = False

        def ask_to_end() -> None:
            nonlocal asked
            if not asked and not done.done() and not self.is_ending:
                asked = True
                on_interrupt()

        serving, self._serving = self._serving, self._held or self._serving
        held, self._held = self._held, None  # a wait inside of one of our jobs counts for itself
        try:
            done.add_done_callback(lambda _: self._wake())
            counted = nullcontext(held) if held is not None else _Interrupts(self._wake)
            with counted as interrupts, self.listening():
                self._serving = interrupts
                self._serve(done, interrupts, ask_to_end, grace_s=grace_s, poll_s=poll_s)
        except KeyboardInterrupt:  # pressed before our handler stood, or just after it was taken away
            ask_to_end()
            raise TurnInterrupted from None
        finally:
            self._held, self._serving = held, serving
        if interrupts.presses or (self.is_ending and not done.done()):
            raise TurnInterrupted

    def _serve(
        self,
        done: concurrent.futures.Future[Any],
        interrupts: _Interrupts,
        ask_to_end: Callable[[], None],
        *,
        grace_s: float,
        poll_s: float,
    ) -> None:
        pressed_s: float | None = None
        while not done.done() and not self.is_ending:
            if interrupts.presses:
                pressed_s = pressed_s or time.monotonic()
                waited_s = time.monotonic() - pressed_s
                if waited_s >= RESTART_S or interrupts.presses > 1 or not self.has_kernel:
                    ask_to_end()
                if interrupts.presses > 1 or waited_s >= grace_s:
                    return
            self.tap.poll()
            if self._jobs.empty() and has_work(self.loop):
                self._let_loop_go_on(interrupts, poll_s)
                continue
            job = self._next_job(poll_s)
            if job is not None and self._is_for_this_cell(job):  # others have a place on the loop, too
                _run(job, interrupts, ask_to_end)  # a press has ended the job: the model must not go on without it

    def _let_loop_go_on(self, interrupts: _Interrupts, for_s: float) -> None:
        """The coroutines that were handed over to the notebook's loop, a little at a time."""
        loop, end_s = self.loop, time.monotonic() + for_s

        async def slice_of_time() -> None:
            # What it waits for are queues of threads.
            while self._jobs.empty() and has_work(loop) and time.monotonic() < end_s:  # noqa: ASYNC110
                await asyncio.sleep(PUMP_POLL_S)

        assert loop is not None
        interrupts.is_pumping = True
        try:
            run_here(loop, slice_of_time())
        except KeyboardInterrupt:
            pass  # it is counted, and has taken sync code out of its coroutine
        finally:
            interrupts.is_pumping = False

    # -- what the running cell says about itself

    def allow_stdin(self) -> bool:
        """Whether somebody can answer an `input()`: what the front end said with the running cell, or a terminal."""
        if self._kernel is not None:
            return self._parent().get("content", {}).get("allow_stdin") is True
        try:
            return sys.stdin.isatty()
        except (AttributeError, ValueError):  # no stdin (pythonw), or a closed one
            return False

    def cell_id(self) -> str | None:
        """The id of the running cell, if the front end sends it (JupyterLab, Notebook 7 and VS Code do)."""
        cell_id = self._parent().get("metadata", {}).get("cellId")
        return cell_id if isinstance(cell_id, str) else None

    def execution(self) -> str | None:
        """What tells one execution of a cell from the next."""
        found = self._parent().get("header", {}).get("msg_id")
        return found if isinstance(found, str) else None

    def _parent(self) -> dict[str, Any]:
        try:
            return self._kernel.get_parent("shell") or {}  # type: ignore[union-attr]
        except (AttributeError, LookupError):  # no kernel; or a thread without context under ipykernel 7.0
            return {}


def _interrupt_main() -> None:
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)  # a real one, which also ends a sleep or a read
    else:
        _thread.interrupt_main()


def _give_up_until_it_ends(job: _Job) -> None:
    """On the loop of the run. Once is not enough: code may catch it, or it may strike another task of the loop."""
    if job.future.done():
        return
    interrupts = job.interrupts
    if interrupts is not None:
        interrupts.give_up(job)
    asyncio.get_running_loop().call_later(GIVE_UP_AGAIN_S, _give_up_until_it_ends, job)


def _run(job: _Job, interrupts: _Interrupts, pressed: Callable[[], None] = lambda: None) -> None:
    """`pressed` is called after a press of the interrupt button, and before anybody hears what came of the job."""
    # It may stand in the queue and wait for the end of a cell, too.
    if job.future.running() or job.future.done() or not job.future.set_running_or_notify_cancel():
        return
    job.begun.set_result(None)
    before, result = interrupts.presses, None
    failure: BaseException | None = None
    try:
        with interrupts.raising(job):
            result = job.call()
    except _GivenUp:
        failure = QuestionGone(GONE)
    except (KeyboardInterrupt, SystemExit) as stop:
        failure = _as_interrupted(stop)
    except BaseException as error:
        # The rest of what a loop cannot take out of a future (StopIteration, CancelledError, GeneratorExit).
        takes = isinstance(error, Exception) and not isinstance(error, StopIteration)
        failure = error if takes else _as_interrupted(error)
    try:
        if interrupts.presses > before:
            pressed()
    finally:
        if failure is not None:
            job.future.set_exception(failure)
        else:
            job.future.set_result(result)


def _as_interrupted(cause: BaseException) -> JobInterrupted:
    interrupted = JobInterrupted(f"a job on the main thread ended with {cause!r}; it may have had its effect")
    interrupted.__cause__ = cause
    return interrupted


def running_shell() -> Any:
    """The shell of IPython that runs in this process, or None. IPython is not imported for it."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None
