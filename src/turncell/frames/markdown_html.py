"""A model's Markdown as HTML, built from tokens by an allow-list: what is not named here becomes text.

Links lead to http, https and mailto only and say where when their text claims otherwise; images are named, never
loaded, because loading one tells its server something; code is coloured token by token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from html import escape
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from turncell.frames.formulas import with_formulas
from turncell.frames.visible import DECEIVING, SHAPELESS, escape_of, prose, visible

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

Look: TypeAlias = Callable[[str], str]
"""From the role of an element to the attribute that gives it its look, with a space before it."""

MAX_MARKDOWN = 400_000
"""Characters. A longer answer is shown as plain text: nobody reads it, and parsing it would hold up the cell."""
MAX_COLOURED = 30_000
"""Characters of code; some lexers take quadratic time."""

_BLOCKS = {"paragraph": "p", "bullet_list": "ul", "ordered_list": "ol", "list_item": "li", "blockquote": "blockquote",
           "thead": "thead", "tbody": "tbody", "tr": "tr"}  # fmt: skip
_EMPHASIS = {"comment": "i", "function": "b"}
_INLINES = {"strong": "strong", "em": "em", "s": "s"}
_HOST = re.compile(r"\b(?:[a-z0-9-]+\.)+[a-z]{2,}\b", re.IGNORECASE)


def markdown_html(text: str, look: Look) -> str:
    """HTML of the text. Not yet cleaned: see `static_html.clean`."""
    if len(text) > MAX_MARKDOWN:
        return f"<pre{look('out')}>{shown(text)}</pre>"
    return "".join(_block(token, look) for token in parser().parse(text))


def shown(text: str) -> str:
    """Escaped for HTML, with everything shapeless as a marked escape."""
    return _marked(SHAPELESS, text)


def shown_prose(text: str) -> str:
    """Escaped for HTML, with everything deceiving as a marked escape."""
    return _marked(DECEIVING, text)


def _marked(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub(lambda match: f"<mark>{escape_of(match[0])}</mark>", escape(text))


@cache
def parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return with_formulas(MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"]))


def safe_url(url: str) -> str | None:
    """The URL if it may be a link, else None.

    >>> safe_url("https://example.com/a"), safe_url("mailto:ana@example.com")
    ('https://example.com/a', 'mailto:ana@example.com')
    >>> [safe_url(url) for url in ("javascript:x", "//a.b", "/a", "https:a.b", "https://me@a.b", "https://a.b\\\\c")]
    [None, None, None, None, None, None]
    """
    if SHAPELESS.search(url) or "\\" in url or any(character.isspace() for character in url):
        return None
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return None
    if parts.scheme == "mailto":
        return url if "@" in parts.path else None
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
        return None
    return url


def _block(token: Token, look: Look) -> str:
    kind, _, edge = token.type.rpartition("_")
    if token.type == "inline":
        return _inline(token.children or [], look)
    if token.type == "fence":
        return code_html(token.content, token.info.split(" ")[0] if token.info else "", look)
    if token.type == "code_block":
        return code_html(token.content, "", look)
    if token.type == "hr":
        return f"<hr{look('rule')}>"
    if token.hidden:
        return ""
    if kind == "heading":
        # A notebook's own headings stand above: an answer never begins a chapter of the document.
        level = min(6, int(token.tag[1]) + 2)
        return f"<h{level}{look('heading')}>" if edge == "open" else f"</h{level}>"
    if kind == "table":
        return f"<div{look('scroll')}>{table_tag(look)}" if edge == "open" else "</table></div>"
    if kind in ("th", "td"):
        if edge == "close":
            return f"</{kind}>"
        side = re.search(r"right|center", str(token.attrGet("style") or ""))
        return f"<{kind}{look(kind + ('-' + side[0] if side else ''))}>"
    if kind in _BLOCKS:
        name = _BLOCKS[kind]
        if edge == "close":
            return f"</{name}>"
        start = token.attrGet("start")
        return f"<{name}{look(name)}" + (f' start="{start}">' if isinstance(start, int) else ">")
    return shown(token.content)


def table_tag(look: Look) -> str:
    """Where a host has no style for tables, the padding keeps columns apart; a style has precedence over it."""
    return f'<table{look("table")} cellpadding="5">'


def _inline(tokens: Sequence[Token], look: Look) -> str:
    out: list[str] = []
    links: list[str] = []
    """What closes each open link: an end tag, with a note where its text names another host."""
    for number, token in enumerate(tokens):
        kind, _, edge = token.type.rpartition("_")
        if token.type == "text":
            out.append(shown_prose(token.content))
        elif token.type == "code_inline":
            out.append(f"<code{look('code')}>{shown(token.content)}</code>")
        elif token.type == "math":
            # JupyterLab's MathJax leaves the rest of the answer alone; elsewhere it is read as it was written.
            out.append(f'<span class="mathjax_process">{shown(token.content)}</span>')
        elif token.type == "softbreak":
            out.append("\n")
        elif token.type == "hardbreak":
            out.append("<br>")
        elif token.type == "image":
            out.append(_image(token, look))
        elif token.type == "link_open":
            url = safe_url(str(token.attrGet("href") or ""))
            if url is None:
                links.append("")
            else:
                text = _text_of_link(tokens, number)
                links.append("</a>" + _where(url, text, look))
                # Whoever points at it is told where it leads, where that cannot be read.
                title = "" if _host(url) in text else f' title="{escape(_host(url))}"'
                out.append(f'<a{look("link")} href="{escape(url)}"{title} target="_blank">')
        elif token.type == "link_close":
            out.append(links.pop() if links else "")
        elif kind in _INLINES:
            out.append(f"<{_INLINES[kind]}>" if edge == "open" else f"</{_INLINES[kind]}>")
        else:
            out.append(shown(token.content))
    return "".join(out)


def _text_of_link(tokens: Sequence[Token], start: int) -> str:
    text: list[str] = []
    for token in tokens[start + 1 :]:
        if token.type == "link_close":
            break
        text.append(token.content)
    return "".join(text)


def _host(url: str) -> str:
    parts = urlsplit(url)
    return (parts.hostname or parts.path.rpartition("@")[2]).lower()


def _where(url: str, text: str, look: Look) -> str:
    """The host of a link whose text looks like another one, or whose host only looks like itself."""
    host = _host(url)
    named = [name.lower() for name in _HOST.findall(text)]
    is_plain = not named or any(host == name or host.endswith(f".{name}") for name in named)
    if is_plain and "xn--" not in host:
        return ""
    return f" <span{look('muted')}>({escape(host)})</span>"


def _image(token: Token, look: Look) -> str:
    url = safe_url(str(token.attrGet("src") or ""))
    host = urlsplit(url).hostname if url else None
    name = prose(token.content).strip()
    text = "Image" + (f" “{name}”" if name else "") + (f" from {host}" if host else "") + " not loaded"
    return f"<span{look('image')}>{escape(visible(text))}</span>"


def code_html(code: str, language: str, look: Look) -> str:
    """A block of code, coloured where the language is known."""
    label = f"<small{look('language')}>{shown(language)}</small>" if language else ""
    return f"<div{look('block')}>{label}<pre{look('pre')}>{_coloured(code, language, look)}</pre></div>"


def _coloured(code: str, language: str, look: Look) -> str:
    code = code.rstrip("\n")
    if not language or len(code) > MAX_COLOURED:
        return shown(code)
    from pygments.lexers import get_lexer_by_name
    from pygments.token import Comment, Keyword, Name, Number, Operator, String
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return shown(code)
    roles = (
        (Comment, "comment"), (Keyword, "keyword"), (Operator.Word, "keyword"), (String, "string"), (Number, "number"),
        (Name.Function, "function"), (Name.Class, "function"), (Name.Decorator, "function"), (Name.Tag, "keyword"),
    )  # fmt: skip
    # Neighbours of one look are one element, with the blanks between them: each element has its look with it.
    runs: list[tuple[str | None, str]] = []
    for token_type, value in lexer.get_tokens(code):
        role = next((role for parent, role in roles if token_type in parent), None)
        if len(runs) > 1 and runs[-1][1].isspace() and runs[-2][0] == role:
            value = runs.pop()[1] + value
        if runs and runs[-1][0] == role:
            value = runs.pop()[1] + value
        runs.append((role, value))
    return "".join(_in_colour(role, shown(value), look) for role, value in runs)


def _in_colour(role: str | None, text: str, look: Look) -> str:
    if role is None:
        return text
    name = _EMPHASIS.get(role, "span")
    return f"<{name}{look(role)}>{text}</{name}>"
