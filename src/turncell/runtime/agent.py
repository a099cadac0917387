"""Agent: a model, its tools, its instructions and its policy. Holds no conversation and starts runs."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Literal, cast

from turncell import settings
from turncell.core import events as ev
from turncell.core.budget import RESOURCES
from turncell.core.fold import RunState
from turncell.core.parts import Message
from turncell.core.policy import MODES, Mode, Rule
from turncell.core.signals import Begin, Resume, Review
from turncell.core.values import evolve
from turncell.errors import SessionBusy, StoreError, TurncellError, UsageError
from turncell.runtime import defaults, secrets, telemetry, trace
from turncell.runtime.approvals import Policy, RuleFunction, warn_of_idle
from turncell.runtime.budget import Budget, limits_of
from turncell.runtime.bus import Bus
from turncell.runtime.caller_loop import called_from, running_loop
from turncell.runtime.driver import Driver, Setup
from turncell.runtime.hooks import Hooks, HookSet, called
from turncell.runtime.inputs import Waiting
from turncell.runtime.journal import Journal, Unrecorded
from turncell.runtime.loop import BackgroundLoop
from turncell.runtime.models import ModelSet, Router, Tiers
from turncell.runtime.options import number, one_of, text, whole
from turncell.runtime.output_type import ATTEMPTS, OutputType
from turncell.runtime.ports import Model, capabilities_of
from turncell.runtime.prompts import Prompt, as_message, new_id
from turncell.runtime.questions import MAX_QUESTIONS
from turncell.runtime.room import Context, Repeats, as_context
from turncell.runtime.rulebook import rulebook
from turncell.runtime.run import Run
from turncell.runtime.session import Session, was_cut_short
from turncell.runtime.sources import Source, as_source
from turncell.runtime.step_policy import LoopDetection, StepPolicy
from turncell.runtime.telemetry import TelemetryWriter, Watcher, record_of, watchers_of
from turncell.runtime.tools import Tool, ToolSource, gather_tools, is_source, toolbox

log = trace.log
RESTARTED_SINCE = (
    "The program was restarted since the last message. Variables and open connections of before are gone; what is in "
    "files and in this conversation is still there."
)
DONE_BEFORE = (
    "This message was said before, and that turn was interrupted. It is not shown here, but its calls have been made; do "
    "not repeat what has happened:"
)

_Telemetry = (TelemetryWriter, Watcher)
_late_writers: set[asyncio.Task[None]] = set()
"""asyncio keeps no task that nobody else does."""
RECOVERIES = 2
"""How often a run makes its conversation shorter because a provider has refused it."""


class Agent:
    """What answers.

    model         a name ("embedded", "openai/gpt-5"), a Model, or Tiers; None takes the setting
    fallbacks     models to try, in this order, when the one before has failed before it said anything
    router        rules that choose the tier for each step (with Tiers)
    attempts      how often each model is tried when it fails for a passing reason
    tools         functions, Tools, or what has tools of its own, such as an McpServer
    rules, mode   what judges the calls: Rules and functions in order, then the mode (see `core.policy`)
    step_policy   decides after each step whether to go on, in the place of `max_steps`
    max_steps     model calls of a run; when they are used up the model is asked for a summary (`summarises`)
    budget        limits shared with the runs inside; a mapping ({"usd": 0.5, "tokens": 50_000}) is made one for each
                  run, a Budget is shared by all runs
    timeout_s     seconds for a run; `silence_s`: for a model that says nothing; `request_timeout_s`: for a person
    output        a type: the run ends with a value of it in `run.output`
    hooks         code that is asked before and after (see `Hooks`)
    max_questions how many questions a run may put to a person
    sources       functions of the person's words that find texts for the model (see `Source`)
    context       how a conversation is kept within the model's window: a Context, or a mapping of its fields
    steering      whether steered messages are read "all" at once or "one" at a boundary
    telemetry     writers of one record for each run, however it ended, and watchers (`turncell.otel`)
    debug_latency whether Latency events are sent to subscribers

    Nothing runs before it was judged; a call that asks waits for a person, and where nobody attends it is denied.

    >>> from turncell.testing import ScriptedModel
    >>> Agent(ScriptedModel(["It is a fine day."])).run_sync("How is the day?").text
    'It is a fine day.'
    """

    def __init__(
        self,
        model: str | Model | Tiers | None = None,
        *,
        name: str = "",
        tools: Iterable[Tool | ToolSource | Callable[..., Any]] = (),
        instructions: str = "",
        rules: Iterable[Rule | RuleFunction] = (),
        mode: Mode | None = None,
        max_steps: int | None = None,
        step_policy: StepPolicy | None = None,
        summarises: bool = True,
        temperature: float | None = None,
        max_tokens: int | None = None,
        reasoning_effort: str | None = None,
        fallbacks: Iterable[str | Model] = (),
        router: Router | None = None,
        attempts: int = 3,
        output: Any = None,
        output_attempts: int = ATTEMPTS,
        hooks: Hooks | Iterable[Hooks] = (),
        budget: Budget | Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        silence_s: float = 600.0,
        request_timeout_s: float | None = None,
        max_questions: int = MAX_QUESTIONS,
        context: Context | Mapping[str, Any] | None = None,
        sources: Iterable[Source | Callable[[str], Any]] = (),
        steering: Literal["all", "one"] = "all",
        telemetry: TelemetryWriter | Watcher | Iterable[TelemetryWriter | Watcher] = (),
        debug_latency: bool = False,
        journal: Journal | None = None,
    ) -> None:
        default = settings.current()
        fallbacks = _items("fallbacks", fallbacks)
        self.models = ModelSet(default.model if model is None else model, fallbacks, router)
        if not self.models.is_tiered:
            _ = self.models.first  # a model that nothing answers to is said now
        self.name = text("name", name)
        given_tools = _items("tools", tools)
        self.tools = toolbox(item for item in given_tools if not is_source(item))
        self.tool_sources = _sources(item for item in given_tools if is_source(item))
        self.instructions = text("instructions", instructions)
        self.rules = tuple(_rule(rule) for rule in _items("rules", rules))
        if not self.tool_sources:  # whose tools the rules may be for
            warn_of_idle(self.rules, self.tools)
        self.mode: Mode = one_of("mode", default.mode if mode is None else mode, MODES)
        self.step_policy = _step_policy(step_policy)
        if isinstance(self.step_policy, LoopDetection):
            self.step_policy = self.step_policy.of_tools(self.tools.values())
        self.max_steps = whole("max_steps", default.max_steps if max_steps is None else max_steps, least=1)
        self._has_max_steps = max_steps is not None or step_policy is None
        self.summarises = bool(summarises)
        self.attempts = whole("attempts", attempts, least=1)
        self.output = None if output is None else OutputType(output)
        self.output_attempts = whole("output_attempts", output_attempts, least=1)
        given = tuple(_hooks(hook) for hook in _items("hooks", hooks, Hooks))
        self.hooks, self._has_hooks = HookSet(given), bool(given)
        self.budget = budget if isinstance(budget, Budget | None) else Budget(**_limits(budget))
        self._is_budget_shared = isinstance(budget, Budget)
        self.timeout_s = number("timeout_s", timeout_s)
        self.silence_s = number("silence_s", silence_s) or 600.0
        timeout = number("request_timeout_s", request_timeout_s)
        self.request_timeout_s = default.request_timeout_s if timeout is None else timeout
        self.max_questions = whole("max_questions", max_questions, least=0)
        self.context = as_context(context)
        self.sources = tuple(as_source(source) for source in _items("sources", sources, Source))
        self.repeats: Repeats | None = None
        """The run that is played again, where this agent only does that."""
        self.steering = one_of("steering", steering, ("all", "one"))
        self.telemetry = tuple(_writer(one) for one in _items("telemetry", telemetry, _Telemetry))
        self.debug_latency = bool(debug_latency)
        self._options = {
            "temperature": number("temperature", temperature, has_zero=True),
            "max_tokens": max_tokens if max_tokens is None else whole("max_tokens", max_tokens, least=1),
            "reasoning_effort": reasoning_effort
            if reasoning_effort is None
            else text("reasoning_effort", reasoning_effort),
        }
        if not isinstance(journal, Journal | None):
            raise UsageError(f"journal is {journal!r}; use a Journal, such as Journal(lambda: SQLStore.sqlite(path))")
        self._journal = journal
        # What makes it again in another process: iterables are used up by now.
        self._made_of = {
            "model": model, "name": name, "tools": (*self.tools.values(), *self.tool_sources), "instructions": instructions,
            "rules": self.rules, "mode": mode, "max_steps": max_steps, "step_policy": step_policy,
            "summarises": summarises, "fallbacks": fallbacks, "router": router, "attempts": attempts, "output": output,
            "output_attempts": output_attempts, "hooks": given, "timeout_s": timeout_s, "silence_s": silence_s,
            "request_timeout_s": request_timeout_s, "max_questions": max_questions, "context": context,
            "sources": self.sources, "steering": steering, **self._options,
        }  # fmt: skip

    @property
    def model(self) -> Model:
        """The model that is asked first."""
        return self.models.first

    @property
    def journal(self) -> Journal:
        """Where its runs are recorded: what was given, or the journal of this process (a forked child has its own)."""
        return self._journal or defaults.journal()

    def __reduce__(self) -> tuple[Any, ...]:
        """Without journal, budget and telemetry: those belong to a process."""
        return _made_again, (type(self), self._made_of)

    @property
    def shares_budget(self) -> bool:
        """Its runs spend from one Budget, not from one each."""
        return self._is_budget_shared

    @property
    def answering(self) -> dict[str, Any]:
        """What of its options decides how it answers, besides model, instructions, tools and output; JSON holds it."""
        return self._options | {"mode": self.mode, "max_steps": self.max_steps, "summarises": self.summarises}

    def map(self, rows: Any, prompt: Any = None, **options: Any) -> Any:
        """One run for each row: a DataFrame of the rows with what came of them (see `frames.batch.map_frame`).

        >>> from turncell.testing import ScriptedModel
        >>> agent = Agent(ScriptedModel(lambda request: request.messages[-1].text.upper()))
        >>> agent.map(["yes", "no"], "Say {text}", progress=False)["answer"].tolist()
        ['SAY YES', 'SAY NO']
        """
        return defaults.map_frame(self, rows, prompt, options)

    @property
    def known_tools(self) -> tuple[Tool, ...]:
        """Its tools, and those that its sources had at their last offer. Starts nothing."""
        return (*self.tools.values(), *(tool for source in self.tool_sources for tool in source.known))

    @property
    def max_tokens(self) -> int | None:
        """The most that an answer may take."""
        return cast("int | None", self._options["max_tokens"])

    def session(self, title: str = "") -> Session:
        """A new conversation in this agent's store, in which this agent answers what is sent; unrecorded inside `run_turn`."""
        within = trace.current_trace()
        around = within.driver.setup.journal if within is not None else None
        # What an unrecorded run starts is not recorded either.
        journal = around if isinstance(around, Unrecorded) else self.journal
        session = Session.new(journal, text("title", title))
        session.agent = self
        return session

    def start(
        self,
        prompt: Prompt,
        *,
        session: Session | None = None,
        is_attended: bool | None = None,
        mode: Mode | None = None,
        max_steps: int | None = None,
        output: Any = None,
        budget: Budget | Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        cell_id: str | None = None,
        replaces: str | None = None,
    ) -> Run:
        """Begin a run and return at once. In a session whose last run is still going on, it waits its turn.

        `is_attended=True` says that somebody will answer requests (`run.approve()`, `run.deny()`, a view). Inside a
        tool of another run this one is its child: attended if that is, on its budget, cancelled with it. With
        `replaces` (the id of a run), or for a `cell_id` that has a run in the conversation already, it takes that run's
        place: the model is told what was before it, and the runs after it keep their places.
        """
        secrets.refresh()
        within = trace.current_trace()
        # All that can be wrong comes before anything is made: a run that begins has a record.
        message = _checked(prompt, is_attended, cell_id)
        _check_session(session, within)
        if session is not None and not session.is_busy:
            session.check_decided()
        setup, limit, terms = self._setup(
            within, session, message.text[:80], is_attended, mode, max_steps, output, budget, timeout_s
        )
        session = setup.session
        if replaces is not None and replaces not in session.conversation.path:
            raise UsageError(
                f"run {replaces!r} is not in this conversation; its runs are {list(session.conversation.path)}"
            )

        def begin(run_id: str, said: Message, setup: Setup, problems: list[str]) -> Begin:
            instead = replaces or session.run_of_cell(cell_id)
            return self._begin(run_id, said, setup, limit, cell_id, instead, within, problems)

        return self._launch(setup, new_id("run"), message, begin, (*terms, cell_id, replaces), within)

    def check(
        self,
        prompt: Prompt,
        *,
        session: Session | None = None,
        is_attended: bool | None = None,
        mode: Mode | None = None,
        max_steps: int | None = None,
        output: Any = None,
        budget: Budget | Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        cell_id: str | None = None,
    ) -> Message:
        """Raise what `start` would raise of these options, and begin nothing; the message as it would be sent."""
        message = _checked(prompt, is_attended, cell_id)
        within = trace.current_trace()
        _check_session(session, within)
        if session is not None:
            if not session.is_busy:
                session.check_decided()
            self._setup(within, session, "", is_attended, mode, max_steps, output, budget, timeout_s)
        return message

    def resume(
        self,
        session: Session,
        *,
        is_attended: bool | None = None,
        mode: Mode | None = None,
        max_steps: int | None = None,
        output: Any = None,
        budget: Budget | Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Run:
        """Go on with the run of a session that was interrupted, in the same run. UsageError where there is none.

        What is finished is not done again; what waited for a person waits again; a write that had begun is in doubt, and
        a person says whether it runs again (approve), has happened (answer with its result) or is skipped (deny).
        SessionInDoubt where nobody attends to say so, UsageError where this agent lacks the tool of an open call. A model
        that fails before it has said anything leaves the run interrupted, and it can be resumed again.
        """
        setup, limit, terms = self._setup(None, session, "", is_attended, mode, max_steps, output, budget, timeout_s)
        left = session.left_open if session.running is None else None
        if left is None:
            raise UsageError(f"nothing was interrupted in session {session.id}; use session.send(message) to go on")
        if session.writer is None:
            _check_resumable(session, left, setup, self.tool_sources)

        def begin(run_id: str, _: Message, setup: Setup, problems: list[str]) -> Resume:
            run = session.left_open  # it was read again, if another process could have written meanwhile
            if run is None or run.run_id != run_id:
                raise UsageError(
                    f"run {run_id} was gone on with, or ended, by another process meanwhile; load the session again"
                )
            _check_resumable(session, run, setup)
            at = time.time()
            again = self._begin(
                run_id, run.prompt or Message("user", ()), setup, limit, run.cell_id, None, None, problems
            )
            session.before = session.runs_before(run_id)
            calls = run.steps[-1].calls if run.steps else ()
            traits = {call.call_id: setup.tools[call.name].traits for call in calls if call.name in setup.tools}
            return Resume(
                at, evolve(again, started=run.started), run, session.seq, traits, at + setup.policy.request_timeout_s
            )

        return self._launch(
            setup, left.run_id, left.prompt or Message("user", ()), begin, (*terms, "resume"), None, is_resumed=True
        )

    def _setup(
        self,
        within: trace.Trace | None,
        session: Session | None,
        title: str,
        is_attended: bool | None,
        mode: Mode | None,
        max_steps: int | None,
        output: Any,
        budget: Budget | Mapping[str, Any] | None,
        timeout_s: float | None,
    ) -> tuple[Setup, int, tuple[object, ...]]:
        """What a run works with, its limit of steps, and the terms on which messages may be joined."""
        limit = self.max_steps if max_steps is None else whole("max_steps", max_steps, least=1)
        if not self._has_max_steps and max_steps is None:
            limit = 0
        judged_by: Mode = one_of("mode", self.mode if mode is None else mode, MODES)
        timeout_s = self.timeout_s if timeout_s is None else number("timeout_s", timeout_s)
        wanted = self.output if output is None else OutputType(output)
        account = self._account(budget, within)
        _check_session(session, within)
        if session is None:
            session = self.session(title)
            if within is not None:  # what a person has said above need not be said again
                session.answers = within.driver.setup.session.answers
                session.left_behind = within.driver.setup.session.left_behind
        session.agent = session.agent or self
        if is_attended is None:
            is_attended = within.driver.setup.policy.is_attended if within else False
        of_session, book = session, rulebook()
        above = within.driver.setup.policy.remembered if within else None
        policy = Policy(
            self.rules, judged_by, is_attended, "allow" if settings.current().unattended == "allow" else "deny",
            self.request_timeout_s,
            (lambda: (*of_session.rules, *above())) if above else (
                lambda: (*of_session.rules, *(kept.rule for kept in book.rules()))
            ),
            within.driver.setup.policy if within else None,
        )  # fmt: skip
        setup = Setup(
            models=self.models, tools=self._tools(wanted), policy=policy, session=session, journal=session.journal,
            budget=account, options=self._options | self._schema(wanted), hooks=self.hooks, step_policy=self.step_policy,
            output=wanted, output_attempts=self.output_attempts, max_questions=self.max_questions,
            context=self.context, sources=self.sources, repeats=self.repeats, silence_s=self.silence_s, timeout_s=timeout_s, has_latency=self.debug_latency,
            watchers=watchers_of(self.telemetry),
            chain=(*within.chain,) if within else (), is_tainted=within is not None and within.driver.is_tainted,
            writes=within.writes if within else asyncio.Lock(),
            outermost=(within.driver.setup.outermost or within.driver) if within else None,
        )  # fmt: skip
        terms = (self, judged_by, limit, is_attended, output, budget, timeout_s, within and within.chain)
        return setup, limit, terms

    def _launch(
        self,
        setup: Setup,
        run_id: str,
        message: Message,
        begin: Callable[[str, Message, Setup, list[str]], Begin | Resume],
        terms: tuple[object, ...],
        within: trace.Trace | None,
        is_resumed: bool = False,
    ) -> Run:
        session = setup.session
        loop = BackgroundLoop.current()
        with called_from(running_loop()):  # the driver keeps this context for all that runs in the run
            driver = Driver(setup, Bus(loop.loop))
        run = Run(run_id, session, self, driver, loop)
        session.queue.put(Waiting(run.id, message, run, terms))
        if within is not None:
            loop.call(lambda: within.driver.asking.adopt(run, within.call_id)).result()

        async def turn() -> RunState:
            async with session.turn:
                problems = await self._connect(run, driver)
                said = session.queue.begin(run_id)
                if said is None:
                    # Taken back; or joined with a run, which has had its turn by now.
                    return await asyncio.shield(asyncio.wrap_future(run.done))
                session.running = run
                try:
                    await session.claimed()
                    session.check_whole()
                    if not is_resumed:
                        session.leave_behind()
                    first = begin(run_id, said, driver.setup, problems)
                except TurncellError as error:  # whoever watches it must hear of its end
                    session.running = None
                    driver.withdrawn(str(error), is_refused=True)
                    raise
                try:
                    state = await driver.drive(first)
                finally:
                    session.running = None
                session.add(state)
                return state

        async def guarded() -> RunState:
            try:
                state = await turn()
            except (asyncio.CancelledError, SessionBusy, UsageError):
                raise
            except StoreError:
                state = driver.state  # it is failed, and says so
            except BaseException as error:
                log.exception("a run could not be driven to its end")
                state = driver.failed(error)
            if driver.has_begun and state.is_ended:
                await self._tell(state)
            return state

        _when_done(loop.spawn(guarded()), run)
        return run

    async def _connect(self, run: Run, driver: Driver) -> list[str]:
        """Let the run have the tools of its sources, and say what is missing. Given up when the run is taken back."""
        if not self.tool_sources:
            return []
        gathering = asyncio.ensure_future(gather_tools(driver.setup.tools, self.tool_sources))
        taken_back: asyncio.Future[Any] = asyncio.shield(asyncio.wrap_future(run.done))
        try:
            both: list[asyncio.Future[Any]] = [gathering, taken_back]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not gathering.done():
                return []
            tools, problems = gathering.result()
            driver.offer(tools)
            return problems
        finally:
            gathering.cancel()
            taken_back.cancel()

    def _begin(
        self,
        run_id: str,
        message: Message,
        setup: Setup,
        limit: int,
        cell_id: str | None,
        replaces: str | None,
        within: trace.Trace | None,
        problems: Iterable[str] = (),
    ) -> Begin:
        session = setup.session
        before = session.run_before(replaces)
        session.before = session.runs_before(replaces)
        reviews: set[Review] = set()
        if setup.step_policy is not None or setup.hooks.has("after_step"):
            reviews.add("step")
        if setup.output is not None or setup.hooks.has("before_finish"):
            reviews.add("finish")
        limits = limits_of(setup.budget)
        notices = session.notices
        if notices is None:
            notices = (*(before.notices if before else ()), *_notices(session, replaces))
        notices = (*notices, *problems)
        started = ev.RunStarted(
            seq=session.seq + 1, session_id=session.id, run_id=run_id, step=0, at=time.time(), model=self.models.name,
            mode=setup.policy.mode, max_steps=limit, instructions=self.instructions, tools=tuple(setup.tools),
            is_attended=setup.policy.is_attended, cell_id=cell_id, previous=before.run_id if before else None,
            replaces=replaces,
            notices=notices, budget=limits or None, agent=self.name, needs=self._needs(setup),
            root_run_id=within.root_run_id if within else run_id, parent_run_id=within.run_id if within else None,
            parent_call_id=(within.call_id or None) if within else None,
            depth=within.depth + 1 if within else 0,
        )  # fmt: skip
        return Begin(
            started=started, message=message, reviews=frozenset(reviews), models=self.models.count, attempts=self.attempts,
            summarises=self.summarises, reads_all=self.steering == "all", redactor=secrets.redactor(),
            recoveries=0 if self.context.when_full == "fail" else RECOVERIES,
        )  # fmt: skip

    def _needs(self, setup: Setup) -> tuple[str, ...]:
        """What a record cannot hold of it, and who goes on with a run must not do without."""
        found = {
            "model": not self.models.is_a_name, "rules": self.rules, "hooks": self._has_hooks,
            "output": setup.output is not None, "step_policy": self.step_policy is not None,
            "budget": limits_of(setup.budget) or self._is_budget_shared, "timeout": setup.timeout_s is not None,
            "options": any(value is not None for value in self._options.values()),
        }  # fmt: skip
        return tuple(name for name, has in found.items() if has)

    def _account(self, budget: Budget | Mapping[str, Any] | None, within: trace.Trace | None) -> Budget:
        """What this run spends from: its own limits inside those of the agent, inside those of the run around it."""
        parent = within.driver.setup.budget if within else None
        given = budget if isinstance(budget, Budget) else self.budget if self._is_budget_shared else None
        if given is not None and parent is not None and not parent.is_within(given):
            if not given.is_within(parent):
                raise UsageError(
                    "an agent with a Budget of its own cannot run inside another run, which has one too; "
                    "give it limits (a mapping) instead"
                )
            parent = given
        parent = parent or given
        if isinstance(budget, Budget):
            return Budget(parent=parent)
        own = _limits(budget) if budget is not None else {}
        if not self._is_budget_shared and self.budget is not None:
            own = limits_of(self.budget) | own
        return Budget(**own, parent=parent)

    def _tools(self, output: OutputType | None) -> dict[str, Tool]:
        if output is None or self._has_schema_mode:
            return self.tools
        from turncell.runtime.answer_tool import AnswerTool

        return toolbox([*self.tools.values(), AnswerTool(output)])

    def _schema(self, output: OutputType | None) -> dict[str, Any]:
        return {"output_schema": output.schema} if output is not None and self._has_schema_mode else {}

    @property
    def _has_schema_mode(self) -> bool:
        return not self.models.is_tiered and self.models.count == 1 and capabilities_of(self.model).schema

    async def _tell(self, state: RunState) -> None:
        """Let the writers write, all at once; who takes longer than WRITER_S goes on without being waited for."""

        async def write(writer: TelemetryWriter) -> None:
            try:
                await called(writer.write, record_of(state, agent=self.name))
            except asyncio.CancelledError:
                raise
            except BaseException:  # sys.exit() too
                log.exception("the telemetry writer %r raised", writer)

        writing = [asyncio.create_task(write(one)) for one in self.telemetry if isinstance(one, TelemetryWriter)]
        if writing:
            _, late = await asyncio.wait(writing, timeout=telemetry.WRITER_S)
            if late:
                log.warning("%d telemetry writers take long; run %s is done without them", len(late), state.run_id)
                _late_writers.update(late)
                for task in late:
                    task.add_done_callback(_late_writers.discard)

    def as_tool(self, name: str | None = None, description: str = "", **options: Any) -> Tool:
        """This agent as a tool of another: a run of its own, with its own row in the history.

        It shares the budget of the run that calls it, is cancelled with it, and what it asks is shown there. `options`
        are those of `tool` (`timeout_s`, `concurrency`), without `retries`: what the inner run has written it would
        write again. `effect` is "read" unless told otherwise, because every call of the inner run is judged by itself:
        by this agent's policy, and what the rules in code or the mode of the outer run deny is denied there too.
        Writes of the runs inside one another take turns, as those of one run do.
        """
        from turncell.runtime.answer_tool import agent_tool

        return agent_tool(self, name or self.name or "agent", description, options)

    async def run(self, prompt: Prompt, **options: Any) -> Run:
        """`start` and wait, on any event loop. Cancelling the caller cancels the run."""
        run = self.start(prompt, **options)
        try:
            return await run
        except BaseException:
            run.cancel("the caller was cancelled")
            raise

    def run_sync(self, prompt: Prompt, **options: Any) -> Run:
        """`start` and wait, from a script or a cell, also while an event loop is running. Ctrl-C cancels the run."""
        if BackgroundLoop.current().is_here:
            raise UsageError(
                "run_sync would block the loop that runs live on; in async tools use 'await agent.run(...)'"
            )
        run = self.start(prompt, **options)
        try:
            return run.result()
        except KeyboardInterrupt:
            run.cancel("interrupted")
            raise

    async def stream(self, prompt: Prompt, **options: Any) -> Any:
        """`start`, and give every event until the end: `async for event in agent.stream("...")`.

        Leaving the loop early cancels the run: nobody would see what it does.
        """
        run = self.start(prompt, **options)
        try:
            async for event in run:
                yield event
        finally:
            run.cancel("nobody is reading any more")

    def __repr__(self) -> str:
        names = [*self.tools, *(f"{source.name}_*" for source in self.tool_sources)]
        return f"Agent({self.models.name!r}, tools={names}, mode={self.mode!r})"


def _made_again(cls: type[Agent], made_of: dict[str, Any]) -> Agent:
    return cls(**made_of)


def _when_done(ended: Future[RunState], run: Run) -> None:
    def finish(ended: Future[RunState]) -> None:
        error = ended.exception() if not ended.cancelled() else RuntimeError("the background loop was stopped")
        if run.done.done():
            return
        if error is not None:
            run.done.set_exception(error)
        else:
            run.done.set_result(ended.result())

    ended.add_done_callback(finish)


def _checked(prompt: Prompt, is_attended: object, cell_id: str | None) -> Message:
    message = as_message(prompt)
    if not isinstance(is_attended, bool | None):
        raise UsageError(f"is_attended is {is_attended!r}; use True, False or None")
    if cell_id is not None:
        text("cell_id", cell_id)
    return message


def _check_session(session: Session | None, within: trace.Trace | None) -> None:
    if session is None:
        return
    if not isinstance(session, Session):
        raise UsageError(f"session is {session!r}; use agent.session() or Session.load(session_id, journal)")
    if session.pid != os.getpid():
        raise StoreError(
            f"session {session.id} belongs to the parent process {session.pid}; "
            "begin a new session in this forked child with agent.session()"
        )
    if within is not None and session.running is not None and session.running.id in within.chain:
        raise UsageError(
            "this session is waiting for the run that this code is part of; leave out session=, "
            "or steer that run with session.send(message, steer=True)"
        )


def _check_resumable(session: Session, left: RunState, setup: Setup, sources: tuple[ToolSource, ...] = ()) -> None:
    """Before anything is recorded: a run that cannot be gone on with is left as it was. `sources`: not asked yet."""
    missing = sorted(
        {call.name for call in left.calls if call.is_open and call.digest and call.name not in setup.tools}
    )
    if missing and not sources:
        raise UsageError(
            f"the interrupted run has open calls of {', '.join(missing)}, and this agent has no such tool; it has "
            f"{list(setup.tools)}. Resume it with an agent that has: session.resume(agent=agent)"
        )
    if not setup.policy.is_attended:
        session.check_decided()


def _notices(session: Session, replaces: str | None) -> tuple[str, ...]:
    """What the runtime has to say to a model that cannot know it from the conversation."""
    told = []
    if session.was_driven_elsewhere and any(run.calls for run in session.runs):
        told.append(RESTARTED_SINCE)
    done = [
        f"{call.name}({json.dumps(call.arguments)[:500]}): {(call.content or '')[:500]}"
        for run in session.replaced_by(replaces)
        if was_cut_short(run)
        for call in run.calls
        if call.effect != "read" and call.started_at is not None
    ]
    if done:
        told.append("\n- ".join((DONE_BEFORE, *done)))
    return tuple(told)


def _items(name: str, given: Any, single: Any = None) -> tuple[Any, ...]:
    """The items of an iterable; one item alone is taken as such where `single` says what that is."""
    if single is not None and isinstance(given, single):
        return (given,)
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise UsageError(f"{name} is {given!r}; use a list")
    return tuple(given)


def _sources(sources: Iterable[Any]) -> tuple[ToolSource, ...]:
    named: dict[str, ToolSource] = {}
    for source in sources:
        if named.setdefault(source.name, source) is not source:
            raise UsageError(f"two sources of tools are called {source.name!r}; give one of them another name")
    return tuple(named.values())


def _rule(rule: Any) -> Any:
    if not isinstance(rule, Rule) and not callable(rule):
        raise UsageError(f"{rule!r} is no rule; use Rule(tool, verdict) or a function of the call")
    return rule


def _hooks(hook: Any) -> Hooks:
    if not isinstance(hook, Hooks):
        raise UsageError(f"{hook!r} is no set of hooks; use Hooks(before_tool=...)")
    return hook


def _writer(writer: Any) -> TelemetryWriter | Watcher:
    is_one = any(callable(getattr(writer, name, None)) for name in ("write", "watch"))
    if isinstance(writer, type) or not is_one:
        raise UsageError(f"{writer!r} is no telemetry writer; use an object with write(record), such as MemoryWriter()")
    return cast("TelemetryWriter | Watcher", writer)


def _step_policy(policy: Any) -> StepPolicy | None:
    is_policy = hasattr(policy, "should_continue") and hasattr(policy, "on_limit_reached")
    if policy is not None and (not is_policy or isinstance(policy, type)):
        raise UsageError(f"step_policy is {policy!r}; use an object with should_continue and on_limit_reached")
    return policy


def _limits(budget: Any) -> dict[str, Any]:
    if not isinstance(budget, Mapping):
        raise UsageError(f"budget is {budget!r}; use a Budget or a mapping such as {{'usd': 0.5}}")
    known = (*RESOURCES, "unknown_prices")
    if unknown := [name for name in budget if name not in known]:
        raise UsageError(f"a budget has no limit called {', '.join(map(repr, unknown))}; use {', '.join(known)}")
    return dict(budget)
