"""The static HTML of a finished run: what stays in the cell when the live view is gone.

Its first reader is JupyterLab's sanitiser for notebooks that are not trusted. It drops `<style>`, ids, data and aria
attributes, and every inline declaration whose value it cannot parse: `var()`, `currentColor`, `inherit`,
`overflow-wrap: anywhere`, logical values like `end` and `unicode-bidi: isolate` go, flex, grid, rgba and hex colours
stay. Hence the looks below: text keeps the colour of its host and is muted by opacity, lines and washes are a neutral
grey that works on white and on black, and the few tones have about the same contrast on both (4.3 : 1). Fonts are the
host's: `<code>` and `<pre>` bring its monospace with them. Arguments are no `<dl>`, to which JupyterLab gives a fifth
of the width for names and no way to ask for more. `<bdi>` and `dir` keep directions inside their element.

The same elements with classes instead of inline looks make the exported page (`export`).
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from turncell.core.fold import CallState, RunState, StepState
from turncell.core.parts import IMAGE_TYPES, Json
from turncell.frames import words
from turncell.frames.displays import MOST_SHOWN_CHARS, Table, figure_of, file_line, size, table_of, words_of
from turncell.frames.markdown_html import Look, markdown_html, shown
from turncell.frames.visible import cut, terminal_text, visible

OUTPUT_LINES = 24
OUTPUT_CHARACTERS = 20_000
REASONING_CHARACTERS = 20_000

_LINE = "rgba(127,127,127,0.28)"
_WASH = "rgba(127,127,127,0.09)"
TONES = {"ok": "#228b46", "warn": "#a96f00", "err": "#d9463b", "info": "#3b78d8", "quiet": "#777777"}
_TINTS = {"warn": "169,111,0", "err": "217,70,59"}

LOOKS: dict[str, str] = {
    "run": "max-width:52rem;font-size:14px;line-height:1.6;overflow-wrap:break-word",
    "head": "display:flex;align-items:baseline;gap:8px;font-size:13px;margin:0 0 6px",
    "title": "font-weight:600",
    "muted": "opacity:0.7",
    "fold": "margin:0 0 8px",
    "foldline": "list-style-position:outside;margin:0 0 0 14px;padding:3px 0;font-size:10px;cursor:pointer",
    "line": "display:flex;align-items:baseline;gap:8px;font-size:13px;line-height:1.5",
    "steps": "margin:2px 0 12px",
    "step": "margin:0",
    "stepline": "list-style-position:outside;margin:0 0 0 14px;padding:3px 0;font-size:10px;cursor:pointer",
    "name": "background-color:transparent;padding:0;font-size:12.5px;font-weight:600;white-space:nowrap",
    "label": "font-weight:600;white-space:nowrap",
    "args": "background-color:transparent;padding:0;font-size:12.5px;opacity:0.7;flex:1 1 0;min-width:0;overflow:hidden;"
    "text-overflow:ellipsis;white-space:nowrap",
    "grow": "flex:1 1 0",
    "time": "font-size:12px;opacity:0.7;white-space:nowrap",
    "body": f"margin:2px 0 10px 20px;padding:2px 0 4px 17px;border-left:1px solid {_LINE}",
    "caption": "font-size:12px;font-weight:600;opacity:0.7;margin:6px 0 3px",
    "note": "font-size:13px;margin:2px 0 6px",
    "more": "font-size:12px;opacity:0.7;margin:3px 0 0",
    "beside": "font-size:13px;opacity:0.7;margin:2px 0",
    "message": f"margin:8px 0;padding:6px 12px 8px;border:1px solid {_LINE};border-radius:8px;background-color:{_WASH}",
    "message-text": "margin:0;white-space:pre-wrap",
    "closing": "margin:4px 0;white-space:pre-wrap",
    "figure": "max-width:100%",
    "thought": "font-size:13px;opacity:0.75;margin:0",
    "said": "margin:6px 0",
    "pairs": "display:grid;grid-template-columns:max-content 1fr;column-gap:18px;row-gap:1px;margin:0;padding:7px 12px;"
    f"background-color:{_WASH};border-radius:8px;font-size:12.5px;line-height:1.65",
    "key": "max-width:16em;opacity:0.7;overflow-wrap:break-word",
    "value": "min-width:0;overflow-wrap:break-word",
    "bare": "background-color:transparent;padding:0;font-size:12.5px;white-space:pre-wrap",
    "out": f"margin:0;padding:8px 12px;background-color:{_WASH};border:1px solid transparent;border-radius:8px;font-size:12.5px;"
    "line-height:1.55;max-height:420px;overflow:auto;white-space:pre-wrap;overflow-wrap:break-word",
    "out-err": "margin:0;padding:8px 12px;background-color:rgba(217,70,59,0.08);border:1px solid rgba(217,70,59,0.4);"
    "border-radius:8px;font-size:12.5px;line-height:1.55;max-height:420px;overflow:auto;white-space:pre-wrap;"
    "overflow-wrap:break-word",
    "box-head": "font-weight:600;margin:0;font-size:14px",
    "box-text": "font-size:13px;opacity:0.8;margin:2px 0 0;white-space:pre-wrap",
    "box-rows": "margin:8px 0 0",
    "foot": "display:flex;flex-wrap:wrap;column-gap:6px;font-size:12px;line-height:1.5;opacity:0.7;margin:10px 0 0",
    # The answer.
    "answer": "margin:4px 0",
    "p": "margin:0 0 0.75em",
    "heading": "font-size:1.13em;font-weight:600;line-height:1.35;margin:1.15em 0 0.45em",
    "ul": "margin:0 0 0.75em;padding:0 0 0 1.5em",
    "ol": "margin:0 0 0.75em;padding:0 0 0 1.5em",
    "li": "margin:0.18em 0",
    "blockquote": f"margin:0 0 0.75em;padding:0 0 0 1em;border-left:3px solid {_LINE};opacity:0.8",
    "rule": f"border:0;border-top:1px solid {_LINE};margin:1.2em 0",
    "scroll": "overflow-x:auto;margin:0 0 0.85em",
    "table": "border-collapse:collapse;font-size:13px;margin:0;min-width:20em;table-layout:auto",
    "thead": "background-color:transparent",
    "tbody": "background-color:transparent",
    # Cells are many: the line below them is the row's.
    "tr": f"background-color:transparent;border-bottom:1px solid {_LINE}",
    "code": "background-color:rgba(127,127,127,0.16);border-radius:4px;padding:1px 5px;font-size:0.89em",
    "link": "text-decoration:underline",
    "image": "display:inline-block;border:1px dashed rgba(127,127,127,0.6);border-radius:6px;padding:2px 10px;font-size:12.5px;"
    "opacity:0.8",
    "block": f"margin:0 0 0.85em;background-color:{_WASH};border-radius:8px",
    "language": "font-size:12px;opacity:0.7;padding:6px 12px 0",
    "pre": "margin:0;padding:7px 12px 10px;background-color:transparent;border:0;overflow-x:auto;font-size:12.75px;"
    "line-height:1.6;white-space:pre",
    "precode": "background-color:transparent;padding:0;font-size:12.75px;white-space:pre",
    "comment": "font-style:italic;opacity:0.7",
    "keyword": "color:#9a5fd6",
    "string": "color:#228b46",
    "number": "color:#3b78d8",
    "function": "font-weight:600",
}
for _side in ("left", "right", "center"):
    _suffix = "" if _side == "left" else f"-{_side}"
    _cell = f"text-align:{_side};padding:5px 22px{'' if _side == 'right' else ' 5px 0'};border:0"
    LOOKS[f"td{_suffix}"] = _cell
    LOOKS[f"th{_suffix}"] = (
        f"{_cell};border-bottom:1px solid rgba(127,127,127,0.6);font-weight:600;font-size:12px;opacity:0.75"
    )
for _tone, _colour in TONES.items():
    LOOKS[f"sign-{_tone}"] = f"color:{_colour};font-weight:600;width:14px;flex:none;text-align:center"
    LOOKS[f"tag-{_tone}"] = f"font-size:12px;font-weight:600;white-space:nowrap;color:{_colour}"
for _tone, _rgb in _TINTS.items():
    LOOKS[f"box-{_tone}"] = (
        f"margin:8px 0 10px;padding:11px 14px;border:1px solid rgba({_rgb},0.45);border-radius:10px;background-color:rgba({_rgb},0.06)"
    )
LOOKS["tag-ok"] = LOOKS["tag-quiet"] = "font-size:12px;font-weight:600;white-space:nowrap;opacity:0.7"

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
    "img": {"src", "alt"},
}
IMAGE_URLS = tuple(f"data:{kind};base64," for kind in IMAGE_TYPES)


def inline(role: str) -> str:
    """The look as an inline style."""
    return f' style="{LOOKS[role]}"'


def html(run: RunState) -> str:
    """The run as HTML that stands on its own: inline styles, `<details>`, nothing that acts or loads."""
    # The class keeps JupyterLab's MathJax from taking amounts like $5 for formulas, and TeX's \\href for links.
    return f'<div class="mathjax_ignore">{clean(run_html(run, inline))}</div>'


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


def run_html(run: RunState, look: Look) -> str:
    """The run, not yet cleaned, in the given look."""
    answer = words.answer_step(run)
    end = words.ending(run)
    parts = [f"<div{look('run')}>"]
    if end is not None:
        title, _, tone = end
        where = f"<span{look('muted')}>{shown(run.model)}</span>"
        shown_title = f"<span{look('title')}>{title if tone != 'err' else 'Stopped by an error'}</span>"
        parts.append(f"<div{look('head')}><span{look(f'sign-{tone}')}>●</span> {shown_title} {where}</div>")
    parts.append(_fold(run, answer, look))
    if answer is not None:
        parts.append(f"<div{look('answer')}>{markdown_html(words.step_text(answer), look)}</div>")
        parts.extend(_made(answer, look))
    if run.closing is not None:
        parts.append(f"<p{look('closing')}>{shown(run.closing)}</p>")
    parts.extend(_said(said, look) for said in words.unread(run))
    parts.extend(_request(call, look) for call in run.open_requests)
    if end is not None and end[1]:
        title, text, tone = end
        parts.append(_box(title, text, look) if tone == "err" else f"<p{look('note')}>{shown(text)}</p>")
    if (command := words.next_command(run)) is not None:
        parts.append(f"<p{look('beside')}>{command[0]}: <code{look('code')}>{escape(visible(command[1]))}</code></p>")
    items = f" <span{look('muted')}>·</span> ".join(f"<span>{escape(item)}</span>" for item in words.footer(run))
    parts.append(f"<div{look('foot')}>{items}</div></div>")
    return "".join(parts)


def _fold(run: RunState, answer: StepState | None, look: Look) -> str:
    line = words.summary(run)
    if not line:
        return ""
    steps = "".join(_step(run, step, step is answer, look) for step in run.steps)
    end = words.ending(run)
    sign, tone = ("✓", "ok") if end is None else ("–", "quiet")
    summary = f"<span{look('line')}><span{look(f'sign-{tone}')}>{sign}</span> <span{look('muted')}>{escape(line)}</span></span>"
    return _details("fold", summary, f"<div{look('steps')}>{steps}</div>", look)


def _beside(line: str, look: Look) -> str:
    return f"<p{look('beside')}>· {escape(line)}</p>"


def _said(said: words.Said, look: Look) -> str:
    """A message of the person stands there; what was told behind their back is folded."""
    if said.is_line:
        return _beside(said.who, look)
    text = f'<p{look("message-text")} dir="auto">{shown(said.text)}</p>'
    if said.is_person:
        return f"<div{look('message')}><div{look('caption')}>{said.who}</div>{text}</div>"
    line = _line(
        "·", "quiet", f"<span{look('label')}>{said.who}</span> <span{look('grow')}></span>", "", "ok", "", look
    )
    return _details("step", line, f"<div{look('body')}>{text}</div>", look)


def _step(run: RunState, step: StepState, is_answer: bool, look: Look) -> str:
    out = [_beside(line, look) for line in words.lines_before(run, step)]
    reasoning = words.step_reasoning(step)
    if reasoning:
        text, more = cut(reasoning, 10_000, REASONING_CHARACTERS)
        seconds = step.reasoning_s
        time = words.rough_duration(seconds) if seconds is not None and seconds >= 0.5 else ""
        line = _line(
            "✦",
            "quiet",
            f"<span{look('label')}>Thought</span> <span{look('grow')}></span>",
            "",
            "ok",
            time,
            look,
        )
        body = f"<div{look('thought')}>{markdown_html(text, look)}</div>{_more(more, look)}"
        out.append(_details("step", line, f"<div{look('body')}>{body}</div>", look))
    if not is_answer and words.step_text(step):
        out.append(f"<div{look('said')}>{markdown_html(words.step_text(step), look)}</div>")
    if not is_answer:
        out.extend(_made(step, look))
    out.extend(_call(call, look) for call in step.calls)
    if step.error and step.message is None:
        out.append(f"<div{look('note')}>{shown(step.error)}</div>")
    out.extend(_beside(line, look) for line in words.lines_after(run, step))
    out.extend(_said(said, look) for said in words.said_after(step))
    return "".join(out)


def _call(call: CallState, look: Look) -> str:
    how = words.outcome(call)
    name = f"<code{look('name')}><bdi>{shown(call.name) or 'unnamed'}</bdi></code>"
    arguments = f"<code{look('args')}><bdi>{escape(words.arguments_line(call))}</bdi></code>"
    time = "" if call.duration_s is None else words.duration(call.duration_s)
    line = _line(how.sign, how.tone, f"{name} {arguments}", how.word, how.tone, time, look)
    body: list[str] = []
    verdict = words.verdict_line(call)
    if verdict:
        body.append(f"<p{look('note')}>{escape(verdict)}</p>")
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
        answer = f"<p{look('note')}>{escape(asked[1])}</p>" if asked[1] else ""
        body.append(f"{_caption('Question', look)}<p{look('note')}>{escape(asked[0])}</p>{answer}")
    if call.content and not (call.status in ("denied", "skipped") and verdict):
        is_wrong = how.tone == "err"
        body.append(_caption("Problem" if is_wrong else "Output", look))
        body.append(_output(call.content, "out-err" if is_wrong else "out", look))
    elif call.status == "ok":
        body.append(f"<p{look('note')}><span{look('muted')}>No output.</span></p>")
    body.extend(_display(bundle, look) for bundle in call.display)
    if call.files:
        lines = "".join(_file(*file_line(file), look) for file in call.files)
        body.append(_caption("Files", look) + lines)
    return _details("step", line, f"<div{look('body')}>{''.join(body)}</div>", look)


def _file(path: str, size: str, look: Look) -> str:
    return (
        f"<p{look('note')}><code{look('bare')}><bdi>{shown(path)}</bdi></code> <span{look('muted')}>{size}</span></p>"
    )


def _display(bundle: dict[str, Json], look: Look) -> str:
    """A figure, a table, or the words for what we do not show. A tool says it, so it has to have the shape."""
    figure, table = figure_of(bundle), table_of(bundle)
    if figure is not None:
        return (
            f'<p{look("note")}><img{look("figure")} src="{figure.url}" alt="{escape(visible(figure.words)[:200])}"></p>'
        )
    if table is not None:
        return _table(table, look)
    return _output(words_of(bundle), "out", look) if words_of(bundle) else ""


def _made(step: StepState, look: Look) -> Iterator[str]:
    """The images of an answer. One at an address is named, never loaded."""
    for image in words.step_images(step):
        if image.media_type is None:
            yield f"<p{look('note')}>Image: {shown(image.data)}</p>"
        elif len(image.data) > MOST_SHOWN_CHARS:
            yield f"<p{look('note')}>An image of {size(len(image.data) * 3 // 4)}, too large to stay in a notebook.</p>"
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
    return f"<div{look('scroll')}><table{look('table')}>{head}{body}</table></div>{_more(table.more, look)}"


def _request(call: CallState, look: Look) -> str:
    request = call.request
    is_question = request is not None and request.kind == "question"
    inner = request if request is not None and request.name else None
    description = request.description if request is not None else ""
    arguments = call.arguments if inner is None else inner.arguments
    rows = _pairs(words.argument_rows(arguments), look) if arguments and not is_question else ""
    name = shown(call.name if inner is None else inner.name)
    title = f"Allow <code{look('name')}><bdi>{name}</bdi></code>?"
    if request is not None and request.kind == "in_doubt":
        title = f"In doubt: <code{look('name')}><bdi>{name}</bdi></code>"
    if is_question and request is not None:
        title = shown(request.question)
        rows = "".join(f"<p{look('box-text')}>○ {shown(o.label)} <span{look('muted')}>{shown(o.description)}</span></p>"
                       for o in request.options)  # fmt: skip
    text = f"<p{look('box-text')}>{shown(description)}</p>" if description else ""
    if is_question or inner is not None:
        text += f"<p{look('box-text')}>Asked by <code{look('name')}><bdi>{shown(call.name)}</bdi></code>.</p>"
    box = f"<p{look('box-head')}>{title}</p>{text}<div{look('box-rows')}>{rows}</div>"
    return f"<div{look('box-warn')}>{box}</div>"


def _box(title: str, text: str, look: Look) -> str:
    head = f"<p{look('box-head')}>{escape(title)}</p>"
    return f"<div{look('box-err')}>{head}<p{look('box-text')}>{shown(text)}</p></div>"


def _line(sign: str, tone: str, middle: str, tag: str, tag_tone: str, time: str, look: Look) -> str:
    tag = f" <span{look(f'tag-{tag_tone}')}>{tag}</span>" if tag else ""
    time = f" <span{look('time')}>{time}</span>" if time else ""
    return f"<span{look('line')}><span{look(f'sign-{tone}')}>{sign}</span> {middle}{tag}{time}</span>"


def _details(role: str, summary: str, body: str, look: Look) -> str:
    return f"<details{look(role)}><summary{look(f'{role}line')}>{summary}</summary>{body}</details>"


def _caption(text: str, look: Look) -> str:
    return f"<div{look('caption')}>{text}</div>"


def _pairs(rows: list[tuple[str, str]], look: Look) -> str:
    out: list[str] = []
    for key, value in rows:
        text, more = cut(value, OUTPUT_LINES, OUTPUT_CHARACTERS)
        out.append(f"<div{look('key')}><code{look('bare')}><bdi>{shown(key)}</bdi></code></div> ")
        out.append(f'<div{look("value")} dir="auto"><code{look("bare")}>{shown(text)}</code>{_more(more, look)}</div>')
    return f"<div{look('pairs')}>{''.join(out)}</div>"


def _output(content: str, role: str, look: Look) -> str:
    text, more = cut(terminal_text(content), OUTPUT_LINES, OUTPUT_CHARACTERS)
    return f'<pre{look(role)} dir="auto">{shown(text)}</pre>{_more(more, look)}'


def _more(note: str, look: Look) -> str:
    return f"<div{look('more')}>{note}</div>" if note else ""
