"""Processes: who writes a session, and whether that process still lives."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from turncell.runtime.ports import Writer

if TYPE_CHECKING:
    import psutil

_HAS_TICKS = sys.platform == "linux"
_TOLERANCE_S = 0.005 if _HAS_TICKS else 2.0
"""Two processes of one pid are further apart than this; where only the clock tells, it may be set and is rounded."""


def this_writer() -> Writer:
    """This process, with a token that nobody else has."""
    import psutil

    pid = os.getpid()
    return Writer(
        token=secrets.token_hex(16), host=socket.gethostname(), pid=pid, born_at=_born_at(psutil.Process(pid)),
        since=time.time(),
    )  # fmt: skip


def _born_at(process: psutil.Process) -> float:
    """When the process began, in seconds; on Linux since the boot, else since 1970-01-01 UTC.

    Linux knows only the former: what it makes of it moves with the clock, and a clock that is set must not make a living
    writer look like another process.
    """
    if not _HAS_TICKS:
        return float(process.create_time())
    fields = Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")  # the 22nd field; the 2nd, a name, may hold anything


def may_go_on(writer: Writer) -> bool:
    """Whether the writer's process runs on this machine. One that was stopped, or is elsewhere, cannot be seen to."""
    import psutil

    if writer.host != socket.gethostname() or has_ended(writer):
        return False
    try:
        return bool(psutil.Process(writer.pid).status() != psutil.STATUS_STOPPED)
    except psutil.Error:
        return True


def held_by(session_id: str, writer: Writer) -> str:
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(writer.since))
    except (ValueError, OverflowError, OSError):
        since = f"{writer.since!r}"
    return f"session {session_id} is written by process {writer.pid} on {writer.host} since {since}"


def has_ended(writer: Writer) -> bool:
    """Whether the writer's process is known to be gone. Of another machine that is never known.

    A stopped process (a closed laptop, SIGSTOP) lives: it may go on at any moment.
    """
    import psutil

    if writer.host != socket.gethostname():
        return False
    try:
        process = psutil.Process(writer.pid)
        is_gone = process.status() == psutil.STATUS_ZOMBIE
        return is_gone or bool(abs(_born_at(process) - writer.born_at) > _TOLERANCE_S)
    except (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
        return True
    except psutil.AccessDenied:
        return False
