"""The file under the store: SQLite in WAL mode, every commit synced to the disk before anybody hears of it.

Used by one thread only, the store's writer. `objects` is the present, `history` what each object asked for at each
revision (no statuses), with who and when. History is bounded: for a live object the newest 20 versions that proxies
did not refuse and all that are newer, for deleted objects the newest 5,000 entries; and by age.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from lateen.apiserver.errors import StorageError
from lateen.apiserver.rows import Change, Held, Mark, Row, Version, facts_of
from lateen.lib.ids import Ref, parse_ref

SCHEMA = 4
_UNTOLD = (("", "Event"), ("coordination.k8s.io", "Lease"))
"""Kinds without a history: they come and go by themselves all the time."""
_UNMARKED = b"[]"
_VERSIONS_KEPT = 20
_DELETED_KEPT = 5_000
_TABLES = """
CREATE TABLE objects (
    ref TEXT PRIMARY KEY, api_version TEXT NOT NULL, metadata BLOB NOT NULL, body BLOB NOT NULL, status BLOB NOT NULL,
    revision INTEGER NOT NULL, generation INTEGER NOT NULL, author TEXT NOT NULL,
    source BLOB NOT NULL, findings BLOB NOT NULL, held TEXT, good_metadata BLOB, good_body BLOB,
    managed BLOB NOT NULL
) STRICT;
CREATE TABLE history (
    revision INTEGER PRIMARY KEY, ref TEXT NOT NULL, at TEXT NOT NULL, author TEXT NOT NULL, action TEXT NOT NULL,
    api_version TEXT NOT NULL, metadata BLOB NOT NULL, body BLOB NOT NULL, condemned INTEGER NOT NULL DEFAULT 0,
    marks BLOB NOT NULL DEFAULT (CAST('[]' AS BLOB))
) STRICT;
CREATE INDEX history_of_object ON history (ref, revision);
CREATE TABLE progress (revision INTEGER NOT NULL) STRICT;
INSERT INTO progress VALUES (0);
"""


class Database:
    """One connection. StorageError when the file cannot be opened or was written by a newer lateen."""

    def __init__(self, path: Path) -> None:
        try:
            # The file holds Secrets: nobody else may read it, from its first byte on.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA):
                raise StorageError(
                    f"{path} has the format {version}, this lateen reads {SCHEMA}",
                    remedy="use the lateen that wrote it, or move the file away",
                )
            if version == 0:
                self._db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")
        except (OSError, sqlite3.Error) as error:
            raise StorageError(
                f"the object store {path} cannot be opened: {error}",
                remedy="is another control plane of this mesh running? else check the disk and the file's owner",
            ) from error

    def revision(self) -> int:
        """The last revision that was committed."""
        return self._db.execute("SELECT revision FROM progress").fetchone()[0]

    def rows(self) -> Iterator[Row]:
        """Every object."""
        names = "ref, api_version, metadata, body, status, revision, generation, author, source, findings"
        query = self._db.execute(f"SELECT {names}, held, good_metadata, good_body, managed FROM objects ORDER BY ref")  # noqa: S608
        for ref, api_version, metadata, body, status, revision, generation, author, source, *rest in query:
            findings, held, good_metadata, good_body, managed = rest
            facts = facts_of(msgspec.json.decode(metadata))
            said: dict[str, msgspec.Raw] = msgspec.json.decode(findings, type=dict[str, msgspec.Raw])
            yield Row(
                ref=parse_ref(ref),
                api_version=api_version,
                metadata=metadata,
                body=body,
                status=status,
                revision=revision,
                generation=generation,
                author=author,
                source=source,
                findings={origin: bytes(part) for origin, part in said.items()},
                held=None if held is None else Held(held, good_metadata, good_body),
                managed=managed,
                labels=facts.labels,
                owners=facts.owners,
                deleting=facts.deleting,
            )

    def begin(self) -> None:
        """Starts a commit of several transactions."""
        self._db.execute("BEGIN IMMEDIATE")

    def commit(self, revision: int) -> None:
        """Ends it; returns when everything is on the disk."""
        self._db.execute("UPDATE progress SET revision = ?", (revision,))
        self._db.execute("COMMIT")

    def roll_back(self) -> None:
        """Ends it as if nothing had been asked for."""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def savepoint(self) -> None:
        """Starts one transaction of the commit."""
        self._db.execute("SAVEPOINT one")

    def keep(self) -> None:
        """Ends it with its changes."""
        self._db.execute("RELEASE one")

    def forget(self) -> None:
        """Ends it without its changes."""
        self._db.execute("ROLLBACK TO one")
        self._db.execute("RELEASE one")

    def write(self, change: Change, at: str, author: str) -> None:
        """One object as it is now, and its history unless only status, findings or hold changed."""
        before, after = change.before, change.after
        ref = str(change.row.ref)
        if after is None:
            self._db.execute("DELETE FROM objects WHERE ref = ?", (ref,))
        else:
            held = after.held
            self._db.execute(
                "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    ref,
                    after.api_version,
                    after.metadata,
                    after.body,
                    after.status,
                    after.revision,
                    after.generation,
                    after.author,
                    after.source,
                    msgspec.json.encode({origin: msgspec.Raw(part) for origin, part in after.findings.items()}),
                    held.reason if held else None,
                    held.metadata if held else None,
                    held.body if held else None,
                    after.managed,
                ),
            )
        if change.row.ref.collection in _UNTOLD:
            return
        if before and after and before.metadata == after.metadata and before.body == after.body:
            return
        action = "create" if before is None else "delete" if after is None else "update"
        row = change.row
        self._db.execute(
            "INSERT INTO history (revision, ref, at, author, action, api_version, metadata, body) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (change.revision, ref, at, author, action, row.api_version, row.metadata, row.body),
        )
        self._db.execute(
            "DELETE FROM history WHERE ref = ?1 AND revision < (SELECT revision FROM history "
            "WHERE ref = ?1 AND NOT condemned ORDER BY revision DESC LIMIT 1 OFFSET ?2)",
            (ref, _VERSIONS_KEPT - 1),
        )

    def versions(self, ref: Ref) -> list[Version]:
        """The history of one object, newest first."""
        return self._versions("WHERE ref = ? ORDER BY revision DESC", str(ref))

    def recent(self, limit: int) -> list[Version]:
        """The history of all objects, newest first."""
        return self._versions("ORDER BY revision DESC LIMIT ?", limit)

    def since(self, revision: int) -> list[Version]:
        """What came after a revision, oldest first."""
        return self._versions("WHERE revision > ? ORDER BY revision", revision)

    def at(self, revision: int) -> list[Version]:
        """The newest version of each object that is not newer than a revision; deletions included."""
        newest = "WHERE revision IN (SELECT max(revision) FROM history WHERE revision <= ? GROUP BY ref) ORDER BY ref"
        return self._versions(newest, revision)

    def until(self, at: str) -> list[Version]:
        """The last version written at or before a time (`2026-01-31T10:00:00Z`): one, or none."""
        return self._versions("WHERE at <= ? ORDER BY revision DESC LIMIT 1", at)

    def _versions(self, which: str, value: str | int) -> list[Version]:
        columns = "revision, ref, at, author, action, api_version, metadata, body, condemned, marks"
        query = self._db.execute(f"SELECT {columns} FROM history {which}", (value,))  # noqa: S608
        return [
            Version(
                revision,
                parse_ref(ref),
                at,
                author,
                action,
                api_version,
                msgspec.Raw(metadata),
                msgspec.Raw(body),
                bool(bad),
                msgspec.json.decode(marks, type=tuple[Mark, ...]) if marks != _UNMARKED else (),
            )
            for revision, ref, at, author, action, api_version, metadata, body, bad, marks in query
        ]

    def condemn(self, ref: Ref, revision: int, *, condemned: bool) -> None:
        """Marks one version of an object, or takes the mark away."""
        self._db.execute(
            "UPDATE history SET condemned = ? WHERE ref = ? AND revision = ?", (condemned, str(ref), revision)
        )

    def mark(self, ref: Ref, revision: int, marks: tuple[Mark, ...]) -> None:
        """What is said of errors after one version of an object."""
        self._db.execute(
            "UPDATE history SET marks = ? WHERE ref = ? AND revision = ?",
            (msgspec.json.encode(marks), str(ref), revision),
        )

    def prune(self, before: str) -> None:
        """Forgets the oldest history of objects that are gone, and all from before a time but the last version that
        is good."""
        self._db.execute(
            "DELETE FROM history WHERE at < ?1 AND (ref NOT IN (SELECT ref FROM objects) OR revision < "
            "(SELECT max(revision) FROM history AS other WHERE other.ref = history.ref AND NOT condemned))",
            (before,),
        )
        self._db.execute(
            "DELETE FROM history WHERE revision IN (SELECT revision FROM history "
            "WHERE ref NOT IN (SELECT ref FROM objects) ORDER BY revision DESC LIMIT -1 OFFSET ?)",
            (_DELETED_KEPT,),
        )

    def close(self) -> None:
        """Closes the file; the log is folded into it."""
        self._db.close()
