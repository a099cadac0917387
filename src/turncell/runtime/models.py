"""Which model answers a step: tiers, the router that picks one for each step, and the order to fall back in.

Nothing is built before it is picked, and everything once: a tier that no step needs costs nothing and needs no key.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, cast, get_args

from turncell.errors import UnknownModelError, UsageError, say
from turncell.runtime import defaults
from turncell.runtime.ports import Model

Tier: TypeAlias = Literal["small", "mid", "frontier"]
TIERS: tuple[Tier, ...] = get_args(Tier)
ModelSource: TypeAlias = str | Model | Callable[[], "str | Model"]
"""A name, a Model, or a function without arguments that returns one of them, called when first needed."""
NEAREST: dict[Tier, tuple[Tier, ...]] = {
    "small": ("small", "mid", "frontier"),
    "mid": ("mid", "frontier", "small"),
    "frontier": ("frontier", "mid", "small"),
}
"""Which tier stands in for another. For `mid` the stronger one first: too weak a model fails, too strong a one costs."""


@dataclass(frozen=True, slots=True)
class Tiers:
    """Models by strength, for a Router. If a tier is not set, the nearest one that is answers.

    >>> tiers = Tiers(small="ollama/llama3", frontier="anthropic/claude-opus-4")
    >>> tiers.order("mid")
    ('frontier', 'small')
    """

    small: ModelSource | None = None
    mid: ModelSource | None = None
    frontier: ModelSource | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Tiers:
        """Read TURNCELL_SMALL_MODEL, TURNCELL_MID_MODEL and TURNCELL_FRONTIER_MODEL; empty is not set.

        >>> Tiers.from_environment({"TURNCELL_SMALL_MODEL": "ollama/llama3"}).small
        'ollama/llama3'
        """
        environment = os.environ if environment is None else environment
        return cls(**{tier: environment.get(f"TURNCELL_{tier.upper()}_MODEL", "").strip() or None for tier in TIERS})

    def order(self, tier: Tier) -> tuple[Tier, ...]:
        """The tiers that are set, the nearest to `tier` first."""
        return tuple(near for near in NEAREST[tier] if getattr(self, near) is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInfo:
    """What a router knows of the step that is about to begin."""

    step: int = 1
    prompt_chars: int = 0
    """Characters of the person's message."""
    tools_used: tuple[str, ...] = ()
    """Names of the tools that the run has called so far, in order, with repetitions."""
    last_tools: tuple[str, ...] = ()
    """Of these, the ones of the last step."""
    has_image: bool = False
    is_summary: bool = False
    """The step only sums up: after a limit was reached, or to shorten a conversation."""
    failures: int = 0
    """Tool calls of this run that have failed."""


@dataclass(frozen=True, slots=True)
class Route:
    """One line of a router: steps for which `when(step_info)` is true get this tier. `reason` is recorded."""

    tier: Tier
    when: Callable[[StepInfo], bool]
    reason: str = ""

    def __post_init__(self) -> None:
        _check_tier("a route's tier", self.tier)
        # A coroutine is true, whatever it would have said.
        if not _is_function(self.when) or inspect.iscoroutinefunction(self.when):
            raise UsageError(f"route to {self.tier!r}: when is {self.when!r}; use a function, not async, of a StepInfo")


class Routed(NamedTuple):
    tier: Tier
    reason: str


class Router:
    """Picks the tier of each step: that of the first route that matches, else `default`.

    If a route raises, the default is taken.

    >>> router = Router([Route("small", lambda step: step.is_summary, "summaries are easy")], default="frontier")
    >>> router.route(StepInfo(is_summary=True))
    Routed(tier='small', reason='summaries are easy')
    >>> router.route(StepInfo()).tier
    'frontier'
    """

    def __init__(self, routes: Iterable[Route] = (), default: Tier = "mid") -> None:
        if not isinstance(cast(object, routes), Iterable):
            raise UsageError(f"a router is made of Routes, in a list; found {routes!r}")
        self.routes = tuple(routes)
        for route in self.routes:
            if not isinstance(route, Route):
                raise UsageError(f"a router is made of Routes; found {route!r}")
        self.default: Tier = _check_tier("a router's default", default)

    def route(self, step: StepInfo) -> Routed:
        """The tier of a step, and why."""
        for number, route in enumerate(self.routes, 1):
            try:
                matches = bool(route.when(step))
            except (Exception, SystemExit) as error:
                return Routed(self.default, f"route {number} (to {route.tier}) failed with {say(error)}")
            if matches:
                return Routed(route.tier, route.reason or f"route {number}")
        return Routed(self.default, "no route matched" if self.routes else "the default tier")


_between: Callable[[Model], Model] | None = None


def put_between(wrap: Callable[[Model], Model] | None) -> None:
    """Have every model that an agent of this process asks from now on wrapped; None ends it.

    For what stands in for providers (a cassette), and only for one at a time: the last one counts. What it returns must
    keep the model's name and capabilities.
    """
    global _between
    _between = wrap


@dataclass(frozen=True, slots=True)
class Picked:
    """The model of a step. `tier` is the one that it stands in, None for a model without tiers."""

    model: Model
    tier: Tier | None
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Which model it will be, before it is built."""

    tier: Tier | None
    reason: str
    slot: _Slot
    label: str
    """What it is for: "tier 'small'", "fallback 1"."""

    @property
    def is_built(self) -> bool:
        return self.slot.built is not None

    def pick(self) -> Picked:
        """Builds it if it is picked for the first time. Raises UnknownModelError."""
        return Picked(self.slot.model(), self.tier, self.reason)


class ModelSet:
    """The models of an agent, in the order in which they are tried. May be used from any thread.

    `primary` is what `Agent(model=...)` takes: a name, a Model, a function that returns one, Tiers, or None for the
    setting. `fallbacks` come after it, and after all of its tiers. A `router` needs Tiers. UsageError for tiers of
    which none is set.

    >>> models = ModelSet(Tiers(small="embedded"), router=Router(default="frontier"))
    >>> picked = models.pick(StepInfo())
    >>> picked.model.name, picked.tier, picked.reason
    ('embedded', 'small', 'the default tier; frontier is not set, small is the nearest')
    """

    def __init__(
        self,
        primary: ModelSource | Tiers | None = None,
        fallbacks: Iterable[ModelSource] = (),
        router: Router | None = None,
    ) -> None:
        if not isinstance(router, Router | None):
            raise UsageError(f"router is {router!r}; use Router([Route(tier, when), ...])")
        self._tiers = primary if isinstance(primary, Tiers) else None
        self._router = router or _ALWAYS_MID
        self._slots: dict[Tier | None, _Slot] = {}
        if not isinstance(primary, Tiers):
            if router is not None:
                raise UsageError(f"a router picks tiers, but the model is {primary!r}; use Tiers(small=..., mid=...)")
            self._slots[None] = _Slot("the model", primary)
        else:
            for tier in primary.order("small"):
                self._slots[tier] = _Slot(f"tier {tier!r}", getattr(primary, tier))
            if not self._slots:
                raise UsageError(
                    "no tier has a model; use Tiers(mid='openai/gpt-5') or set TURNCELL_SMALL_MODEL, "
                    "TURNCELL_MID_MODEL or TURNCELL_FRONTIER_MODEL"
                )
        self._fallbacks = tuple(_Slot(f"fallback {number}", source) for number, source in enumerate(fallbacks, 1))
        self.is_tiered = self._tiers is not None
        """Whether a router picks the model of each step."""
        self.has_routes = bool(self._router.routes)
        """Whether choosing calls code of other people."""
        self._orders = (
            {tier: self._order(tier) for tier in TIERS} if self._tiers else dict.fromkeys(TIERS, self._order("mid"))
        )
        is_only = not self.is_tiered and not self._fallbacks
        self._only = _choice(None, "", self._slots[None]) if is_only else None
        """The choice, where there is none: most agents have one model."""

    @property
    def is_a_name(self) -> bool:
        """One model, by its name, and none to fall back on: all of it stands in a record."""
        return not self.is_tiered and not self._fallbacks and isinstance(self._slots[None].source, str)

    @property
    def first(self) -> Model:
        """The model that is asked first; with tiers, that of the default tier. Raises UnknownModelError."""
        return self._orders[self._router.default][0][1].model()

    @property
    def name(self) -> str:
        """The name of `first`, without building it; of one that only building would tell, what it is for."""
        return self._orders[self._router.default][0][1].name

    @property
    def count(self) -> int:
        """How many different models can be tried for a step. The same name, or the same object, is one model."""
        return len(self._orders["mid"])

    def pick(self, step: StepInfo, attempt_model: int = 0) -> Picked:
        """The model of a step: 0 is the one that the router chose, 1 the first to fall back on, up to `count` - 1.

        Builds it if it is picked for the first time. UnknownModelError, which names the tier, if that cannot be done:
        nothing is kept of it, and the next one may be tried.
        """
        return self.choose(step, attempt_model).pick()

    def choose(self, step: StepInfo, attempt_model: int = 0, *, given_up: Collection[str] = ()) -> Choice:
        """`pick` without building anything. Models of the labels in `given_up` are passed over.

        With tiers an index would not do: what is first for one step is the second for another.
        """
        if self._only is not None and not attempt_model and not given_up:
            return self._only
        routed = self._router.route(step) if self._tiers else None
        order = self._orders[routed.tier if routed else "mid"]
        places = [place for place, (_, slot) in enumerate(order) if slot.label not in given_up]
        if not 0 <= attempt_model < len(places):
            raise UsageError(f"attempt_model is {attempt_model!r}; there are {len(places)} models, counted from 0")
        place = places[attempt_model]
        tier, slot = order[place]
        reason = routed.reason if routed else ""
        if routed is not None and not place and tier != routed.tier:
            reason += f"; {routed.tier} is not set, {tier} is the nearest"
        if place:
            reason = f"fallback {place} of {len(order) - 1}" + (f" ({reason})" if reason else "")
        return _choice(tier, reason, slot)

    def for_summaries(self) -> Choice | None:
        """The nearest there is to the small tier; None where there are no tiers."""
        if self._tiers is None:
            return None
        tier, slot = self._orders["small"][0]
        return _choice(tier, "summaries are easy", slot)

    def _order(self, chosen: Tier) -> list[tuple[Tier | None, _Slot]]:
        tiers: tuple[Tier | None, ...] = self._tiers.order(chosen) if self._tiers else (None,)
        order: list[tuple[Tier | None, _Slot]] = []
        candidates = [(tier, self._slots[tier]) for tier in tiers] + [(None, slot) for slot in self._fallbacks]
        for tier, slot in candidates:
            if not any(slot.is_same(earlier) for _, earlier in order):
                order.append((tier, slot))
        return order

    def __repr__(self) -> str:
        return f"ModelSet({', '.join(f'{slot.label}: {slot.source!r}' for _, slot in self._orders['mid'])})"


def _choice(tier: Tier | None, reason: str, slot: _Slot) -> Choice:
    return Choice(tier, reason, slot, slot.label)


class _Slot:
    """A model that is built when it is first needed."""

    def __init__(self, label: str, source: ModelSource | None) -> None:
        is_model = hasattr(source, "stream") and hasattr(source, "name")
        is_setting = source is None and label == "the model"
        if not (is_setting or isinstance(source, str) or callable(source) or is_model):
            # Said now, and not when it is needed because another has failed.
            raise UsageError(f"{label} is {source!r}; use a name, a Model, or a function that returns one of them")
        self.label, self.source = label, source
        self.built: Model | None = None
        # One for each model: a slow one must not keep the others from being built.
        self._lock = threading.Lock()

    def is_same(self, other: _Slot) -> bool:
        if isinstance(self.source, str) or isinstance(other.source, str):
            return self.source == other.source
        return self.source is other.source

    @property
    def name(self) -> str:
        if isinstance(self.source, str):
            return self.source
        return str(getattr(self.built or self.source, "name", self.label))

    def model(self) -> Model:
        if self.built is None:
            with self._lock:
                if self.built is None:
                    self.built = self._build()
        between = _between  # read once: another thread may end it
        return self.built if between is None else between(self.built)

    def _build(self) -> Model:
        source = self.source
        try:
            # A Model may be callable too: what streams is taken as it is, unless it is the class of one.
            is_model = hasattr(source, "stream") and not isinstance(source, type)
            made = source() if callable(source) and not is_model else source
            if made is None and source is not None:
                raise UnknownModelError(f"{source!r} returned None; a name or a Model is needed")
            return defaults.model(made)  # type: ignore[arg-type]  # anything else is refused there
        except UnknownModelError as error:
            raise UnknownModelError(f"{self.label}: {error}") from error
        except Exception as error:
            raise UnknownModelError(f"{self.label}: {source!r} could not be built: {say(error)}") from error


def _is_function(value: object) -> bool:
    return callable(value)


def _check_tier(what: str, tier: Tier) -> Tier:
    if tier not in TIERS:
        raise UsageError(f"{what} is {tier!r}; use one of {', '.join(TIERS)}")
    return tier


_ALWAYS_MID = Router()
