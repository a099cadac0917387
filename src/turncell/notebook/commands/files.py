"""Out and in: transcripts to read, sessions to take along."""

from __future__ import annotations

from pathlib import Path

from turncell.errors import UsageError
from turncell.frames.visible import visible
from turncell.notebook.commands import Parser, command, say
from turncell.notebook.notebook import Notebook, counted
from turncell.runtime.session import Session

_EXPORT = Parser("export")
_EXPORT.add_argument("path", metavar="PATH")
_EXPORT.add_argument("--session", action="store_true")
_EXPORT.add_argument("--overwrite", action="store_true")


@command(
    "export [--session] [--overwrite] PATH",
    "a transcript to read (.html, .md, .ipynb); with --session the whole session (.jsonl, .md)",
)
def export(notebook: Notebook, *words: str) -> None:
    given = _EXPORT.parse_args(list(words))
    session, target = notebook.a_session(), Path(given.path).expanduser()
    if target.exists() and not given.overwrite:
        raise UsageError(f"{target} is there already; write %agent export --overwrite PATH, or another path")
    if given.session:
        say(f"{session.export(target, overwrite=given.overwrite).resolve()}\nthe session whole; %agent import reads it")
        return
    if target.suffix not in (".html", ".md", ".ipynb"):
        raise UsageError(
            f"%agent export {given.path}: a transcript is .html, .md or .ipynb; write %agent export --session PATH for the "
            "session whole (.md or .jsonl), which %agent import reads"
        )
    target.write_text(_transcript(session, target.suffix), encoding="utf-8")
    say(f"{target.resolve()}\na transcript, to read; %agent export --session PATH writes what can be imported")


def _transcript(session: Session, suffix: str) -> str:
    if suffix == ".md":
        from turncell.frames.export import export_markdown

        return export_markdown(session)
    title = next((run.prompt.text for run in session.runs if run.prompt), "Agent session")[:80]
    if suffix == ".ipynb":
        from turncell.frames.ipynb import export_ipynb

        return export_ipynb(session, title)
    from turncell.frames.export import export_html

    return export_html(session, title)


@command("import PATH", "read a session that export --session wrote")
def import_(notebook: Notebook, path: str) -> None:
    session = Session.import_file(Path(path).expanduser())
    say(
        f"{session.id}: {visible(session.title)!r}, {counted(len(session.runs), 'run')}; "
        f"go on with %agent resume {session.id}, or %%agent --session {session.id}"
    )
