"""The files around the documents: names, locks, claims, blobs and links, and what their errors mean."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from turncell.adapters import store_text
from turncell.errors import StoreBusy, StoreError
from turncell.runtime.ports import Writer
from turncell.runtime.private_files import make_folder, opener

LOCK_TIMEOUT_S = 10.0
_SESSION_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}")
_WINDOWS = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
_ADVICE = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room: the quota is used up",
    errno.EACCES: "this user may not; change that or set TURNCELL_STORE to another place",
    errno.EPERM: "this user may not; change that or set TURNCELL_STORE to another place",
    errno.EROFS: "the disk is read-only; set TURNCELL_STORE to another place",
    errno.ENOENT: "was it deleted?",
}


def check_session_id(session_id: str) -> None:
    """StoreError for an id that as a file name would leave the folder or be something else on some system."""
    if not _SESSION_ID.fullmatch(session_id) or session_id.endswith(".") or _WINDOWS.fullmatch(session_id):
        raise StoreError(
            f"session id {session_id[:200]!r} cannot be the name of a document; use up to 120 ASCII letters, digits, "
            "'-', '_' and '.', and no name that Windows reserves"
        )


@contextmanager
def failing(path: Path, doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "is the disk still there?")
        raise StoreError(f"{path} cannot be {doing}: {error.strerror or error}; {advice}") from error


@contextmanager
def root_lock(root: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(root / ".lock", timeout=LOCK_TIMEOUT_S, mode=0o600)
    with failing(root, "written"):
        try:
            lock.acquire()
        except Timeout:  # it is an OSError, too
            raise StoreBusy(
                f"another process has held {root / '.lock'} for {LOCK_TIMEOUT_S:g} s; end that one or try again"
            ) from None
    try:
        yield
    finally:
        lock.release()


def sync(path: Path) -> None:
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR
    if os.name == "nt" and flags == os.O_RDONLY:
        return  # Windows has no handle for a folder
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_new(path: Path, data: bytes) -> None:
    """Whole or not at all: FileExistsError if there is one."""
    with open(path, "xb", opener=opener) as file:
        try:
            file.write(data)
            file.flush()
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")


def replace_with(path: Path, first: bytes, rest: BinaryIO) -> None:
    """Put a file of `first` and what is left of `rest` in the place of `path`, on disk before it takes the name."""
    new = _beside(path)
    try:
        with open(new, "xb", opener=opener) as file:
            file.write(first)
            shutil.copyfileobj(rest, file, 1 << 20)
            file.flush()
            os.fsync(file.fileno())
        with suppress(OSError):
            shutil.copymode(path, new)
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def remove(path: Path) -> None:
    """A document and what stands beside it."""
    for left in path.parent.glob(f".{path.name}.*.new"):
        left.unlink(missing_ok=True)
    path.with_suffix(".lock").unlink(missing_ok=True)
    for left in path.parent.glob(f".{path.stem}.lock.*.new"):
        left.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    sync(path.parent)
    with suppress(OSError):  # not the last of its day
        path.parent.rmdir()


# Claims


def read_writer(lock: Path) -> Writer | None:
    with failing(lock, "read"):
        try:
            data = lock.read_bytes()
        except FileNotFoundError:
            return None
    try:
        values = json.loads(data)
        return Writer(
            token=str(values["token"]),
            host=str(values["host"]),
            pid=int(values["pid"]),
            born_at=float(values["born_at"]),
            since=float(values["since"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise StoreError(
            f"{lock} says who writes the session, and cannot be read ({error!r}); if nobody does, delete it"
        ) from error


def write_writer(lock: Path, writer: Writer, *, is_new: bool) -> None:
    """On disk before it has its name: a lock file that is there can be read. A new one never replaces another."""
    values = {name: getattr(writer, name) for name in Writer.__slots__}
    new = _beside(lock)
    with failing(lock, "written"):
        try:
            with open(new, "xb", opener=opener) as file:
                file.write(json.dumps(values).encode("ascii"))
                file.flush()
                os.fsync(file.fileno())
            if not is_new:
                os.replace(new, lock)
                return
            try:
                os.link(new, lock)
            except FileExistsError:
                raise
            except OSError:  # a file system without hard links
                with open(lock, "xb", opener=opener) as file:
                    file.write(new.read_bytes())
        finally:
            new.unlink(missing_ok=True)


# Blobs


def blob_path(root: Path, digest: str) -> Path:
    if not store_text.is_digest(digest):
        raise StoreError(f"a blob is named by its SHA-256 in hex; found {digest[:200]!r}")
    return root / "blobs" / digest[:2] / digest


def put_blob(root: Path, digest: str, data: bytes) -> bool:
    """Whether it is new."""
    path = blob_path(root, digest)
    if path.exists():
        return False
    with failing(path, "written"):
        make_folder(path.parent)
        new = _beside(path)
        try:
            with open(new, "xb", opener=opener) as file:
                file.write(data)
            os.replace(new, path)
        finally:
            new.unlink(missing_ok=True)
    return True


def read_blob(root: Path, digest: str) -> bytes:
    path = blob_path(root, digest)
    with failing(path, "read"):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise StoreError(f"the history at {root} has no blob {digest!r}; was its session deleted?") from None
    store_text.check_blob(digest, data, str(root))
    return data


def sweep_blobs(root: Path, in_use: set[str]) -> None:
    """Remove what nobody names, also what interrupted writes have left."""
    with failing(root / "blobs", "deleted"):
        for folder in (root / "blobs").iterdir():
            for path in folder.iterdir():
                if path.name not in in_use:
                    path.unlink()
            sync(folder)


# Links


def _pointer(document: Path) -> str:
    return f"This session's document is at\n{document}\n"


def make_link(link: Path, document: Path) -> None:
    make_folder(link.parent)
    try:
        link.symlink_to(document)
    except FileExistsError:
        if not link.is_symlink() or link.exists():
            raise
        link.unlink()  # it points at a document that is gone
        link.symlink_to(document)
    except (OSError, NotImplementedError):
        with open(link, "x", encoding="utf-8", opener=opener) as file:
            file.write(_pointer(document))


def remove_link(link: str, document: Path) -> None:
    """Remove it if it is ours: a header that names another file must not delete that."""
    if not link:
        return
    path = Path(link)
    if path.is_symlink():
        is_ours = os.readlink(path) == str(document)
    else:
        is_ours = path.is_file() and path.stat().st_size < 10_000 and path.read_text("utf-8") == _pointer(document)
    if is_ours:
        path.unlink()
