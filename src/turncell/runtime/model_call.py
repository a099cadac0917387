"""One model call: pick the model, reserve what it may cost, let hooks see it, stream it, settle."""

from __future__ import annotations

import asyncio
import inspect
import math
import random
import time
from typing import TYPE_CHECKING, Any, cast, get_args

from turncell.core.deltas import CallFragment, Finished, ImageFragment, ReasoningFragment
from turncell.core.events import CostBasis, FinishReason
from turncell.core.parts import IMAGE_TYPES, Message, Usage
from turncell.core.signals import CallModel, Chosen, ModelFailed, ModelFinished, Stop, Streamed
from turncell.core.streaming import MAX_WAIT_S
from turncell.core.values import evolve
from turncell.errors import ModelFailure, UnknownModelError, say
from turncell.runtime import limiter
from turncell.runtime.budget import Refusal, Reservation
from turncell.runtime.hooks import HookFailed, Vetoed
from turncell.runtime.images import as_seen_by
from turncell.runtime.models import StepInfo
from turncell.runtime.output import shorten
from turncell.runtime.ports import Model, ModelRequest, ToolSpec
from turncell.runtime.room import make_room
from turncell.runtime.spending import reserve, spent_tokens
from turncell.runtime.telemetry import inside
from turncell.runtime.threads import in_thread
from turncell.runtime.tokens import completed

if TYPE_CHECKING:
    from turncell.core.fold import RunState
    from turncell.runtime.driver import Driver

import logging

log = logging.getLogger("turncell")

_ANY_STEP = StepInfo()
_NO_USAGE = Usage()
_REASONS = get_args(FinishReason)


async def call_model(driver: Driver, command: CallModel) -> None:
    """Fulfil the command; ends in one of ModelFinished, ModelFailed and Stop."""
    if command.wait_s:
        # A little more than asked for, so that many runs do not come back at the same moment.
        await asyncio.sleep(command.wait_s * (1 + random.random() / 4))
    try:
        telling, run = driver.telling, driver.loop_state.run
        request = _request(driver, command, run)
        model = await _pick(driver, command, request, run)
        if not await make_room(driver, model, command, request):
            return
        if telling.messages is not request.messages:
            request = _request(driver, command, driver.loop_state.run)
        if driver.setup.hooks.has("before_model"):
            request = await driver.setup.hooks.ask("before_model", request, ModelRequest)
    except (UnknownModelError, HookFailed, Vetoed) as error:
        _refused(driver, error)
        return
    call = Stream(driver, model, as_seen_by(model, request))
    slot = await limiter.slot(model.name)
    is_as_told = request.messages is telling.messages  # no hook has put others in their place
    messages_tokens = telling.tokens if is_as_told else None
    # Outside of a call it may be the model around it that has set something aside, and waits for this run.
    is_free = run.started.parent_run_id is None or run.started.parent_call_id is not None
    try:
        reserved = await reserve(
            driver.setup.budget, model, request, messages_tokens=messages_tokens,
            patience_s=driver.setup.silence_s if is_free else 0.0,
        )  # fmt: skip
    except BaseException:  # stopped while it waited
        slot.leave(is_made=False)
        raise
    if isinstance(reserved, Refusal):
        slot.leave(is_made=False)
        driver.feed(Stop(time.time(), "budget", "budget", reserved.message))
        return
    driver.stream = call
    try:
        await _read(driver, call, slot, reserved)
        if call.counts:
            await call.hand_over(command.is_last_word)
    finally:
        if driver.stream is call:
            driver.stream = None


async def _read(driver: Driver, call: Stream, slot: limiter.Slot, reserved: Reservation) -> None:
    try:
        if driver.watches:
            with inside(driver.watches, lambda watch: watch.asking(call.model, call.request)):
                await call.read()
        else:
            await call.read()
    finally:
        counts = call.counts
        slot.leave(*call.failed_with, is_made=counts)
        if counts:
            driver.heard_at = None
        if call.is_refused:
            reserved.release()  # a busy provider charges nothing, and trying again must not use up the steps
        elif (end := call.finished) is not None:
            reserved.settle(tokens=spent_tokens(end.usage), usd=end.cost_usd)
        else:
            usage, cost_usd, _ = call.spent()
            reserved.settle(tokens=spent_tokens(usage), usd=cost_usd)


def _request(driver: Driver, command: CallModel, run: RunState) -> ModelRequest:
    telling, started, specs, options = driver.telling, run.started, driver.specs, driver.setup.options
    telling.update(run)
    if command.is_last_word:
        specs, options = (), {n: value for n, value in options.items() if n not in ("output_schema", "tool_choice")}
    elif "tool_choice" in options:
        specs, options = _of_choice(driver, run)
    return ModelRequest(
        messages=telling.messages, instructions=started.instructions, tools=specs,
        run_id=started.run_id, step=command.step, **options,
    )  # fmt: skip


def _of_choice(driver: Driver, run: RunState) -> tuple[tuple[ToolSpec, ...], dict[str, Any]]:
    """The tools and options of a step whose agent says whether tools are to be called."""
    specs, options = driver.specs, dict(driver.setup.options)
    choice = options["tool_choice"]
    answers = tuple(tool.spec for tool in driver.setup.tools.values() if tool.is_answer) if choice == "none" else ()
    if answers:
        specs = answers  # the answer is given by a call, too
        del options["tool_choice"]
    elif choice not in ("auto", "none") and any(step.finish_reason for step in run.steps):
        # Else it would call tools until its steps are used up.
        del options["tool_choice"]
    return specs, options


async def _pick(driver: Driver, command: CallModel, request: ModelRequest, run: RunState) -> Model:
    models = driver.setup.models
    info = StepInfo(
        step=command.step,
        prompt_chars=len(run.prompt.text) if run.prompt else 0,
        tools_used=tuple(call.name for call in run.calls),
        last_tools=tuple(call.name for call in run.steps[-2].calls) if len(run.steps) > 1 else (),
        has_image=any(part.type == "image" for message in request.messages for part in message.parts),
        is_summary=command.is_last_word,
        failures=sum(call.status == "error" for call in run.calls),
    ) if models.is_tiered else _ANY_STEP  # fmt: skip
    if command.model > driver.picked:
        driver.picked = command.model
        driver.given_up.append(driver.label)
    # A route is code of other people, and may block: not on the loop.
    given_up = tuple(driver.given_up)
    choice = (
        await in_thread(models.choose, info, given_up=given_up)
        if models.has_routes
        else models.choose(info, given_up=given_up)
    )
    driver.label = choice.label
    # So is building one, which may take seconds.
    picked = choice.pick() if choice.is_built else await in_thread(choice.pick)
    if picked.model.name != run.steps[-1].model or picked.tier != run.steps[-1].tier:
        driver.feed(Chosen(time.time(), picked.model.name, picked.tier, picked.reason))
    return picked.model


def _refused(driver: Driver, error: Exception) -> None:
    kind = "not_found" if isinstance(error, UnknownModelError) else "hook"
    if isinstance(error, HookFailed):
        driver.note("hook", str(error))
    driver.feed(ModelFailed(time.time(), kind, str(error)))


def _opened(model: Model, request: ModelRequest) -> Any:
    """Its stream. ModelFailure where somebody's own model gives something else."""
    stream: Any = model.stream(request)
    if hasattr(stream, "__aiter__") and hasattr(stream, "aclose"):
        return stream
    if inspect.iscoroutine(stream):
        stream.close()
    what = f"{type(model).__name__}.stream(request) returned a {type(stream).__name__}"
    raise ModelFailure("unknown", f"{what}; make it an async generator: 'async def', with 'yield' in it")


def odd(burst: Any) -> str | None:
    """What is wrong with what a model has yielded, in words; None where nothing is."""
    if not isinstance(burst, list | tuple):
        return f"{_shown(burst)} where a list of fragments is wanted"
    for fragment in burst:
        if isinstance(fragment, str):
            continue
        if isinstance(fragment, ReasoningFragment):
            is_right = isinstance(cast(object, fragment.text), str)
        elif isinstance(fragment, CallFragment):
            call: Any = fragment
            is_right = (
                isinstance(call.provider_id or "", str)
                and isinstance(call.name or "", str)
                and isinstance(call.arguments, str)
                and _are_counts(call.index)
            )
        elif isinstance(fragment, ImageFragment):
            is_right = isinstance(cast(object, fragment.data), str) and fragment.media_type in (None, *IMAGE_TYPES)
        elif isinstance(fragment, Finished):
            is_right = _is_end(fragment)
        else:
            return f"{_shown(fragment)} where a fragment is wanted"
        if not is_right:
            return f"a fragment with values of a wrong kind: {_shown(fragment)}"
    return None


def _is_end(end: Any) -> bool:
    usage = end.usage
    return (
        isinstance(usage, Usage)
        and end.finish_reason in _REASONS
        and _is_cost(end.cost_usd)
        and _are_counts(
            usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens,
            usage.reasoning_tokens,
        )
    )  # fmt: skip


def _is_cost(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf)


def _are_counts(*values: Any) -> bool:
    for value in values:
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            return False
    return True


def _shown(value: Any) -> str:
    return shorten(repr(value), 500)


class Stream:
    """One stream of a model, and what is known of it."""

    def __init__(self, driver: Driver, model: Model, request: ModelRequest) -> None:
        self._driver, self.model, self.request = driver, model, request
        self.finished: Finished | None = None
        self._failure: tuple[str, str, float | None] | None = None
        self.failed_with: tuple[str | None, float | None] = (None, None)
        """The kind of its failure, and after what time the provider may be asked again."""
        self.is_refused = False
        """The provider has failed before it said anything."""
        self._said = _NO_USAGE
        """What a provider that failed had said of tokens."""
        self._spent: tuple[Usage, float | None, CostBasis] | None = None
        self._times: dict[str, Any] = {}
        self._task = asyncio.current_task()

    @property
    def counts(self) -> bool:
        """Whether it was not given up for its silence: one that ignores being cancelled may go on talking."""
        return self._driver.stream_task is self._task

    async def read(self) -> None:
        driver, has_latency, started = self._driver, self._driver.setup.has_latency, time.monotonic()
        first_s: float | None = None
        gap_s = 0.0
        last = driver.heard_at = started
        if getattr(self.model, "is_cold", False) is True:
            driver.tell_warming_up()
        try:
            stream = _opened(self.model, self.request)
            try:
                async for burst in stream:
                    if driver.stream_task is not self._task:
                        return
                    now = driver.heard_at = time.monotonic()
                    if first_s is None:
                        first_s = now - started
                        if has_latency:
                            driver.tell_latency("first_token", first_s)
                    elif now - last > gap_s:
                        gap_s = now - last
                        if has_latency:
                            driver.tell_latency("gap", gap_s)
                    last = now
                    if (wrong := odd(burst)) is not None:
                        self._failure = ("protocol", f"the model {self.model.name} has sent {wrong}", None)
                        break
                    # The list is the model's own, and may be one that it keeps.
                    end = burst[-1] if burst else None
                    fragments = list(burst)
                    if isinstance(end, Finished):
                        self.finished = end
                        fragments.pop()
                    if fragments:
                        driver.feed(Streamed(time.time(), fragments))
                    if self.finished is not None:
                        break
            finally:
                await stream.aclose()
        except ModelFailure as failure:
            self._failure = (failure.kind, failure.message, failure.retry_after_s)
            self._said = failure.usage or _NO_USAGE
        except Exception as error:
            log.exception("the model %s raised", self.model.name)
            self._failure = ("unknown", say(error), None)
        else:
            if self.finished is None and self._failure is None:
                self._failure = ("protocol", f"the stream of {self.model.name} stopped before its end", None)
        if has_latency:
            driver.tell_latency("model", time.monotonic() - started)
        self._times = {"first_token_s": first_s, "longest_gap_s": gap_s if first_s is not None else None}
        if self._failure is not None:
            self.failed_with = (self._failure[0], self._failure[2])
            self.is_refused = first_s is None

    async def hand_over(self, is_last_word: bool) -> None:
        """Feed what came of it, as the hooks leave it."""
        driver, end = self._driver, self.finished
        if self._failure is not None or end is None:
            kind, text, retry_after_s = self._failure or ("protocol", "no end", None)
            if (retry_after_s or 0) > MAX_WAIT_S:
                text += f"; it asks for a pause of {retry_after_s:,.0f} s, and a run waits {MAX_WAIT_S:g} s at most"
            # Who breaks off in the middle charges for it; who refuses does not.
            usage, cost_usd, basis = (self._said, None, "none") if self.is_refused else self.spent()
            driver.feed(
                ModelFailed(
                    time.time(), kind, text, usage, retry_after_s=retry_after_s, cost_usd=cost_usd, cost_basis=basis,
                    **self._times,
                )
            )  # fmt: skip
            return
        usage = self._counted(end.usage)
        if usage is not end.usage:
            end = evolve(end, usage=usage)
        message = None
        if driver.setup.hooks.has("after_model"):
            try:
                message = await self._reviewed(is_last_word)
            except (HookFailed, Vetoed) as error:
                if isinstance(error, HookFailed):
                    driver.note("hook", str(error))
                driver.feed(
                    ModelFailed(
                        time.time(), "hook", str(error), end.usage, cost_usd=end.cost_usd, cost_basis=end.cost_basis,
                        **self._times,
                    )
                )  # fmt: skip
                return
        driver.feed_last(ModelFinished(time.time(), end, message=message, **self._times))

    def spent(self) -> tuple[Usage, float | None, CostBasis]:
        """What the call has taken when it ended, and its price: as far as somebody has counted it, else estimated."""
        if self._spent is None:  # said once: what was written is another step's soon
            self._spent = self._taken()
        return self._spent

    def _taken(self) -> tuple[Usage, float | None, CostBasis]:
        if self.finished is not None:
            return self._counted(self.finished.usage), self.finished.cost_usd, self.finished.cost_basis
        usage = self._counted(self._said)
        if usage.cache_read_tokens or usage.cache_write_tokens:
            return usage, None, "none"  # the list below knows only the whole price of input
        try:
            cost_usd = self.model.price_usd(usage.input_tokens, usage.output_tokens)  # type: ignore[attr-defined]
        except Exception:  # most models of other people's have no such list
            cost_usd = None
        if not _is_cost(cost_usd) or cost_usd is None:
            return usage, None, "none"
        return usage, cost_usd, "prices" if getattr(self.model, "price", None) is None else "user"

    def _counted(self, usage: Usage) -> Usage:
        """What the provider did not say is estimated."""
        if usage.input_tokens is not None and usage.output_tokens is not None:
            return usage
        driver, step = self._driver, (self._driver.loop_state.run.run_id, self.request.step)
        said = Message("assistant", driver.loop_state.assembly.parts())
        return completed(usage, driver.telling.known.asked.get(step, 0), said)

    async def _reviewed(self, is_last_word: bool) -> Message | None:
        parts = self._driver.loop_state.assembly.parts(with_calls=not is_last_word)
        before = Message("assistant", parts)
        after = await self._driver.setup.hooks.ask("after_model", before, Message)
        if {call.call_id for call in after.calls} - {call.call_id for call in before.calls}:
            raise HookFailed("a hook after_model returned calls that the model did not make")
        return None if after is before else evolve(after, role="assistant")
