"""A PostgreSQL server of our own, run as a user who is not root, on loopback."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.ports import free_port

PASSWORD = "s3cr3t-w0rd"


class PostgresServer:
    """`url` is that of its superuser. Nothing of it is left when it is stopped."""

    def __init__(self) -> None:
        found = [Path(path).parent for path in [shutil.which("initdb")] if path]
        found += [path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
        assert found, "PostgreSQL is not installed: run `make system`"
        self._bin = found[-1]
        # The server refuses to run as root; Debian's package brings a user.
        self._user = "postgres" if os.getuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="turncell-postgres-"))
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self.port = free_port()
        self.url = f"postgresql://tester:{PASSWORD}@127.0.0.1:{self.port}/postgres"
        self._data = self._folder / "data"
        words = self._folder / "password"
        words.write_text(PASSWORD)
        words.chmod(0o644)
        self._do("initdb", "-D", str(self._data), "-U", "tester", "-A", "scram-sha-256", "-E", "UTF8",
                 "--locale=C.UTF-8", "--no-sync", f"--pwfile={words}")  # fmt: skip
        self.start()

    def start(self) -> None:
        # Without fsync a crash of the server loses nothing, only one of the machine would.
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self._folder} -c fsync=off -c max_connections=50"
        self._do("pg_ctl", "-D", str(self._data), "-w", "-l", str(self._folder / "log"), "-o", options, "start")

    def crash(self) -> None:
        """Stop it as a kill does: nothing is written any more, clients are thrown out."""
        self._do("pg_ctl", "-D", str(self._data), "-w", "-m", "immediate", "stop")

    def files_that_hold(self, text: bytes) -> list[str]:
        """The files of tables (not the server's own log of changes) in which the text stands."""
        return [
            str(path.relative_to(self._data))
            for path in (self._data / "base").rglob("*")
            if path.is_file() and text in path.read_bytes()
        ]

    def file(self, path: str) -> Path:
        """A file of the server's data, as `pg_relation_filepath` names it."""
        return self._data / path

    def remove(self) -> None:
        self.crash()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _do(self, program: str, *arguments: str) -> None:
        home = pwd.getpwnam(self._user).pw_dir if self._user else os.environ.get("HOME", "/")
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            user=self._user,
            group=pwd.getpwnam(self._user).pw_gid if self._user else None,
            extra_groups=[] if self._user else None,
            env={**os.environ, "HOME": home, "LC_ALL": "C.UTF-8"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self._folder / "errors").open("w+"),
            timeout=60,
        )
        assert done.returncode == 0, f"{program} failed:\n{(self._folder / 'errors').read_text()}"
