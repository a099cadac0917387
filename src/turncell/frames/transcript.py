"""A finished run as it stays in a notebook: plain text, Markdown and HTML under the same display id.

The plain text is what tools compare between two executions of a notebook, so it has nothing that differs between
them: no times, counts of tokens, costs, ids, addresses or words of a provider. Markdown and HTML may have them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from turncell.core.fold import CallState, RunState, StepState
from turncell.core.parts import Json
from turncell.frames import words
from turncell.frames.displays import MOST_SHOWN_CHARS, figure_of, file_line, table_of, words_of
from turncell.frames.inside import MOST_SAVED, Inside, agent_of, by_call, inside_of, outcome_of, prompt_of
from turncell.frames.markdown_source import code_span, fenced, inline_text, neutral_markdown
from turncell.frames.static_html import OUTPUT_CHARACTERS, OUTPUT_LINES, html
from turncell.frames.visible import cut, one_line, prose, terminal_text, visible
from turncell.runtime.secrets import redactor

KINDS = ("text/plain", "text/markdown", "text/html")
PLAIN_CHARACTERS = 2_000

__all__ = ["html", "markdown", "mimebundle", "plain_text"]


def mimebundle(run: RunState, inside: Iterable[RunState] = (), kinds: Sequence[str] = KINDS) -> dict[str, str]:
    """All three, as a display takes them, without secrets: they are saved with the notebook. `kinds`: only some of them.

    Of the runs `inside` those of its sub-agents stand under their calls, but not in the plain text.
    """
    known = redactor()
    run = known.value(run)
    inner = by_call([run], inside if kinds != KINDS[:1] else (), known.value, MOST_SAVED)
    made = {
        "text/plain": lambda: plain_text(run, PLAIN_CHARACTERS),
        "text/markdown": lambda: markdown(run, inner),
        "text/html": lambda: html(run, inner),
    }
    return {kind: made[kind]() for kind in kinds}


def plain_text(run: RunState, most: int | None = None) -> str:
    """The answer, and a line for each call, question and message in between, and for an end that was none.

    The same for the same run at any time: what a provider or a hook had to say is left out. An answer of more than
    `most` characters is cut: what a notebook saves has it whole as Markdown and HTML.
    """
    lines: list[str] = []
    for step in run.steps:
        lines += [line for call in step.calls for line in _plain_call(call)]
        lines += [_plain_said(said) for said in words.said_after(step) if said.is_person]
    lines += [_plain_said(said) for said in words.unread(run)]
    end = words.ending(run)
    if end is not None:
        lines.append(f"[{end[0]}]")
    answer = prose(run.text).strip()
    answer, more = (answer, "") if most is None else cut(answer, most, most)
    if more:
        answer += f"\n{more}; `%agent export transcript.md` writes all of them"
    return "\n".join(lines) + ("\n\n" if lines and answer else "") + answer


def _plain_call(call: CallState) -> list[str]:
    how = words.outcome(call)
    arguments = words.arguments_line(call)
    line = f"{how.sign} {visible(call.name)}({arguments})" + (f": {how.word.lower()}" if how.word else "")
    asked = words.asked(call)
    return [line] if asked is None else [line, "  ? " + one_line(" ".join(filter(None, asked)), 200)]


def _plain_said(said: words.Said) -> str:
    return f"> {said.who}: {one_line(visible(said.text), 200)}"


def markdown(run: RunState, inside: Inside | None = None) -> str:
    """The run as Markdown that any renderer can be given: steps folded, answer, end, footer."""
    return _markdown(run, dict(inside or {}))


def _markdown(run: RunState, inside: Inside, *, is_inner: bool = False) -> str:
    answer = words.answer_step(run)
    end = words.ending(run)
    parts: list[str] = []
    line = words.summary(run)
    if line:
        steps = "\n\n".join(filter(None, (_step(run, step, step is answer, inside) for step in run.steps)))
        parts.append(f"<details><summary>{line}</summary>\n\n{steps}\n\n</details>")
    if answer is not None:
        parts.append(neutral_markdown(words.step_text(answer).strip()))
        parts.extend(_made(answer))
    if run.closing is not None:
        parts.append(inline_text(run.closing))
    parts.extend(_said(said) for said in words.unread(run))
    for call in () if is_inner else run.open_requests:
        if call.request is not None and call.request.kind == "in_doubt":
            arguments = inline_text(words.arguments_line(call))
            parts.append(
                f"> **In doubt: {code_span(call.name)}** {arguments}  \n> {inline_text(call.request.description)}"
            )
        elif (asked := words.asked(call)) is not None:
            parts.append(f"> **{inline_text(asked[0])}** Asked by {code_span(call.name)}.")
        else:
            parts.append(f"> **Allow {code_span(call.name)}?** {inline_text(words.arguments_line(call))}")
    if end is not None:
        title, text, _ = end
        parts.append(f"> **{title}**" + (f"  \n> {inline_text(text)}" if text else ""))
    if not is_inner and (command := words.next_command(run)) is not None:
        parts.append(f"{command[0]}: {code_span(command[1])}")
    parts.append(f"*{inline_text(' · '.join(words.footer(run)))}*")
    return "\n\n".join(parts)


def _said(said: words.Said) -> str:
    if said.is_line:
        return f"*{said.who}*"
    return f"**{said.who}**\n\n{fenced(said.text)}"


def _step(run: RunState, step: StepState, is_answer: bool, inside: Inside) -> str:
    parts = [f"*{inline_text(line)}*" for line in words.lines_before(run, step)]
    reasoning = words.step_reasoning(step)
    if reasoning:
        parts.append("\n".join(f"> {line}".rstrip() for line in neutral_markdown(reasoning).split("\n")))
    if not is_answer and words.step_text(step):
        parts.append(neutral_markdown(words.step_text(step).strip()))
    if not is_answer:
        parts.extend(_made(step))
    for call in step.calls:
        parts += [_call(call), *_inner(run, call, inside)]
    parts.extend(f"*{inline_text(line)}*" for line in words.lines_after(run, step))
    parts.extend(_said(said) for said in words.said_after(step))
    return "\n\n".join(parts)


def _made(step: StepState) -> list[str]:
    """The images of an answer: in Markdown too, since they are ours to check, and it has nothing else to show them with."""
    shown = []
    for image in words.step_images(step):
        figure = figure_of({image.media_type: image.data}) if image.media_type else None
        if figure is not None and len(figure.url) <= MOST_SHOWN_CHARS:
            shown.append(f"![Image by the model]({figure.url})")
        else:
            shown.append(f"Image: {inline_text(image.data)}" if image.media_type is None else "An image, not shown.")
    return shown


def _call(call: CallState) -> str:
    how = words.outcome(call)
    time = "" if call.duration_s is None else words.duration(call.duration_s)
    notes = ", ".join(filter(None, (how.word.lower(), time)))
    parts = [f"{how.sign} {code_span(call.name or 'unnamed')}" + (f" ({notes})" if notes else "")]
    verdict = words.verdict_line(call)
    if verdict:
        parts.append(inline_text(verdict))
    if call.arguments is None:
        parts.append(_block(call.arguments_text, "text") if call.arguments_text else "")
    elif call.arguments:
        parts.append(_block("\n".join(f"{k}: {v}" for k, v in words.argument_rows(call.arguments)), "text"))
    if (asked := words.asked(call)) is not None:
        parts.append(f"**{inline_text(asked[0])}** {inline_text(asked[1])}")
    if call.content and not (call.status in ("denied", "skipped") and verdict):
        parts.append(_block(terminal_text(call.content), "text"))
    parts.extend(_display(bundle) for bundle in call.display)
    if call.files:
        parts.append("Files: " + ", ".join(_file(*file_line(file)) for file in call.files))
    return "\n\n".join(filter(None, parts))


def _inner(run: RunState, call: CallState, inside: Inside) -> list[str]:
    """The runs that were started inside a call, folded; nothing of theirs stands in the raw HTML of the fold."""
    runs, more = inside_of(run, call, inside)
    parts: list[str] = []
    for one in runs:
        how = outcome_of(one)
        notes = f" ({how.word.lower()})" if how.word else ""
        parts.append(f"{how.sign} **{inline_text(agent_of(one))}** {inline_text(prompt_of(one))}{notes}")
        whole = _markdown(one, inside, is_inner=True)
        parts.append(f"<details><summary>Inside, {words.steps_of(one)}</summary>\n\n{whole}\n\n</details>")
    return [*parts, *filter(None, [more])]


def _file(path: str, size: str) -> str:
    return code_span(path) + (f" ({size})" if size else "")


def _display(bundle: dict[str, Json]) -> str:
    """A table as a table; of a figure its words, since whoever renders Markdown may not be given pictures by a tool."""
    table = table_of(bundle)
    if table is None or not table.columns:
        return inline_text(words_of(bundle))
    rows = [table.columns, ["--:" if is_number else "---" for is_number in table.is_number], *table.rows]
    lines = (
        "| " + " | ".join(cell if number == 1 else inline_text(cell) for cell in row) + " |"
        for number, row in enumerate(rows)
    )
    return "\n".join(lines) + (f"\n\n{table.more}" if table.more else "")


def _block(text: str, language: str) -> str:
    kept, more = cut(text, OUTPUT_LINES, OUTPUT_CHARACTERS)
    return fenced(kept, language) + (f"\n\n{more}" if more else "")
