"""Rules remembered for ever: kept in a file, shared by kernels, listed and revoked."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from turncell import Rule, StoreError, UsageError
from turncell.runtime.rulebook import RuleBook, rulebook

pytestmark = pytest.mark.feature("B7")

MAIL = Rule("mail", "allow", {"to": "ana@*"}, "she asked for it")


@pytest.fixture
def book(tmp_path: Path) -> RuleBook:
    return RuleBook(tmp_path / "data" / "rules.json")


def test_a_remembered_rule_is_there_for_the_next_kernel(book: RuleBook) -> None:
    kept = book.remember(MAIL)
    assert RuleBook(book.path).rules() == (kept,)
    assert (kept.rule, kept.scope, kept.by) == (MAIL, "always", "person")
    assert abs(kept.at - book.path.stat().st_mtime) < 60


def test_without_a_file_there_are_no_rules_and_reading_makes_none(book: RuleBook) -> None:
    assert book.rules() == () and not book.path.parent.exists()


def test_what_was_said_last_comes_first(book: RuleBook) -> None:
    book.remember(MAIL)
    book.remember(Rule("*", "deny"))
    assert [str(entry.rule) for entry in book.rules()] == ["deny *", "allow mail(to=ana@*)"]
    book.remember(MAIL)
    assert [str(entry.rule) for entry in book.rules()] == ["allow mail(to=ana@*)", "deny *"]


def test_a_new_verdict_for_the_same_calls_takes_the_place_of_the_old_one(book: RuleBook) -> None:
    book.remember(MAIL)
    book.remember(Rule("mail", "deny", {"to": "ana@*"}))
    assert [entry.rule.verdict for entry in book.rules()] == ["deny"]


def test_a_rule_can_be_revoked_by_any_kernel_and_once(book: RuleBook) -> None:
    kept = book.remember(MAIL)
    other = RuleBook(book.path)
    assert (other.revoke(kept.rule_id), other.revoke(kept.rule_id)) == (True, False)
    assert book.rules() == ()


def test_an_unchanged_file_is_not_read_again_and_a_changed_one_is(book: RuleBook) -> None:
    book.remember(MAIL)
    before = book.rules()
    assert book.rules() is before
    RuleBook(book.path).remember(Rule("pay", "deny"))
    assert [entry.rule.tool for entry in book.rules()] == ["pay", "mail"]


def test_threads_and_processes_lose_no_rule(book: RuleBook) -> None:
    program = (
        "import sys; from turncell import Rule; from turncell.runtime.rulebook import RuleBook\n"
        "for n in range(10): RuleBook(sys.argv[1]).remember(Rule(f'process{n}', 'allow'))"
    )
    other = subprocess.Popen([sys.executable, "-c", program, str(book.path)])

    def write(name: str) -> None:
        for number in range(10):
            book.remember(Rule(f"{name}{number}", "allow"))

    threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert other.wait(timeout=60) == 0
    assert {entry.rule.tool for entry in book.rules()} == {f"{w}{n}" for w in ("a", "b", "process") for n in range(10)}
    assert [path.name for path in book.path.parent.iterdir() if path.suffix not in (".json", ".lock")] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "unexpected end"),
        ("[]", r"found \[\]"),
        ('{"version": 2, "rules": []}', "version is 2"),
        ('{"version": 1, "rules": ["mail"]}', "rule 1 is 'mail'"),
        ('{"version": 1, "rules": [{"tool": "mail"}]}', r"rule 1 is \{'tool': 'mail'\}"),
        ('{"version": 1, "rules": [{"tool": "mail", "verdict": "maybe"}]}', "verdict is 'maybe'"),
        (
            '{"version": 1, "rules": [{"tool": "mail", "verdict": "allow", "where": {"to": 1}}]}',
            r"where is \{'to': 1\}",
        ),
        ('{"version": 1, "rules": [{"tool": "mail", "verdict": "allow", "tainted": true}]}', "'tainted': True"),
        ('{"version": 1, "rules": [{"tool": "mail", "verdict": "allow", "scope": "ever"}]}', "scope is 'ever'"),
        ('{"version": 1, "rules": [{"tool": "mail", "verdict": "allow", "at": "noon"}]}', "at is 'noon'"),
        ('{"version": 1, "rules": [{"tool": "mail", "verdict": "allow", "by": 7}]}', "by is 7"),
    ],
)
def test_garbage_says_where_it_is_and_what_was_found_and_is_never_written_over(
    book: RuleBook, text: str, found: str
) -> None:
    book.path.parent.mkdir()
    book.path.write_text(text)
    with pytest.raises(StoreError, match=found) as caught:
        book.rules()
    assert str(book.path) in str(caught.value)
    with pytest.raises(StoreError, match=found):
        book.remember(MAIL)
    assert book.path.read_text() == text
    book.clear()
    assert book.rules() == ()


def test_a_rule_written_by_hand_needs_only_tool_and_verdict(book: RuleBook) -> None:
    book.path.parent.mkdir()
    book.path.write_text(json.dumps({"version": 1, "rules": [{"tool": "mail", "verdict": "deny"}]}))
    (entry,) = book.rules()
    assert (entry.rule, entry.at) == (Rule("mail", "deny"), 0.0)
    assert book.revoke(entry.rule_id)


def test_a_rule_that_would_stand_after_untrusted_output_cannot_be_remembered(book: RuleBook) -> None:
    with pytest.raises(UsageError, match="tainted=True"):
        book.remember(Rule("mail", "allow", tainted=True))


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        RuleBook(tmp_path / "file" / "rules.json").remember(MAIL)


def test_the_rule_book_of_the_settings_lies_beside_the_history(own_history: Path) -> None:
    assert rulebook().path == own_history.parent / "rules.json"
    assert rulebook() is rulebook()


def test_only_the_owner_can_read_it(book: RuleBook) -> None:
    book.remember(MAIL)
    assert book.path.stat().st_mode & 0o077 == 0
