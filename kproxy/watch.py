"""Noticing that files changed: edited in place, replaced by rename, or swapped behind a symbolic link.

Kubernetes mounts a ConfigMap as `file -> ..data/file`, with `..data` a link that it replaces whole; editors
write a new file and rename it.  So what is compared is not events but fingerprints of what the paths now lead
to.  The kernel's notifications (inotify, through watchfiles) only say when to look; a slow periodic look finds
what they miss: a queue that overflowed, a file system without them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from watchfiles import Change

# documented; awatch would miss what changes between two calls
from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError

from kproxy.errors import FileError, Problem
from kproxy.logs import logger

_log = logger(__name__)

DEBOUNCE_MS = 200
"""Changes that come within this are one: a checkout or an editor touches a file several times."""

STEP_MS = 50
"""A batch of changes also ends after this long without a further one."""

LOOK_MS = 10_000
"""How often the files are looked at without any notification."""

POLL_S = 1.0
"""How often they are looked at where the kernel does not tell."""

Fingerprint = Mapping[str, tuple[int, ...]]
"""For each file: device, inode, size, and times of change in nanoseconds."""


class Watch:
    """Files and folders under watch; a folder stands for the files directly in it, one of `deep` for those below.

    Make it before the files are read for the first time: what changes from then on is reported.  Names that
    begin with a dot are left out.  Raises FileError where a path is not there.
    """

    def __init__(self, paths: Iterable[str], deep: Iterable[str] = ()) -> None:
        self._deep = frozenset(deep)
        self._paths = (*paths, *sorted(self._deep))
        if missing := [path for path in self._paths if not os.path.exists(path)]:
            mend = "check the path, or make the folder"
            raise FileError([Problem(path, 0, "", "is not there", mend) for path in missing])
        self._known = fingerprint(self._paths, self._deep)

    async def changes(self) -> AsyncIterator[frozenset[str]]:
        """Yield the files that changed, came or went, each time that some did, until it is cancelled."""
        stop = threading.Event()
        try:
            while True:
                places = await asyncio.to_thread(folders, self._paths, self._deep)
                try:
                    notify = _notifier([*filter(_is_text, places)])
                except FileNotFoundError:
                    continue  # A folder went between the two lines; look again.
                with notify as told:
                    async for changed in self._until_moved(told, places, stop):
                        yield changed
        finally:
            # The thread that waits in the kernel sees this within a step, and does not hold up the exit.
            stop.set()

    async def settled(self) -> bool:
        """Whether nothing has changed since the last change that was reported."""
        return self._known == await asyncio.to_thread(fingerprint, self._paths, self._deep)

    async def _until_moved(
        self, notify: _Notifier, places: Mapping[str, tuple[int, int]], stop: threading.Event
    ) -> AsyncIterator[frozenset[str]]:
        """Yield changes until other folders have to be watched."""
        while True:
            if changed := await self._look():
                yield changed
            if await asyncio.to_thread(folders, self._paths, self._deep) != places:
                return
            try:
                while not self._matters(
                    await asyncio.to_thread(notify.watch, DEBOUNCE_MS, STEP_MS, LOOK_MS, stop)
                ):
                    pass
            except WatchfilesRustInternalError as error:
                # The name of something in a watched folder is not UTF-8. It tells of nothing more: begin anew.
                _log.debug("the kernel's notifications begin anew", reason=str(error))
                await asyncio.sleep(DEBOUNCE_MS / 1000)
                return

    async def _look(self) -> frozenset[str]:
        """Compare with what was known, and know the new state."""
        known, now = self._known, await asyncio.to_thread(fingerprint, self._paths, self._deep)
        self._known = now
        return frozenset(name for name in known.keys() | now.keys() if known.get(name) != now.get(name))

    def _matters(self, found: set[tuple[int, str]] | str) -> bool:
        """Tell whether it is worth a look: a log that grows in a watched folder is not."""
        if isinstance(found, str):
            return True
        names = {os.path.realpath(name) for name in (*self._known, *self._paths)}
        return any(kind != Change.modified or os.path.realpath(name) in names for kind, name in found)


class _Notifier(Protocol):
    """What waits until it is worth a look."""

    def watch(self, debounce_ms: int, step_ms: int, timeout_ms: int, stop: threading.Event, /) -> Any:
        """Return the changes that the kernel told of, or a word where it is time to look anyway."""


def _notifier(places: list[str]) -> AbstractContextManager[_Notifier]:
    """Have the kernel tell of changes; where it has no room for one more who listens, look again and again.

    Raises FileNotFoundError where a folder is gone.
    """
    try:
        return RustNotify(places, False, False, 0, False, True)
    except FileNotFoundError:
        raise
    except (WatchfilesRustInternalError, OSError) as error:
        mend = "raise fs.inotify.max_user_instances and fs.inotify.max_user_watches (sysctl)"
        _log.warning("files are looked at every second", reason=str(error), mend=mend)
        return contextlib.nullcontext(_Clock())


class _Clock:
    """In the place of notifications: it is worth a look every second."""

    def watch(self, _debounce_ms: int, _step_ms: int, _timeout_ms: int, stop: threading.Event, /) -> str:
        """Wait for the next look."""
        stop.wait(POLL_S)
        return "timeout"


def _is_text(path: str) -> bool:
    """Whether it can be named to watchfiles; what lies elsewhere is found by the slow look."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def fingerprint(paths: Iterable[str], deep: Collection[str] = ()) -> Fingerprint:
    """Describe every file behind `paths`, and of those in `deep` what lies below too."""
    marks = {}
    for name in _files(paths, deep):
        try:
            found = os.stat(name)
        except OSError:
            continue  # A link without a target, or gone since it was listed: not there.
        marks[name] = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return marks


def folders(paths: Iterable[str], deep: Collection[str] = ()) -> Mapping[str, tuple[int, int]]:
    """Give every folder in which a change can change what `paths` lead to, with its device and inode.

    That is the folder of each path and of each file, and the folder of what a link really leads to.
    """
    watched = tuple(paths)
    below = tuple(_files(watched, deep))
    found = {path for path in (*watched, *_files(deep, deep)) if os.path.isdir(path)}
    for name in (*watched, *below):
        found.add(os.path.dirname(os.path.abspath(name)))
        if os.path.islink(name):
            found.add(os.path.dirname(os.path.realpath(name)))
    places = {}
    for folder in sorted({os.path.realpath(folder) for folder in found}):
        with contextlib.suppress(OSError):  # Where it is not there, its own folder will tell when it comes.
            inode = os.stat(folder)
            places[folder] = (inode.st_dev, inode.st_ino)
    return places


DEPTH = 3
"""How far below a deep folder is looked: `namespace/name/key` of a secret."""


def _files(paths: Iterable[str], deep: Collection[str] = ()) -> Iterator[str]:
    for path in paths:
        if os.path.isdir(path):
            yield from _entries(path, DEPTH if path in deep else 1)
        else:
            yield path


def _entries(folder: str, depth: int) -> Iterator[str]:
    try:
        names = os.listdir(folder)
    except OSError:
        return  # The folder went meanwhile: its files are not there.
    for name in names:
        if not name.startswith("."):
            path = os.path.join(folder, name)
            yield path
            if depth > 1 and os.path.isdir(path):
                yield from _entries(path, depth - 1)
