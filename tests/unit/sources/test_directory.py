from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from lateen.api.check import check
from lateen.engine import Graph
from lateen.lib.ids import Ref
from lateen.sources.directory import CONFIRMATION, DirectoryError, DirectorySource
from tests.unit.sources.test_folder import config_map


class Following:
    """A folder that is followed, and its objects as queries see them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.graph = Graph()
        self.source = DirectorySource(path, check, self.graph.commit)

    def value(self, name: str) -> str | None:
        """`data.x` of a ConfigMap, or None when it is not there."""
        found = self.graph.input(Ref("", "ConfigMap", "default", name))
        return None if found is None else found.data["x"]

    async def until(self, done: Callable[[], bool], within_s: float = 20) -> float:
        """Waits; returns the seconds it took."""
        began = time.monotonic()
        async with asyncio.timeout(within_s):
            while not done():
                await asyncio.sleep(0.002)
        return time.monotonic() - began


@pytest.fixture
async def following(tmp_path: Path) -> AsyncIterator[Following]:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.yaml").write_text(config_map(name))
    each = Following(tmp_path)
    await each.source.load()
    assert [each.value(name) for name in ("a", "b", "c")] == ["1", "1", "1"]
    task = asyncio.create_task(each.source.run())
    await asyncio.sleep(0)
    yield each
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_missing_folder_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(DirectoryError, match="nowhere"):
        await DirectorySource(tmp_path / "nowhere", check, Graph().commit).load()


async def test_a_file_replaced_by_a_rename_is_seen_at_once(following: Following) -> None:
    took: list[float] = []
    for number in range(5):
        draft = following.path / ".draft"
        draft.write_text(config_map("a", f"v{number}"))
        draft.rename(following.path / "a.yaml")
        took.append(await following.until(lambda number=number: following.value("a") == f"v{number}"))
    assert min(took) < 1.0  # not by the look every few seconds


async def test_a_file_written_in_place_counts_when_it_is_closed(following: Following) -> None:
    with (following.path / "a.yaml").open("w") as file:
        file.write(config_map("a", "half") + "---\n" + config_map("d", "half")[:30])
        file.flush()
        (following.path / "b.yaml").write_text(config_map("b", "2"))
        await following.until(lambda: following.value("b") == "2")
        assert following.value("a") == "1"
        file.seek(0)
        file.truncate()
        file.write(config_map("a", "whole"))
    await following.until(lambda: following.value("a") == "whole")
    assert following.value("d") is None


async def test_a_folder_emptied_and_filled_again_never_loses_an_object(following: Following) -> None:
    for path in following.path.glob("*.yaml"):
        path.unlink()
    await following.until(lambda: following.source.folder.held)
    assert [following.value(name) for name in ("a", "b", "c")] == ["1", "1", "1"]
    for name in ("a", "b", "c"):
        (following.path / f"{name}.yaml").write_text(config_map(name, "2"))
    await following.until(lambda: [following.value(name) for name in ("a", "b", "c")] == ["2", "2", "2"])
    assert following.source.findings == ()


async def test_touching_the_confirmation_lets_the_deletion_happen(following: Following) -> None:
    (following.path / CONFIRMATION).touch()
    os.utime(following.path / CONFIRMATION, (1, 1))  # from an earlier time: does not count
    for path in following.path.glob("*.yaml"):
        path.unlink()
    await following.until(lambda: following.source.folder.held)
    assert following.value("a") == "1"
    (following.path / CONFIRMATION).touch()
    await following.until(lambda: following.value("a") is None)


async def test_subfolders_links_and_other_files(following: Following) -> None:
    (following.path / "sub").mkdir()
    (following.path / "sub" / "x.yml").write_text(config_map("x"))
    await following.until(lambda: following.value("x") == "1")
    (following.path / "sub" / "x.yml").write_text(config_map("x", "2"))
    await following.until(lambda: following.value("x") == "2")
    # As Kubernetes mounts a ConfigMap: the files are links into a hidden folder that is swapped.
    for number in (1, 2):
        (following.path / f"..{number}").mkdir()
        (following.path / f"..{number}" / "volume.yaml").write_text(config_map("volume", str(number)))
    (following.path / "..data").symlink_to("..1")
    (following.path / "volume.yaml").symlink_to("..data/volume.yaml")
    await following.until(lambda: following.value("volume") == "1")
    (following.path / "..new").symlink_to("..2")
    (following.path / "..new").rename(following.path / "..data")
    await following.until(lambda: following.value("volume") == "2")
    for name in ("note.txt", ".hidden.yaml", "e.yaml~"):
        (following.path / name).write_text(config_map("no"))
    (following.path / "z.json").write_text(
        '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"z"},"data":{"x":"1"}}'
    )
    await following.until(lambda: following.value("z") == "1")
    assert following.value("no") is None


async def test_a_file_that_cannot_be_read_is_not_gone(following: Following) -> None:
    (following.path / "a.yaml").write_bytes(b"\xff\xfe not text")
    await following.until(lambda: len(following.source.findings) == 1)
    await asyncio.sleep(0.7)
    assert following.value("a") == "1"
    assert "a.yaml" in str(following.source.findings[0])
