"""Ports for the servers and kernels that tests start.

A port that the system gives, and that is free again until the started program binds it, may be given to somebody else
meanwhile. A kernel whose IOPub port is taken does not end: it hangs, and never answers. So the ports come from below the
range that the system gives away, and each process of tests takes its own. Two test runs on one machine begin at places
of their own.
"""

from __future__ import annotations

import os
import socket
from itertools import cycle

FIRST, COUNT = 20_000, 12_000
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_share = COUNT // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_own = range(FIRST + _worker * _share, FIRST + (_worker + 1) * _share)
_begin = os.getpid() * 37 % _share
_next = cycle([*_own[_begin:], *_own[:_begin]])


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has, and that nobody is given by accident."""
    while True:
        port = next(_next)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
