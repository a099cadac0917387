"""Formulas: `$a$`, `$$a$$`, `\\(a\\)` and `\\[a\\]`, as models write them. The page reads them the same way (`js/src/math.ts`).

A dollar opens a formula before anything but a space, and closes it behind anything but a space and not before a letter or
digit: two prices in a sentence, or two variables of a shell, are no formula. None holds another one, so that reading stays
linear; none is longer than a paragraph. What makes links, loads, defines or shows something else than it is stays text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import StateInline

DOLLARS = r"\$\$[^$]*[^\s$][^$]*\$\$|\$(?![\s$]|\d[\d.,]*\s+[A-Za-z]{2})[^$]*[^\s$\\]\$(?![A-Za-z0-9_])"
_FORMULA = re.compile(
    DOLLARS
    + r"|\\\((?=\s*\\?[A-Za-z0-9_({|-])(?:(?!\\[()])[\s\S])+\\\)"
    + r"|\\\[(?=\s*\\?[A-Za-z0-9_({|-])(?:(?!\\[\[\]])[\s\S])+\\\]"
)
_NOT_MATH = re.compile(
    r"\\(?:href|url|require|class|style|cssid|data|csname|[gex]?def|let|(?:re)?newc|newe|unicode|mmltoken|toggle|t(?:ext|ool)tip|html)",
    re.IGNORECASE,
)


def is_formula(text: str) -> bool:
    """Whether all of the text is one formula that may be typeset.

    >>> [is_formula(text) for text in ("$x^2$", "\\\\(a\\\\)", "$5 and 6$", r"$\\href{https://a.example}{x}$")]
    [True, True, False, False]
    """
    found = _FORMULA.fullmatch(text)
    return found is not None and _NOT_MATH.search(text) is None


def with_formulas(parser: MarkdownIt) -> MarkdownIt:
    """The same parser, with a token "math" for each formula; its content has the delimiters with it."""
    parser.inline.ruler.before("escape", "math", _formula)
    return parser


def _formula(state: StateInline, silent: bool) -> bool:
    found = _FORMULA.match(state.src, state.pos, state.posMax)
    if found is None or _NOT_MATH.search(found[0]):
        return False
    if not silent:
        state.push("math", "", 0).content = found[0]
    state.pos = found.end()
    return True
