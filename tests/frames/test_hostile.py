"""Text of strangers, everywhere it can get to: nothing of it acts, loads or hides."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from conftest import PNG, Drive
from turncell.core.events import File, Option
from turncell.core.fold import RunState
from turncell.core.signals import Chosen, Question
from turncell.frames.displays import TABLE
from turncell.frames.export import export_html, export_markdown
from turncell.frames.inside import by_call
from turncell.frames.markdown_source import neutral_markdown
from turncell.frames.static_html import ATTRIBUTES, TAGS, clean, html
from turncell.frames.transcript import markdown, plain_text
from turncell.frames.visible import SHAPELESS

PAYLOADS = [
    p
    for p in json.loads((Path(__file__).parents[2] / "js" / "test" / "payloads.json").read_text("utf-8"))
    if p["where"] != "ui"
]
MORE = {
    "tool name": "<b>safe_tool</b>",
    "zero-width name": "read_file\u200b",
    "long name": "x\n" * 300,
    "a fake card": "| **Approved** |\n|---|\n| <button>Approve</button> |",
    "escaped brackets": r"\\[x](javascript:alert(1)) \[x](javascript:alert(1)) \![a](https://evil.test/a)",
    "ticks across cells": "| a ` b | <img src=https://evil.test/a> ` |\n|---|---|\n| ` | <img src=https://evil.test/b> ` |",
    "details": "</details></summary></div></pre></code><details open ontoggle=alert(1)>",
    "style breaker": '" style="position:fixed;inset:0" onclick="alert(1)',
}
TEXTS = {p["id"]: p["input"] for p in PAYLOADS} | MORE
SMALL = {name: text for name, text in TEXTS.items() if len(text) < 4000}
HEAD = {"html", "head", "meta", "title", "style", "body", "main", "h1", "section"}


class Audit(HTMLParser):
    """Everything in a page that is not on the list."""

    def __init__(self, *, is_page: bool = False) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text: list[str] = []
        self.tags = TAGS | (HEAD if is_page else set())
        self.stack: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.stack.append(tag)
        if tag not in self.tags:
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            value = value or ""
            if tag in HEAD:
                continue
            if name == "rel":
                if value != "noopener noreferrer":
                    self.found.append(f"rel={value}")
            elif name not in ATTRIBUTES["*"] | ATTRIBUTES.get(tag, set()):
                self.found.append(f"{tag} {name}={value}")
            if name == "href":
                parts = urlsplit(value)
                if (
                    parts.scheme not in ("http", "https", "mailto")
                    or "@" in parts.netloc
                    or (parts.scheme != "mailto" and not parts.netloc)
                ):
                    self.found.append(f"href={value}")
                if dict(attrs).get("rel") != "noopener noreferrer":
                    self.found.append("href without rel")
            if name == "src" and not re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/]+={0,2}", value):
                self.found.append(f"src={value}")
            if name == "style" and re.search(
                r"url|expression|import|position:\s*(?:fixed|absolute|sticky)|@|\\", value, re.I
            ):
                self.found.append(f"style={value}")
            if name == "class" and value not in ("mathjax_ignore", "mathjax_process") and not value.startswith("tc-"):
                self.found.append(f"class={value}")

    def handle_endtag(self, tag: str) -> None:
        if self.stack:
            self.stack.pop()

    def handle_data(self, data: str) -> None:
        if self.stack[-1:] != ["style"]:
            self.text.append(data)


def audit(markup: str, **kw: bool) -> Audit:
    found = Audit(**kw)
    found.feed(markup)
    found.close()
    return found


def hostile(text: str) -> RunState:
    """A run in which the text is in every place that takes one."""
    run = Drive().begin(text, model=text[:200], max_steps=3)
    run.thinks(text).writes(text).asks_for(
        (text, {text[:100]: text, "n": [text]}), ("remove", {"path": text}), ("mail", text)
    )
    run.finishes("tool_calls").judged(("write", "allow"), ("write", "ask"), text, description=text, reason=text)
    run.answered(2, "edit", arguments={"path": text + "!"}, reason=text).returned(1, text, "error").returned(2, text)
    run.asks_for(("remove", {"path": text}), ("remove", {"path": text})).finishes("tool_calls")
    run.judged(("write", "ask"), ("write", "deny"), reason=text, description=text).answered(1, "deny", reason=text)
    run.asks_for(("plot", {})).finishes("tool_calls").judged(("write", "allow")).notes("hook", text)
    run.asks(1, Question("q", "question", text, (Option(text, text),), description=text, allows_text=True))
    run.answered(1, "result", result=text)
    run.asks(1, Question("d", "approval", name=text, arguments={text[:100]: text}, description=text))
    run.answered(1, "deny", reason=text).is_told(text)
    table = {"columns": [text, text], "rows": [[text, 1]], "shape": [text]}
    odd: list[dict[str, Any]] = [
        {"image/png": text, "text/plain": text},
        {"image/png": PNG, "text/plain": text},
        {TABLE: table, "text/plain": text},
        {TABLE: text},
        {TABLE: {"columns": [text], "rows": [text]}},
        {"text/html": text, "image/svg+xml": text},
    ]
    run.returned(1, text, files=(File(text, 3, text),), display=tuple(odd)).feed(Chosen(run.at, text, text))
    return run.is_told(text, "inp_2").writes(text).fails("unknown", text).run


@cache
def the_run(name: str) -> RunState:
    return hostile(TEXTS[name])


def inside(run: RunState, text: str) -> list[RunState]:
    """The same run again, as that of a sub-agent of this name."""
    call_id = run.calls[0].call_id
    return [
        replace(
            run,
            started=replace(
                run.started, run_id="run_2", parent_run_id=run.run_id, parent_call_id=call_id, depth=1, agent=text
            ),
        )
    ]


@pytest.mark.feature("D14")
class TestNothingActs:
    @pytest.mark.parametrize("name", SMALL)
    def test_in_the_html_of_a_run(self, name: str) -> None:
        assert audit(html(the_run(name), by_call([the_run(name)], inside(the_run(name), TEXTS[name])))).found == []

    @pytest.mark.parametrize("name", SMALL)
    def test_in_an_exported_page(self, name: str) -> None:
        found = audit(export_html([the_run(name)], TEXTS[name], inside(the_run(name), TEXTS[name])), is_page=True)
        assert found.found == []

    @pytest.mark.parametrize("name", SMALL)
    def test_in_markdown_that_others_render_with_html_allowed(self, name: str) -> None:
        permissive = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
        permissive.validateLink = lambda url: True  # type: ignore[method-assign]
        inner = inside(the_run(name), TEXTS[name])
        for document in (
            markdown(the_run(name), by_call([the_run(name)], inner)),
            export_markdown([the_run(name)], TEXTS[name], inner),
        ):
            for block in permissive.parse(document):
                if block.type == "html_block":
                    assert re.fullmatch(r"<details><summary>[\w ,]*</summary>\n?|</details>\n?", block.content)
                for token in block.children or ():
                    assert token.type not in ("html_inline", "image")
                    if token.type == "link_open":
                        assert not re.match(r"(?!https?:|mailto:)[a-z0-9+.-]+:|//", str(token.attrGet("href")), re.I)

    @pytest.mark.parametrize("name", [p["id"] for p in PAYLOADS if p["cat"] == "html"])
    def test_a_tag_is_shown_as_the_text_that_it_is(self, name: str) -> None:
        run = Drive().begin("x").writes(TEXTS[name]).finishes().run
        assert "<" in "".join(audit(html(run)).text)

    @pytest.mark.parametrize("name", [p["id"] for p in PAYLOADS if p["cat"] == "image"])
    def test_an_image_is_named_and_not_loaded(self, name: str) -> None:
        run = Drive().begin("x").writes(TEXTS[name]).finishes().run
        assert "<img" not in html(run)

    @pytest.mark.parametrize("name", sorted(set(TEXTS) - set(SMALL)))
    def test_big_texts_take_no_time(self, name: str) -> None:
        run = Drive().begin("x").writes(TEXTS[name]).finishes().run
        began = time.thread_time()
        assert audit(html(run)).found == []
        markdown(run)
        plain_text(run)
        assert time.thread_time() - began < 10

    @given(st.text("<>`[]()!\\|\n ~*_:/#&\"'=aj\u202e\u200b\t-", max_size=60))
    @settings(max_examples=150, deadline=None)
    def test_whatever_is_written(self, text: str) -> None:
        run = Drive().begin("x").writes(text + " javascript:a <img src=https://e.test>").finishes().run
        assert audit(html(run)).found == []
        permissive = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
        for block in permissive.parse(neutral_markdown(text)):
            assert block.type != "html_block"
            assert all(token.type not in ("html_inline", "image") for token in block.children or ())


@pytest.mark.feature("D14")
class TestFigures:
    def test_a_data_url_is_for_figures_alone(self) -> None:
        kept = clean('<a href="data:text/html,x">a</a><img src="data:text/html,x"><img src="https://evil.test/a.png">')
        assert "data:" not in kept and "evil" not in kept
        assert "data:image/png;base64,AAAA" in clean('<img src="data:image/png;base64,AAAA" alt="x">')

    @pytest.mark.parametrize("png", ["x y<", "AAA=A", "", "https://evil.test/a.png", 'A" onload="alert(1)'])
    def test_what_is_no_base64_is_no_figure(self, png: str) -> None:
        run = Drive().begin("x").asks_for(("plot", {})).finishes("tool_calls").judged(("read", "allow"))
        run.returned(1, "made", display=({"image/png": png, "text/plain": "bars"},)).writes("done").finishes()
        assert "<img" not in html(run.run) and "bars" in html(run.run)


@pytest.mark.feature("D14")
class TestNothingHides:
    @pytest.mark.parametrize("name", [p["id"] for p in PAYLOADS if p["cat"] in ("unicode", "ansi", "json")])
    def test_shapeless_characters_of_tools_are_written_out(self, name: str) -> None:
        run = Drive().begin("x").asks_for((TEXTS[name][:200], {"path": TEXTS[name]})).finishes("tool_calls")
        run.judged(("read", "allow")).returned(1, TEXTS[name]).writes("done").finishes()
        for output in (html(run.run), markdown(run.run), plain_text(run.run)):
            assert SHAPELESS.search(output.replace("\n", "")) is None

    def test_the_argument_that_a_person_approved_can_be_read(self) -> None:
        run = (
            Drive()
            .begin("x")
            .asks_for(("shell", {"command": "ls \u202egpj.sh\u202c\u200b\U000e0041"}))
            .finishes("tool_calls")
        )
        markup = html(run.judged(("write", "ask")).run)
        text = "".join(audit(markup).text)
        assert "ls \\u202egpj.sh\\u202c\\u200b\\U000e0041" in text

    def test_colours_go_and_rewritten_lines_show_their_end(self) -> None:
        run = Drive().begin("x").asks_for(("shell", {})).finishes("tool_calls").judged(("read", "allow"))
        run.returned(1, "\x1b[31m10 %\r100 %\x1b[0m\n\x1b]52;c;cm0=\x07end").writes("done").finishes()
        text = "".join(audit(html(run.run)).text)
        assert "100 %\nend" in text and "10 %\r" not in text and "cm0" not in text

    def test_a_link_that_names_another_host_says_where_it_leads(self) -> None:
        run = (
            Drive()
            .begin("x")
            .writes("[www.bank.test](https://evil.test/) [docs](https://ok.test) [b](https://bаnk.test)")
            .finishes()
            .run
        )
        text = "".join(audit(html(run)).text)
        assert "www.bank.test (evil.test)" in text and "docs (" not in text and "b (xn--" in text

    def test_the_text_of_a_refused_link_stays(self) -> None:
        run = Drive().begin("x").writes("[read me](/hub/logout) and [me](https://a:b@evil.test)").finishes().run
        assert "read me and me" in "".join(audit(html(run)).text) and "<a" not in html(run)

    def test_pictures_joined_into_one_stay_one(self) -> None:
        family = "👨\u200d👩\u200d👧"
        run = Drive().begin("x").asks_for(("shell", {"who": family})).finishes("tool_calls").judged(("read", "allow"))
        assert family in html(run.returned(1, family).run)
