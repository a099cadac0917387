"""The rule book: what people asked to remember for ever, in one small JSON file that all kernels of a user share.

    {"version": 1, "rules": [{"tool": "mail", "verdict": "allow", "where": {"to": "ana@*"}, "reason": "",
                              "scope": "always", "at": 1790000000.0, "by": "person"}]}

* A writer holds the lock beside the file (`rules.json.lock`), reads the file anew and replaces it as a whole: two
  kernels never lose each other's rules, and a reader, who takes no lock, never sees half a file.
* What was said last counts: the newest rule comes first, and it takes the place of an older one for the same tool and
  arguments.
* The file may be edited by hand. What cannot be read is a StoreError when a call is judged or a rule remembered, and
  is never written over: rules that deny must not get lost because of a comma.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias, get_args

import orjson

from turncell import settings
from turncell.core.digest import canonical_json
from turncell.core.events import Scope
from turncell.core.parts import Json
from turncell.core.policy import Rule
from turncell.errors import StoreError, UsageError
from turncell.runtime.secrets import redactor

LOCK_TIMEOUT_S = 5.0
_VERSION = 1
_NEEDED = {"tool", "verdict"}
_KNOWN = _NEEDED | {"where", "reason", "scope", "at", "by"}
_Stamp: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Remembered:
    """A rule that somebody asked to keep.

    `rule_id` follows from the rule itself, so that the same rule has the same id in every kernel, also after the file
    was edited. `at` is seconds since 1970-01-01 UTC, 0 if the file does not say.
    """

    rule_id: str
    rule: Rule
    scope: Scope = "always"
    at: float = 0.0
    by: str = "person"


def rule_id(rule: Rule) -> str:
    """The name of a rule: the same for the same tool, verdict and arguments.

    >>> rule_id(Rule("mail", "allow")) == rule_id(Rule("mail", "allow", reason="as I said"))
    True
    """
    text = canonical_json([rule.tool, rule.verdict, dict(rule.where)])
    return f"rule_{sha256(text.encode()).hexdigest()[:12]}"


def check_plain(rule: Rule) -> None:
    """UsageError where its arguments hold a secret: written down it would be plain to read, or redacted another rule."""
    where = dict(rule.where)
    if redactor().value(where) != where:
        names = ", ".join(where)
        raise UsageError(
            f"a rule for {rule.tool!r} would keep a secret that stands in its arguments ({names}); leave that one out"
        )


class RuleBook:
    """The remembered rules of one file. May be used from any thread and by any number of processes.

    All methods but `clear` raise StoreError if the file cannot be read, written or understood.

    >>> import tempfile
    >>> book = RuleBook(Path(tempfile.mkdtemp()) / "rules.json")
    >>> kept = book.remember(Rule("mail", "allow", {"to": "ana@*"}))
    >>> [str(entry.rule) for entry in book.rules()]
    ['allow mail(to=ana@*)']
    >>> book.revoke(kept.rule_id), book.rules()
    (True, ())
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self._seen: tuple[_Stamp, tuple[Remembered, ...]] | None = None

    def rules(self) -> tuple[Remembered, ...]:
        """The newest first. The file is read again only if it has changed; no file is no rules."""
        stamp = self._stamp()
        if stamp is None:
            return ()
        seen = self._seen
        if seen is None or seen[0] != stamp:
            # The stamp is older than what is read: a change in between is seen by the next call, never missed.
            seen = self._seen = (stamp, self._read())
        return seen[1]

    def remember(self, rule: Rule, *, by: str = "person") -> Remembered:
        """Keep a rule; on disk when this returns. UsageError for one with `tainted=True` or a secret."""
        if rule.tainted:
            raise UsageError(f"rule {str(rule)!r} says tainted=True, which only rules in code can; remember it without")
        check_plain(rule)
        entry = Remembered(rule_id(rule), rule, "always", time.time(), by)
        with self._writing():
            others = [old for old in self._read() if _aim(old.rule) != _aim(rule)]
            self._write([entry, *others])
        return entry

    def revoke(self, rule_id: str) -> bool:
        """Forget a rule. False if there is none with this id."""
        with self._writing():
            entries = self._read()
            kept = [entry for entry in entries if entry.rule_id != rule_id]
            if len(kept) < len(entries):
                self._write(kept)
        return len(kept) < len(entries)

    def clear(self) -> None:
        """Forget all rules, also where the file cannot be understood. StoreError if it cannot be removed."""
        with self._writing():
            self.path.unlink(missing_ok=True)

    def _stamp(self) -> _Stamp | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"remembered rules: {self.path} cannot be read: {error}") from error
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> tuple[Remembered, ...]:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise StoreError(f"remembered rules: {self.path} cannot be read: {error}") from error
        try:
            return _parse(data)
        except ValueError as error:
            raise StoreError(
                f"remembered rules: {self.path} holds what is no rule book: {error}; mend the file or remove it"
            ) from error

    def _write(self, entries: list[Remembered]) -> None:
        text = orjson.dumps(
            {"version": _VERSION, "rules": [_plain(entry) for entry in entries]}, option=orjson.OPT_INDENT_2
        )
        number, name = tempfile.mkstemp(prefix=self.path.name, dir=self.path.parent)
        try:
            with os.fdopen(number, "wb") as file:
                file.write(text + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self.path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise

    @contextmanager
    def _writing(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        lock = f"{self.path}.lock"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # A lock object of its own: the same one would let a second thread of this process in.
            with FileLock(lock, timeout=LOCK_TIMEOUT_S):
                yield
        except Timeout as error:
            raise StoreError(
                f"remembered rules: {lock} has been held for {LOCK_TIMEOUT_S:g} s by another kernel; try again"
            ) from error
        except OSError as error:
            raise StoreError(f"remembered rules: {self.path} cannot be written: {error}") from error


_books: dict[Path, RuleBook] = {}
_latest: tuple[settings.Settings, RuleBook] | None = None
_lock = threading.Lock()


def rulebook() -> RuleBook:
    """The rule book of the current settings: `rules.json` beside the user's history."""
    global _latest
    chosen, latest = settings.current(), _latest
    if latest is not None and latest[0] is chosen:
        return latest[1]
    path = chosen.personal_folder / "rules.json"
    with _lock:
        book = _books.setdefault(path, RuleBook(path))
        _latest = chosen, book
    return book


def _aim(rule: Rule) -> tuple[str, dict[str, str]]:
    return rule.tool, dict(rule.where)


def _plain(entry: Remembered) -> dict[str, Json]:
    rule = entry.rule
    return {
        "tool": rule.tool, "verdict": rule.verdict, "where": dict(rule.where), "reason": rule.reason,
        "scope": entry.scope, "at": entry.at, "by": entry.by,
    }  # fmt: skip


def _parse(data: bytes) -> tuple[Remembered, ...]:
    """ValueError (UsageError where a rule is wrong) that says what was found."""
    book = orjson.loads(data)
    if not isinstance(book, dict) or not isinstance(book.get("rules"), list):
        raise ValueError(f"an object with a list 'rules' is needed; found {_short(book)}")
    if book.get("version") != _VERSION:
        raise ValueError(f"version is {book.get('version')!r}; this turncell reads version {_VERSION}")
    return tuple(_entry(number, value) for number, value in enumerate(book["rules"], 1))


def _entry(number: int, value: Json) -> Remembered:
    if not isinstance(value, dict) or not _NEEDED <= value.keys() <= _KNOWN:
        raise ValueError(
            f"rule {number} is {_short(value)}; it needs 'tool' and 'verdict' and may have 'where', 'reason', 'scope', "
            "'at' and 'by'"
        )
    rule = Rule(value["tool"], value["verdict"], value.get("where", {}), value.get("reason", ""))
    scope, at, by = value.get("scope", "always"), value.get("at", 0.0), value.get("by", "person")
    if scope not in get_args(Scope):
        raise ValueError(f"rule {number}: scope is {scope!r}; use 'once', 'session' or 'always'")
    if isinstance(at, bool) or not isinstance(at, int | float):
        raise ValueError(f"rule {number}: at is {at!r}; use seconds since 1970")
    if not isinstance(by, str):
        raise ValueError(f"rule {number}: by is {by!r}; use text")
    return Remembered(rule_id(rule), rule, scope, float(at), by)


def _short(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:120]}..."
