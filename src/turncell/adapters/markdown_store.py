"""Journals as Markdown: one readable document per session, `<root>/YYYYMMDD/<id>.md` (the day it began, in UTC).

People read the rendered text; programs read only the comments (see markdown_store_lines). Beside a document stands
`<id>.lock` while somebody writes the session; large texts are in `<root>/blobs/<2>/<digest>`.

All that changes something does so under one lock of the whole root, which is held for a write and not for an fsync. An
append looks at the end of the document and not at the rest: damage further up it knows, and refuses to write after, once
the session has been read here, as it is before it goes on (see markdown_store_lines). An append to several sessions is checked for all of them
before the first byte is written, and taken back where a later one fails; only the death of the process between two
files can leave it in one and not in the other.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from turncell.adapters import markdown_store_files as files
from turncell.adapters import markdown_store_lines as doc
from turncell.adapters import markdown_store_text as text
from turncell.adapters import store_text
from turncell.core.events import SCHEMA_VERSION
from turncell.errors import StoreError
from turncell.runtime.ports import Damage, Record, SessionInfo, Writer, root_run_of
from turncell.runtime.private_files import make_folder, opener
from turncell.settings import META_DIRNAME, check_meta_dirname

log = logging.getLogger("turncell")


class MarkdownStore:
    """A history of readable Markdown documents, one per session: `Journal(lambda: MarkdownStore(folder))`.

    Fulfils `runtime.ports.Store`. Use it from the thread that made it; a Journal does.

    `root` is the folder of all documents, by default `~/<meta_dirname>/sessions`. With `links`, each new session gets a
    link in `<its project>/<meta_dirname>/sessions/`, where its project is a folder of this machine.
    """

    def __init__(
        self, root: Path | str | None = None, *, links: bool = False, meta_dirname: str = META_DIRNAME
    ) -> None:
        check_meta_dirname(meta_dirname)
        self.root = Path(root).expanduser().absolute() if root else Path.home() / meta_dirname / "sessions"
        self._links_in = Path(meta_dirname) / "sessions" if links else None
        self._paths: dict[str, Path] = {}
        self._headers: dict[str, doc.Header] = {}
        self._ends: dict[str, tuple[tuple[int, int], int]] = {}
        """Size and inode of a document, and its last record: known, as long as nobody else has written."""
        self._infos: dict[str, tuple[tuple[int, int], SessionInfo]] = {}
        self._damaged: dict[str, Damage] = {}
        self._unsynced: set[Path] = set()
        self._told: set[tuple[str, int]] = set()
        with files.failing(self.root, "made"):
            make_folder(self.root)

    def __repr__(self) -> str:
        return f"<MarkdownStore at {self.root}>"

    # Writing

    def create_session(self, session_id: str, *, title: str, project: str, at: float) -> None:
        files.check_session_id(session_id)
        title, project = store_text.storable(title), store_text.storable(project)
        try:
            day = datetime.fromtimestamp(at, UTC).strftime("%Y%m%d").rjust(8, "0")
        except (ValueError, OverflowError, OSError) as error:
            raise StoreError(f"session {session_id!r} begins at {at!r}, which is no time: {error}") from error
        path = self.root / day / f"{session_id}.md"
        with files.root_lock(self.root):
            if self._path(session_id) is not None:
                raise StoreError(f"the history at {self.root} already has a session {session_id!r}; use another id")
            link = self._link_to(path, project)
            header = doc.Header(SCHEMA_VERSION, session_id, title, project, at, link)
            head = doc.header_line(header) + text.head(session_id, title, project, at).encode("utf-8")
            with files.failing(path, "written"):
                make_folder(path.parent)
                files.write_new(path, head)
            self._unsynced.add(path)

    def _link_to(self, path: Path, project: str) -> str:
        if self._links_in is None or not os.path.isabs(project):
            return ""
        link = Path(project) / self._links_in / path.name
        try:
            if not os.path.isdir(project) or link.parent.resolve() == self.root.resolve():
                return ""
            files.make_link(link, path)
        except OSError as error:  # the document is what counts
            log.warning("no link to the session at %s: %s", link, error.strerror)
            return ""
        return str(link)

    def append(self, records: Sequence[Record], *, durable: bool, token: str | None = None) -> None:
        if not records:
            return
        groups: dict[str, list[Record]] = {}
        for record in records:
            groups.setdefault(record.session_id, []).append(record)
        blobs = store_text.contents(records)
        with files.root_lock(self.root):
            ends = {session_id: self._writable(session_id, token) for session_id in groups}
            store_text.check_order(records, {session_id: tail.seq for session_id, tail in ends.items()})
            chunks = {session_id: _chunk(group) for session_id, group in groups.items()}
            for digest, data in blobs.items():
                if files.put_blob(self.root, digest, data):
                    self._unsynced.add(files.blob_path(self.root, digest))
            undo: list[tuple[Path, int]] = []
            try:
                for session_id, tail in ends.items():
                    self._write(session_id, tail, chunks[session_id], groups[session_id][-1].seq, undo)
            except BaseException:
                self._ends.clear()
                for path, size in undo:
                    with suppress(OSError):
                        os.truncate(path, size)
                raise
        if durable:
            self._sync()

    def _writable(self, session_id: str, token: str | None) -> doc.Tail:
        """The end of a document that may be written."""
        path = self._existing(session_id)
        header = self._header(session_id, path)
        if header.version < SCHEMA_VERSION:  # an older turncell must not write after what it does not know
            self._rewrite_head(path, replace(header, version=SCHEMA_VERSION))
        store_text.check_writer(session_id, files.read_writer(path.with_suffix(".lock")), token)
        _check_version(header, path)
        store_text.check_damage(self._damaged.get(session_id))
        with _opened(path) as file:
            found = os.fstat(file.fileno())
            known = self._ends.get(session_id)
            if known is not None and known[0] == (found.st_size, found.st_ino):
                return doc.Tail(known[1], None, True)
            with files.failing(path, "read"):
                tail = doc.tail(file, found.st_size, session_id)
        if tail.damaged_at is not None:
            raise StoreError(str(_damage(session_id, (tail.seq or 0) + 1, path, tail.damaged_at, tail.why)))
        return tail

    def _write(
        self, session_id: str, tail: doc.Tail, chunk: bytes, last_seq: int, undo: list[tuple[Path, int]]
    ) -> None:
        path = self._paths[session_id]
        if tail.torn_at is not None:
            log.warning("%s ended in a record that is not whole; it is cut off at byte %d", path, tail.torn_at)
            with files.failing(path, "repaired"):
                os.truncate(path, tail.torn_at)
        with files.failing(path, "written"), open(path, "ab", buffering=0, opener=opener) as file:
            size = os.fstat(file.fileno()).st_size
            undo.append((path, size))
            self._unsynced.add(path)
            rest = memoryview(chunk if tail.ends_with_newline or tail.torn_at is not None else b"\n" + chunk)
            while rest:
                rest = rest[file.write(rest) :]
            found = os.fstat(file.fileno())
            self._ends[session_id] = ((found.st_size, found.st_ino), last_seq)

    def _sync(self) -> None:
        """All that was written before, in whichever document: a blob is on disk before the record that names it counts."""
        while self._unsynced:
            path = next(iter(self._unsynced))
            with files.failing(path, "written"), suppress(FileNotFoundError):  # deleted meanwhile
                files.sync(path)
                files.sync(path.parent)
                files.sync(path.parent.parent)
            self._unsynced.discard(path)

    def claim(self, session_id: str, writer: Writer, *, instead_of: str | None = None) -> Writer | None:
        with files.root_lock(self.root):
            path = self._existing(session_id)
            _check_version(self._header(session_id, path), path)
            lock = path.with_suffix(".lock")
            found = files.read_writer(lock)
            if found is not None and found.token not in (writer.token, instead_of):
                return found
            files.write_writer(lock, writer, is_new=found is None)
            return None

    def release(self, session_id: str, token: str) -> None:
        with files.root_lock(self.root):
            path = self._path(session_id)
            lock = None if path is None else path.with_suffix(".lock")
            found = None if lock is None else files.read_writer(lock)
            if lock is not None and found is not None and found.token == token:
                with files.failing(lock, "removed"):
                    lock.unlink(missing_ok=True)

    def writer(self, session_id: str) -> Writer | None:
        path = self._path(session_id)
        return None if path is None else files.read_writer(path.with_suffix(".lock"))

    def rename(self, session_id: str, title: str) -> None:
        """Writes the document anew and puts it in the place of the old one at once."""
        title = store_text.storable(title)
        with files.root_lock(self.root):
            path = self._existing(session_id)
            header = replace(self._header(session_id, path), title=title)
            _check_version(header, path)
            self._rewrite_head(path, header)

    def _rewrite_head(self, path: Path, header: doc.Header) -> None:
        with _opened(path) as file, files.failing(path, "written"):
            file.readline()
            heading = file.readline()
            first = doc.header_line(header) + text.title_line(header.title).encode("utf-8")
            files.replace_with(path, first if heading.startswith(b"# ") else first + heading, file)
        self._headers[header.session_id] = header
        self._ends.pop(header.session_id, None)

    def delete(self, session_ids: Sequence[str]) -> None:
        """Documents, links, claims, and every blob that no remaining document names. The documents go last: an
        interrupted deletion can be repeated."""
        with files.root_lock(self.root):
            doomed = {one: path for one in session_ids if (path := self._path(one)) is not None}
            if (self.root / "blobs").is_dir():
                in_use: set[str] = set()
                for session_id, path in self._documents():
                    if session_id not in doomed and path.is_file():
                        with _opened(path) as file, files.failing(path, "read"):
                            in_use |= doc.digests(file, session_id)
                files.sweep_blobs(self.root, in_use)
            for session_id, path in doomed.items():
                with suppress(StoreError), files.failing(path, "unlinked"):
                    files.remove_link(self._header(session_id, path).link, path)
                with files.failing(path, "deleted"):
                    files.remove(path)
                self._forget(session_id)

    # Reading

    def read(
        self, *, session_id: str | None = None, run_id: str | None = None, types: Sequence[str] | None = None
    ) -> Iterable[Record]:
        """Lazy: one append is in memory at a time."""
        if session_id is None:
            found = [(header, path) for header, path in self._known()]
            found.sort(key=lambda one: (one[0].created_at, one[0].session_id))
            chosen = [(header.session_id, path) for header, path in found]
        else:
            path = self._path(session_id)
            if path is None:
                return iter(())
            self._header(session_id, path)
            chosen = [(session_id, path)]
        wanted = None if types is None else frozenset(types)
        return (
            record
            for one, path in chosen
            for record in self._records(one, path)
            if (run_id is None or record.run_id == run_id) and (wanted is None or record.type in wanted)
        )

    def _records(self, session_id: str, path: Path) -> Iterator[Record]:
        ending, seq = doc.Ending(), 0
        with _opened(path) as file, files.failing(path, "read"):
            version = self._header(session_id, path).version
            for record in doc.records(file, session_id, ending):
                seq = record.seq
                # What a newer turncell has marked may be newer in ways that its lines do not tell.
                yield record if version <= SCHEMA_VERSION else record._replace(version=max(record.version, version))
        self._damaged.pop(session_id, None)
        if ending.damaged_at is not None:
            self._damaged[session_id] = _damage(session_id, seq + 1, path, ending.damaged_at, ending.why)
        if ending.torn_at is not None:
            words = (
                f"the last record of {path}, at byte {ending.torn_at}, is not whole and left out; its writer has died"
            )
            self._tell(session_id, ending.torn_at, words)

    def damage(self, session_id: str) -> Damage | None:
        return self._damaged.get(session_id)

    def _tell(self, session_id: str, offset: int, words: str) -> None:
        if (session_id, offset) not in self._told:
            self._told.add((session_id, offset))
            log.warning("%s", words)

    def blob(self, digest: str) -> bytes:
        return files.read_blob(self.root, digest)

    def sessions(self) -> list[SessionInfo]:
        found = [info for header, path in self._known() if (info := self._info(header, path)) is not None]
        return sorted(found, key=lambda info: (info.updated_at, info.created_at, info.session_id), reverse=True)

    def _info(self, header: doc.Header, path: Path) -> SessionInfo | None:
        try:
            now = path.stat()
            known = self._infos.get(header.session_id)
            if known is None or known[0] != (now.st_size, now.st_mtime_ns):
                updated_at, runs, root_run_id = None, 0, ""
                for record in self._records(header.session_id, path):
                    updated_at = record.at if updated_at is None else max(updated_at, record.at)
                    runs += record.type == "RunStarted"
                    root_run_id = root_run_of(record) if record.seq == 1 else root_run_id
                updated_at = header.created_at if updated_at is None else updated_at
                info = SessionInfo(
                    header.session_id, header.title, header.project, header.created_at, updated_at, runs, root_run_id
                )
                known = self._infos[header.session_id] = ((now.st_size, now.st_mtime_ns), info)
        except FileNotFoundError:  # deleted meanwhile
            return None
        except (OSError, StoreError) as error:
            self._tell(header.session_id, -2, f"{path} is left out: {error}")
            return None
        return known[1]

    def close(self) -> None:
        self._unsynced.clear()

    # Where

    def _documents(self) -> Iterator[tuple[str, Path]]:
        with files.failing(self.root, "read"):
            for day in sorted(self.root.iterdir()):
                if len(day.name) == 8 and day.name.isdigit() and day.is_dir():
                    for path in sorted(day.glob("*.md")):
                        if not path.name.startswith("."):
                            yield path.stem, path

    def _known(self) -> Iterator[tuple[doc.Header, Path]]:
        """All documents that are what they seem. One that is not must not hide the others."""
        for session_id, path in self._documents():
            try:
                files.check_session_id(session_id)
                self._paths[session_id] = path
                self._headers.pop(session_id, None)  # somebody may have renamed it
                yield self._header(session_id, path), path
            except StoreError as error:
                self._tell(session_id, -1, f"{path} is left out: {error}")

    def _path(self, session_id: str) -> Path | None:
        files.check_session_id(session_id)
        known = self._paths.get(session_id)
        if known is not None and known.exists():
            return known
        self._forget(session_id)
        name = f"{session_id}.md"
        with files.failing(self.root, "read"):
            days = sorted((one for one in os.listdir(self.root) if len(one) == 8 and one.isdigit()), reverse=True)
        found = next((path for day in days if (path := self.root / day / name).exists()), None)
        if found is not None:
            self._paths[session_id] = found
        return found

    def _existing(self, session_id: str) -> Path:
        path = self._path(session_id)
        if path is None:
            raise store_text.no_session(session_id, str(self.root))
        return path

    def _forget(self, session_id: str) -> None:
        for known in (self._paths, self._headers, self._ends, self._infos, self._damaged):
            known.pop(session_id, None)

    def _header(self, session_id: str, path: Path) -> doc.Header:
        if session_id not in self._headers:
            with _opened(path) as file, files.failing(path, "read"):
                line = file.readline(1 << 20)
            try:
                header = doc.parse_header(line)
            except doc.Broken as error:
                raise StoreError(
                    f"{path} is not the document of a session, or its first line is damaged: {error}"
                ) from error
            if header.session_id != session_id:
                raise StoreError(
                    f"{path} says that it is session {header.session_id[:120]!r}; was it renamed or copied?"
                )
            self._headers[session_id] = header
        return self._headers[session_id]


def _damage(session_id: str, seq: int, path: Path, offset: int, why: str) -> Damage:
    return Damage(session_id=session_id, seq=seq, found=f"{why}; in {path} at byte {offset}")


def _check_version(header: doc.Header, path: Path) -> None:
    if header.version > SCHEMA_VERSION:
        raise StoreError(
            f"the document {path} has schema version {header.version}, this turncell writes up to {SCHEMA_VERSION}, "
            "so that it can only be read; upgrade turncell or begin a new session"
        )


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with files.failing(path, "read"):
        # A pipe of this name would keep us waiting for ever.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise StoreError(f"{path} is no file; remove it")
        file = open(path, "rb")  # noqa: SIM115
    with file:
        yield file


def _chunk(group: Sequence[Record]) -> bytes:
    """What one append adds to a document."""
    pieces: list[bytes] = []
    for number, record in enumerate(group):
        digests = sorted(store_text.blob_digests(record))
        pieces.append(doc.record_line(record, store_text.payload_text(record), digests, len(group) - number - 1))
        pieces.append(text.rendered(record).encode("utf-8", "replace"))
    return b"".join(pieces)
