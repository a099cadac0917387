"""Markdown of a model as lines for a terminal, whole or while it is being written.

Rules that keep a model from hiding or steering anything:
- what Rich has rendered is cleaned once more (`prose`): entities and the decoded addresses of links make characters
  that were not in the source;
- HTML is text, because Rich leaves it out; links are written out, because a terminal would hide where they lead.

Colours are the terminal's own sixteen, and never a background, so that they can be read on light and dark ones.
"""

from __future__ import annotations

import re

from markdown_it import MarkdownIt
from pygments.token import Comment, Generic, Keyword, Name, Number, Operator, String, Token
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, ListItem, Markdown, TableElement
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.table import Table
from rich.theme import Theme

from turncell.frames.visible import prose

THEME = Theme(
    {
        "markdown.code": "cyan",
        "markdown.code_block": "none",
        "markdown.block_quote": "dim",
        "markdown.list": "none",
        "markdown.h1": "bold underline",
        "markdown.h2": "bold underline",
        "markdown.h3": "bold",
        "markdown.link": "none",
        "markdown.link_url": "underline",
        "markdown.table.border": "dim",
        "markdown.table.header": "bold",
    }
)
_CODE = ANSISyntaxTheme(
    {
        Token: Style(),
        Comment: Style(dim=True, italic=True),
        Keyword: Style(color="magenta"),
        Operator.Word: Style(color="magenta"),
        Name.Function: Style(color="blue"),
        Name.Class: Style(color="blue"),
        Name.Builtin: Style(color="cyan"),
        Name.Decorator: Style(color="cyan"),
        String: Style(color="green"),
        Number: Style(color="cyan"),
        Generic.Deleted: Style(color="red"),
        Generic.Inserted: Style(color="green"),
        Generic.Heading: Style(bold=True),
    }
)
_PARSER = MarkdownIt("commonmark", {"html": False}).enable("strikethrough").enable("table")

_STYLES = re.compile(r"\x1b\[[0-9;]*m")

LONG_CHARACTERS = 8_000
"""An open block that is longer is shown as the text it is until it has ended: rendering it anew would cost too much."""


class Growing:
    """A Markdown text while it is written: its finished blocks are given out once, what may still change is open."""

    def __init__(self) -> None:
        self._source = ""
        self._seen = 0
        """How many characters of the open source have been looked through for an end of a block."""
        self._is_item = False

    @property
    def open(self) -> str:
        return self._source

    @property
    def is_item(self) -> bool:
        """What is open goes on with the list whose other items were given out."""
        return self._is_item

    def add(self, text: str) -> None:
        # A carriage return alone would be a line to the parser and none to us.
        self._source += prose(text.replace("\r", ""))

    def finished(self) -> list[tuple[str, bool]]:
        """The blocks that have ended since; whether each goes on with the list of the one before."""
        # Only whole lines: "1" may become "1. One", or "1 apple".
        end = self._source.rfind("\n") + 1
        # A long block is looked at again when it has grown by an eighth: all looks together stay linear.
        if end <= self._seen or (end > LONG_CHARACTERS and end - self._seen < end // 8):
            return []
        at, is_item = open_from(self._source[:end])
        self._seen = end - at
        if not at:
            return []
        done, self._source = (self._source[:at], self._is_item), self._source[at:]
        self._is_item = is_item
        return [done]

    def close(self) -> tuple[str, bool]:
        """What is left, where the text has ended."""
        rest, self._source, self._seen = (self._source, self._is_item), "", 0
        self._is_item = False
        return rest


def open_from(source: str) -> tuple[int, bool]:
    r"""Where the block begins that more text may still change: the last one, or the last item of a list; and which.

    >>> open_from("One.\n\nTwo\n"), open_from("- a\n- b\n"), open_from("```\n\n# no heading\n")
    ((6, False), (4, True), (0, False))
    """
    tokens = _PARSER.parse(source)
    blocks = [number for number, token in enumerate(tokens) if token.level == 0 and token.nesting >= 0 and token.map]
    if not blocks:
        return 0, False
    last = blocks[-1]
    items = [token for token in tokens[last:] if token.type == "list_item_open" and token.level == 1]
    begin = (items[-1] if len(items) > 1 else tokens[last]).map
    assert begin is not None
    lines = source.split("\n")[: begin[0]]
    return sum(len(line) + 1 for line in lines), len(items) > 1


def markdown_lines(console: Console, source: str, width: int) -> list[str]:
    """The lines of a text, with the codes of its colours, without empty ones around it."""
    return rendered(console, _Markdown(prose(source)), width)


def rendered(console: Console, renderable: object, width: int) -> list[str]:
    """The lines of anything of Rich's, cleaned, with the codes of its colours."""
    with console.capture() as captured:
        console.print(_Clean(renderable), width=width, overflow="fold", crop=False, highlight=False, markup=False)
    lines = [line.rstrip(" ") for line in captured.get().split("\n")]
    told = [number for number, line in enumerate(lines) if _STYLES.sub("", line).strip()]
    return lines[told[0] : told[-1] + 1] if told else []


class _Clean:
    """Whatever is in it, the only codes that come out are those of its styles."""

    def __init__(self, renderable: object) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._renderable, options):  # type: ignore[arg-type]
            if segment.control is None:
                yield segment._replace(text=prose(segment.text))


class _Code(CodeBlock):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip()
        yield Syntax(code, self.lexer_name, theme=_CODE, word_wrap=True, padding=(0, 0, 0, 2))


class _Heading(Heading):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = self.text.copy()
        text.justify = "left"
        yield text


class _Item(ListItem):
    def render_number(self, console: Console, options: ConsoleOptions, number: int, last_number: int) -> RenderResult:
        # A list is written in pieces, of which none knows the last number of all.
        yield from super().render_number(console, options, number, max(last_number, 10))


class _Table(TableElement):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in super().__rich_console__(console, options):
            if isinstance(table, Table):
                for column in table.columns:
                    column.overflow = "fold"  # an ellipsis would lose what the model has said
            yield table


class _Markdown(Markdown):
    elements = {  # noqa: RUF012  (as Rich declares it)
        **Markdown.elements,
        "fence": _Code,
        "code_block": _Code,
        "heading_open": _Heading,
        "list_item_open": _Item,
        "table_open": _Table,
    }

    def __init__(self, source: str) -> None:
        super().__init__("", hyperlinks=False)
        self.markup, self.parsed = source, _PARSER.parse(source)
