"""A run in a terminal that can be painted: its answer as Markdown, its calls and what it costs, live.

What has ended (a block of the answer, a call) is written once and for good, and scrolls away with the rest. Only what
may still change is painted anew: a region at the bottom that is never higher than the screen.

- Each frame is one write: up to the top of the region, what has ended meanwhile, the region, each line erased only behind
  its last character. Nothing is erased first, so that nothing flickers.
- The lines of the region do not wrap (the terminal's own wrapping is off meanwhile), so that the way up is known even where
  the terminal finds a character wider than Rich does. Where the window has become narrower, it is reckoned anew.
- While a question stands at the keyboard, nothing is written (`asking`).
- What others print meanwhile (a tool, a notice) goes above the region: standard output and error are led through here.
- Nothing but this module and Rich writes a code: all text has been through `prose`.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from turncell.core import events as ev
from turncell.core.fold import CallState, RunState, apply
from turncell.frames.visible import one_line, visible
from turncell.frames.words import (
    Tone,
    arguments_line,
    dollars,
    duration,
    ending,
    json_text,
    note_line,
    outcome,
    verdict_line,
)
from turncell.notebook.bridge import QuestionGone
from turncell.notebook.terminal import SEEN_S, can_be_painted, choices, footer, is_told, prompt_line
from turncell.notebook.terminal_markdown import LONG_CHARACTERS, THEME, Growing, markdown_lines, rendered
from turncell.runtime.secrets import Cleaning, redactor

FRAME_S = 0.08
MAX_WIDTH = 120
"""Longer lines are hard to read."""
LEAST_S = 0.05
"""A shorter time is not worth a word."""
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_STYLE: dict[Tone, str] = {"ok": "green", "warn": "yellow", "err": "red", "info": "cyan", "quiet": "dim"}
_KEPT_LINES = 3


class LiveText:
    """Give it to `run.subscribe`, inside of its own `with`: that paints, and puts the terminal right at the end."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._console = Console(file=stream, force_terminal=True, theme=THEME, highlight=False, legacy_windows=False)
        self._state = RunState()
        self._cleaning = Cleaning()
        self._text = Growing()
        self._text_at: tuple[int, int] | None = None
        """Step and block of the text that is being written."""
        self._reasoning = ""
        self._asked: set[str] = set()
        self._last_kind = ""
        self._finished: list[str] = []
        """What is still to be written for good."""
        self._shown: list[str] = []
        self._shown_width = 0
        self._open_lines: tuple[object, list[str]] = (None, [])
        self._is_quiet = False
        self._is_over = threading.Event()
        self._seen = threading.Condition()
        self._lock = threading.RLock()

    # -- what happens

    def __call__(self, event: ev.Event) -> None:
        with self._lock:
            for clean in self._cleaning.events([event]):
                self._state = apply(self._state, clean)
                take = getattr(self, f"_{type(clean).__name__}", None)
                if take is not None:
                    take(clean)
        with self._seen:
            self._seen.notify_all()

    def _MessageAdded(self, event: ev.MessageAdded) -> None:
        if event.message.role == "user":
            sign, style = ("❯ ", "bold") if event.by in ("person", "steering") else ("· ", "dim")
            self._close_text()
            self._keep("prompt", self._render(Text(sign + visible(event.message.text.strip()), style=style)))

    def _TextDelta(self, event: ev.TextDelta) -> None:
        if self._text_at != (event.step, event.block):
            self._close_text()
            self._text_at = event.step, event.block
        self._reasoning = ""
        self._text.add(event.text)

    def _ReasoningDelta(self, event: ev.ReasoningDelta) -> None:
        self._reasoning = (self._reasoning + event.text)[-MAX_WIDTH * 4 :]

    def _StepFinished(self, event: ev.StepFinished) -> None:
        self._close_text()

    def _StepFailed(self, event: ev.StepFailed) -> None:
        self._close_text()

    def _CallProposed(self, event: ev.CallProposed) -> None:
        self._close_text()

    def _Noted(self, event: ev.Noted) -> None:
        if event.kind == "retry":
            self._close_text()
        self._keep("call", self._render(Text(f"  {note_line(event)}", style="dim")))

    def _CallFinished(self, event: ev.CallFinished) -> None:
        call = next((call for call in self._state.calls if call.call_id == event.call_id), None)
        if call is not None:
            self._close_text()
            self._keep("call", self._call_lines(call))

    def _RunEnded(self, event: ev.RunEnded) -> None:
        said = self._state.closing
        self._close_text()
        if said:
            self._keep("text", markdown_lines(self._console, said, self._width))
        end = ending(self._state)
        if end is not None:
            title, text, tone = end
            why = f"{title}: {visible(text)}" if text else title
            self._keep("end", self._render(Text(why, style=_STYLE[tone])))
        self._keep("end", self._render(Text(visible(footer(self._state)), style="dim")))
        self._paint()

    # -- what is asked

    @contextmanager
    def asking(self, call: CallState) -> Iterator[str]:
        """Show whole what is asked, once, and give the words of the prompt; until the end nothing else is written."""
        request = call.request
        assert request is not None
        with self._seen:
            self._seen.wait_for(lambda: is_told(self._state, call), SEEN_S)
        with self._lock:
            if request.request_id not in self._asked:
                self._asked.add(request.request_id)
                self._close_text()
                self._keep("panel", rendered(self._console, _panel(redactor().value(call)), self._width))
            self._paint(has_region=False)
            self._is_quiet = True
        try:
            yield prompt_line(call)
        except QuestionGone:
            raise
        except BaseException:
            self._stream.write("\n")  # nobody has ended the line of the prompt
            raise
        finally:
            with self._lock:
                self._is_quiet = False
                self._last_kind = "asked"

    # -- what others print

    def __enter__(self) -> LiveText:
        self._before = sys.stdout, sys.stderr
        if sys.stdout is self._stream:
            sys.stdout = _Above(self, sys.stdout)
        if can_be_painted(sys.stderr):
            sys.stderr = _Above(self, sys.stderr)
        threading.Thread(target=self._paint_frames, name="turncell-terminal", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for ours, before, name in zip((sys.stdout, sys.stderr), self._before, ("stdout", "stderr"), strict=True):
            if isinstance(ours, _Above) and ours.view is self:
                setattr(sys, name, before)
                ours.close_line()
        # A terminal that was stopped (Ctrl-S) holds the painter, and must not hold the end.
        if self._lock.acquire(timeout=SEEN_S):
            try:
                self._is_quiet = False
                self._close_text()
                self._paint(has_region=False)
            finally:
                self._lock.release()

    def above(self, stream: TextIO, lines: list[str]) -> None:
        """Write lines of somebody else over what is painted."""
        with self._lock:
            if self._is_over.is_set() or (stream is not self._stream and not self._shown):
                stream.write("".join(f"{line}\n" for line in lines))
                stream.flush()
                return
            self._keep("printed", [f"{line}\x1b[0m" for line in lines])  # a colour that was left on

    @property
    def is_quiet(self) -> bool:
        return self._is_quiet

    # -- painting

    @property
    def _width(self) -> int:
        return max(20, min(MAX_WIDTH, self._console.width - 1))

    def _render(self, text: Text) -> list[str]:
        return rendered(self._console, text, self._width)

    def _gap(self, kind: str) -> list[str]:
        """Calls and notes stand together, as the lines of a print do; all else has an empty line before it."""
        is_first = not self._last_kind
        return [] if is_first or (kind == self._last_kind and kind in ("call", "printed", "end")) else [""]

    def _keep(self, kind: str, lines: list[str]) -> None:
        if lines:
            self._finished += [*self._gap(kind), *lines]
            self._last_kind = kind

    def _keep_text(self, source: str, is_item: bool) -> None:
        lines = markdown_lines(self._console, source, self._width)
        if lines:
            self._finished += [*([] if is_item else self._gap("text")), *lines]
            self._last_kind = "text"

    def _close_text(self) -> None:
        self._reasoning = ""
        if self._text_at is not None:
            for block in (*self._text.finished(), self._text.close()):
                self._keep_text(*block)
            self._text_at = None

    def _paint_frames(self) -> None:
        while not self._is_over.wait(FRAME_S):
            with self._lock:
                if not self._is_over.is_set():
                    self._paint()

    def _paint(self, *, has_region: bool = True) -> None:
        if self._is_quiet:
            return
        for block in self._text.finished():
            self._keep_text(*block)
        region = self._region() if has_region and not self._state.is_ended else []
        if not self._finished and region == self._shown:
            return
        frame = [self._to_top(), *(f"{line}\x1b[K\n" for line in self._finished)]
        if region:
            frame += ["\x1b[?7l", "\x1b[K\n".join(region), "\x1b[K\x1b[J\x1b[?7h"]
        elif self._shown:
            frame.append("\x1b[J")
        self._finished, self._shown, self._shown_width = [], region, self._console.width
        try:
            self._stream.write("".join(frame))
            self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone; the run is not
            self._is_over.set()

    def _to_top(self) -> str:
        width = self._console.width
        if width < self._shown_width:  # the terminal has wrapped what stood there
            rows = sum(max(1, -(-cell_len(Text.from_ansi(line).plain) // width)) for line in self._shown)
        else:
            rows = len(self._shown)
        return "" if not self._shown else f"\r\x1b[{rows - 1}A" if rows > 1 else "\r"

    def _region(self) -> list[str]:
        """What may still change: the end of the open text, the open calls, the footer."""
        height = max(4, self._console.height - 1)
        calls = [line for call in self._state.calls[-64:] if call.is_open for line in self._call_lines(call)]
        if len(calls) > height // 2:
            more = len(calls) - height // 2 + 1
            calls = [*calls[: height // 2 - 1], *self._render(Text(f"  … {more} more", style="dim"))]
        bottom = [*(["", *calls] if calls and self._last_kind != "call" else calls), "", self._footer()]
        text = self._open_text()
        return [*text, *bottom][-height:]

    def _open_text(self) -> list[str]:
        source, width = self._text.open, self._width
        if not source.strip():
            tail = one_line(visible(self._reasoning[-width * 2 :]), width * 2)[-(width - 4) :]
            return [*self._gap("text"), *self._render(Text(f"… {tail}", style="dim italic"))] if tail.strip() else []
        key = (source, width, self._last_kind)
        if self._open_lines[0] != key:
            if len(source) > LONG_CHARACTERS:
                lines = self._render(Text(source[-LONG_CHARACTERS // 2 :]))
            else:
                lines = markdown_lines(self._console, source, width)
            self._open_lines = key, [*([] if self._text.is_item else self._gap("text")), *lines]
        return self._open_lines[1]

    def _footer(self) -> str:
        state, now = self._state, time.time()
        parts = [visible(state.model), f"step {len(state.steps)}"] if state.steps else ["starting"]
        if state.started_at:
            parts.append(duration(max(0.0, now - state.started_at)))
        usage = state.usage
        if usage.input_tokens is not None or usage.output_tokens is not None:
            parts.append(f"{usage.input_tokens or 0:,} tokens in, {usage.output_tokens or 0:,} out")
        if state.cost_usd is not None:
            parts.append(dollars(state.cost_usd))
        spin = _SPINNER[int(now / FRAME_S) % len(_SPINNER)]
        text = Text(f"{spin} " + " · ".join([*parts, "Ctrl-C stops"]), style="dim", no_wrap=True)
        text.truncate(self._width, overflow="ellipsis")
        return (self._render(text) or [""])[0]

    def _call_lines(self, call: CallState) -> list[str]:
        """A call in one line; below it, where it goes on, how far it is, and where it has failed or was denied, why."""
        end = outcome(call)
        after = Text()
        took_s = call.duration_s
        if took_s is None and call.started_at is not None and call.is_open:
            took_s = max(0.0, time.time() - call.started_at)
        if took_s is not None and took_s >= LEAST_S:
            after.append(f"  {duration(took_s)}", style="dim")
        if end.word:
            after.append(f"  {end.word}", style=_STYLE[end.tone])
        line = Text(no_wrap=True)
        line.append(f"{end.sign} ".replace("\ufe0e", ""), style=_STYLE[end.tone])
        line.append(visible(call.name) or "…", style="bold")
        room = max(8, self._width - line.cell_len - after.cell_len - 2)
        arguments = arguments_line(call)
        if cell_len(arguments) > room:
            arguments = set_cell_size(arguments, room - 1) + "…"
        line.append(f"({arguments})")
        line.append_text(after)
        if call.status == "ok" and call.content and not end.word:
            line.append(f"  {one_line(visible(call.content), self._width)}", style="dim")
        line.truncate(self._width, overflow="ellipsis")
        below = []
        if call.is_open:
            below = call.progress.splitlines()[-1:]
        elif call.status in ("error", "invalid", "timeout"):
            below = (call.content or "").strip().splitlines()[:_KEPT_LINES]
        elif verdict := verdict_line(call):
            below = [verdict]
        details = [Text("  " + one_line(visible(text), self._width - 2), style="dim") for text in below]
        return [found for text in (line, *details) for found in self._render(text)]


def _panel(call: CallState) -> Panel:
    """What is asked, whole: arguments as they are, what would be invisible in them as escapes."""
    asked = call.request
    assert asked is not None
    if asked.kind == "question":
        return Panel(Text(choices(asked)), title=_title(f"{call.name} asks"), title_align="left", border_style="yellow")
    inner = asked.name != ""
    name, arguments = (asked.name, asked.arguments) if inner else (call.name, call.arguments)
    # A column of their own: no value can look like another argument.
    rows = Table.grid(Column(style="bold", overflow="fold"), Column(overflow="fold", ratio=1), padding=(0, 2, 0, 0))
    for key, value in (arguments or {}).items():
        is_long = isinstance(value, str) and "\n" in value
        rows.add_row(Text(visible(key)), Text(visible(str(value) if is_long else json_text(value))))
    body: list[RenderableType] = [rows if arguments else Text("no arguments", style="dim")]
    if asked.preview:
        body.append(Text(f"\n{visible(asked.preview)}"))
    if asked.kind == "in_doubt":
        body.append(Text(f"\n{visible(asked.description)}"))
    what = "may have happened" if asked.kind == "in_doubt" else "wants to run"
    by = f", for {call.name}" if inner else ""
    return Panel(Group(*body), title=_title(f"{name} {what}{by}"), title_align="left", border_style="yellow")


def _title(text: str) -> Text:
    return Text(visible(text), style="bold")  # a plain string would be read as markup


class _Above:
    """Standard output, or error, while a run is painted: whole lines go above it."""

    def __init__(self, view: LiveText, stream: TextIO) -> None:
        self.view, self._own, self._line = view, stream, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)

    def write(self, text: str) -> int:
        if self.view.is_quiet:
            return self._own.write(text)
        *lines, self._line = (self._line + text).split("\n")
        if lines:
            # What rewrites its line shows its last state.
            self.view.above(self._own, [line.rstrip("\r").rpartition("\r")[2] for line in lines])
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._own.flush()

    def isatty(self) -> bool:
        return False  # whoever would move the cursor must not, here; nor may a run inside of this one be painted

    def close_line(self) -> None:
        if self._line:
            line, self._line = self._line, ""
            self.view.above(self._own, [line.rstrip("\r").rpartition("\r")[2]])
