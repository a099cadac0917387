"""A session as one file: an HTML page that needs nothing else, or Markdown.

The page has the elements of the static transcript with classes instead of inline looks, so that one sheet can follow
the reader's theme, open and close with a turning chevron, and print. It has no script and loads nothing; the policy in
its head says so to the browser too.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape

from turncell.core.fold import RunState
from turncell.frames import words
from turncell.frames.inside import Shown, by_call, to_show
from turncell.frames.markdown_html import shown_prose
from turncell.frames.markdown_source import fenced, inline_text
from turncell.frames.static_html import clean, run_html
from turncell.frames.transcript import markdown
from turncell.frames.visible import one_line, visible
from turncell.runtime.options import text
from turncell.runtime.secrets import redactor

SHEET = """
:root { color-scheme: light dark;
  --paper: #fff; --ink: #1f2328; --accent: #0b57d0; --ok: #1a7f37; --warn: #8a5300; --err: #b3261e;
  --violet: #8250df;
  --green: #0a6b45; --blue: #0550ae; }
@media screen and (prefers-color-scheme: dark) { :root {
  --paper: #131314; --ink: #ececee; --accent: #8ab4f8; --ok: #5fd083; --warn: #f5b94a; --err: #ff9b91;
  --violet: #d2a8ff;
  --green: #7ee2a8; --blue: #9ecbff; } }
:root { --quiet: color-mix(in oklab, var(--ink) 66%, var(--paper));
  --line: color-mix(in oklab, var(--ink) 14%, var(--paper));
  --wash: color-mix(in oklab, var(--ink) 4%, var(--paper));
  --firm: color-mix(in oklab, var(--ink) 46%, var(--paper));
  --sans: Inter, system-ui, sans-serif;
  --mono: ui-monospace, "SF Mono", "JetBrains Mono", Menlo, Consolas, monospace; }
* { box-sizing: border-box; }
body { margin: 0; padding: 48px 24px 96px; background: var(--paper); color: var(--ink);
  font: 400 14px/1.6 var(--sans);
  overflow-wrap: anywhere; }
main { max-width: 52rem; margin: 0 auto; }
h1 { font: 600 22px/1.3 var(--sans); letter-spacing: -.01em; margin: 0 0 2px; }
code, pre { font-family: var(--mono); font-variant-ligatures: none; }
.tc-when { color: var(--quiet); font-size: 13px; margin: 0 0 34px; }
.tc-turn { margin: 0 0 40px; }
.tc-prompt { margin: 0 0 10px; padding: 9px 14px; background: var(--wash); border: 1px solid var(--line);
  border-radius: 8px;
  white-space: pre-wrap; font-weight: 500; }
.tc-head { display: flex; align-items: baseline; gap: 8px; font-size: 13px; margin: 0 0 6px; }
.tc-title, .tc-label { font-weight: 600; }
.tc-label { flex: 1 1 0; }
.tc-muted { color: var(--quiet); }
.tc-fold { margin: 0 0 6px; }
.tc-foldline, .tc-stepline { list-style: none; border-radius: 6px; padding: 3px 8px 3px 2px;
  margin: 0 -8px 0 -2px; cursor: pointer;
  font-size: 13px; line-height: 1.5; }
.tc-foldline { width: fit-content; padding-right: 4px; }
summary::-webkit-details-marker { display: none; }
summary:hover { background: var(--wash); }
summary:focus-visible, a:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.tc-line, .tc-foldline { display: flex; align-items: baseline; gap: 8px; }
.tc-line::after, .tc-foldline::after { content: ""; flex: none; width: 6px; height: 6px; margin-left: 2px;
  border: solid var(--quiet);
  border-width: 0 1.5px 1.5px 0; transform: translateY(-2px) rotate(-45deg); }
details[open] > summary > .tc-line::after, details[open] > .tc-foldline::after { transform: translateY(-3px) rotate(45deg); }
.tc-steps { margin: 2px 0 12px; }
.tc-call { flex: 1 1 0; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  font-size: 12.5px; }
.tc-name { font-weight: 600; }
.tc-time { font-size: 12px; color: var(--quiet); white-space: nowrap; font-variant-numeric: tabular-nums; }
.tc-body { margin: 2px 0 10px 7px; padding: 2px 0 4px 15px; border-left: 1px solid var(--line); }
.tc-inner { margin: -4px 0 6px 22px; }
.tc-caption { display: block; font-size: 12px; font-weight: 600; color: var(--quiet); margin: 8px 0 3px; }
.tc-note { font-size: 13px; margin: 2px 0 6px; }
.tc-more { font-size: 12px; color: var(--quiet); margin: 3px 0 0; }
.tc-beside { font-size: 13px; color: var(--quiet); margin: 2px 0; }
.tc-message { margin: 8px 0; padding: 6px 12px 8px; border: 1px solid var(--line); border-radius: 8px;
  background: var(--wash); }
.tc-message-text, .tc-closing { margin: 0; white-space: pre-wrap; }
.tc-closing { margin: 4px 0; }
.tc-figure { max-width: 100%; }
.tc-thought { font-size: 13px; color: var(--quiet); }
.tc-said { margin: 8px 0; }
.tc-pairs { display: grid; grid-template-columns: max-content 1fr; gap: 1px 18px; margin: 0;
  padding: 7px 12px; background: var(--wash);
  border-radius: 8px; font-size: 12.5px; line-height: 1.65; white-space: pre-wrap; }
.tc-key { color: var(--quiet); max-width: 16em; }
.tc-value { min-width: 0; }
.tc-bare { white-space: pre-wrap; font-size: 12.5px; }
.tc-out, .tc-out-err { margin: 0; padding: 8px 12px; background: var(--wash);
  border: 1px solid transparent; border-radius: 8px;
  font-size: 12.5px; line-height: 1.55; max-height: 32em; overflow: auto; white-space: pre-wrap;
  tab-size: 4; }
.tc-out-err { background: color-mix(in oklab, var(--err) 7%, var(--paper));
  border-color: color-mix(in oklab, var(--err) 32%, var(--paper)); }
.tc-box-err, .tc-box-warn { margin: 8px 0 10px; padding: 11px 14px; border-radius: 10px;
  border: 1px solid color-mix(in oklab, var(--tone) 42%, var(--paper));
  background: color-mix(in oklab, var(--tone) 5%, var(--paper)); }
.tc-box-err { --tone: var(--err); } .tc-box-warn { --tone: var(--warn); }
.tc-box-head { font-weight: 600; margin: 0; }
.tc-box-text { font-size: 13px; color: var(--quiet); margin: 2px 0 0; white-space: pre-wrap; }
.tc-box-warn .tc-pairs { margin-top: 8px; background: var(--paper); border: 1px solid var(--line); }
.tc-foot { font-size: 12px; color: var(--quiet); margin: 10px 0 0;
  font-variant-numeric: tabular-nums; }
[class^="tc-sign-"] { width: 14px; flex: none; text-align: center; font-weight: 600; }
[class^="tc-tag-"] { font-size: 12px; font-weight: 600; white-space: nowrap; }
.tc-sign-ok { color: var(--ok); } .tc-sign-warn, .tc-tag-warn { color: var(--warn); }
  .tc-sign-err, .tc-tag-err { color: var(--err); }
.tc-sign-info, .tc-tag-info { color: var(--accent); } .tc-sign-quiet, .tc-tag-quiet, .tc-tag-ok {
  color: var(--quiet); }
.tc-answer { margin: 4px 0; }
.tc-p, .tc-ul, .tc-ol, .tc-blockquote { margin: 0 0 .75em; }
.tc-ul, .tc-ol { padding-left: 1.5em; } .tc-li { margin: .18em 0; } .tc-li::marker { color: var(--quiet); }
.tc-heading { font: 600 1.13em/1.35 var(--sans); margin: 1.15em 0 .45em; }
.tc-blockquote { padding-left: 1em; border-left: 3px solid var(--line); color: var(--quiet); }
.tc-rule { border: 0; border-top: 1px solid var(--line); margin: 1.2em 0; }
.tc-scroll { overflow-x: auto; margin: 0 0 .85em; }
.tc-table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums;
  min-width: min(100%, 26em); }
.tc-table th, .tc-table td { padding: 5px 22px 5px 0; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: top; }
.tc-table th { border-color: var(--firm); color: var(--quiet); font-size: 12px; font-weight: 600; }
.tc-table .tc-th-right, .tc-table .tc-td-right { text-align: right; padding-left: 22px; }
.tc-table .tc-th-center, .tc-table .tc-td-center { text-align: center; }
.tc-code { background: color-mix(in oklab, var(--ink) 8%, var(--paper)); border-radius: 4px;
  padding: .1em .34em; font-size: .89em; }
.tc-link { color: var(--accent); text-decoration: underline; text-decoration-thickness: 1px;
  text-underline-offset: 2px; }
.tc-image { display: inline-block; border: 1px dashed var(--firm); border-radius: 6px; padding: 2px 10px;
  font-size: 12.5px;
  color: var(--quiet); }
.tc-block { margin: 0 0 .85em; background: var(--wash); border-radius: 8px; }
.tc-language { display: block; font-family: var(--mono); font-size: 12px; color: var(--quiet); padding: 6px 12px 0; }
.tc-pre { margin: 0; padding: 7px 12px 10px; overflow-x: auto; font-size: 12.75px; line-height: 1.6; }
.tc-comment { color: var(--quiet); font-style: italic; } .tc-keyword { color: var(--violet); } .tc-string {
  color: var(--green); }
.tc-number { color: var(--blue); } .tc-function { font-weight: 600; }
mark { background: color-mix(in oklab, var(--warn) 24%, var(--paper)); color: inherit; border-radius: 3px; }
@media (max-width: 34rem) { body { padding: 24px 16px 64px; } .tc-call { white-space: normal; }
  .tc-call .tc-muted { display: none; }
  .tc-pairs { grid-template-columns: 1fr; } }
.tc-timeline { margin: 0 0 34px; border-block: 1px solid var(--line); padding: 8px 0; }
.tc-timeline ol { margin: 0; padding: 0; list-style: none; }
.tc-timeline a { display: grid; grid-template-columns: 5em minmax(0, 1fr) 34% 6em; gap: 12px; align-items: center;
  min-height: 26px; padding: 0 6px; border-radius: 6px; color: inherit; font-size: 13px; text-decoration: none; }
.tc-timeline a:hover { background: var(--wash); }
.tc-at { color: var(--quiet); font-variant-numeric: tabular-nums; }
.tc-asked { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.tc-track { height: 8px; background: var(--wash); border-radius: 4px; overflow: hidden; }
.tc-track span { display: block; height: 100%; min-width: 2px; border-radius: 4px; background: var(--accent); }
.tc-timeline .tc-time { text-align: right; }
@media (max-width: 34rem) { .tc-timeline a { grid-template-columns: 5em minmax(0, 1fr) 6em; } .tc-track { display: none; } }
@media print { details::details-content { content-visibility: visible; block-size: auto; } body { padding: 0; }
  .tc-out, .tc-out-err { max-height: none; } .tc-pre { white-space: pre-wrap; } }
"""


def classes(role: str) -> str:
    """The look as a class."""
    return f' class="tc-{role}"'


def export_html(runs: Shown, title: str = "Transcript", inside: Iterable[RunState] = ()) -> str:
    """The text of a self-contained page with the transcript of a Run, of a Session or of runs in their order, without secrets.

    Runs of sub-agents stand under their calls: those of a Run or a Session, and those of runs that are given `inside`.
    """
    known = redactor()
    found, within = to_show(runs, inside)
    title, shown = known.text(text("title", title)), [known.value(run) for run in found]
    inner = by_call(shown, within, known.value)
    turns = "".join(
        f'<section class="tc-turn" id="turn-{number}">{_prompt(run)}{clean(run_html(run, classes, inner))}</section>'
        for number, run in enumerate(shown, 1)
    )
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(visible(title))}</title>\n<style>{SHEET}</style></head>\n"
        f'<body><main><h1>{escape(visible(title))}</h1>\n<p class="tc-when">{_when(shown)}</p>\n{_timeline(shown)}{turns}</main></body></html>\n'
    )


def export_markdown(runs: Shown, title: str = "Transcript", inside: Iterable[RunState] = ()) -> str:
    """The transcript of a Run, of a Session or of runs in their order as Markdown: each prompt as a quotation, each answer
    as it was written, without secrets.

    Runs of sub-agents stand under their calls: those of a Run or a Session, and those of runs that are given `inside`.
    """
    known = redactor()
    found, within = to_show(runs, inside)
    title, shown = known.text(text("title", title)), [known.value(run) for run in found]
    inner = by_call(shown, within, known.value)
    parts = [f"# {inline_text(title)}", _when(shown)]
    for run in shown:
        prompt = run.prompt.text if run.prompt else ""
        quoted = "\n".join(f"> {line}".rstrip() for line in fenced(prompt).split("\n"))
        parts += [quoted, markdown(run, inner), "---"]
    return "\n\n".join(parts[:-1] if shown else parts) + "\n"


def _prompt(run: RunState) -> str:
    text = run.prompt.text if run.prompt else ""
    return f'<div class="tc-prompt" dir="auto">{shown_prose(text)}</div>'


def _timeline(runs: list[RunState]) -> str:
    """When each turn began and how long it took, as bars on one scale that lead to the turns. Nothing for a single one."""
    if len(runs) < 2:
        return ""
    began = min(run.started_at for run in runs)
    whole_s = max(max(run.ended_at or run.started_at for run in runs) - began, 1e-9)
    rows: list[str] = []
    for number, run in enumerate(runs, 1):
        length_s = max(0.0, (run.ended_at or run.started_at) - run.started_at)
        bar = f"margin-left:{(run.started_at - began) / whole_s:.2%};width:{length_s / whole_s:.2%}"
        asked = one_line(run.prompt.text if run.prompt else "", 120)
        time = words.duration(length_s) if run.ended_at is not None else "open"
        if run.started.is_imported:
            time = "held elsewhere"
        rows.append(
            f'<li><a href="#turn-{number}"><span class="tc-at">{datetime.fromtimestamp(run.started_at, UTC):%H:%M:%S}</span> '
            f'<span class="tc-asked" dir="auto">{escape(asked)}</span> <span class="tc-track"><span style="{bar}"></span></span> '
            f'<span class="tc-time">{time}</span></a></li>'
        )
    return f'<nav class="tc-timeline" aria-label="Timeline"><ol>{"".join(rows)}</ol></nav>\n'


def _when(runs: list[RunState]) -> str:
    count = f"{len(runs)} run{'s' * (len(runs) != 1)}"
    if not runs:
        return count
    return f"{count}, from {_minute(runs[0].started_at)} to {_minute(max(run.ended_at or run.started_at for run in runs))} UTC"


def _minute(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"
