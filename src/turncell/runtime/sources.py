"""Sources: where context for a prompt is found, before the first model call of a run.

What they find stands in front of the run's prompt, so that what was said before keeps its place (and the provider's cache),
and is recorded: later steps, a resumed run and a replay are told the same. It may come from anywhere, so it taints the run
as the result of a tool does, unless the source is trusted.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from turncell.core.events import Passage
from turncell.core.signals import Found
from turncell.core.values import evolve
from turncell.errors import UsageError, say
from turncell.runtime.hooks import called
from turncell.runtime.options import number, text
from turncell.runtime.output import clean
from turncell.runtime.threads import in_thread
from turncell.runtime.tokens import text_tokens

if TYPE_CHECKING:
    from turncell.runtime.driver import Driver

UNKNOWN_WINDOW_TOKENS = 16_000
"""Of a model that does not say its window: shares are of so much."""

Passages: TypeAlias = Iterable[str | Passage] | str | None


@dataclass(frozen=True, slots=True)
class Source:
    """A function of the prompt that returns texts or Passages, the best first; it may be async.

    `share` is the part of the model's window that its passages may take; what does not fit is left out. When room gets
    short, passages of the lowest `priority` are the first to go. `trusted`: they were written by nobody outside.

    >>> Source(lambda query: ["The office closes at five."], "handbook", priority=1).share
    0.2
    """

    find: Callable[[str], Passages | Awaitable[Passages]]
    name: str = ""
    priority: int = 0
    share: float = 0.2
    trusted: bool = False

    def __post_init__(self) -> None:
        if not callable(self.find):
            raise UsageError(f"a source is {self.find!r}; use a function of the query that returns texts or Passages")
        text("the name of a source", self.name)
        if (number("share", self.share, is_needed=True) or 0.0) > 1:
            raise UsageError(f"share is {self.share!r}; use a part of the window, such as 0.2")
        if isinstance(self.priority, bool) or not isinstance(self.priority, int):
            raise UsageError(f"priority is {self.priority!r}; use a whole number")

    @property
    def label(self) -> str:
        return self.name or getattr(self.find, "__name__", type(self.find).__name__)


def as_source(given: Any) -> Source:
    return given if isinstance(given, Source) else Source(given)


async def retrieve(driver: Driver, window_tokens: int | None) -> None:
    """Ask all sources at once and record what they found. One that fails is noted, and the run goes on without it."""
    sources, run = driver.setup.sources, driver.loop_state.run
    if not sources or run.retrieved is not None or run.prompt is None:
        return
    query = run.prompt.text
    answers = await asyncio.gather(*(_ask(driver, source, query) for source in sources))
    found: list[Passage] = []
    for source, passages in sorted(zip(sources, answers, strict=True), key=lambda one: -one[0].priority):
        room = left = int(source.share * (window_tokens or UNKNOWN_WINDOW_TOKENS))
        sizes = [text_tokens(passage.text) for passage in passages]
        for passage, tokens in zip(passages, sizes, strict=True):
            if tokens <= left:
                left -= tokens
                found.append(passage)
        if sizes and min(sizes) > room:
            driver.note(
                "context",
                f"nothing that the source {source.label} found has room: the shortest is about {min(sizes):,} tokens, and its "
                f"share is {room:,} tokens; let it return shorter texts, or give it a larger share",
            )
    driver.feed(Found(time.time(), tuple(found), sum(text_tokens(passage.text) for passage in found)))


async def _ask(driver: Driver, source: Source, query: str) -> list[Passage]:
    try:
        said = await called(source.find, query)
        # A generator works while it is read: not on the loop.
        items = [said] if isinstance(said, str | Passage) else await in_thread(list, said or ())
        return [_passage(source, item) for item in items]
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # sys.exit() too
        driver.note("context", f"the source {source.label} failed: {say(error)}")
        return []


def _passage(source: Source, item: Any) -> Passage:
    passage = Passage(item, source.label) if isinstance(item, str) else item
    if not isinstance(passage, Passage) or not isinstance(passage.text, str):
        raise UsageError(f"it returned {item!r}; use texts or Passages")
    score = passage.score
    return evolve(
        passage, text=clean(passage.text), source=clean(str(passage.source or source.label)), priority=source.priority,
        score=score if isinstance(score, int | float) and math.isfinite(score) else None, is_trusted=source.trusted,
    )  # fmt: skip
