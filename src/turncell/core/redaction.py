"""Secrets: what must never reach the journal, a notebook file, an export or a log.

Three kinds are known: values of environment variables whose names speak of secrets (also as JSON, an address or base64 has
them), texts in the shapes that keys have, and patterns that people give. What is found is replaced by `[redacted: <why>]`; the length of a secret says nothing.

Shapes (source: the public documentation of each provider): OpenAI `sk-…`, Anthropic `sk-ant-…`, GitHub `ghp_…` and
`github_pat_…`, GitLab `glpat-…`, AWS `AKIA…`, Google `AIza…`, Slack `xox?-…`, Hugging Face `hf_…`, Groq `gsk_…`, xAI
`xai-…`, Stripe `sk_live_…`, JSON Web Tokens, PEM private keys, and what follows Bearer and Basic in a header.

A text that is still being written is cleaned as it comes (`Redactor.feed`). What may be the beginning of a secret is held
back until it is one, or none; nothing is let go because time has passed, for half a key on a page is half a key in a
file. This costs ordinary text no delay:

* a known value and a shape are recognised by their first characters, so that what is held is a few letters, at most
  REACH. A shape that has its least length is a secret at once, and what goes on in its characters belongs to it;
* nobody can say what a regular expression begins with. Where people gave some, the last WINDOW characters wait: a match
  that is longer than this may be seen in part while it is written. The record has it whole, and redacted.

Whatever the pieces, they give, joined, what `Redactor.text` makes of the whole: both take the leftmost match, and of two
at one place the known value, the longest first.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, quote_plus

from turncell.core.deltas import Block
from turncell.core.parts import Image, Message
from turncell.core.values import evolve
from turncell.errors import UsageError

V = TypeVar("V")

LEAST_CHARS = 8
"""A shorter value of the environment is no secret worth the name: replacing it would spoil every text."""
REACH = 1_200
"""Characters: more than any shape needs until it is known to be one."""
WINDOW = 200
"""Characters that wait while they are written, where patterns are looked for."""
_HELD_CHARS = 4_000
"""A match of a pattern that still grows is not waited for beyond this."""
_CONTEXT_CHARS = 32
"""What a pattern may look at before its match."""

_NAMES = re.compile(
    r"(?:^|_)(?:API_?KEY|ACCESS_?KEY|SECRET|TOKEN|PASSWORD|PASSWD|PRIVATE_?KEY|CREDENTIALS?|KEY)(?:$|_)", re.I
)


class _Shape(NamedTuple):
    why: str
    whole: str
    begun: str
    """What it is before it is whole: every beginning of it, and nothing that is whole."""
    goes_on: str
    """What belongs to it once it is whole."""
    mark: str
    """A text that every match contains: looking for it first costs next to nothing."""


def _beginning(lead: str, rest: str) -> str:
    """Every beginning of `lead`, and the whole of it with `rest`.

    >>> _beginning("ab", "[0-9]{0,3}")
    'a(?:b[0-9]{0,3})?'
    """
    first, others = re.escape(lead[0]), lead[1:]
    return first + (f"(?:{_beginning(others, rest)})?" if others else rest)


def _key(lead: str, characters: str, least: int) -> _Shape:
    begun = r"\b" + _beginning(lead, f"[{characters}]{{0,{least - 1}}}")
    return _Shape("a key", rf"\b{re.escape(lead)}[{characters}]{{{least},}}", begun, f"[{characters}]*", lead)


def _header(word: str) -> _Shape:
    # Without a digit it is more likely prose: "basic internationalization".
    token, letters = r"[0-9A-Za-z_.~+/=-]", r"[A-Za-z_.~+/=-]"
    return _Shape(
        "a token", rf"\b{word} {{1,8}}(?={letters}{{0,200}}[0-9]){token}{{16,}}",
        r"\b" + _beginning(word, f"(?: {{1,8}}(?:{letters}{{16,200}}|{token}{{0,15}}))?"), f"{token}*", f"{word} ",
    )  # fmt: skip


_SHAPES = (
    _key("sk-", "A-Za-z0-9_-", 20),
    *(_key(f"{a}k_{b}_", "A-Za-z0-9", 16) for a in "sr" for b in ("live", "test")),
    *(_key(f"gh{kind}_", "A-Za-z0-9", 30) for kind in "pousr"),
    _key("github_pat_", "A-Za-z0-9_", 40),
    _key("glpat-", "A-Za-z0-9_-", 20),
    *(_key(lead, "0-9A-Z", 16) for lead in ("AKIA", "ASIA")),
    _key("AIza", "0-9A-Za-z_-", 35),
    *(_key(f"xox{kind}-", "0-9A-Za-z-", 20) for kind in "abeoprs"),
    *(_key(lead, "A-Za-z0-9", 30) for lead in ("hf_", "gsk_", "xai-")),
    _Shape(
        "a token", r"\beyJ[A-Za-z0-9_-]{10,1000}\.eyJ[A-Za-z0-9_.-]*",
        r"\b" + _beginning("eyJ", r"[A-Za-z0-9_-]{0,1000}(?:\.(?:e(?:y)?)?)?"), "[A-Za-z0-9_.-]*", "eyJ",
    ),
    _Shape(
        "a private key",
        r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)",
        _beginning("-----BEGIN ", "[A-Z ]{0,51}-{0,4}"), "", "PRIVATE KEY",
    ),
    *map(_header, ("Bearer", "bearer", "BEARER", "Basic", "basic", "BASIC")),
)  # fmt: skip
_PEM = next(number for number, shape in enumerate(_SHAPES) if not shape.goes_on)
_PEM_END = re.compile(r"-----END [A-Z ]{0,40}PRIVATE KEY-----")
_PEM_END_CHARS = 80
_MARKS = tuple(dict.fromkeys(shape.mark for shape in _SHAPES))
_FIRSTS = f"(?=[{re.escape(''.join(sorted({shape.mark[0] for shape in _SHAPES} - {'P'})))}-])"
"""Most characters begin no shape: one look instead of thirty."""


# Looking for thirty marks in a text costs thirty walks through it. One walk takes out what most of a text is made of,
# and what is left of the marks is looked for in the fifth that is left of the text.
_KEPT = b"-_ABCEIJKRSYZadfghkxyz(),./:;=[{"
"""Measured on records of runs, on prose and on programs: what marks have and texts have not, and what stands between
words and keeps the ends of two from looking like a mark."""
_DROPPED = bytes(set(range(256)) - set(_KEPT))


def _sieved(marks: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What to look for in what is left of a text, and what in the text itself, of marks of which too little is left.

    >>> _sieved(["sk-", "Basic ", "basic ", "BASIC "])
    (('BASIC', 'k-'), ('asic ',))
    """
    left = {mark: mark.encode().translate(None, _DROPPED).decode() for mark in marks}
    # With a capital and without: what is looked for is what both have.
    plain = {mark[1:] for mark, one in left.items() if len(one) < 2}
    sparse = {one for mark, one in left.items() if mark[1:] not in plain}
    return tuple(sorted(one for one in sparse if not any(other in one for other in sparse - {one}))), tuple(
        sorted(plain)
    )


_SPARSE, _PLAIN = _sieved(_MARKS)
_ANY_MARK = re.compile(b"|".join(re.escape(mark.encode()) for mark in _MARKS)).search


# any() and a generator, or a function for each of the loops here, would take longer than the searches.


def _may_have_shape(data: bytes, text: str) -> bool:
    """`text`: the same, a character for each byte."""
    for part in _PLAIN:
        if part in text:
            return _ANY_MARK(data) is not None
    left = data.translate(None, _DROPPED).decode("ascii")
    for part in _SPARSE:
        if part in left:
            return _ANY_MARK(data) is not None
    return False


@cache
def _whole() -> re.Pattern[str]:
    return re.compile(f"{_FIRSTS}(?:{'|'.join(f'({shape.whole})' for shape in _SHAPES)})")


@cache
def _begun() -> re.Pattern[str]:
    return re.compile(rf"{_FIRSTS}(?:{'|'.join(shape.begun for shape in _SHAPES)})\Z")


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name holds a secret.

    >>> is_secret_name("OPENAI_API_KEY"), is_secret_name("DB_PASSWORD"), is_secret_name("KEYBOARD")
    (True, True, False)
    """
    return _NAMES.search(name) is not None


@dataclass(frozen=True, slots=True)
class Open:
    """A text that is being written: what of it has not been given out, and what the next piece is read with."""

    text: str = ""
    """Held back: it may be the beginning of a secret."""
    before: str = ""
    shape: int = -1
    """The number of the shape that goes on."""
    waiting: str = ""
    """Held back for the patterns, free of everything else."""
    context: str = ""


class Redactor:
    """Replaces secrets in texts and values.

    `values` maps secrets to what they are called; `patterns` are regular expressions, UsageError for one that is none.

    >>> redactor = Redactor({"abcdefgh12345": "MY_API_KEY"}, [r"customer-\\d+"])
    >>> redactor.text("key abcdefgh12345 of customer-77")
    'key [redacted: MY_API_KEY] of [redacted: a pattern]'
    """

    def __init__(self, values: Mapping[str, str] | None = None, patterns: Iterable[str] = ()) -> None:
        self._known = {
            form: why for value, why in (values or {}).items() if len(value) >= LEAST_CHARS for form in _written(value)
        }
        # The longest first: one secret may be the beginning of another.
        longest_first = sorted(self._known, key=len, reverse=True)
        self._by_first: dict[str, list[str]] = {}
        for value in longest_first:
            self._by_first.setdefault(value[0], []).append(value)
        self._longest = max(map(len, longest_first), default=0)
        self._keys = [re.compile("|".join(map(re.escape, longest_first)))] if longest_first else []
        self._patterns: list[re.Pattern[str]] = []
        for pattern in patterns:
            try:
                self._patterns.append(re.compile(pattern))
            except re.error as error:
                raise UsageError(f"redact: {pattern!r} is no regular expression: {error}") from error
        # Once more, for a form may stand in a text that is JSON, inside of what is JSON. One that has a mark is found by it.
        forms = {outer for form in self._known for outer in _in_json(form)}
        forms = {form for form in forms if not any(mark in form for mark in _MARKS)}
        forms -= {form for form in forms if any(other in form for other in forms - {form})}
        self._forms = tuple(sorted(form.encode("utf-8", "surrogatepass").decode("latin-1") for form in forms))

    def may_be_in(self, data: bytes) -> bool:
        """Whether JSON may hold a secret: quick, and never wrong about a no. Of several texts at once: whether any may."""
        if self._patterns:
            return True
        text = data.decode("latin-1")  # bytes are as easily searched, but begin twice as slowly
        for form in self._forms:
            if form in text:
                return True
        return _may_have_shape(data, text)

    def text(self, text: str) -> str:
        return self._take(Open(), text, is_end=True)[0]

    def feed(self, text: str, known: Open | None = None) -> tuple[str, Open]:
        """The next piece of a text that is being written: what may be shown now, and what to go on with.

        >>> redactor = Redactor({"abcdefgh12345": "MY_API_KEY"})
        >>> shown, rest = redactor.feed("the key is abcd")
        >>> shown, redactor.feed("efgh12345!", rest)[0]
        ('the key is ', '[redacted: MY_API_KEY]!')
        """
        return self._take(known or Open(), text, is_end=False)

    def rest(self, known: Open, *, is_cut: bool = False) -> str:
        """What was held back, when nothing more comes. `is_cut`: it breaks off, and may end in a part of a secret."""
        if not is_cut or known.shape >= 0 or not self._is_part(known.text):
            return self._take(known, "", is_end=True)[0]
        return f"{self._take(evolve(known, text=''), '', is_end=True)[0]}[redacted: a part of a secret]"

    def cut(self, text: str) -> str:
        """`text`, of a text that breaks off: what begins like a secret at its end is a part of one."""
        clean, known = self.feed(text)
        return clean + self.rest(known, is_cut=True)

    def _is_part(self, held: str) -> bool:
        if len(held) < LEAST_CHARS:
            return False
        is_known = any(value.startswith(held) for value in self._by_first.get(held[0], ()))
        return is_known or re.search("[0-9]", held) is not None

    def _take(self, known: Open, text: str, *, is_end: bool) -> tuple[str, Open]:
        clean, after = self._take_keys(known, text, is_end)
        if not self._patterns:
            return clean, after
        clean, waiting, context = self._take_patterns(known.waiting + clean, known.context, is_end)
        return clean, evolve(after, waiting=waiting, context=context)

    def _take_keys(self, known: Open, text: str, is_end: bool) -> tuple[str, Open]:
        s = f"{known.before}{known.text}{text}"
        at = len(known.before)
        if known.shape == _PEM:
            end = _PEM_END.search(s, at)
            if end is None:
                return "", Open(s[-_PEM_END_CHARS:], shape=_PEM)
            at = end.end()
        elif known.shape >= 0:
            at = _end_of(known.shape, s, at)
            if at == len(s):
                return "", Open(before=s[-1:], shape=known.shape)
        begun = len(s) if is_end else self._begun_at(s, at)
        out: list[str] = []
        shape = -1
        rules = [*self._keys, _whole()] if any(mark in s for mark in _MARKS) else self._keys
        for number, match in _matches(rules, s, at):
            if begun <= match.start():
                break
            is_shape = number == len(self._keys)
            found = (match.lastindex or 1) - 1
            out += s[at : match.start()], f"[redacted: {_SHAPES[found].why if is_shape else self._known[match[0]]}]"
            at = match.end()
            if begun < at:
                begun = self._begun_at(s, at)
            if is_shape and at == len(s) and not (found == _PEM and _PEM_END.search(match[0][-_PEM_END_CHARS:])):
                shape = found
        out.append(s[at:begun])
        if shape == _PEM:
            return "".join(out), Open(s[-_PEM_END_CHARS:], shape=_PEM)
        return "".join(out), Open(s[begun:], s[max(0, begun - 1) : begun], shape)

    def _begun_at(self, s: str, at: int) -> int:
        """Where at the end of `s` something begins that may become a secret; its length: nowhere."""
        match = _begun().search(s, max(at, len(s) - REACH))
        begun = len(s) if match is None else match.start()
        first_at = max(at, len(s) - self._longest + 1)
        for first, values in self._by_first.items():
            place = s.find(first, first_at, begun)
            while place >= 0:
                end = s[place:]
                if any(len(value) > len(end) and value.startswith(end) for value in values):
                    begun = place
                    break
                place = s.find(first, place + 1, begun)
        return begun

    def _take_patterns(self, text: str, context: str, is_end: bool) -> tuple[str, str, str]:
        s = context + text
        at = len(context)
        decided = len(s) if is_end else len(s) - WINDOW
        out: list[str] = []
        for _, match in _matches(self._patterns, s, at):
            start = match.start()
            if start >= decided:
                break
            if not is_end and match.end() == len(s) and len(s) - start < _HELD_CHARS:
                decided = start
                break
            out += s[at:start], "[redacted: a pattern]"
            at = match.end()
        decided = max(at, decided)
        out.append(s[at:decided])
        return "".join(out), s[decided:], s[max(0, decided - _CONTEXT_CHARS) : decided]

    def value(self, value: V) -> V:
        """The same value with the texts in it redacted: JSON values and dataclasses. What has no secret is kept as it is."""
        return self._value(value)  # type: ignore[no-any-return]

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value) if len(value) >= LEAST_CHARS else value
        if isinstance(value, list | tuple):
            new = [self._value(item) for item in value]
            return value if all(a is b or a == b for a, b in zip(new, value, strict=True)) else type(value)(new)
        if isinstance(value, Mapping):
            changed = {self._value(key): self._value(item) for key, item in value.items()}
            return value if changed == value else changed
        if isinstance(value, Block):
            # Piece by piece a secret would be seen in none of them.
            clean = self.cut(value.text)
            return value if clean == value.text else evolve(value, rope=(clean,))
        if isinstance(value, Message) and value.is_partial:
            value = self._cut_message(value)
        if isinstance(value, Image) and value.media_type:
            return value  # checked base64, in which a pattern can only be chance
        if is_dataclass(value) and not isinstance(value, type):
            olds = {field.name: getattr(value, field.name) for field in fields(value)}
            changes = {name: new for name, old in olds.items() if (new := self._value(old)) is not old and new != old}
            return evolve(value, **changes) if changes else value
        return value

    def _cut_message(self, message: Message) -> Message:
        texts = [(number, part) for number, part in enumerate(message.parts) if hasattr(part, "text")]
        changed = {number: evolve(part, text=self.cut(part.text)) for number, part in texts}
        return evolve(message, parts=tuple(changed.get(number, part) for number, part in enumerate(message.parts)))


def _written(value: str) -> set[str]:
    """A value as programs write it: as it is, in JSON and in Python, in an address, in base64.

    >>> sorted(_written("a/b c=12"))
    ['EvYiBjPTEy', 'YS9iIGM9MT', 'a%2Fb%20c%3D12', 'a%2Fb+c%3D12', 'a/b c=12', 'a/b%20c%3D12', 'hL2IgYz0xM']
    """
    # `requests` escapes all it can, a browser's encodeURIComponent less; in a path a slash stays.
    addresses = {quote(value, safe, errors="replace") for safe in ("", "/", "!'()*")}
    return {
        *_in_json(value), repr(value)[1:-1], *addresses, quote_plus(value, errors="replace"), *_in_base64(value),
    }  # fmt: skip


def _in_base64(value: str) -> Iterator[str]:
    """The characters that it alone decides, wherever it begins: after nothing, or as in `user:password`."""
    data = value.encode("utf-8", "replace")
    for before in range(3):
        begin, end = -(-before * 8 // 6), (before + len(data)) * 8 // 6
        for encode in (b64encode, urlsafe_b64encode):
            yield encode(bytes(before) + data)[begin:end].decode()


def _in_json(value: str) -> set[str]:
    """Where quotes, backslashes and what is not ASCII may be escaped."""
    return {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}


@cache
def _goes_on(shape: int) -> re.Pattern[str]:
    return re.compile(_SHAPES[shape].goes_on)


def _end_of(shape: int, s: str, at: int) -> int:
    match = _goes_on(shape).match(s, at)
    return at if match is None else match.end()


def _matches(rules: Sequence[re.Pattern[str]], s: str, at: int) -> Iterator[tuple[int, re.Match[str]]]:
    """The leftmost matches of any rule, one after another; of two at one place that of the earlier rule."""
    coming: dict[int, re.Match[str] | None] = {}
    while True:
        best: tuple[int, re.Match[str]] | None = None
        for number, rule in enumerate(rules):
            match = coming.get(number)
            if number not in coming or (match is not None and match.start() < at):
                match = next((found for found in rule.finditer(s, at) if found[0]), None)
                coming[number] = match
            if match is not None and (best is None or match.start() < best[1].start()):
                best = number, match
        if best is None:
            return
        yield best
        at = best[1].end()
