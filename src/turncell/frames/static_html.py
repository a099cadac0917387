"""The static HTML of a finished run: what stays in the cell when the live view is gone.

Its first reader is JupyterLab's sanitiser for notebooks that are not trusted. It drops `<style>`, ids, data and aria
attributes, and every inline declaration whose value it cannot parse: `var()`, `currentColor`, `inherit`,
`overflow-wrap: anywhere`, logical values like `end` and `unicode-bidi: isolate` go, flex, grid, rgba and hex colours
stay. Hence the looks below: text keeps the colour of its host and is muted by opacity, lines and washes are a neutral
grey that works on white and on black, and the few tones have about the same contrast on both (4.2 : 1). Arguments are
no `<dl>`, to which JupyterLab gives a fifth of the width for names and no way to ask for more. `<bdi>` and `dir` keep
directions inside their element.

It is saved with the notebook, each look as often as it is used. So a look says only what hosts do not: JupyterLab,
Notebook and nbconvert style paragraphs, lists, code, links and tables, elsewhere the browser does, and both look like
the cells above. What can be inherited stands once, on the element around. `<code>` brings the host's monospace with it;
a `<pre>` has to say its own, because nbconvert lets it inherit the font of the text.

The same elements with classes instead of inline looks make the exported page (`export`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from turncell.core.fold import CallState, RunState, StepState
from turncell.core.parts import IMAGE_TYPES, Json
from turncell.frames import words
from turncell.frames.displays import MOST_SHOWN_CHARS, Table, figure_of, file_line, size, table_of, words_of
from turncell.frames.inside import Inside, agent_of, inside_of, outcome_of, prompt_of
from turncell.frames.markdown_html import Look, markdown_html, shown, table_tag
from turncell.frames.visible import cut, terminal_text, visible

OUTPUT_LINES = 24
OUTPUT_CHARACTERS = 20_000
REASONING_CHARACTERS = 20_000

_LINE = "#8884"
_WASH = "#8881"
TONES = {"ok": "#283", "warn": "#a60", "err": "#d43", "info": "#37d", "quiet": "#777"}
_SUMMARY = "list-style-position:outside;margin-left:16px;padding:3px 0;cursor:pointer"
_OUT = "margin:2px 0 6px;padding:8px 12px;border-radius:8px;font-family:monospace;white-space:pre-wrap;max-height:420px;overflow:auto"

LOOKS: dict[str, str] = {
    "run": "max-width:52rem;overflow-wrap:break-word",
    "head": "margin-bottom:6px",
    "title": "",
    "muted": "opacity:.7",
    # What is inside is a little smaller than the answer.
    "fold": "font-size:13px;margin-bottom:8px",
    "foldline": _SUMMARY,
    "steps": "padding-top:2px",
    "step": "",
    "stepline": _SUMMARY,
    "line": "display:flex;align-items:baseline;gap:8px;white-space:nowrap",
    "call": "background:#0000;padding:0;flex:1;overflow:hidden;text-overflow:ellipsis;white-space:nowrap",
    "name": "",
    "label": "flex:1",
    "time": "opacity:.7",
    "body": f"margin:2px 0 8px 5px;padding:1px 0 2px 26px;border-left:1px solid {_LINE}",
    "inner": "margin-left:22px",
    "caption": "opacity:.7",
    "note": "",
    "more": "opacity:.7",
    "beside": "font-size:13px;opacity:.7",
    "message": f"margin:8px 0;padding:6px 12px 8px;border:1px solid {_LINE};border-radius:8px;background:{_WASH}",
    "message-text": "white-space:pre-wrap",
    "closing": "white-space:pre-wrap",
    "figure": "max-width:100%",
    "thought": "opacity:.75",
    "said": "",
    "pairs": f"display:grid;grid-template-columns:max-content 1fr;gap:1px 18px;margin:2px 0 6px;padding:7px 12px;background:{_WASH};"
    "border-radius:8px;font-family:monospace;white-space:pre-wrap;word-break:normal",
    "key": "opacity:.7;max-width:16em",
    "value": "min-width:0",
    "bare": "background:#0000;padding:0",
    "out": f"{_OUT};background:{_WASH}",
    "out-err": f"{_OUT};background:#d431;border:1px solid #d436",
    "box-head": "font-weight:600",
    "box-text": "opacity:.8;white-space:pre-wrap",
    "foot": "font-size:12px;opacity:.7;margin-top:6px",
    # The answer: what the host does for text of its own is not said again.
    "answer": "",
    "p": "",
    "heading": "font-size:1.13em;font-weight:600",
    "ul": "",
    "ol": "",
    "li": "",
    "blockquote": f"margin:0 0 1em;padding:0 1em;border-left:3px solid {_LINE};opacity:.8",
    "rule": f"border:0;border-top:1px solid {_LINE}",
    "scroll": "overflow-x:auto",
    "table": "text-align:right",
    "thead": "",
    "tbody": "",
    "tr": "",
    # JupyterLab gives cells a side themselves, the right one, so that only the others need to be told.
    "th": "text-align:left",
    "td": "text-align:left",
    "th-right": "",
    "td-right": "",
    "th-center": "text-align:center",
    "td-center": "text-align:center",
    "code": "",
    "link": "",
    "image": "border:1px dashed #8889;border-radius:6px;padding:2px 10px;opacity:.8",
    "block": f"margin:0 0 1em;padding:8px 12px;background:{_WASH};border-radius:8px",
    "language": "opacity:.7",
    "pre": "margin:0;background:#0000;font-family:monospace;overflow-x:auto;white-space:pre",
    "comment": "opacity:.7",
    "keyword": "color:#95d",
    "string": "color:#283",
    "number": "color:#37d",
    "function": "",
}
for _tone, _colour in TONES.items():
    LOOKS[f"sign-{_tone}"] = f"color:{_colour};width:14px"
    LOOKS[f"tag-{_tone}"] = f"color:{_colour}"
for _tone in ("warn", "err"):
    _colour = TONES[_tone]
    LOOKS[f"box-{_tone}"] = (
        f"margin:8px 0 10px;padding:11px 14px;border:1px solid {_colour}7;border-radius:10px;background:{_colour}1;font-size:13px"
    )
LOOKS["tag-ok"] = LOOKS["tag-quiet"] = "opacity:.7"

TAGS = frozenset(
    (
        "div",
        "span",
        "details",
        "summary",
        "p",
        "pre",
        "code",
        "mark",
        "bdi",
        "strong",
        "em",
        "b",
        "i",
        "small",
        "s",
        "a",
        "ul",
        "ol",
        "li",
        "blockquote",
        "hr",
        "br",
        "h3",
        "h4",
        "h5",
        "h6",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "img",
    )
)
ATTRIBUTES = {
    "*": {"style", "class", "dir"},
    "a": {"href", "title", "target"},
    "details": {"open"},
    "ol": {"start"},
    "table": {"cellpadding"},
    "img": {"src", "alt"},
}
_OPTIONAL = re.compile(r"</p>(?!\s*</li>)|</(?:li|td|th|tr|thead|tbody)>")
"""End tags that HTML does without where these elements stand: a fifth of a table. The parser of JupyterLab's sanitiser does
not end a paragraph with its item."""
IMAGE_URLS = tuple(f"data:{kind};base64," for kind in IMAGE_TYPES)


def inline(role: str) -> str:
    """The look as an inline style, if it has one of its own."""
    style = LOOKS[role]
    return f' style="{style}"' if style else ""


def html(run: RunState, inside: Inside | None = None) -> str:
    """The run as HTML that stands on its own: inline styles, `<details>`, nothing that acts or loads."""
    # The class keeps JupyterLab's MathJax from all but what is marked as a formula: amounts like $5 are none.
    whole = f'<div class="mathjax_ignore"{inline("run")}>{run_html(run, inline, dict(inside or {}))}</div>'
    return _OPTIONAL.sub("", clean(whole))


def clean(text: str) -> str:
    """Only tags, attributes and link targets of the allow-list. What is built here keeps to it already: a second lock."""
    import nh3

    return nh3.clean(
        text,
        tags=set(TAGS),
        attributes={tag: set(names) for tag, names in ATTRIBUTES.items()},
        url_schemes={"http", "https", "mailto", "data"},
        attribute_filter=_only_figures,
        link_rel="noopener noreferrer",
    )


def _only_figures(tag: str, attribute: str, value: str) -> str | None:
    """`data:` is for figures alone, and figures come from nowhere else."""
    is_figure = value.startswith(IMAGE_URLS)
    if attribute == "src":
        return value if is_figure else None
    return None if attribute == "href" and value.lstrip().lower().startswith("data:") else value


def run_html(run: RunState, look: Look, inside: Inside, *, is_inner: bool = False) -> str:
    """The run, not yet cleaned, in the given look. Of an inner one the run around it says what waits for the person."""
    answer = words.answer_step(run)
    end = words.ending(run)
    parts: list[str] = []
    if end is not None:
        title, _, tone = end
        shown_title = title if tone != "err" else "Stopped by an error"
        parts.append(
            f"<div{look('head')}><span{look(f'sign-{tone}')}>●</span> <b{look('title')}>{shown_title}</b> "
            f"<span{look('muted')}>{shown(run.model)}</span></div>"
        )
    parts.append(_fold(run, answer, inside, look))
    if answer is not None:
        parts.append(f"<div{look('answer')}>{markdown_html(words.step_text(answer), look)}</div>")
        parts.extend(_made(answer, look))
    if run.closing is not None:
        parts.append(f"<div{look('closing')}>{shown(run.closing)}</div>")
    parts.extend(_said(said, look) for said in words.unread(run))
    if not is_inner:
        parts.extend(_request(call, look) for call in run.open_requests)
    if end is not None and end[1]:
        title, text, tone = end
        parts.append(_box(title, text, look) if tone == "err" else f"<div{look('note')}>{shown(text)}</div>")
    if not is_inner and (command := words.next_command(run)) is not None:
        parts.append(
            f"<div{look('beside')}>{command[0]}: <code{look('code')}>{escape(visible(command[1]))}</code></div>"
        )
    parts.append(f"<div{look('foot')}>{escape(' · '.join(words.footer(run)))}</div>")
    return "".join(parts)


def _fold(run: RunState, answer: StepState | None, inside: Inside, look: Look) -> str:
    line = words.summary(run)
    if not line:
        return ""
    steps = "".join(_step(run, step, step is answer, inside, look) for step in run.steps)
    end = words.ending(run)
    sign, tone = ("✓", "ok") if end is None else ("–", "quiet")
    summary = f"<span{look(f'sign-{tone}')}>{sign}</span> <span{look('muted')}>{escape(line)}</span>"
    return _details("fold", summary, f"<div{look('steps')}>{steps}</div>", look)


def _beside(line: str, look: Look) -> str:
    return f"<div{look('beside')}>· {escape(line)}</div>"


def _said(said: words.Said, look: Look) -> str:
    """A message of the person stands there; what was told behind their back is folded."""
    if said.is_line:
        return _beside(said.who, look)
    text = f'<div{look("message-text")} dir="auto">{shown(said.text)}</div>'
    if said.is_person:
        return f"<div{look('message')}>{_caption(said.who, look)}{text}</div>"
    line = _line("·", "quiet", f"<b{look('label')}>{said.who}</b>", "", "ok", "", look)
    return _details("step", line, f"<div{look('body')}>{text}</div>", look)


def _step(run: RunState, step: StepState, is_answer: bool, inside: Inside, look: Look) -> str:
    out = [_beside(line, look) for line in words.lines_before(run, step)]
    reasoning = words.step_reasoning(step)
    if reasoning:
        text, more = cut(reasoning, 10_000, REASONING_CHARACTERS)
        seconds = step.reasoning_s
        time = words.rough_duration(seconds) if seconds is not None and seconds >= 0.5 else ""
        line = _line("✦", "quiet", f"<b{look('label')}>Thought</b>", "", "ok", time, look)
        body = f"<div{look('thought')}>{markdown_html(text, look)}</div>{_more(more, look)}"
        out.append(_details("step", line, f"<div{look('body')}>{body}</div>", look))
    if not is_answer and words.step_text(step):
        out.append(f"<div{look('said')}>{markdown_html(words.step_text(step), look)}</div>")
    if not is_answer:
        out.extend(_made(step, look))
    for call in step.calls:
        out += [_call(call, look), _inner(run, call, inside, look)]
    if step.error and step.message is None:
        out.append(f"<div{look('note')}>{shown(step.error)}</div>")
    out.extend(_beside(line, look) for line in words.lines_after(run, step))
    out.extend(_said(said, look) for said in words.said_after(step))
    return "".join(out)


def _call(call: CallState, look: Look) -> str:
    how = words.outcome(call)
    name = f"<b{look('name')}><bdi>{shown(call.name) or 'unnamed'}</bdi></b>"
    arguments = f"<bdi{look('muted')}>{escape(words.arguments_line(call))}</bdi>"
    time = "" if call.duration_s is None else words.duration(call.duration_s)
    line = _line(how.sign, how.tone, f"<code{look('call')}>{name} {arguments}</code>", how.word, how.tone, time, look)
    body: list[str] = []
    verdict = words.verdict_line(call)
    if verdict:
        body.append(f"<div{look('note')}>{escape(verdict)}</div>")
    if call.arguments:
        body.append(_caption("Arguments", look) + _pairs(words.argument_rows(call.arguments), look))
    elif call.arguments is None and call.arguments_text:
        body.append(_caption("Arguments, as the model wrote them", look) + _output(call.arguments_text, "out", look))
    if call.proposed_arguments is not None:
        body.append(
            _caption("The model had asked for", look) + _pairs(words.argument_rows(call.proposed_arguments), look)
        )
    asked = words.asked(call)
    if asked is not None:
        answer = f"<div{look('note')}>{escape(asked[1])}</div>" if asked[1] else ""
        body.append(f"{_caption('Question', look)}<div{look('note')}>{escape(asked[0])}</div>{answer}")
    if call.content and not (call.status in ("denied", "skipped") and verdict):
        is_wrong = how.tone == "err"
        body.append(_caption("Problem" if is_wrong else "Output", look))
        body.append(_output(call.content, "out-err" if is_wrong else "out", look))
    elif call.status == "ok":
        body.append(f"<div{look('more')}>No output.</div>")
    body.extend(_display(bundle, look) for bundle in call.display)
    if call.files:
        lines = "".join(_file(*file_line(file), look) for file in call.files)
        body.append(_caption("Files", look) + lines)
    return _details("step", line, f"<div{look('body')}>{''.join(body)}</div>", look)


def _inner(run: RunState, call: CallState, inside: Inside, look: Look) -> str:
    """Under a call: the runs that were started inside it, a line each that opens."""
    runs, more = inside_of(run, call, inside)
    if not runs and not more:
        return ""
    out: list[str] = []
    for one in runs:
        how = outcome_of(one)
        prompt = f"<bdi{look('muted')}>{escape(prompt_of(one))}</bdi>"
        told = f"<span{look('call')}><b{look('name')}><bdi>{escape(agent_of(one))}</bdi></b> {prompt}</span>"
        line = _line(how.sign, how.tone, told, how.word, how.tone, words.steps_of(one), look)
        body = f"<div{look('body')}>{run_html(one, look, inside, is_inner=True)}</div>"
        out.append(_details("step", line, body, look))
    return f"<div{look('inner')}>{''.join(out)}{_more(more, look)}</div>"


def _file(path: str, size: str, look: Look) -> str:
    return f"<div{look('note')}><code{look('bare')}><bdi>{shown(path)}</bdi></code> <span{look('muted')}>{size}</span></div>"


def _display(bundle: dict[str, Json], look: Look) -> str:
    """A figure, a table, or the words for what we do not show. A tool says it, so it has to have the shape."""
    figure, table = figure_of(bundle), table_of(bundle)
    if figure is not None:
        return f'<div{look("note")}><img{look("figure")} src="{figure.url}" alt="{escape(visible(figure.words)[:200])}"></div>'
    if table is not None:
        return _table(table, look)
    return _output(words_of(bundle), "out", look) if words_of(bundle) else ""


def _made(step: StepState, look: Look) -> Iterator[str]:
    """The images of an answer. One at an address is named, never loaded."""
    for image in words.step_images(step):
        if image.media_type is None:
            yield f"<div{look('note')}>Image: {shown(image.data)}</div>"
        elif len(image.data) > MOST_SHOWN_CHARS:
            yield f"<div{look('note')}>An image of {size(len(image.data) * 3 // 4)}, too large to stay in a notebook.</div>"
        else:
            yield _display({image.media_type: image.data, "text/plain": "Image by the model"}, look)


def _table(table: Table, look: Look) -> str:
    sides = ["-right" if is_number else "" for is_number in table.is_number]

    def line(tag: str, cells: list[str]) -> str:
        inside = "".join(
            f"<{tag}{look(tag + side)}>{escape(cell)}</{tag}>" for cell, side in zip(cells, sides, strict=True)
        )
        return f"<tr{look('tr')}>{inside}</tr>"

    head = f"<thead{look('thead')}>{line('th', table.columns)}</thead>"
    body = f"<tbody{look('tbody')}>{''.join(line('td', row) for row in table.rows)}</tbody>"
    return f"<div{look('scroll')}>{table_tag(look)}{head}{body}</table></div>{_more(table.more, look)}"


def _request(call: CallState, look: Look) -> str:
    request = call.request
    is_question = request is not None and request.kind == "question"
    inner = request if request is not None and request.name else None
    description = request.description if request is not None else ""
    arguments = call.arguments if inner is None else inner.arguments
    rows = _pairs(words.argument_rows(arguments), look) if arguments and not is_question else ""
    name = shown(call.name if inner is None else inner.name)
    title = f"Allow <code{look('bare')}><bdi>{name}</bdi></code>?"
    if request is not None and request.kind == "in_doubt":
        title = f"In doubt: <code{look('bare')}><bdi>{name}</bdi></code>"
    if is_question and request is not None:
        title = shown(request.question)
        rows = "".join(f"<div{look('box-text')}>○ {shown(o.label)} <span{look('muted')}>{shown(o.description)}</span></div>"
                       for o in request.options)  # fmt: skip
    text = f"<div{look('box-text')}>{shown(description)}</div>" if description else ""
    if is_question or inner is not None:
        text += f"<div{look('box-text')}>Asked by <code{look('bare')}><bdi>{shown(call.name)}</bdi></code>.</div>"
    return f"<div{look('box-warn')}><div{look('box-head')}>{title}</div>{text}{rows}</div>"


def _box(title: str, text: str, look: Look) -> str:
    head = f"<div{look('box-head')}>{escape(title)}</div>"
    return f"<div{look('box-err')}>{head}<div{look('box-text')}>{shown(text)}</div></div>"


def _line(sign: str, tone: str, middle: str, tag: str, tag_tone: str, time: str, look: Look) -> str:
    tag = f" <b{look(f'tag-{tag_tone}')}>{tag}</b>" if tag else ""
    time = f" <span{look('time')}>{time}</span>" if time else ""
    return f"<span{look('line')}><span{look(f'sign-{tone}')}>{sign}</span> {middle}{tag}{time}</span>"


def _details(role: str, summary: str, body: str, look: Look) -> str:
    return f"<details{look(role)}><summary{look(f'{role}line')}>{summary}</summary>{body}</details>"


def _caption(text: str, look: Look) -> str:
    return f"<b{look('caption')}>{text}</b>"


def _pairs(rows: list[tuple[str, str]], look: Look) -> str:
    out: list[str] = []
    for key, value in rows:
        text, more = cut(value, OUTPUT_LINES, OUTPUT_CHARACTERS)
        note = f"\n<span{look('more')}>{more}</span>" if more else ""
        out.append(f"<bdi{look('key')}>{shown(key)}</bdi> <bdi{look('value')}>{shown(text)}{note}</bdi>")
    return f"<pre{look('pairs')}>{chr(10).join(out)}</pre>"


def _output(content: str, role: str, look: Look) -> str:
    text, more = cut(terminal_text(content), OUTPUT_LINES, OUTPUT_CHARACTERS)
    return f'<pre{look(role)} dir="auto">{shown(text)}</pre>{_more(more, look)}'


def _more(note: str, look: Look) -> str:
    return f"<div{look('more')}>{note}</div>" if note else ""
