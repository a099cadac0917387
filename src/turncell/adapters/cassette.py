"""Cassettes: what models said, kept in a file, so that tests and notebooks run again offline and cost nothing.

While a cassette is active every model that an agent of this process picks is wrapped (`runtime.models.put_between`): the
runtime, its budgets and its journal see a model of the same name. What a request is known by stands in `recordings`, the
file in `cassette_file`. Secrets are redacted before a request is looked up and before an answer is kept. A miss in "replay"
is a failed run, and a `with` block does not end in silence over it: a sub-agent's failure is only a word to the one above.

One is active in a process, for all its threads: all runs share one loop, where nothing tells from which thread or block a
model call comes. A second one is refused, with the place where the first was begun.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import inspect
import linecache
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypeVar, get_args

from turncell.adapters.cassette_file import Tape, lines_of, read_cassette
from turncell.adapters.recordings import Recording, Recordings, missing, play, request_as_json
from turncell.core.deltas import Finished, Fragment, assemble
from turncell.core.parts import Json
from turncell.errors import ModelFailure, StoreError, UsageError
from turncell.runtime import models
from turncell.runtime.options import number, one_of
from turncell.runtime.ports import Model, ModelRequest, capabilities_of
from turncell.runtime.secrets import redactor

CassetteMode: TypeAlias = Literal["replay", "record", "auto"]
F = TypeVar("F", bound=Callable[..., Any])


class Cassette:
    """What `cassette(...)` returns: a context manager, sync and async, a decorator, or `start()` and `stop()`.

    `recordings` are those of the file and those added since; `misses` the failures of requests that had none.
    """

    def __init__(self, path: str | os.PathLike[str], mode: CassetteMode = "replay", *, delay_s: float = 0.0) -> None:
        if not isinstance(path, str | os.PathLike):
            raise UsageError(f"a cassette is a file, and {path!r} is no path; write cassette('answers.jsonl')")
        self.path = Path(path).expanduser().absolute()
        self._name = self.path.name if Path(path).is_absolute() else os.fspath(path)
        self._where = ""
        """Where it was begun: file:line, and what stands there."""
        self.mode: CassetteMode = one_of("mode", mode, get_args(CassetteMode))
        self.delay_s = number("delay_s", delay_s, has_zero=True, is_needed=True) or 0.0
        self.recordings = Recordings()
        self.misses: list[ModelFailure] = []
        self._tape: Tape | None = None
        self._is_block = False

    def start(self) -> Self:
        """Begin, from the first recording: for notebooks, whose cells no `with` can hold together.

        It may be the last line of a cell: what it shows is the same wherever and however often the notebook runs. Where
        one on the same file was started before, as when a cell is run again, it is stopped first. StoreError for a file
        that cannot be read or written, UsageError where another cassette is active.
        """
        return self._begin(is_block=False)

    def _begin(self, *, is_block: bool, function: Callable[..., Any] | None = None) -> Self:
        global _active
        where = _place_of(function)
        with _lock:
            # The end of a block inside a block would leave the rest of the outer one to models that are paid.
            if _active is not None and _active.path == self.path and not (is_block or _active._is_block):
                _active._stop()
            if _active is not None:
                raise UsageError(
                    f"a cassette is active already: {str(_active.path)!r}, begun at {_active._where}; it is one for the "
                    "process and all its threads. End it first (its stop(), or the end of its block), or begin one "
                    "around all that asks"
                )
            self.misses = []
            tape = Tape(self.path) if self.mode != "replay" else None
            try:
                kept = self._kept()
            except BaseException:
                if tape is not None:
                    tape.close()
                raise
            self._tape = tape
            self.recordings = Recordings(kept)
            if tape is not None:
                tape.begin(kept, is_new=self.mode == "record")
                atexit.register(self.stop)  # nobody ends the one that a notebook's first cell has started
            self._is_block, self._where = is_block, where
            _active = self
            models.put_between(lambda model: _Between(model, self))
        return self

    def _kept(self) -> list[Recording]:
        if self.mode == "replay" or (self.mode == "auto" and self.path.exists()):
            return read_cassette(self.path)
        if self.path.exists():
            lines_of(self.path)  # what is no cassette is not replaced by one
        return []

    def stop(self) -> None:
        """End it, and leave the file in its final order; twice is once."""
        with _lock:
            self._stop()

    def _stop(self) -> None:
        global _active
        if _active is not self:
            return
        _active = None
        models.put_between(None)
        atexit.unregister(self.stop)
        if self._tape is not None:
            self._tape.finish()

    def __enter__(self) -> Self:
        return self._begin(is_block=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
        if error is None and self.misses:
            raise self.misses[0]

    async def __aenter__(self) -> Self:
        return self._begin(is_block=True)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, tb)

    def __call__(self, function: F) -> F:
        """As a decorator of a function, generator or coroutine: every call of it is a `with` block of its own.

        The block of a generator, such as a pytest fixture that yields, goes from its first value to its end.
        UsageError for a class, whose methods are called at times that nobody can hold together.
        """
        if inspect.isclass(function):
            raise UsageError(
                f"a cassette decorates functions, and {function.__qualname__} is a class; decorate its methods, or put "
                "`with cassette(...): yield` into an autouse fixture of it"
            )
        if not callable(function):  # a classmethod, a property
            raise UsageError(f"a cassette decorates functions, not {function!r}; put @cassette(...) next to the `def`")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapped(*args: Any, **kwargs: Any) -> Any:
                with self._around(function):
                    return await function(*args, **kwargs)

        elif inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                with self._around(function):
                    return (yield from function(*args, **kwargs))

        elif inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def wrapped(*args: Any, **kwargs: Any) -> Any:
                with self._around(function):
                    async with aclosing(function(*args, **kwargs)) as values:
                        following = values.asend(None)
                        while True:
                            try:
                                value = await following
                            except StopAsyncIteration:
                                return
                            try:
                                following = values.asend((yield value))
                            except GeneratorExit:
                                raise
                            except BaseException as error:  # such as what an asynccontextmanager's block raised
                                following = values.athrow(error)

        else:

            @functools.wraps(function)
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                with self._around(function):
                    return _finished(function, function(*args, **kwargs))

        return wrapped  # type: ignore[return-value]

    @contextmanager
    def _around(self, function: Callable[..., Any]) -> Iterator[None]:
        self._begin(is_block=True, function=function)
        try:
            yield
        except BaseException:
            self.stop()
            raise
        self.__exit__(None, None, None)

    async def answer(self, model: Model, request: ModelRequest) -> AsyncGenerator[list[Fragment], None]:
        """What the model says to this request, from the file or, as the mode allows, from itself."""
        asked = redactor().value(request_as_json(request, model.name))
        recording = None if self.mode == "record" else self.recordings.take(asked)
        if recording is not None:
            source = play(recording, self.delay_s)
        elif self.mode == "replay":
            miss = missing(
                request, model.name, f"cassette {str(self.path)!r}", self.recordings.why_not(asked),
                "record it: mode='auto' adds what is missing, mode='record' records everything again",
            )  # fmt: skip
            self.misses.append(miss)
            raise miss
        else:
            source = self._recorded(model, request, asked)
        async with aclosing(source) as bursts:
            async for burst in bursts:
                yield burst

    async def _recorded(
        self, model: Model, request: ModelRequest, asked: dict[str, Json]
    ) -> AsyncGenerator[list[Fragment], None]:
        tape = self._tape
        assert tape is not None
        place = tape.place()
        heard: list[Fragment] = []

        def keep(recording: Recording) -> None:
            recording = redactor().value(recording)
            try:
                if tape.write(place, recording):
                    self.recordings.add(recording, is_taken=True)
            except StoreError as error:
                # Not a kind that is tried again: it would be paid for twice.
                raise ModelFailure("bad_request", str(error)) from error

        async with aclosing(model.stream(request)) as bursts:  # type: ignore[type-var]
            try:
                async for burst in bursts:
                    heard += burst
                    end = burst[-1] if burst else None
                    if isinstance(end, Finished):
                        # Before it is handed on: nobody asks for more after the end.
                        keep(
                            Recording(
                                asked, assemble(heard), end.finish_reason, end.usage, end.cost_usd, end.cost_basis,
                                end.answered_by,
                            )
                        )  # fmt: skip
                    yield burst
            except ModelFailure as failure:
                if failure.kind == "context_length" and not heard:
                    # The run goes on with less: what it asks then follows from this.
                    keep(Recording(asked, failure=(failure.kind, failure.message)))
                raise

    def __repr__(self) -> str:
        # Cells show it, and nbval compares what they show: recorded or replayed, here or elsewhere, it reads the same.
        return f"<cassette {self._name!r}>"


def cassette(path: str | os.PathLike[str], mode: CassetteMode = "replay", *, delay_s: float = 0.0) -> Cassette:
    """Have every model call of this process go through a file of recordings.

    "replay"  never calls a model, and fails if the file has no answer
    "record"  calls the model and replaces what the file had
    "auto"    replays what is there, and records what is not

    A request is matched by everything that the model sees. Model calls that fail are not recorded, except refusals of a
    conversation that is too long: the run went on from there. Wait for runs inside the block: what a run asks later goes to
    the model itself. One cassette is active at a time, for all threads; otherwise UsageError says where the other one was
    started. `delay_s` passes before each piece of a replayed answer.

    >>> import tempfile
    >>> from turncell import Agent
    >>> from turncell.testing import ScriptedModel
    >>> path = tempfile.mkdtemp() + "/weather.jsonl"
    >>> with cassette(path, mode="record"):
    ...     _ = Agent(ScriptedModel(["Rain."])).run_sync("How is the weather?")
    >>> with cassette(path):
    ...     Agent(ScriptedModel([])).run_sync("How is the weather?").text
    'Rain.'

    In a notebook `cassette("answers.jsonl").start()` in the first cell, and nothing else.
    """
    return Cassette(path, mode, delay_s=delay_s)


def is_active() -> bool:
    """Whether the models of this process go through a cassette."""
    return _active is not None


@contextmanager
def no_cassette_left() -> Iterator[None]:
    """Stop a cassette that a test has started and not stopped, and raise a UsageError that says where.

    Without it, every test that follows would fail instead. In a conftest.py:

        @pytest.fixture(autouse=True)
        def _no_cassette_left():
            with no_cassette_left():
                yield
    """
    before = _active
    try:
        yield
    finally:
        left = _active
        if left is not None and left is not before:
            left.stop()
    if left is not None and left is not before:
        raise UsageError(
            f"cassette {str(left.path)!r} was left active; it was begun at {left._where}. Call its stop(), "
            "or use `with cassette(...)`"
        )


_active: Cassette | None = None
_lock = threading.RLock()


def _place_of(function: Callable[..., Any] | None) -> str:
    """Where a cassette is begun, as file:line and what stands there: a decorated function, or whoever called us."""
    code = getattr(inspect.unwrap(function), "__code__", None) if function is not None else None
    if code is not None:
        file, line = code.co_filename, code.co_firstlineno
    else:
        frame = sys._getframe()
        between = (frame.f_code.co_filename, contextlib.__file__)  # ours, and that of an ExitStack
        while frame.f_code.co_filename in between and frame.f_back is not None:
            frame = frame.f_back
        file, line = frame.f_code.co_filename, frame.f_lineno
    # A cell's file is a name that nobody knows; its line they do.
    source = linecache.getline(file, line).strip()
    return f"{file}:{line}" + f" ({source})" * bool(source)


def _finished(function: Callable[..., Any], result: Any) -> Any:
    """What a function returned; UsageError for what has yet to run, as its model calls would go past the cassette."""
    inner = getattr(result, "gen", result)  # of a context manager that `contextmanager` has made
    if not (inspect.isgenerator(inner) or inspect.iscoroutine(inner) or inspect.isasyncgen(inner)):
        return result
    if inspect.iscoroutine(inner):
        inner.close()
    raise UsageError(
        f"{getattr(function, '__qualname__', repr(function))} returned a {type(result).__name__}, which runs only after the "
        "cassette has ended; put @cassette(...) next to the `def`, below the other decorators"
    )


class _Between:
    """A model behind the active cassette: its name, what it can do and what it costs are its own."""

    def __init__(self, model: Model, through: Cassette) -> None:
        self._model, self._through = model, through
        self.name = model.name
        self.capabilities = capabilities_of(model)
        self.price_usd = getattr(model, "price_usd", None)

    def stream(self, request: ModelRequest) -> AsyncGenerator[list[Fragment], None]:
        return self._through.answer(self._model, request)
