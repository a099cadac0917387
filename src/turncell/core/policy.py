"""Policy: what judges a call. The first that has something to say decides, in this order:

1. the rules given in code, in their order;
2. the rules that a person asked to remember;
3. the tool's own check of these arguments;
4. the mode.

Three laws bend the order, all towards caution (`tests/core/test_policy.py` holds them):

* what a check denies is denied, whatever the rules say. Its "ask" beats a remembered allow and the mode's, not the
  allow of a rule in code; its "allow" never lets through what mode plan or never denies.
* taint: once untrusted output was read, an allow for a call that is no read becomes an "ask", because the model may be
  speaking for whoever wrote that output. In mode auto all allows stand, and everywhere that of a rule in code that
  says `tainted=True`.
* where nobody is to be asked because the mode denies the call (plan, never), such an "ask" is a denial.

Pure: rules are values, the tool's effect and the call's arguments come in as arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from turncell.core.parts import Json
from turncell.errors import UsageError

Effect: TypeAlias = Literal["read", "write", "idempotent"]
"""What a tool does to the world. Undeclared means write."""
Verdict: TypeAlias = Literal["allow", "deny", "ask"]
Mode: TypeAlias = Literal["ask", "edits", "plan", "auto", "never"]
"""What happens to calls that no rule names.

ask: reads run, all else asks. edits: as ask, and tools that only edit this notebook run. plan: reads run, all
else is denied. auto: everything runs. never: nothing is asked; what no rule allows is denied.
"""
MODES: tuple[Mode, ...] = ("ask", "edits", "plan", "auto", "never")
_VERDICTS: tuple[Verdict, ...] = ("allow", "deny", "ask")


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to calls of some tools: `Rule("send_*", "deny", {"to": "*@rival.example"})`.

    tool     a glob over tool names
    verdict  "allow", "deny" or "ask"
    where    names of arguments and globs over their text (other values as JSON writes them); all must match. Upper and
             lower case differ
    reason   what the person and the model are told
    tainted  whether an allow holds also after the model has read untrusted output

    UsageError for anything else.

    >>> Rule("mail", "alow")
    Traceback (most recent call last):
        ...
    turncell.errors.UsageError: rule for 'mail': verdict is 'alow'; use 'allow', 'deny' or 'ask'
    """

    tool: str
    verdict: Verdict
    where: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    tainted: bool = False

    def __post_init__(self) -> None:
        if not _is_text(self.tool) or not self.tool:
            raise UsageError(f"a rule's tool is {self.tool!r}; use the name of a tool or a glob, '*' for all of them")
        if self.verdict not in _VERDICTS:
            raise UsageError(f"rule for {self.tool!r}: verdict is {self.verdict!r}; use 'allow', 'deny' or 'ask'")
        if not _is_where(self.where):
            raise UsageError(f"rule for {self.tool!r}: where is {self.where!r}; map names of arguments to globs")
        if not _is_text(self.reason):
            raise UsageError(f"rule for {self.tool!r}: reason is {self.reason!r}; use text")
        if self.tainted not in (True, False):
            raise UsageError(f"rule for {self.tool!r}: tainted is {self.tainted!r}; use True or False")

    def matches(self, tool: str, arguments: Mapping[str, Json]) -> bool:
        """Whether it is about this call."""
        if self.tool != "*" and not fnmatchcase(tool, self.tool):
            return False
        return not self.where or all(
            name in arguments and fnmatchcase(_as_text(arguments[name]), glob) for name, glob in self.where.items()
        )

    def __str__(self) -> str:
        said = f"{self.verdict} {self.tool}"
        if not self.where:
            return said
        return f"{said}({', '.join(f'{name}={glob}' for name, glob in self.where.items())})"


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy said, by which rule, check or mode, and why."""

    verdict: Verdict
    by: str
    reason: str = ""

    def __post_init__(self) -> None:
        # The check of a tool makes these too: a word that is no verdict must not slip through as "not denied".
        if self.verdict not in _VERDICTS:
            raise UsageError(f"decision by {self.by!r}: verdict is {self.verdict!r}; use 'allow', 'deny' or 'ask'")


def decide(
    rules: Iterable[Rule],
    mode: Mode,
    tool: str,
    arguments: Mapping[str, Json],
    effect: Effect,
    edits_notebook: bool = False,
    *,
    remembered: Iterable[Rule] = (),
    check: Decision | None = None,
    is_tainted: bool = False,
) -> Decision:
    """Judge one call.

    `rules` are those given in code, `remembered` those a person asked to keep, `check` is what the tool's own check
    said of these arguments, None if it has none or said nothing. `is_tainted`: untrusted output was read before.

    >>> rules = [Rule("mail", "deny", {"to": "*@rival.example"}, "no mail to rivals")]
    >>> decide(rules, "auto", "mail", {"to": "bo@rival.example"}, "write").verdict
    'deny'
    >>> decide(rules, "ask", "mail", {"to": "ana@home.example"}, "write").by
    'mode ask'
    >>> decide([], "ask", "mail", {}, "write", remembered=[Rule("mail", "allow")]).verdict
    'allow'
    >>> decide([], "ask", "mail", {}, "write", remembered=[Rule("mail", "allow")], is_tainted=True).verdict
    'ask'
    """
    if check is not None and check.verdict == "deny":
        return check
    rule = _first(rules, tool, arguments)
    if rule is not None:
        said = Decision(rule.verdict, f"rule {rule}", rule.reason)
        stands = rule.tainted or mode == "auto"
    else:
        by_mode = _by_mode(mode, effect, edits_notebook)
        said = _without_code(_first(remembered, tool, arguments), check, by_mode)
        stands = mode == "auto"
    if said.verdict != "allow" or stands or not is_tainted or effect == "read":
        return said
    reason = f"untrusted output was read before this call, so that the allow of {said.by} does not count"
    return _ask_unless_denied(Decision("ask", "taint", reason), _by_mode(mode, effect, edits_notebook))


def _without_code(rule: Rule | None, check: Decision | None, by_mode: Decision) -> Decision:
    """What is said of a call that no rule in code names. `rule` is the remembered one that matches."""
    wants_person = check is not None and check.verdict == "ask"
    if rule is not None and not (wants_person and rule.verdict == "allow"):
        return Decision(rule.verdict, f"remembered rule {rule}", rule.reason)
    if check is None:
        return by_mode
    if wants_person:
        return _ask_unless_denied(check, by_mode)
    return by_mode if by_mode.verdict == "deny" else check


def _ask_unless_denied(ask: Decision, by_mode: Decision) -> Decision:
    if by_mode.verdict != "deny":
        return ask
    return Decision("deny", by_mode.by, f"this call would ask ({ask.reason or ask.by}), and {by_mode.by} asks nobody")


def _by_mode(mode: Mode, effect: Effect, edits_notebook: bool) -> Decision:
    by = f"mode {mode}"
    if mode == "auto" or (effect == "read" and mode != "never"):
        return Decision("allow", by)
    if mode == "edits" and edits_notebook:
        return Decision("allow", by)
    if mode == "plan":
        return Decision("deny", by, "only tools that read may run while planning")
    if mode == "never":
        return Decision("deny", by, "no rule allows this tool, and nobody is to be asked")
    return Decision("ask", by)


def _first(rules: Iterable[Rule], tool: str, arguments: Mapping[str, Json]) -> Rule | None:
    for rule in rules:
        if rule.matches(tool, arguments):
            return rule
    return None


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_where(value: object) -> bool:
    return isinstance(value, Mapping) and all(_is_text(name) and _is_text(glob) for name, glob in value.items())


def _as_text(value: Json) -> str:
    from turncell.core.digest import canonical_json

    return value if isinstance(value, str) else canonical_json(value)
