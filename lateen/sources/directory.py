"""A folder of YAML as a source: read once, then followed as the kernel reports changes.

    source = DirectorySource(path, check, pump.submit)
    await source.load()
    await source.run()

Files ending in .yaml, .yml or .json count, in subdirectories too; names that begin with a dot do not (editors and
Kubernetes' volumes use them). A file that is open for writing is left alone until it is closed. A look at the whole
folder every few seconds catches what a network file system does not report. What it all means is decided in `folder`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import structlog

from lateen.engine import Transaction
from lateen.lib.errors import LateenError
from lateen.lib.findings import Finding, Level, Position
from lateen.lib.ids import Ref
from lateen.sources.folder import UNREADABLE, Check, Folder
from lateen.sources.inotify import (
    CLOSE_WRITE,
    CREATE,
    DELETE,
    IS_DIRECTORY,
    MODIFY,
    MOVED_FROM,
    MOVED_TO,
    Inotify,
)

SUFFIXES: Final = (".yaml", ".yml", ".json")
WHOLE: Final = CLOSE_WRITE | MOVED_TO | MOVED_FROM | DELETE
"""What happens to a file that is complete afterwards, or gone."""
CONFIRMATION: Final = ".allow-mass-delete"
"""A file of this name, touched after a mass deletion was held, lets it happen."""

_RESCAN_S: Final = 3.0
_WRITING_S: Final = 5.0
"""A file that stays open is read after all when nothing was written for so long."""

_log = structlog.stdlib.get_logger("lateen.sources.directory")

_Signature = tuple[int, int, int]


class DirectoryError(LateenError):
    """The folder is not there or cannot be read."""


class DirectorySource:
    """Follows one folder. `submit` (it may be replaced) gets a transaction per change. For one event loop."""

    def __init__(
        self,
        path: Path,
        check: Check,
        submit: Callable[[Transaction], object],
        *,
        allow_mass_delete: bool = False,
    ) -> None:
        self._path = path
        self.submit = submit
        self._folder = Folder(check, allow_mass_delete=allow_mass_delete)
        self._seen: dict[Path, _Signature] = {}
        self._writing: dict[Path, float] = {}
        self._unreadable: dict[Path, Finding] = {}
        self._mark: int | None = None  # the confirmation's time when the deletion was held; 0: there was none
        self._inotify = Inotify()
        self._named: set[Path] = set()  # files to look at
        self._all = True  # to look at every file
        self._woken = asyncio.Event()
        self._said: set[str] = set()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What there is to say about the folder now."""
        return (*self._unreadable.values(), *self._folder.findings)

    @property
    def folder(self) -> Folder:
        """The folder's meaning."""
        return self._folder

    async def load(self) -> None:
        """Reads everything once. DirectoryError when the folder is not there."""
        if not self._path.is_dir():
            raise DirectoryError(f"{self._path} is not a folder", remedy="make it, or give another --config-dir")
        await self._look()

    async def hold(self, ref: Ref, reason: str) -> None:
        """The xDS server's quarantine: what the object was before counts again, until its file changes."""
        self._folder.hold(ref, reason)
        self._woken.set()

    async def leave_out(self, ref: Ref, reasons: Mapping[str, str]) -> None:
        """The same: a file's object counts as a whole, or as it was before."""
        await self.hold(ref, "; ".join(f"{path}: {words}" for path, words in reasons.items()))

    async def run(self) -> None:
        """Follows the folder until cancelled."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._inotify.fileno(), self._events)
        try:
            while True:
                wait_s = _RESCAN_S
                if self._folder.due_at is not None:
                    wait_s = min(wait_s, max(0.0, self._folder.due_at - time.monotonic()))
                try:
                    async with asyncio.timeout(wait_s):
                        await self._woken.wait()
                except TimeoutError:
                    self._all = True
                self._woken.clear()
                await self._look()
        finally:
            loop.remove_reader(self._inotify.fileno())
            self._inotify.close()

    def _events(self) -> None:
        for event in self._inotify.events():
            if event.mask & MODIFY:
                self._writing[event.path] = time.monotonic()
                continue
            if event.mask & CREATE and not event.mask & IS_DIRECTORY and not event.path.is_symlink():
                continue  # its writer has it open; the end of that is another event
            if event.mask & WHOLE:
                self._writing.pop(event.path, None)
            if not event.mask & WHOLE or event.mask & IS_DIRECTORY or _leads_elsewhere(event.path):
                self._all = True
            elif _counts(event.path):
                self._named.add(event.path)
            else:
                continue
            self._woken.set()

    async def _look(self) -> None:
        """Brings the folder's meaning up to date with the disk."""
        self._events()
        named = None if self._all else self._named
        self._named, self._all = set(), False
        texts, gone = await asyncio.to_thread(self._read, named)
        self._events()
        for path in self._writing.keys() & texts.keys():  # it was opened while it was read
            del texts[path], self._seen[path]
            self._named.add(path)
        for path, text in texts.items():
            self._folder.read(str(path), text)
        for path in gone:
            self._folder.remove(str(path))
        if self._folder.held and self._confirmation() not in (0, self._mark):
            self._folder.confirm()
        change = self._folder.update(time.monotonic())
        if not self._folder.held:
            self._mark = None
        elif self._mark is None:
            self._mark = self._confirmation()
        self._report()
        if change is not None:
            self.submit(change)

    def _read(self, named: set[Path] | None) -> tuple[dict[Path, str], list[Path]]:
        """The texts that changed and the files that are gone, of the named ones or of all. Runs in a thread while
        nothing else here does."""
        texts: dict[Path, str] = {}
        found: set[Path] = set()
        now = time.monotonic()
        for path in self._files() if named is None else filter(_counts, named):
            try:
                status = path.stat()
                found.add(path)
                if path in self._writing and now - self._writing[path] < _WRITING_S:
                    continue
                signature = (status.st_mtime_ns, status.st_size, status.st_ino)
                if self._seen.get(path) == signature:
                    continue
                texts[path] = path.read_text()
                self._seen[path] = signature
                self._unreadable.pop(path, None)
            except FileNotFoundError:
                found.discard(path)
            except (OSError, UnicodeDecodeError) as error:
                # What cannot be read is not gone: its objects stay.
                self._unreadable[path] = _unreadable(path, str(error))
        known = self._seen.keys() if named is None else named & self._seen.keys()
        gone = [path for path in known if path not in found]
        for path in gone:
            del self._seen[path]
            self._writing.pop(path, None)
        unreadable = self._unreadable.keys() if named is None else named & self._unreadable.keys()
        for path in [each for each in unreadable if each not in found]:
            del self._unreadable[path]
        return texts, gone

    def _files(self) -> Iterator[Path]:
        for directory, subdirectories, names in os.walk(self._path):
            subdirectories[:] = sorted(each for each in subdirectories if not each.startswith("."))
            try:
                self._inotify.watch(Path(directory))
            except FileNotFoundError:
                continue
            except OSError as error:
                self._say(Level.WARNING, f"{directory} is looked at every {_RESCAN_S:.0f} s only: {error.strerror}")
            for name in names:
                if _counts(path := Path(directory, name)):
                    yield path

    def _confirmation(self) -> int:
        """When the confirmation was last touched, 0 when there is none."""
        try:
            return (self._path / CONFIRMATION).stat().st_mtime_ns
        except OSError:
            return 0

    def _report(self) -> None:
        now = {str(each): each.level for each in self.findings}
        for text, level in now.items():
            if text not in self._said:
                self._say(level, text)
        self._said = {text for text in self._said if text in now} | now.keys()

    def _say(self, level: Level, text: str) -> None:
        if text in self._said:
            return
        self._said.add(text)
        (_log.error if level is Level.ERROR else _log.warning)("folder", says=text)


def _counts(path: Path) -> bool:
    return path.name.endswith(SUFFIXES) and not path.name.startswith(".")


def _leads_elsewhere(path: Path) -> bool:
    """True for what other files may be reached through: their texts change without a word about them."""
    return path.name.startswith("..") or path.is_symlink() or path.name == CONFIRMATION


def _unreadable(path: Path, why: str) -> Finding:
    return Finding(
        code=UNREADABLE,
        level=Level.ERROR,
        message=f"the file cannot be read: {why}",
        position=Position(str(path), 1, 1),
        remedy="check its permissions and that it is UTF-8; until then its objects stay as they are",
    )
