"""A model's Markdown as Markdown for others to render: the words stay, what would act or load is written out.

Whoever renders it may allow HTML and load images, so raw tags and images become text here, outside of code, and links
to anything but web and mail too. Parsers differ, so the result is parsed once more with HTML allowed; if anything is
left that acts, the whole answer becomes a block of code, which every parser leaves alone.

Dollar signs are escaped: many renderers typeset what stands between two of them, and "$5 and $6" is no formula.
JupyterLab never gets to see it, it prefers the HTML (rank 50 against 60); nbconvert's LaTeX and readers of an exported
file do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TYPE_CHECKING

from turncell.frames.formulas import DOLLARS, is_formula
from turncell.frames.markdown_html import MAX_MARKDOWN, parser, safe_url
from turncell.frames.visible import prose, visible

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_TICKS = re.compile(r"`+")
_TAG = re.compile(r"(\\*)<(?!https?://[^\s<>]*>|[\w.+-]+@[\w.-]+>)")
_BRACKET = re.compile(r"(\\*)\[")
_DOLLAR = re.compile(rf"<https?://[^\s<>]*>|(?<!\\)(?:{DOLLARS})|(\\*)\$")
"""Or an address in angle brackets, where a backslash would be part of it; or a formula, which stays one."""
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)


def neutral_markdown(text: str) -> str:
    r"""The same Markdown without HTML, images and links that a stranger should not set.

    >>> neutral_markdown('<b>a</b> `<b>` ![x](https://evil.example/p) [ok](https://example.com)')
    '&lt;b>a&lt;/b> `<b>` !\\[x](https://evil.example/p) [ok](https://example.com)'
    >>> print(neutral_markdown("costs $5 and $6, `$HOME`"))
    costs \$5 and \$6, `$HOME`
    """
    text = prose(text)
    if len(text) > MAX_MARKDOWN:
        return fenced(text)
    if "$" in text:
        text = _outside_code(text, lambda part: _DOLLAR.sub(_escaped_dollar, part))
    if "<" in text or "![" in text:
        text = _outside_code(text, lambda part: _unless_escaped(_TAG, "&lt;", part).replace("![", "!\\["))
    tokens = _permissive().parse(text)
    if _has_strange_link(tokens):
        text = _outside_code(text, lambda part: _unless_escaped(_BRACKET, "\\[", part))
        tokens = _permissive().parse(text)
    return fenced(text) if _has_strange_link(tokens) or _has_markup(tokens) else _closed(text, tokens)


def _unless_escaped(pattern: re.Pattern[str], by: str, text: str) -> str:
    """Replace what the pattern finds after its group of backslashes, where these do not escape it already."""
    return pattern.sub(lambda match: match[0] if len(match[1]) % 2 else match[1] + by, text)


def _escaped_dollar(match: re.Match[str]) -> str:
    slashes = match[1]
    if slashes is None and match[0][0] == "$" and not is_formula(match[0]):
        return match[0].replace("$", r"\$")
    return match[0] if slashes is None or len(slashes) % 2 else f"{slashes}\\$"


def _closed(text: str, tokens: list[Token]) -> str:
    """With an end for a block of code that was cut off, so that what follows is not in it."""
    last = next((token for token in reversed(tokens) if token.level == 0), None)
    if last is None or last.type != "fence" or last.map is None:
        return text
    lines = text.split("\n")[last.map[0] : last.map[1]]
    end = lines[-1].strip()
    is_closed = len(lines) > 1 and end.startswith(last.markup) and not end.strip(last.markup[0])
    return text if is_closed else f"{text}\n{last.markup}"


def fenced(text: str, language: str = "text") -> str:
    """A block of code that the text cannot close."""
    longest = max((len(ticks) for ticks in _TICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{visible(text)}\n{fence}"


def code_span(text: str) -> str:
    """
    >>> code_span("a`b")
    '`` a`b ``'
    """
    text = " ".join(visible(text).split()) or " "
    longest = max((len(ticks) for ticks in _TICKS.findall(text)), default=0)
    ticks = "`" * (longest + 1)
    return f"{ticks} {text} {ticks}" if longest or text == " " else f"{ticks}{text}{ticks}"


def inline_text(text: str) -> str:
    """Text that means nothing to Markdown."""
    return re.sub(r"([\\`*_\[\]<>&#|~!$])", r"\\\1", " ".join(visible(text).split()))


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    lines = text.split("\n")
    is_code = [False] * len(lines)
    for token in parser().parse(text):
        if token.type in ("fence", "code_block") and token.map:
            is_code[token.map[0] : token.map[1]] = [True] * (token.map[1] - token.map[0])
    out: list[str] = []
    start = 0
    while start < len(lines):
        end = start
        while end < len(lines) and is_code[end] == is_code[start]:
            end += 1
        piece = "\n".join(lines[start:end])
        out.append(
            piece if is_code[start] else "\n\n".join(_outside_spans(part, change) for part in piece.split("\n\n"))
        )
        start = end
    return "\n".join(out)


def _outside_spans(paragraph: str, change: Callable[[str], str]) -> str:
    out: list[str] = []
    position = 0
    for begin, end in _spans(paragraph):
        out += [change(paragraph[position:begin]), paragraph[begin:end]]
        position = end
    return "".join([*out, change(paragraph[position:])])


def _spans(paragraph: str) -> Iterator[tuple[int, int]]:
    """Where code spans are: a run of back-ticks up to the next run of the same length."""
    runs = [(m.start(), m.end()) for m in _TICKS.finditer(paragraph)]
    later: dict[int, list[int]] = {}
    for number in range(len(runs) - 1, -1, -1):
        later.setdefault(runs[number][1] - runs[number][0], []).append(number)
    number = 0
    while number < len(runs):
        begin, end = runs[number]
        is_escaped = (len(paragraph[:begin]) - len(paragraph[:begin].rstrip("\\"))) % 2 == 1
        same = later[end - begin]
        while same and same[-1] <= number:
            same.pop()
        if is_escaped or not same:
            number += 1
            continue
        yield begin, runs[same[-1]][1]
        number = same[-1] + 1


@cache
def _permissive() -> MarkdownIt:
    from markdown_it import MarkdownIt

    md = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    md.validateLink = lambda url: True  # type: ignore[method-assign]
    return md


def _inlines(tokens: Iterable[Token]) -> Iterator[Token]:
    for token in tokens:
        yield from token.children or ()


def _has_strange_link(tokens: list[Token]) -> bool:
    urls = (str(token.attrGet("href") or "") for token in _inlines(tokens) if token.type == "link_open")
    return any(_SCHEME.match(url.lstrip("%0123456789")) is not None and safe_url(url) is None for url in urls)


def _has_markup(tokens: list[Token]) -> bool:
    is_block = any(token.type == "html_block" for token in tokens)
    return is_block or any(token.type in ("html_inline", "image") for token in _inlines(tokens))
