"""Text of strangers, made fit to be looked at: nothing in it may hide, reorder or reach beyond its own lines.

Tool output and arguments are shown as they are, so what has no shape (control, bidi, zero-width and tag characters,
halves of a pair) is written as an escape. In prose only what can deceive is: zero-width joiners and direction marks
belong to some scripts.
"""

from __future__ import annotations

import re

_DECEIVING = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u202a-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e0fff"
_SHAPELESS = _DECEIVING + (
    "\u00ad\u034f\u115f\u1160\u180e\u200b-\u200c\u200e\u200f\u2028\u2029\u2060-\u2065\u206a-\u206f\u2800\u3164"
    "\ufeff\uffa0\ufff9-\ufffb"
)
# A joiner between two pictures makes one picture of them and hides nothing.
_LONE_JOINER = "(?<![\u2600-\u27bf\ufe0f\U0001f000-\U0001faff])\u200d|\u200d(?![\u2600-\u27bf\U0001f000-\U0001faff])"
SHAPELESS = re.compile(f"[{_SHAPELESS}]|{_LONE_JOINER}")
DECEIVING = re.compile(f"[{_DECEIVING}]")

# Colours say nothing that the text does not; titles, clipboard writes and cursor moves are meant for a terminal.
_TERMINAL = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|\x1b[PX^_][^\x1b]*\x1b\\"
)


def escape_of(character: str) -> str:
    r"""The visible form of one character.

    >>> escape_of("\x1b"), escape_of("\u202e")
    ('\\x1b', '\\u202e')
    """
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def visible(text: str) -> str:
    """Everything shapeless written as an escape."""
    return SHAPELESS.sub(lambda match: escape_of(match[0]), text)


def prose(text: str) -> str:
    """What can deceive written as an escape; the rest of what scripts need is left."""
    return DECEIVING.sub(lambda match: escape_of(match[0]), text)


def terminal_text(text: str) -> str:
    r"""What a terminal would have left on the screen: no codes, and only the last state of a line that was rewritten.

    >>> terminal_text("\x1b[31m10 %\r100 %\x1b[0m\r\nend")
    '100 %\nend'
    """
    text = _TERMINAL.sub("", text).replace("\r\n", "\n")
    if "\r" not in text:
        return text
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))


def cut(text: str, max_lines: int, max_characters: int) -> tuple[str, str]:
    """The beginning of a text and, if there is more, a note that says how much.

    >>> cut("a\\nb\\nc", 2, 100)
    ('a\\nb', '… 1 more line')
    """
    text = text.rstrip("\n")
    kept = "\n".join(text.split("\n", max_lines)[:max_lines])[:max_characters]
    rest = text[len(kept) :].removeprefix("\n")
    if not rest:
        return kept, ""
    lines = rest.count("\n") + 1
    if len(kept) == max_characters:
        return kept, f"… {len(rest):,} more characters"
    return kept, f"… {lines:,} more line{'s' * (lines != 1)}"


def one_line(text: str, width: int) -> str:
    """At most `width` characters, without line ends.

    >>> one_line("SELECT a,\\n       b FROM t", 12)
    'SELECT a, b…'
    """
    text = " ".join(text[: 4 * width].split()) if len(text) > 4 * width else " ".join(text.split())
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"
