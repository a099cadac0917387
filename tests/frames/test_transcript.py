"""What stays of a run in a notebook, and what a session looks like as a file."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import nh3
import pytest
from markdown_it import MarkdownIt

from bench.cases.notebook import saved
from conftest import PNG, STORIES, Drive, text_only, tools_and_approval, whole_session
from turncell import Agent
from turncell.core.fold import at_rest
from turncell.core.parts import Usage
from turncell.errors import UsageError
from turncell.frames import static_html, words
from turncell.frames.export import SHEET, export_html, export_markdown
from turncell.frames.inside import by_call
from turncell.frames.markdown_source import neutral_markdown
from turncell.frames.static_html import LOOKS, html
from turncell.frames.transcript import markdown, mimebundle, plain_text
from turncell.frames.words import footer, summary
from turncell.runtime.session import Session
from turncell.testing import ScriptedModel, call


def text_of(markup: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", markup)).split())


@pytest.mark.feature("D5")
class TestWhatIsSaid:
    def test_the_steps_fold_into_one_line(self) -> None:
        run = tools_and_approval().run
        assert re.fullmatch(r"Thought for \d+ s, used 3 tools, 1 approved by you", summary(run))
        assert summary(run, with_times=False) == "Thought, used 3 tools, 1 approved by you"

    def test_people_and_policies_are_told_apart(self) -> None:
        assert summary(STORIES["denied"]().run) == "1 denied by you, 1 denied by the policy, 1 failed"
        assert summary(STORIES["edited"]().run) == "Used 1 tool, 1 edited by you"
        assert summary(STORIES["waiting"]().run) == "Used 2 tools, 1 approved by you, 1 waiting for you"
        assert summary(STORIES["text_only"]().run) == ""

    def test_the_footer_has_model_time_tokens_and_cost(self) -> None:
        assert footer(STORIES["denied"]().run) == [
            "claude-sonnet-5",
            "2 steps",
            "2.0 s",
            "6.2k in",
            "82 out",
            "$0.021",
        ]
        assert footer(tools_and_approval().run)[-3:] == ["≈ 12.4k in (9.8k cached)", "≈ 1.2k out", "$0.031"]
        assert "stopped after 5.7 s" in footer(STORIES["cancelled"]().run)

    @pytest.mark.feature("A8")
    def test_the_summary_at_the_limit_is_no_step_of_those_that_were_allowed(self) -> None:
        run = Drive().begin("Count", max_steps=1, summarises=True).asks_for(("count", {"to": 9})).finishes("tool_calls")
        run.judged(("read", "allow")).returned(1, "9").writes("To 9.").finishes()
        assert "1 step and a summary" in footer(run.run)

    @pytest.mark.feature("E3")
    def test_an_unknown_cost_is_said_to_be_unknown(self) -> None:
        for run in (STORIES["edited"]().run, STORIES["provider_error"]().run):
            for output in (html(run), markdown(run)):
                assert "cost unknown" in output and "$0" not in output
        odd = Drive().begin("x").writes("y").finishes(usage=Usage(), cost_usd=float("nan")).run
        assert footer(odd)[-1] == "cost unknown"

    @pytest.mark.parametrize("name", STORIES)
    def test_each_output_has_the_answer_and_every_call(self, name: str) -> None:
        run = STORIES[name]().run
        outputs = mimebundle(run)
        assert set(outputs) == {"text/plain", "text/markdown", "text/html"}
        first_words = re.split(r"[*`\[|]", run.text)[0].strip()
        for output in outputs.values():
            assert first_words in output
            assert all(call.name in output for call in run.calls)

    def test_an_edit_shows_what_ran_and_what_was_asked_for(self) -> None:
        shown = text_of(html(STORIES["edited"]().run))
        assert (
            shown.index("rm -rf exports/tmp") < shown.index("The model had asked for") < shown.rindex("rm -rf exports ")
        )

    def test_a_failure_is_a_box_with_the_providers_words(self) -> None:
        shown = text_of(html(STORIES["provider_error"]().run))
        assert "The model is overloaded the provider answered 529 after 3 tries" in shown
        assert "In the first, the scheduler" in shown

    def test_an_open_request_is_shown_without_anything_to_press(self) -> None:
        markup = html(STORIES["waiting"]().run)
        assert "Allow remove ?" in text_of(markup) and "<button" not in markup

    def test_long_output_is_cut_with_a_count(self) -> None:
        assert "… 37 more lines" in html(tools_and_approval().run)
        assert "… 37 more lines" in markdown(tools_and_approval().run)

    @pytest.mark.feature("A5")
    def test_messages_in_between_stand_where_they_were_read(self) -> None:
        run = STORIES["steered"]().run
        assert summary(run, with_times=False) == "Used 1 tool, 1 approved by you, 2 messages from you"
        for output in (text_of(html(run)), markdown(run), plain_text(run)):
            order = ["Not Bo, he is on leave.", "In Norwegian, please.", "Ana har fått den."]
            places = [output.index(words) for words in order]
            assert places == sorted(places) and "You, while it was running" in output
        shown = text_of(html(run))
        assert "Not run: a new message arrived." in shown and "Remembered: allow mail, session" in shown
        assert shown.index("Ana has it.") < shown.index("In Norwegian, please.")
        assert "You, not read any more A short one." in text_of(html(STORIES["unread"]().run))

    @pytest.mark.feature("B10")
    def test_a_question_is_shown_with_its_answer(self) -> None:
        run = STORIES["asked"]().run
        for output in (text_of(html(run)), markdown(run).replace("\\", ""), plain_text(run)):
            assert "Which paper?" in output and "The time limit answered: “matt”" in output
        assert "You declined to answer: “you choose”" in text_of(html(STORIES["declined"]().run))
        assert "denied" not in summary(STORIES["declined"]().run)
        many = STORIES["asked"]()
        answered = replace(
            many.run.calls[0].request, question="Which quarters?", allows_many=True, result='["Q3", "Q4"]'
        )
        assert words.answer_text(answered) == "Q3, Q4"

    def test_an_open_question_has_its_options_and_nothing_to_press(self) -> None:
        markup = html(STORIES["asking"]().run)
        assert "Which quarter? Asked by ask_user . ○ Q3 complete ○ Q4" in text_of(markup)
        assert "<button" not in markup and "<input" not in markup

    def test_a_call_of_a_sub_agent_is_named(self) -> None:
        line = 'Allow fetch(url: "https://example.org")? You approved.'
        assert line in text_of(html(STORIES["sub_agent"]().run)) and line in plain_text(STORIES["sub_agent"]().run)
        assert summary(STORIES["sub_agent"]().run) == "Used 1 tool, 1 approved by you"

    def test_figures_tables_and_files_stay(self) -> None:
        run = STORIES["shown"]().run
        markup = html(run)
        assert f'src="data:image/png;base64,{PNG}"' in markup and 'alt="orders &quot;by&quot; region"' in markup
        assert "<th>orders<" in markup and '<th style="text-align:left">' in markup and "<td" in markup
        assert "West <b>" in text_of(markup) and "2 of 3,120 rows" in markup and "only words" in markup
        assert "out/orders.csv 12.5 kB" in text_of(markup)
        source = markdown(run)
        assert "| N\\|orth | 431900 |" in source and "| --- | --: |" in source
        assert "Files: `out/orders.csv` (12.5 kB), `` out/a`b.png ``" in source and "<table>" in MarkdownIt(
            "commonmark"
        ).enable("table").render(source)
        assert "out/" not in plain_text(run)

    @pytest.mark.feature("A13")
    def test_retries_and_the_other_model_are_told_but_not_in_plain_text(self) -> None:
        run = STORIES["retried"]().run
        shown = text_of(html(run))
        assert summary(run) == "1 step"
        assert shown.index("Retry: overloaded: 529") < shown.index("Retry: rate_limit: 429; trying the next model")
        assert "Model: lab/little (small)" in shown and "Model:" in markdown(run)
        assert plain_text(run) == "Hello."

    def test_the_words_of_a_step_policy_are_the_answer(self) -> None:
        run = STORIES["closed"]().run
        assert plain_text(run).endswith("[Stopped at the limit of steps]\n\nThat is enough for today.")
        for output in (text_of(html(run)), markdown(run)):
            assert output.index("One moment.") < output.index("That is enough for today.")

    def test_what_the_model_was_told_behind_the_scenes_can_be_read(self) -> None:
        run = STORIES["sent_on"]().run
        for output in (text_of(html(run)), markdown(run)):
            assert "The output check told the model" in output and "Answer with a number." in output
            assert "Output check: no number" in output and "Hook: log failed" in output
        assert plain_text(run) == "3"

    def test_a_hook_and_a_person_that_edit_are_told_apart(self) -> None:
        assert "Edited by a hook" in html(STORIES["edited_by_a_hook"]().run)
        assert "Edited by you" in html(STORIES["edited"]().run)

    @pytest.mark.feature("B6", "C11")
    @pytest.mark.parametrize(
        ("story", "line", "verdict"),
        [
            ("run_again", "used 3 tools, 1 in doubt settled by you", "You had this call run again."),
            ("has_happened", "used 2 tools, 1 in doubt settled by you", "You said that it had happened."),
            ("skipped", "used 2 tools, 1 in doubt settled by you", "You skipped this call: The program ended while"),
        ],
    )
    def test_what_became_of_a_doubt_can_be_read(self, story: str, line: str, verdict: str) -> None:
        run = STORIES[story]().run
        assert summary(run).lower() == line
        for output in (text_of(html(run)), markdown(run)):
            assert verdict in output and "The program was restarted" in output
            assert "Variables and open connections" not in output
        assert "restarted" not in plain_text(run)

    @pytest.mark.feature("B6", "C11")
    def test_a_doubt_that_is_open_is_a_box_with_the_call_and_nothing_to_press(self) -> None:
        run = STORIES["in_doubt"]().run
        words = "It had begun when the program ended; whether it has happened is not known."
        shown = text_of(html(run))
        assert f"In doubt: mail {words} to ana" in shown and "Allow mail" not in shown and "<button" not in html(run)
        assert '**In doubt: `mail`** to: "ana"' in markdown(run).replace("\\", "") and words in markdown(run)
        rest = at_rest(STORIES["cut_off"]().run)
        assert "[In doubt: the process ended while a tool was running]" in plain_text(rest)
        assert '? mail(to: "ana"): in doubt: it may or may not have happened' in plain_text(rest)
        assert summary(rest).endswith("1 in doubt")

    def test_every_status_has_words(self) -> None:
        run = STORIES["streaming"]().run
        for status in (
            "running",
            "waiting",
            "interrupted",
            "in_doubt",
            "cancelled",
            "max_steps",
            "budget",
            "timeout",
            "truncated",
            "failed",
        ):
            title = words.ending(replace(run, status=status))
            assert title and title[0] in plain_text(replace(run, status=status))


@pytest.mark.feature("D6")
class TestPlainTextIsTheSameEveryTime:
    @pytest.mark.parametrize("name", STORIES)
    def test_times_ids_and_costs_change_nothing(self, name: str) -> None:
        one = STORIES[name]()
        other = STORIES[name](run_id="run_other", seq=70, at=1_800_000_000.25)
        assert plain_text(one.run) == plain_text(other.run)
        cheaper = replace(
            one.run,
            steps=tuple(replace(s, cost_usd=9.99, duration_s=123.0, usage=Usage(1, 2)) for s in one.run.steps),
        )
        assert plain_text(one.run) == plain_text(cheaper)

    def test_it_names_no_time_cost_id_or_request_of_a_provider(self) -> None:
        run = Drive().begin("x").writes("half").fails("overloaded", "req_011CSabc at 0x7f3a2b, retry in 3 s").run
        assert plain_text(run) == "[The model is overloaded]\n\nhalf"


@pytest.mark.feature("D13")
class TestLooks:
    def test_every_declaration_survives_the_sanitiser_of_an_untrusted_notebook(self) -> None:
        # JupyterLab 4.6 keeps a declaration only if it knows the property and can parse the value.
        properties = {
            "background",
            "border",
            "border-left",
            "border-radius",
            "border-top",
            "color",
            "cursor",
            "display",
            "flex",
            "align-items",
            "font-family",
            "font-size",
            "font-weight",
            "grid-template-columns",
            "list-style-position",
            "margin",
            "margin-top",
            "padding-top",
            "margin-left",
            "margin-bottom",
            "max-height",
            "max-width",
            "min-width",
            "opacity",
            "overflow",
            "overflow-wrap",
            "overflow-x",
            "padding",
            "gap",
            "text-align",
            "text-overflow",
            "white-space",
            "width",
            "word-break",
        }
        for role, style in LOOKS.items():
            for declaration in filter(None, style.split(";")):
                name, _, value = declaration.partition(":")
                assert name in properties, (role, declaration)
                assert not re.search(
                    r"var\(|currentcolor|inherit|anywhere|light-dark|url|isolate|calc|!|\bend\b", value, re.I
                ), (role, value)

    def test_every_look_that_is_used_exists_in_both_forms(self) -> None:
        page = export_html([drive.run for drive in whole_session()], "All")
        used = set(re.findall(r'class="tc-([\w-]+)"', page.partition("</nav>")[2])) - {
            "when",
            "turn",
            "prompt",
        }
        assert used <= set(LOOKS)
        families = ("run", "sign-", "tag-", "td", "th", "tr", "tbody", "thead", "step", "precode")
        for role in LOOKS:
            assert f".tc-{role}" in SHEET or role.startswith(families), role

    def test_colours_are_about_as_readable_on_white_as_on_black(self) -> None:
        def luminance(colour: str) -> float:
            parts = [int(digit * 2, 16) / 255 for digit in colour[1:]]
            r, g, b = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
            return 0.2126 * r + 0.7152 * g + 0.0722 * b

        colours = {colour for style in LOOKS.values() for colour in re.findall(r"[^-]color:(#\w{3})\b", f";{style}")}
        assert len(colours) >= 5
        for colour in colours:
            on_white, on_dark = (
                1.05 / (luminance(colour) + 0.05),
                (luminance(colour) + 0.05) / (luminance("#111") + 0.05),
            )
            assert min(on_white, on_dark) >= 4.1, (colour, on_white, on_dark)

    @pytest.mark.parametrize("name", STORIES)
    def test_it_needs_no_cleaning(self, name: str) -> None:
        """The second lock has nothing to do: what is built is what stays, but for how it is written."""
        built = static_html.run_html(STORIES[name]().run, static_html.inline, {})
        once = static_html.clean(built)
        assert static_html.clean(once) == once
        assert text_of(built) == text_of(once) and built.count("style=") == once.count("style=")


@pytest.mark.feature("D5")
class TestWhatItWeighs:
    @pytest.mark.parametrize(
        ("kind", "most"), [("prose", 3.6), ("prose, code and a table", 4.5), ("code", 5.1), ("tables", 6.1)]
    )
    def test_what_stays_is_a_small_multiple_of_the_text_that_one_sees(self, kind: str, most: float) -> None:
        found = saved(kind, 10_000)
        assert found["all"] < most * found["visible"]

    def test_paragraphs_end_with_their_item(self) -> None:
        """What reads HTML as JupyterLab's sanitiser does would put the next item into them."""
        run = Drive().begin("x").writes("- a\n\n- b\n\nEnd.").finishes().run
        assert re.search(r"<li><p>a</p>\s*<li><p>b</p>\s*</ul>", html(run))

    def test_a_long_answer_is_cut_in_plain_text_alone(self) -> None:
        run = Drive().begin("x").asks_for(("look", {})).finishes("tool_calls").judged(("read", "allow"))
        run.returned(1, "seen").writes("word " * 1_000 + "end.").finishes()
        outputs = mimebundle(run.run)
        assert outputs["text/plain"].startswith("✓ look()\n\nword word")
        assert outputs["text/plain"].endswith(
            "\n… 3,004 more characters; `%agent export transcript.md` writes all of them"
        )
        assert "end." in outputs["text/markdown"] and "end." in outputs["text/html"]

    def test_neighbours_of_one_colour_are_one_element(self) -> None:
        run = Drive().begin("x").writes("```python\nasync def f(): return not None\n```").finishes().run
        markup = html(run)
        assert re.search(r"<span[^>]*>async def</span> <b>f</b>\(\): <span[^>]*>return not None</span>", markup)

    def test_a_link_says_its_host_where_that_cannot_be_read(self) -> None:
        run = Drive().begin("x").writes("[here](https://a.example/b?c) and <https://b.example/d>").finishes().run
        assert re.findall(r'title="([^"]*)"', html(run)) == ["a.example"]

    def test_end_tags_are_left_out_only_where_a_parser_closes_by_itself(self) -> None:
        text = "one\n\n- a\n- b\n\n| x | y |\n|---|--:|\n| 1 | 2 |\n\n> two\n>\n> three\n\n1. c\n\n   d\n"
        markup = html(Drive().begin("x").writes(text).finishes().run)
        assert "</li>" not in markup and "</td>" not in markup and markup.count("</p>") == 1, "the last of a list"
        closed = static_html.clean(markup)
        assert text_of(closed) == text_of(markup)
        for part in (
            "<p>one</p><ul><li>a</li><li>b</li></ul>",
            "<td>2</td></tr></tbody></table>",
            "<li><p>c</p><p>d</p></li>",
        ):
            assert part in closed


def a_boss() -> Session:
    """Two scouts go at once, one of them asks a reader."""
    reader = Agent(ScriptedModel(["Read *it*."]), name="reader")
    scouts = [
        Agent(
            ScriptedModel([call("reader", task="Read $5 <b>."), "Oslo is mild."]),
            name="north",
            tools=[reader.as_tool()],
        ),
        Agent(ScriptedModel(["Rome is hot."]), name="south"),
    ]
    calls = [call("north", task="How is Oslo?"), call("south", task="How is Rome?")]
    boss = Agent(ScriptedModel([calls, "All well."]), name="boss", tools=[scout.as_tool() for scout in scouts])
    session = boss.session()
    session.send("Ask both.").result()
    return session


@pytest.mark.feature("A20", "D5")
class TestRunsInside:
    def test_a_sub_agent_s_run_stands_under_its_call(self) -> None:
        session = a_boss()
        (run,) = session.runs
        page, document = export_html([run], "x", session.inner_runs), export_markdown([run], inside=session.inner_runs)
        assert export_html(session, "x") == page and export_markdown(session) == document
        outputs = mimebundle(run, session.inner_runs)
        told = ["How is Oslo?", "Read it", "Oslo is mild.", "How is Rome?", "Rome is hot.", "All well."]
        for output in (outputs["text/html"], page.partition("</h1>")[2]):
            assert depth_of(output, "<p[^>]*>Rome is hot") == 2, "the fold, and the line of the run"
            assert depth_of(output, "<em>it</em>") == 4
        for output in (text_of(outputs["text/html"]), text_of(page.partition("</h1>")[2])):
            places = [output.rindex(words) for words in told]
            assert places == sorted(places)
        for output in (outputs["text/markdown"], document):
            permissive = MarkdownIt("commonmark", {"html": True}).render(output)
            assert depth_of(permissive, "<p>Rome is hot") == 2 and depth_of(permissive, "<em>it</em>") == 4
        assert outputs["text/plain"] == plain_text(run)
        assert "%agent" not in outputs["text/html"], "nobody goes on with a run inside by itself"

    def test_the_running_process_knows_the_same_of_them_as_the_record(self) -> None:
        inner = Agent(ScriptedModel(["Rome is hot."]), name="south")
        outer = Agent(ScriptedModel([call("south", task="How is Rome?"), "All well."]), tools=[inner.as_tool()])
        run = outer.run_sync("go")
        recorded = Session.load(run.state.session_id).inner_runs
        assert [one.run_id for one in recorded] == [one.run_id for one in run.inner_runs]
        assert mimebundle(run.state, recorded) == mimebundle(run.state, run.inner_runs)

    def test_a_record_that_is_its_own_parent_is_shown_once(self) -> None:
        run = tools_and_approval().run
        call_id = run.calls[0].call_id
        circle = replace(run, started=replace(run.started, parent_run_id=run.run_id, parent_call_id=call_id, depth=0))
        assert html(circle, by_call([circle], [circle])) == html(circle)

    def test_of_many_runs_in_a_call_the_first_are_shown(self) -> None:
        run = tools_and_approval().run
        inner = text_only().run
        within = replace(inner.started, parent_run_id=run.run_id, parent_call_id=run.calls[0].call_id, depth=1)
        many = [replace(inner, started=within) for _ in range(25)]
        for output in (html(run, by_call([run], many)), markdown(run, by_call([run], many))):
            assert output.count("Say hello") == 20 and "… 5 more runs" in output
        assert mimebundle(run, many * 10)["text/html"].count("Say hello") == 20

    def test_a_record_whose_calls_have_one_name_is_drawn_once(self) -> None:
        """Each call of each run claims all the runs inside: as many drawings as leaves of a tree, of a small file."""
        run = tools_and_approval().run
        step = run.steps[0]
        alike = replace(run, steps=(replace(step, calls=(step.calls[0],) * 20),))
        inside = [
            replace(
                alike,
                started=replace(
                    alike.started, run_id=f"run-{depth}", depth=depth, parent_call_id=step.calls[0].call_id,
                    parent_run_id=f"run-{depth - 1}" if depth > 1 else run.run_id,
                ),
            )
            for depth in range(1, 9)
        ]  # fmt: skip
        for output in (html(alike, by_call([alike], inside)), markdown(alike, by_call([alike], inside))):
            assert output.count("1 step") == 8

    def test_of_a_turn_that_is_not_recorded_none_are_known_later(self) -> None:
        session = a_boss().replay()[0].session
        assert session.inner_runs == () and "All well." in export_markdown(session.runs, inside=session.inner_runs)


def depth_of(markup: str, pattern: str) -> int:
    """How many folds are open where the pattern is found."""
    before = re.split(pattern, markup, maxsplit=1)[0]
    return before.count("<details") - before.count("</details>")


@pytest.mark.feature("E6")
class TestExport:
    def test_a_page_needs_nothing_else(self) -> None:
        page = export_html([drive.run for drive in whole_session()], "West <sales>")
        assert page.startswith("<!doctype html>") and "<title>West &lt;sales&gt;</title>" in page
        assert "prefers-color-scheme: dark" in page and "default-src 'none'" in page
        assert not re.search(r"<script|<link|@import|url\(|\ssrc=(?!\"data:image/png;)", page)
        assert page.count('class="tc-turn"') == len(STORIES)

    def test_a_page_of_several_turns_begins_with_a_timeline_that_leads_to_them(self) -> None:
        drives = whole_session()
        page = export_html([drive.run for drive in drives], "West")
        timeline = page.partition("<nav")[2].partition("</nav>")[0]
        targets = re.findall(r'href="#([\w-]+)"', timeline)
        assert len(targets) == len(drives)
        assert all(f'id="{target}"' in page for target in targets)
        widths = [float(width) for width in re.findall(r"width:([\d.]+)%", timeline)]
        assert len(widths) == len(drives) and all(0 <= width <= 100 for width in widths)
        assert "<nav" not in export_html([drives[0].run], "One turn")

    def test_markdown_has_every_prompt_and_answer(self) -> None:
        drives = whole_session()
        document = export_markdown([drive.run for drive in drives], "West")
        for drive in drives:
            assert drive.run.prompt is not None and drive.run.prompt.text in document
            assert re.split(r"[*`\[|]", drive.run.text)[0].strip() in document

    def test_what_follows_an_unclosed_block_of_code_is_not_in_it(self) -> None:
        run = Drive().begin("x").writes("Look:\n\n```python\nprint(1)").finishes().run
        tokens = MarkdownIt("commonmark").parse(export_markdown([run, run]))
        assert sum(token.type == "fence" for token in tokens if token.level == 0) == 2
        assert sum("claude-sonnet-5" in token.content for token in tokens if token.type == "inline") == 2

    @pytest.mark.parametrize("what", ["session.html", [3]])
    def test_what_is_no_run_is_refused(self, what: object) -> None:
        for export in (export_html, export_markdown):
            with pytest.raises(UsageError, match="a Run, a Session or a list of runs; found"):
                export(what)  # type: ignore[arg-type]

    def test_nothing_is_still_a_document(self) -> None:
        assert "0 runs" in export_html([]) and "0 runs" in export_markdown([])

    def test_both_can_be_written_to_disk(self, tmp_path: Path) -> None:
        run = Drive().begin("half a \ud83d pair").writes("and \ud83d another").finishes().run
        (tmp_path / "a.html").write_text(export_html([run], "x"), "utf-8")
        (tmp_path / "a.md").write_text(export_markdown([run]), "utf-8")
        for output in mimebundle(run).values():
            output.encode("utf-8")


def test_amounts_are_not_taken_for_formulas() -> None:
    from tests.journals.play import answer

    assert html(answer().state.run).startswith('<div class="mathjax_ignore" ')


@pytest.mark.feature("D1", "D5")
@pytest.mark.parametrize(
    ("said", "formulas"),
    [
        (r"The area is $\pi r^2$, and $a_1 * b_1$ too.", [r"$\pi r^2$", "$a_1 * b_1$"]),
        (r"\(a_1 * b * c\) and \[ x = y \]", [r"\(a_1 * b * c\)", r"\[ x = y \]"]),
        ("$$\na = b\n$$", ["$$\na = b\n$$"]),
        ("costs $5 or $6, between $10 and 20$", []),
        (r"$PATH/$USER, \$x$ and `$x$`", []),
        (r"$\href{https://evil.example}{x}$ $\def\a{b}$", []),
    ],
)
def test_formulas_are_left_to_the_host_and_nothing_else_is(said: str, formulas: list[str]) -> None:
    run = Drive().begin("x").writes(said).finishes().run
    assert re.findall(r"<span class=\"mathjax_process\">(.*?)</span>", html(run), re.DOTALL) == formulas
    assert re.findall(r"(?<!\\)\$[^$]+\$|\$\$[^$]+\$\$", neutral_markdown(said).replace("`$x$`", "")) == [
        one for one in formulas if one[0] == "$"
    ]


@pytest.mark.feature("D5")
def test_amounts_in_markdown_are_escaped_and_read_the_same() -> None:
    said = (
        r"It costs $5 and $6, not \$7 or $8/$9; `$HOME`, <https://example.com/?a=$b> and [x](https://example.com/$c)."
    )
    written = neutral_markdown(said + "\n\n```sh\necho $PATH $USER\n```")
    assert not re.search(r"(?<!\\)\$(?=\d)", written), "none is left that could begin a formula"
    assert "`$HOME`" in written and "echo $PATH $USER" in written, "code is left as it is"
    reads = unescape(MarkdownIt("commonmark").render(written))
    assert "It costs $5 and $6, not $7 or $8/$9" in reads
    assert 'href="https://example.com/?a=$b"' in reads and 'href="https://example.com/$c"' in reads
    run = tools_and_approval().run
    assert run.cost_usd is not None and rf"\${run.cost_usd:.3f}" in markdown(run)


@pytest.mark.feature("D5")
class TestWithoutButtons:
    @pytest.mark.parametrize(
        ("name", "command"),
        [
            ("provider_error", "%agent retry run_1"),
            ("cancelled", "%agent retry run_1"),
            ("waiting", "%agent resume ses_sales"),
            ("in_doubt", "%agent resume ses_sales"),
        ],
    )
    def test_what_a_button_would_do_is_printed_as_its_command(self, name: str, command: str) -> None:
        run = STORIES[name]().run
        assert command in text_of(html(run))
        assert f"`{command}`" in markdown(run)
        assert "<button" not in html(run)
        assert "%agent" not in plain_text(run)

    @pytest.mark.parametrize(
        ("name", "command"), [("cancelled", "%agent retry run_1"), ("waiting", "%agent resume ses_sales")]
    )
    def test_the_command_says_where_an_agent_has_to_be_named(self, name: str, command: str) -> None:
        run = STORIES[name]().run
        named = replace(run, started=replace(run.started, needs=("rules",)))
        assert f"`{command} -a AGENT`" in markdown(named)
        assert f"{command} -a AGENT" in text_of(html(named))

    def test_a_run_that_is_done_offers_nothing(self) -> None:
        assert "%agent" not in html(tools_and_approval().run)

    @pytest.mark.parametrize("name", STORIES)
    def test_what_a_sanitiser_leaves_that_takes_every_look_still_says_all(self, name: str) -> None:
        built = html(STORIES[name]().run)
        tags = {
            "div",
            "span",
            "details",
            "summary",
            "p",
            "pre",
            "code",
            "strong",
            "em",
            "a",
            "ul",
            "ol",
            "li",
            "br",
            "hr",
        }
        bare = nh3.clean(
            built, tags=tags | {"table", "thead", "tbody", "tr", "th", "td", "blockquote", "h3", "h4"}, attributes={}
        )
        assert "style=" not in bare
        assert text_of(bare) == text_of(built)
