"""Agent: a model, its tools, its instructions and its policy. Holds no conversation and starts runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from turncell import settings
from turncell.core.parts import Message
from turncell.core.policy import MODES, Mode, Rule
from turncell.core.signals import Begin, Resume
from turncell.core.values import evolve
from turncell.errors import UsageError
from turncell.runtime import defaults, secrets, trace
from turncell.runtime.agent_options import (
    as_hooks,
    as_limits,
    as_rule,
    as_step_policy,
    as_tool_sources,
    as_writer,
    items,
)
from turncell.runtime.approvals import RuleFunction, warn_of_idle
from turncell.runtime.budget import Budget
from turncell.runtime.driver import Setup
from turncell.runtime.hooks import NO_HOOKS, Hooks, HookSet
from turncell.runtime.interrupted import check_resumable
from turncell.runtime.journal import Journal, Unrecorded, as_journal
from turncell.runtime.launch import beginning, launch
from turncell.runtime.loop import BackgroundLoop
from turncell.runtime.models import ModelSet, Router, Tiers
from turncell.runtime.options import number, one_of, text, whole
from turncell.runtime.output_type import ATTEMPTS, OutputType
from turncell.runtime.ports import Model
from turncell.runtime.prompts import Prompt, as_message, new_id
from turncell.runtime.questions import MAX_QUESTIONS
from turncell.runtime.room import Context, Repeats, as_context
from turncell.runtime.run import Run
from turncell.runtime.run_setup import check_session, set_up
from turncell.runtime.session import Session
from turncell.runtime.sources import Source, as_source
from turncell.runtime.step_policy import LoopDetection, StepPolicy
from turncell.runtime.telemetry import TelemetryWriter, Watcher
from turncell.runtime.tools import Tool, ToolSource, is_source, toolbox

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from turncell.runtime.batch import Progress


class Agent:
    """A model with tools, instructions, rules and limits.

    model         a name ("embedded", "openai/gpt-5"), a Model, or Tiers; None takes the setting `model`
    name          its name in the history, and as a tool of another agent
    tools         functions, Tools, or sources of tools such as an McpServer
    instructions  the system instructions

    What it may do:

    rules         Rules and functions of a call, in order; the first that decides counts
    mode          decides about all other calls: "ask", "edits", "plan", "auto" or "never"; None takes the setting
    hooks         functions asked before and after model calls, tool calls and records (see `Hooks`)
    max_questions how many questions a run may put to a person

    What comes out:

    output        a type: the run ends with a value of it in `run.output`; after `output_attempts` values that do not fit it fails

    How it asks the model:

    fallbacks     models to try, in order, if the one before fails before it has said anything
    attempts      how often each model is tried if it fails for a passing reason
    router        picks the tier of each step (with Tiers)
    temperature, max_tokens, reasoning_effort  as the provider takes them
    tool_choice   whether the model calls a tool: "auto", "none", "required", or the name of the one it must call. What must
                  be called holds for the first answer of a run, and then it is "auto"
    context       how a conversation is kept within the model's window: a Context, or a mapping of its fields
    sources       functions that find texts for a prompt (see `Source`)

    Limits:

    max_steps     model calls of a run; then the model sums up, unless `summarises=False`. None takes the setting
    step_policy   decides after each step whether to go on, in place of `max_steps`
    budget        shared with sub-agents; a mapping ({"usd": 0.5, "tokens": 50_000}) makes one for each run, a Budget
                  is shared by all runs
    timeout_s     seconds for a run
    silence_s     seconds for a model that says nothing
    request_timeout_s  seconds for a person to answer; None takes the setting

    And:

    steering      whether steered messages are read "all" at once or "one" at a boundary
    telemetry     writers of one record per run, and watchers (`turncell.otel`)
    journal       where its runs are recorded; None: the history of the settings
    debug_latency whether subscribers get Latency events

    A call that asks waits for a person; if nobody attends the run, it is denied. UsageError for options that cannot be.

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
        tool_choice: str | None = None,
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
        fallbacks = items("fallbacks", fallbacks)
        self.models = ModelSet(default.model if model is None else model, fallbacks, router)
        if not self.models.is_tiered:
            _ = self.models.first  # a model that nothing answers to is said now
        self.name = text("name", name)
        given_tools = items("tools", tools)
        self.tools = toolbox(item for item in given_tools if not is_source(item))
        self.tool_sources = as_tool_sources(item for item in given_tools if is_source(item))
        self.instructions = text("instructions", instructions)
        self.rules = tuple(as_rule(rule) for rule in items("rules", rules))
        if not self.tool_sources:  # whose tools the rules may be for
            warn_of_idle(self.rules, self.tools)
        self.mode: Mode = one_of("mode", default.mode if mode is None else mode, MODES)
        self.step_policy = as_step_policy(step_policy)
        if isinstance(self.step_policy, LoopDetection):
            self.step_policy = self.step_policy.of_tools(self.tools.values())
        self.max_steps = whole("max_steps", default.max_steps if max_steps is None else max_steps, least=1)
        self.has_max_steps = max_steps is not None or step_policy is None
        self.summarises = bool(one_of("summarises", summarises, (True, False)))
        self.attempts = whole("attempts", attempts, least=1)
        self.output = None if output is None else OutputType(output)
        self.output_attempts = whole("output_attempts", output_attempts, least=1)
        given = tuple(as_hooks(hook) for hook in items("hooks", hooks, Hooks))
        self.hooks, self.has_hooks = HookSet(given) if given else NO_HOOKS, bool(given)
        self.budget = budget if isinstance(budget, Budget | None) else Budget(**as_limits(budget))
        self.shares_budget = isinstance(budget, Budget)
        """Its runs spend from one Budget, not from one each."""
        self.timeout_s = number("timeout_s", timeout_s)
        self.silence_s = number("silence_s", silence_s) or 600.0
        timeout = number("request_timeout_s", request_timeout_s)
        self.request_timeout_s = default.request_timeout_s if timeout is None else timeout
        self.max_questions = whole("max_questions", max_questions, least=0)
        self.context = as_context(context)
        self.sources = tuple(as_source(source) for source in items("sources", sources, Source))
        self.repeats: Repeats | None = None
        """The run that is played again, where this agent only does that."""
        self.steering = one_of("steering", steering, ("all", "one"))
        self.telemetry = tuple(as_writer(one) for one in items("telemetry", telemetry, (TelemetryWriter, Watcher)))
        self.debug_latency = bool(one_of("debug_latency", debug_latency, (True, False)))
        self.model_options: dict[str, Any] = {
            "temperature": number("temperature", temperature, has_zero=True),
            "max_tokens": max_tokens if max_tokens is None else whole("max_tokens", max_tokens, least=1),
            "reasoning_effort": reasoning_effort
            if reasoning_effort is None
            else text("reasoning_effort", reasoning_effort),
        }
        if tool_choice is not None:
            self.model_options["tool_choice"] = text("tool_choice", tool_choice)
        self._journal = None if journal is None else as_journal(journal)
        # What makes it again in another process: iterables are used up by now.
        self._made_of = {
            "model": model, "name": name, "tools": (*self.tools.values(), *self.tool_sources), "instructions": instructions,
            "rules": self.rules, "mode": mode, "max_steps": max_steps, "step_policy": step_policy,
            "summarises": summarises, "fallbacks": fallbacks, "router": router, "attempts": attempts, "output": output,
            "output_attempts": output_attempts, "hooks": given, "timeout_s": timeout_s, "silence_s": silence_s,
            "request_timeout_s": request_timeout_s, "max_questions": max_questions, "context": context,
            "sources": self.sources, "steering": steering, **self.model_options,
        }  # fmt: skip

    @property
    def model(self) -> Model:
        """The model that is asked first."""
        return self.models.first

    @property
    def journal(self) -> Journal:
        """Where its runs are recorded: what was given, or the history of the settings."""
        return self._journal or defaults.journal()

    def __reduce__(self) -> tuple[Any, ...]:
        """Without journal, budget and telemetry: those belong to a process."""
        return _made_again, (type(self), self._made_of)

    @property
    def answering(self) -> dict[str, Any]:
        """The options that decide how it answers, besides model, instructions, tools and output, as JSON values."""
        return self.model_options | {"mode": self.mode, "max_steps": self.max_steps, "summarises": self.summarises}

    def map(
        self,
        rows: Any,
        prompt: str | Callable[[dict[str, Any]], Any] | None = None,
        *,
        output: Any = None,
        budget: Budget | Mapping[str, Any] | None = None,
        concurrency: int | None = None,
        timeout_s: float | None = None,
        resume: str | None = None,
        executor: Executor | None = None,
        progress: bool | Callable[[Progress], Any] | None = None,
    ) -> Any:
        """Run once for each row; a DataFrame of the rows, in their order and with their index, and the results.

        rows        a DataFrame, a Series, a list of mappings, or a list of texts (the column `text`)
        prompt      "Classify: {text}", with names of columns, or a function of the row (a dict); may be left out if
                    there is one column
        output      a type: its fields become columns, or the column `output` if it has none. Without one the text is
                    the column `answer`
        budget      one for all rows; rows that it does not reach have the status "budget"
        concurrency the most rows side by side (32); fewer if the provider asks for it
        timeout_s   seconds for each row
        resume      a name for the batch: rows that have completed under it are not run again
        executor    a `concurrent.futures.Executor` whose workers run the rows
        progress    True: a bar, None: a bar if somebody is watching, or a function of a Progress, called in this thread

        Then come `status`, `error`, `tokens`, `cost_usd` and `run_id`; a name that the input has gets "_run" at its end.
        No row is lost: one that fails says so. An interrupt ends the batch with what is done. `frame.attrs` has
        `batch`, its name, and `is_interrupted`.

        >>> from turncell.testing import ScriptedModel
        >>> agent = Agent(ScriptedModel(lambda request: request.messages[-1].text.upper()))
        >>> agent.map(["yes", "no"], "Say {text}", progress=False)["answer"].tolist()
        ['SAY YES', 'SAY NO']
        """
        return defaults.map_frame(
            self, rows, prompt, output=output, budget=budget, concurrency=concurrency, timeout_s=timeout_s, resume=resume,
            executor=executor, progress=progress,
        )  # fmt: skip

    @property
    def known_tools(self) -> tuple[Tool, ...]:
        """Its tools, and those that its sources had when they were last asked. Starts nothing."""
        return (*self.tools.values(), *(tool for source in self.tool_sources for tool in source.known))

    @property
    def max_tokens(self) -> int | None:
        """The most that an answer may take."""
        return cast("int | None", self.model_options["max_tokens"])

    def session(self, title: str = "", *, messages: Iterable[Any] | None = None) -> Session:
        """A new session, in which this agent answers what is sent.

        messages    a conversation held elsewhere, to go on with: dicts (or objects with `model_dump()`) as OpenAI and
                    Anthropic have them, or Messages of ours. Each message of the user becomes a run; nothing is executed

        Those runs are marked (`is_imported`): what they cost, and when they were, is not known. Instructions are the
        agent's: a system message that says something else is refused. UsageError, with the index of the message, for what
        cannot be read.

        >>> from turncell.testing import ScriptedModel
        >>> said = [{"role": "user", "content": "I am Ana."}, {"role": "assistant", "content": "Hello, Ana."}]
        >>> session = Agent(ScriptedModel(["You are Ana."])).session(messages=said)
        >>> session.send("Who am I?").result().text, len(session.runs)
        ('You are Ana.', 2)
        """
        title = text("title", title)
        told = () if messages is None else defaults.read_messages(messages, self.instructions)
        within = trace.current_trace()
        around = within.driver.setup.journal if within is not None else None
        # What an unrecorded run starts is not recorded either.
        journal = around if isinstance(around, Unrecorded) else self.journal
        session = Session.new(journal, title, told)
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
        tool_choice: str | None = None,
        budget: Budget | Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        cell_id: str | None = None,
        replaces: str | None = None,
    ) -> Run:
        """Begin a run and return at once. In a session whose last run is still going on, it waits its turn.

        `is_attended=True` says that somebody will answer requests (`run.approve()`, `run.deny()`, a view). Inside a
        tool of another run this one is its child: attended if that is, on its budget, cancelled with it. With
        `replaces` (the id of a run), or for a `cell_id` that has a run in the conversation already, it takes that run's
        place: the model is told what was before it, and the runs after it keep their places. `tool_choice` goes over
        that of the agent.
        """
        secrets.refresh()
        within = trace.current_trace()
        # All that can be wrong comes before anything is made: a run that begins has a record.
        message = _checked(prompt, is_attended, cell_id)
        check_session(session, within)
        if session is not None and not session.is_busy:
            session.check_decided()
        title = secrets.title_of(message.text) if session is None else ""
        setup, limit, terms = set_up(
            self, within, session, title, is_attended, mode, max_steps, output, tool_choice, budget, timeout_s
        )
        session = setup.session
        if replaces is not None and replaces not in session.conversation.path:
            raise UsageError(
                f"run {replaces!r} is not in this conversation; its runs are {list(session.conversation.path)}"
            )

        def begin(run_id: str, said: Message, setup: Setup, problems: list[str]) -> Begin:
            instead = replaces or session.run_of_cell(cell_id)
            return beginning(self, run_id, said, setup, limit, cell_id, instead, within, problems)

        return launch(self, setup, new_id("run"), message, begin, (*terms, cell_id, replaces), within)

    def check(
        self,
        prompt: Prompt,
        *,
        session: Session | None = None,
        is_attended: bool | None = None,
        mode: Mode | None = None,
        max_steps: int | None = None,
        output: Any = None,
        tool_choice: str | None = None,
        budget: Budget | Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        cell_id: str | None = None,
    ) -> Message:
        """Raise what `start` would raise of these options, and begin nothing; the message as it would be sent."""
        message = _checked(prompt, is_attended, cell_id)
        within = trace.current_trace()
        check_session(session, within)
        if session is not None:
            if not session.is_busy:
                session.check_decided()
            set_up(self, within, session, "", is_attended, mode, max_steps, output, tool_choice, budget, timeout_s)
        return message

    def resume(
        self,
        session: Session,
        *,
        is_attended: bool | None = None,
        mode: Mode | None = None,
        max_steps: int | None = None,
        output: Any = None,
        tool_choice: str | None = None,
        budget: Budget | Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Run:
        """Go on with the run of a session that was interrupted, in the same run. UsageError where there is none.

        What is finished is not done again; what waited for a person waits again; a write that had begun is in doubt, and
        a person says whether it runs again (approve), has happened (answer with its result) or is skipped (deny).
        SessionInDoubt where nobody attends to say so, UsageError where this agent lacks the tool of an open call. A model
        that fails before it has said anything leaves the run interrupted, and it can be resumed again.
        """
        check_session(session, None)
        setup, limit, terms = set_up(
            self, None, session, "", is_attended, mode, max_steps, output, tool_choice, budget, timeout_s
        )
        left = session.left_open if session.running is None else None
        if left is None:
            raise UsageError(f"nothing was interrupted in session {session.id}; use session.send(message) to go on")
        if session.writer is None:
            check_resumable(session, left, setup, self.tool_sources)

        def begin(run_id: str, _: Message, setup: Setup, problems: list[str]) -> Resume:
            run = session.left_open  # it was read again, if another process could have written meanwhile
            if run is None or run.run_id != run_id:
                raise UsageError(
                    f"run {run_id} was gone on with, or ended, by another process meanwhile; load the session again"
                )
            check_resumable(session, run, setup)
            at = time.time()
            again = beginning(
                self, run_id, run.prompt or Message("user", ()), setup, limit, run.cell_id, None, None, problems
            )
            session.before = session.runs_before(run_id)
            calls = run.steps[-1].calls if run.steps else ()
            traits = {call.call_id: setup.tools[call.name].traits for call in calls if call.name in setup.tools}
            return Resume(
                at, evolve(again, started=run.started), run, session.seq, traits, at + setup.policy.request_timeout_s
            )

        message = left.prompt or Message("user", ())
        return launch(self, setup, left.run_id, message, begin, (*terms, "resume"), None, is_resumed=True)

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


def _checked(prompt: Prompt, is_attended: object, cell_id: str | None) -> Message:
    message = as_message(prompt)
    if not isinstance(is_attended, bool | None):
        raise UsageError(f"is_attended is {is_attended!r}; use True, False or None")
    if cell_id is not None:
        text("cell_id", cell_id)
    return message
