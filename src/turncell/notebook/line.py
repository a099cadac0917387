"""A line from the keyboard of a terminal, or a text from its editor, so that the wait for it can be given up."""

from __future__ import annotations

import os
import select
import shlex
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

POLL_S = 0.05


def read_line(prompt: str) -> str:
    """`input(prompt)` that a signal can end between two short waits; EOFError for Ctrl-D and a terminal that is gone.

    `input` sits in the C library, where a Python signal handler never gets its turn. What is not a POSIX terminal in
    line mode is left to `input`. Given up, what was typed so far is thrown away: it must not answer the next prompt.
    """
    terminal = _terminal()
    if terminal is None:
        return input(prompt)
    import termios

    sys.stdout.write(prompt)
    sys.stdout.flush()
    typed = b""
    try:
        while not typed.endswith(b"\n"):
            while not select.select([terminal], [], [], POLL_S)[0]:
                pass
            piece = os.read(terminal, 4096)
            if not piece:
                break
            typed += piece
    except OSError as error:  # the terminal was closed
        raise EOFError from error
    except BaseException:
        termios.tcflush(terminal, termios.TCIFLUSH)
        raise
    if not typed:
        raise EOFError
    return typed.decode(sys.stdin.encoding or "utf-8", "replace").rstrip("\r\n")


def editor() -> list[str]:
    """The words of the command that edits a file ($VISUAL, $EDITOR); none where nothing is set."""
    with suppress(ValueError):
        return shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "")
    return []


def edit_text(text: str, suffix: str) -> str:
    """The text as the person's editor leaves it. Raises OSError where that cannot be started or fails."""
    with tempfile.TemporaryDirectory(prefix="turncell-") as folder:  # which nobody else may look into
        path = Path(folder) / f"edit{suffix}"
        path.write_text(text, encoding="utf-8")
        child = subprocess.Popen([*editor(), str(path)])
        try:
            status = child.wait()
        except BaseException:
            child.terminate()  # an editor that is asked to end gives the terminal back
            with suppress(subprocess.TimeoutExpired):
                child.wait(1)
            child.kill()
            raise
        if status:
            raise OSError(f"{' '.join(editor())!r} ended with {status}")
        return path.read_text(encoding="utf-8", errors="replace")


def _terminal() -> int | None:
    """The descriptor of standard input where it is a terminal that gives whole lines."""
    try:
        import termios
    except ImportError:
        return None
    try:
        descriptor = sys.stdin.fileno()
        is_line_mode = termios.tcgetattr(descriptor)[3] & termios.ICANON
    except (AttributeError, ValueError, OSError, termios.error):
        return None
    return descriptor if is_line_mode else None
