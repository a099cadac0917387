"""Secrets in a text that is being written: whatever the pieces, they are shown as the whole would be."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turncell.core.redaction import Open, Redactor

pytestmark = pytest.mark.feature("C13")

VALUES = {
    "correct-horse-battery": "A", "correct-horse": "B", "sk-proj-knownvalueknownvalue12": "C", 'pa"ss\\wörd!': "D",
}  # fmt: skip
SHAPED = (
    "sk-proj-" + "a1B2c3D4e5" * 3, "ghp_" + "x9" * 18, "AKIA" + "ABCD1234" * 2, "xoxb-" + "1" * 24, "hf_" + "q" * 34,
    "eyJabcde12345.eyJabcde12345abcde12345.sig_abc123", "Bearer abcdefgh12345678xyz", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZTEx",
    "-----BEGIN RSA PRIVATE KEY-----\nabc123\n-----END RSA PRIVATE KEY-----", "glpat-" + "a1" * 12,
)  # fmt: skip
PROSE = (
    "the ", " basic", " sk-", "task-list", "-----BEGIN ", "-----BEGIN CERTIFICATE-----", " eyJ", "eyJabcdefghijkl.", "\n",
    "é", "_", "-", "correct", " cor", "bearer of bad news, indeed-a-very-long-word ", "pa", "\\", "gh", "customer-", "12",
)  # fmt: skip
texts = st.lists(
    st.sampled_from((*VALUES, *SHAPED, *PROSE, "customer-123456"))
    | st.builds(lambda secret, end: secret[:end], st.sampled_from((*VALUES, *SHAPED)), st.integers(1, 30)),
    max_size=12,
).map("".join)
PLAIN = Redactor(VALUES)
WITH_PATTERNS = Redactor(VALUES, [r"customer-\d{6}", r"(?i)secret: \w+"])


def shown(redactor: Redactor, text: str, sizes: list[int]) -> Iterator[tuple[str, str]]:
    """After each piece: what was written, and what is shown of it; at last with what was held back."""
    out, held, at = "", Open(), 0
    while at < len(text):
        size = sizes[at % len(sizes)]
        clean, held = redactor.feed(text[at : at + size], held)
        out, at = out + clean, at + size
        yield text[:at], out
    yield text, out + redactor.rest(held)


@pytest.mark.parametrize("redactor", [PLAIN, WITH_PATTERNS], ids=["keys", "keys and patterns"])
@settings(deadline=None)
@given(text=texts, sizes=st.lists(st.integers(1, 20), min_size=1, max_size=20))
def test_the_pieces_are_what_the_whole_is(redactor: Redactor, text: str, sizes: list[int]) -> None:
    whole = redactor.text(text)
    *_, (_, last) = shown(redactor, text, sizes)
    assert last == whole and not any(value in whole for value in VALUES)
    for written, so_far in shown(redactor, text, sizes):
        assert whole.startswith(so_far)
        if written != text:  # a page that comes late is shown what the others have
            assert so_far == redactor.feed(written)[0]


@pytest.mark.parametrize("secret", [*VALUES, *SHAPED])
def test_no_letter_of_a_secret_is_shown_while_it_is_written(secret: str) -> None:
    for _, so_far in shown(PLAIN, f"It is {secret}", [1]):
        assert so_far.removeprefix("It is ") in "It is " or so_far.startswith("It is [redacted: ")


@pytest.mark.parametrize("text", ["The quick brown fox jumps over the lazy dog.", "Käse, 日本, 12.5 %, `x = [1]`\n"])
def test_ordinary_text_is_not_held_back(text: str) -> None:
    delays = [len(written) - len(so_far) for written, so_far in shown(PLAIN, text, [1])]
    assert max(delays) <= 2 and delays[-1] == 0


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("It is correct-hor", "It is [redacted: a part of a secret]"),
        ("It is sk-proj-a1B2c3", "It is [redacted: a part of a secret]"),
        ("It is correct", "It is correct"),
        ("That is basic", "That is basic"),
        ("All of ghp_" + "x9" * 18, "All of [redacted: a key]"),
    ],
)
def test_half_a_secret_at_the_end_of_what_breaks_off_is_one(text: str, cut: str) -> None:
    assert PLAIN.cut(text) == cut


def test_a_megabyte_of_text_is_read_in_no_time_and_a_thousand_keys_too() -> None:
    assert PLAIN.text("A short line.\n" * 80_000) == "A short line.\n" * 80_000
    assert PLAIN.text(f"{SHAPED[0]} " * 1_000) == "[redacted: a key] " * 1_000


def test_bytes_are_searched_for_every_form_in_which_json_may_hold_a_value() -> None:
    assert PLAIN.may_be_in(b'{"a":"pa\\"ss\\\\w\\u00f6rd!"}') and PLAIN.may_be_in('{"a":"pa\\"ss\\\\wörd!"}'.encode())
    assert PLAIN.text('{"a":"pa\\"ss\\\\wörd!"}') == '{"a":"[redacted: D]"}'
    assert not PLAIN.may_be_in(b'{"a":"harmless"}')


@pytest.mark.parametrize("password", ["hunter2/hunter3+x!", 'pa"ss\\wörd!', 'it\'s "this" one\n', "0123456789"])
def test_a_value_is_found_as_programs_write_it(password: str) -> None:
    known = Redactor({password: "K"})
    data = f"user:{password}".encode()
    for written in (
        f"https://x.example/?key={quote_plus(password)}&a=b",
        f"https://x.example/{quote(password)}",
        f"https://x.example/?key={quote(password, safe='')}",
        str({"password": password}),
        json.dumps({"password": password}),
        f"password: {b64encode(data[5:]).decode()}",  # as Kubernetes keeps it
        f"password: {b64encode(data[5:] + bytes([10])).decode()}",
        f'{{"auth": "{b64encode(data).decode()}"}}',  # as Docker does
        f"token {urlsafe_b64encode(b'u:' + data[5:] + b':more').decode()}",
    ):
        clean = known.text(written)
        assert "[redacted: K]" in clean and known.may_be_in(json.dumps(written).encode())
        shown, rest = "", Open()
        for character in written:
            piece, rest = known.feed(character, rest)
            shown += piece
        assert shown + known.rest(rest) == clean


OF_EVERY_KIND = (
    *(f"{lead}{'a1B2c3D4' * 6}" for lead in ("sk-", "sk_live_", "sk_test_", "rk_live_", "rk_test_", "gsk_", "hf_", "xai-")),
    *(f"{lead}{'a1B2c3D4' * 6}" for lead in ("gho_", "ghp_", "ghr_", "ghs_", "ghu_", "github_pat_", "glpat-", "AIza")),
    *(f"xox{kind}-{'a1B2c3D4' * 3}" for kind in "abeoprs"), *(f"{lead}{'A1B2' * 4}" for lead in ("AKIA", "ASIA")),
    *(f"{word}   {'a1B2c3D4' * 2}" for word in ("Bearer", "bearer", "BEARER", "Basic", "basic", "BASIC")),
    *SHAPED, *VALUES,
)  # fmt: skip


@pytest.mark.parametrize("secret", OF_EVERY_KIND)
def test_the_quick_look_misses_no_kind_of_secret(secret: str) -> None:
    for text in (secret, f"It is {secret}!", f"k{secret[:2]} ({secret})"):
        assert PLAIN.text(text) != text
        for data in (json.dumps([text]), json.dumps([json.dumps({"a": text})]), json.dumps([text], ensure_ascii=False)):
            assert PLAIN.may_be_in(data.encode()) and PLAIN.may_be_in(b'{"a":"harmless"}\n%s\n{}' % data.encode())


@given(said=st.lists(texts | st.text(), max_size=4))
def test_what_the_quick_look_finds_clean_is_clean(said: list[str]) -> None:
    data = orjson.dumps([text.encode("utf-8", "replace").decode() for text in said])
    if any(PLAIN.text(text) != text for text in said):
        assert PLAIN.may_be_in(data)


def test_ordinary_words_that_begin_like_secrets_are_no_reason_to_look_twice() -> None:
    words = (
        b"Basics: a task is through, half_done; the bearers of https://x.example/a_b-c ask_for k-means, AI and Asia."
    )
    assert not PLAIN.may_be_in(words)
