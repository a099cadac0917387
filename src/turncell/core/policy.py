"""Policy: what judges a call. Ordered rules, the first match wins; where none matches, the mode decides.

Pure: rules are values, the tool's effect and the call's arguments come in as arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from turncell.core.parts import Json

Effect: TypeAlias = Literal["read", "write", "idempotent"]
"""What a tool does to the world. Undeclared means write."""
Verdict: TypeAlias = Literal["allow", "deny", "ask"]
Mode: TypeAlias = Literal["ask", "edits", "plan", "auto", "never"]
"""What happens to calls that no rule names.

ask: reads run, all else asks. edits: as ask, and tools that only edit this notebook run. plan: reads run, all
else is denied. auto: everything runs. never: nothing is asked; what no rule allows is denied.
"""
MODES: tuple[Mode, ...] = ("ask", "edits", "plan", "auto", "never")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a policy.

    `tool` is a glob over tool names; `where` maps argument names to globs over their text (a string as it is,
    anything else as JSON would write it). All of them must match.
    """

    tool: str
    verdict: Verdict
    where: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""

    def __post_init__(self) -> None:
        if self.verdict not in ("allow", "deny", "ask"):
            raise ValueError(f"rule for {self.tool!r}: verdict is {self.verdict!r}; use 'allow', 'deny' or 'ask'")

    def matches(self, tool: str, arguments: Mapping[str, Json]) -> bool:
        if not fnmatchcase(tool, self.tool):
            return False
        return all(
            name in arguments and fnmatchcase(_as_text(arguments[name]), glob) for name, glob in self.where.items()
        )

    def __str__(self) -> str:
        where = ", ".join(f"{name}={glob}" for name, glob in self.where.items())
        return f"{self.verdict} {self.tool}" + (f"({where})" if where else "")


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy said, by which rule or mode, and why."""

    verdict: Verdict
    by: str
    reason: str = ""


def decide(
    rules: Iterable[Rule],
    mode: Mode,
    tool: str,
    arguments: Mapping[str, Json],
    effect: Effect,
    edits_notebook: bool = False,
) -> Decision:
    """Judge one call.

    >>> rules = [Rule("mail", "deny", {"to": "*@rival.example"}, "no mail to rivals")]
    >>> decide(rules, "auto", "mail", {"to": "bo@rival.example"}, "write").verdict
    'deny'
    >>> decide(rules, "ask", "mail", {"to": "ana@home.example"}, "write").by
    'mode ask'
    """
    for rule in rules:
        if rule.matches(tool, arguments):
            return Decision(rule.verdict, f"rule {rule}", rule.reason)
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


def _as_text(value: Json) -> str:
    from turncell.core.digest import canonical_json

    return value if isinstance(value, str) else canonical_json(value)
