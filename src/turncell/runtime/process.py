"""Processes: who writes a session, and whether that process still lives."""

from __future__ import annotations

import os
import secrets
import socket
import time

from turncell.runtime.ports import Writer

_TOLERANCE_S = 2.0
"""Clocks are set, and operating systems round; two processes of one pid are further apart than this."""


def this_writer() -> Writer:
    """This process, with a token that nobody else has."""
    import psutil

    pid = os.getpid()
    return Writer(
        token=secrets.token_hex(16), host=socket.gethostname(), pid=pid, born_at=psutil.Process(pid).create_time(),
        since=time.time(),
    )  # fmt: skip


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
        return is_gone or bool(abs(process.create_time() - writer.born_at) > _TOLERANCE_S)
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False
