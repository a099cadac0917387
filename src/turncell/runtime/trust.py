"""What a person has accepted: project folders, and the words of foreign tools. Digests in files of the user, 0600.

A file that was found in a project may come from anybody: a repository that was cloned, an archive that was unpacked. What
it says is inert until a person has accepted that folder, and again once a byte of it has changed. What is read is what
is digested: a file is read once, and its bytes are used.

Accepting a folder accepts what its files say, not what the programs that they name will do some day: `python server.py`
runs the server.py that is there then.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import orjson

from turncell import settings
from turncell.core.digest import canonical_json
from turncell.errors import StoreError
from turncell.runtime.private_files import make_folder

LOCK_TIMEOUT_S = 5.0
MOST_BYTES = 1_000_000
"""Of one file of a project."""


class Accepted:
    """Digests by name, in one JSON file: `{"version": 1, "accepted": {name: digest}}`. Any thread, any process.

    StoreError where the file cannot be read, written or understood.

    >>> import tempfile
    >>> accepted = Accepted(Path(tempfile.mkdtemp()) / "accepted.json")
    >>> accepted.put("/home/ada/notes", "d1")
    >>> accepted.get("/home/ada/notes"), accepted.remove("/home/ada/notes"), accepted.get("/home/ada/notes")
    ('d1', True, None)
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> dict[str, str]:
        try:
            found = orjson.loads(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{self.path} cannot be read: {error}; delete it to be asked about everything anew"
            ) from error
        names = found.get("accepted") if isinstance(found, dict) and found.get("version") == 1 else None
        if not isinstance(names, dict) or not all(isinstance(digest, str) for digest in names.values()):
            raise StoreError(f"{self.path} is not understood; delete it to be asked about everything anew")
        return names

    def get(self, name: str) -> str | None:
        return self.all().get(name)

    def put(self, name: str, digest: str) -> None:
        if self.all().get(name) == digest:
            return
        with self._writing():
            self._write({**self.all(), name: digest})

    def remove(self, name: str) -> bool:
        """Whether it was there."""
        with self._writing():
            names = self.all()
            if name not in names:
                return False
            del names[name]
            self._write(names)
            return True

    def _write(self, names: Mapping[str, str]) -> None:
        write_private(self.path, orjson.dumps({"version": 1, "accepted": names}, option=orjson.OPT_INDENT_2))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with locked(self.path):
            yield


@dataclass(frozen=True, slots=True)
class Project:
    """What a folder has for us, as it was when it was read."""

    folder: Path
    files: Mapping[str, bytes]
    """By name relative to the folder; those that are there."""
    is_trusted: bool

    @property
    def digest(self) -> str:
        return _digest(self.files)


def read_project(folder: str | os.PathLike[str] = ".") -> Project:
    """The files of a project folder. StoreError where one cannot be read, or is larger than a megabyte."""
    path = Path(folder).expanduser().resolve()
    files = {}
    for name in project_files():
        try:
            with open(path / name, "rb", opener=_without_waiting) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    continue
                data = file.read(MOST_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            continue
        except OSError as error:
            raise StoreError(f"{path / name} cannot be read: {error.strerror or error}") from error
        if len(data) > MOST_BYTES:
            raise StoreError(f"{path / name} has more than {MOST_BYTES:,} bytes; that is no file of settings")
        files[name] = data
    return Project(path, files, bool(files) and accepted_folders().get(str(path)) == _digest(files))


def _without_waiting(path: str, flags: int) -> int:
    """A pipe would be waited for, also one that takes the place of a file just now."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def is_trusted(folder: str | os.PathLike[str] = ".") -> bool:
    """Whether a person has accepted what this folder's files say now. False where there are none."""
    return read_project(folder).is_trusted


def trust(folder: str | os.PathLike[str] = ".", *, digest: str | None = None) -> Project:
    """Accept what a folder's files say now; with `digest`, only if that is what was shown. StoreError otherwise."""
    project = read_project(folder)
    if digest is not None and project.digest != digest:
        raise StoreError(f"the files of {project.folder} have changed since they were shown; look again")
    if project.files:
        accepted_folders().put(str(project.folder), project.digest)
    return Project(project.folder, project.files, bool(project.files))


def untrust(folder: str | os.PathLike[str] = ".") -> bool:
    """Take it back. Whether there was something to take back."""
    return accepted_folders().remove(str(Path(folder).expanduser().resolve()))


def project_files() -> tuple[str, ...]:
    meta = settings.current().meta_dirname
    return (".mcp.json", f"{meta}/mcp.json", f"{meta}/settings.toml")


def accepted_folders() -> Accepted:
    return Accepted(_beside_history("trusted.json"))


def accepted_tools() -> Accepted:
    return Accepted(_beside_history("mcp_tools.json"))


def write_private(path: Path, data: bytes) -> None:
    """Replace a file as a whole, for its owner's eyes. Nobody ever sees half of it. OSError where that fails."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")  # 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Between processes and threads, by a lock beside the file. StoreError where it is held for too long."""
    from filelock import FileLock, Timeout

    try:
        make_folder(path.parent)
        with FileLock(f"{path}.lock", timeout=LOCK_TIMEOUT_S):
            yield
    except Timeout as error:
        raise StoreError(f"{path}.lock has been held for {LOCK_TIMEOUT_S:g} s by another kernel; try again") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}") from error


def _digest(files: Mapping[str, bytes]) -> str:
    return sha256(
        canonical_json([[name, sha256(files[name]).hexdigest()] for name in sorted(files)]).encode()
    ).hexdigest()


def _beside_history(name: str) -> Path:
    return settings.current().personal_folder / name
