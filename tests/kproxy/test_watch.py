"""Noticing changes: however a file came to be another one, and none that is not one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from watchfiles._rust_notify import WatchfilesRustInternalError

from kproxy import watch
from kproxy.errors import FileError
from kproxy.watch import Watch

WAIT = 20.0
"""How long a test waits for what must happen; it is never measured."""


class Seen:
    """The changes that a watch reported."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[frozenset[str]] = asyncio.Queue()

    def put(self, changed: frozenset[str]) -> None:
        """Take note of some."""
        self._queue.put_nowait(changed)

    async def of(self, path: Path) -> None:
        """Wait until a change of this file is reported."""
        async with asyncio.timeout(WAIT):
            while str(path) not in await self._queue.get():
                pass

    def nothing(self) -> bool:
        """Tell whether nothing was reported since."""
        return self._queue.empty()


@asynccontextmanager
async def watching(*paths: Path, deep: Iterable[Path] = ()) -> AsyncIterator[Seen]:
    """Watch while the block lasts."""
    seen = Seen()
    one = Watch(map(str, paths), map(str, deep))

    async def follow() -> None:
        async for changed in one.changes():
            seen.put(changed)

    task = asyncio.create_task(follow())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def no_periodic_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only notifications may bring a change here: the look that would find it anyway comes too late."""
    monkeypatch.setattr(watch, "LOOK_MS", 10 * 60 * 1000)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with an endpoints file and a folder of rules."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "endpoints.json").write_text("one")
    (tmp_path / "rules" / "a.json").write_text("one")
    return tmp_path


def replace(path: Path, text: str) -> None:
    """Replace a file as editors do: write another, and rename it."""
    other = path.with_name(path.name + ".new")
    other.write_text(text)
    other.rename(path)


async def test_what_changed_before_the_first_look(tree: Path) -> None:
    """A change between the first reading and the first step of the watch is not missed."""
    one = Watch([str(tree / "endpoints.json")])
    replace(tree / "endpoints.json", "two")
    async with asyncio.timeout(WAIT):
        assert await anext(one.changes()) == {str(tree / "endpoints.json")}


Act = Callable[[Path], object]

ACTS: list[tuple[str, Act]] = [
    ("endpoints.json", lambda tree: (tree / "endpoints.json").write_text("longer")),
    ("endpoints.json", lambda tree: replace(tree / "endpoints.json", "one")),
    ("endpoints.json", lambda tree: (tree / "endpoints.json").unlink()),
    ("rules/a.json", lambda tree: (tree / "rules/a.json").write_text("longer")),
    ("rules/b.json", lambda tree: (tree / "rules/b.json").write_text("new")),
    ("rules/a.json", lambda tree: (tree / "rules/a.json").rename(tree / "away")),
    ("rules/a.json", lambda tree: (tree / "rules").rename(tree / "old")),
]


@pytest.mark.parametrize(("name", "act"), ACTS)
async def test_one_change(tree: Path, name: str, act: Act) -> None:
    """Edited, replaced, removed, added, renamed, folder and all: each is seen as a change of that file."""
    async with watching(tree / "endpoints.json", tree / "rules") as seen:
        await settled()
        act(tree)
        await seen.of(tree / name)


@pytest.mark.parametrize(
    "refusal",
    [
        WatchfilesRustInternalError("Too many open files (os error 24)"),
        OSError("OS file watch limit reached."),
        PermissionError("not yours"),
    ],
    ids=["instances", "watches", "permission"],
)
async def test_without_notifications(tree: Path, monkeypatch: pytest.MonkeyPatch, refusal: Exception) -> None:
    """A kernel that has no room for one more who listens: files are looked at instead.

    The refusal is made here, as the limit is the whole machine's.
    """

    def refusing(*_arguments: Any) -> NoReturn:
        raise refusal

    monkeypatch.setattr(watch, "RustNotify", refusing)
    monkeypatch.setattr(watch, "POLL_S", 0.05)
    async with watching(tree / "endpoints.json", tree / "rules") as seen:
        await settled()
        for number in range(2):
            replace(tree / "endpoints.json", "x" * number)
            await seen.of(tree / "endpoints.json")


async def settled() -> None:
    """Give the watch time to begin; a test is right without it too, but then tests less."""
    await asyncio.sleep(0.1)


async def test_one_change_after_another(tree: Path) -> None:
    """A watch goes on after each change, also after the file was away for a while."""
    path = tree / "endpoints.json"
    async with watching(path, tree / "rules") as seen:
        for number in range(3):
            replace(path, "x" * number)
            await seen.of(path)
            path.unlink()
            await seen.of(path)
            path.write_text("back")
            await seen.of(path)


async def test_folder_replaced_by_another(tree: Path) -> None:
    """After a folder was swapped for a new one of the same name, changes in the new one are seen."""
    async with watching(tree / "rules") as seen:
        await settled()
        (tree / "rules").rename(tree / "old")
        (tree / "rules").mkdir()
        await seen.of(tree / "rules/a.json")
        (tree / "rules/a.json").write_text("first")
        await seen.of(tree / "rules/a.json")
        await settled()
        (tree / "rules/a.json").write_text("second")
        await seen.of(tree / "rules/a.json")


async def test_config_map(tmp_path: Path) -> None:
    """Kubernetes swaps a link to a folder behind a link to the file; each swap is one change of the file."""
    (tmp_path / "a.json").symlink_to("..data/a.json")
    for version in ("v1", "v2", "v3"):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "a.json").write_text(version)
    (tmp_path / "..data").symlink_to("..v1")
    async with watching(tmp_path) as seen:
        for version in ("v2", "v3"):
            await settled()
            (tmp_path / "..data_tmp").symlink_to(f"..{version}")
            (tmp_path / "..data_tmp").rename(tmp_path / "..data")
            await seen.of(tmp_path / "a.json")
            assert (tmp_path / "a.json").read_text() == version


async def test_link_into_another_folder(tree: Path) -> None:
    """Where a path is a link, the file that it leads to is under watch, also after the link was moved."""
    for name in ("x", "y"):
        (tree / name).mkdir()
        (tree / name / "real").write_text(name)
    link = tree / "link.json"
    link.symlink_to("x/real")
    async with watching(link) as seen:
        await settled()
        (tree / "x/real").write_text("longer")
        await seen.of(link)
        (tree / "link.new").symlink_to("y/real")
        (tree / "link.new").rename(link)
        await seen.of(link)
        await settled()
        (tree / "y/real").write_text("longer still")
        await seen.of(link)


async def test_settled(tree: Path) -> None:
    """Whoever has read the files may ask whether they are still those that were reported."""
    made = Watch([str(tree / "endpoints.json"), str(tree / "rules")])
    assert await made.settled()
    (tree / "rules/a.json").write_text("changed meanwhile")
    assert not await made.settled()


async def test_other_files_do_not_matter(tree: Path) -> None:
    """A log that grows beside the files, and an editor's hidden files, bring no change."""
    async with watching(tree / "endpoints.json", tree / "rules") as seen:
        for number in range(5):
            (tree / "access.jsonl").write_text("x" * number)
            (tree / "rules" / ".a.json.swp").write_text("x" * number)
            await asyncio.sleep(0.05)
        (tree / "endpoints.json").write_text("changed")
        await seen.of(tree / "endpoints.json")
        assert seen.nothing()


@pytest.mark.parametrize("name", ["hr/token", "hr/mounted/key", "new/late/key"])
async def test_deep_folders(tree: Path, name: str) -> None:
    """Of a deep folder, what lies below is seen too: replaced, swapped behind a link, new with its folder."""
    (tree / "hr/mounted/..1").mkdir(parents=True)
    (tree / "hr/mounted/..1/key").write_text("one")
    (tree / "hr/mounted/..data").symlink_to("..1")
    (tree / "hr/mounted/key").symlink_to("..data/key")
    (tree / "hr/token").write_text("one")
    async with watching(deep=[tree]) as seen:
        await settled()
        if name == "hr/token":
            replace(tree / name, "two")
        elif name == "hr/mounted/key":
            (tree / "hr/mounted/..2").mkdir()
            (tree / "hr/mounted/..2/key").write_text("two")
            (tree / "hr/mounted/..new").symlink_to("..2")
            (tree / "hr/mounted/..new").rename(tree / "hr/mounted/..data")
        else:
            (tree / "new/late").mkdir(parents=True)
            await settled()
            (tree / name).write_text("two")
        await seen.of(tree / name)


async def test_lost_notifications(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel says nothing, the periodic look finds the change."""
    monkeypatch.setattr(watch, "LOOK_MS", 100)
    monkeypatch.setattr(watch, "folders", lambda paths, deep: {str(elsewhere): (0, 0)})
    elsewhere = tree / "elsewhere"
    elsewhere.mkdir()
    async with watching(tree / "endpoints.json") as seen:
        await settled()
        (tree / "endpoints.json").write_text("changed")
        await seen.of(tree / "endpoints.json")


async def test_names_that_are_not_utf8(tree: Path) -> None:
    """A file or folder of any name, dropped by whoever, neither ends the watch nor hides other changes."""
    folder = os.fsencode(tree / "rules")
    async with watching(tree / "endpoints.json", deep=[tree / "rules"]) as seen:
        await settled()
        Path(os.fsdecode(folder + b"/\xff.json")).write_text("x")
        await seen.of(Path(os.fsdecode(folder + b"/\xff.json")))
        Path(os.fsdecode(folder + b"/\xfe")).mkdir()
        await settled()
        (tree / "rules/late.json").write_text("x")
        await seen.of(tree / "rules/late.json")


def test_missing_at_the_start(tree: Path) -> None:
    """Paths that are not there at the start are an error each: a typing mistake must not enforce nothing."""
    with pytest.raises(FileError) as caught:
        Watch([str(tree / "rules"), str(tree / "rulse"), str(tree / "none.json")])
    assert [problem.message for problem in caught.value.problems] == ["is not there", "is not there"]
