"""kill -9 at random points, two hundred times, under load: what was acknowledged is there, whole, and once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from lateen.apiserver.errors import GoneError
from lateen.apiserver.rows import Change
from lateen.apiserver.store import Store
from lateen.lib.ids import Ref

ROUNDS = 200
OBJECTS = 40
LONGEST_S = 0.3

_CHILD = """
import asyncio, random, sys
from pathlib import Path
from lateen.apiserver.deletion import Delete
from lateen.apiserver.errors import ApiError
from lateen.apiserver.store import Store
from lateen.lib.ids import Ref
from lateen.apiserver.operations import Create, Replace

async def write(store, number, seed):
    dice = random.Random(seed * 1000 + number)
    count = 0
    while True:
        count += 1
        name = f"m{dice.randrange(int(sys.argv[3]))}"
        metadata = {"name": name, "namespace": "default"}
        data = {"who": f"{seed}.{number}.{count}", "text": "x" * dice.randrange(2000)}
        document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        ref = Ref("", "ConfigMap", "default", name)
        put = Replace(document) if store.get(ref) is not None else Create(document)
        operation = Delete(ref) if dice.random() < 0.2 else put
        try:
            row = (await store.write([operation]))[0]
        except ApiError:
            continue
        print(name, row.revision if row else 0, data["who"] if row else "-", store.revision, flush=True)

async def main():
    store = await Store.open(Path(sys.argv[1]))
    print("ready", 0, "-", store.revision, flush=True)
    async with asyncio.TaskGroup() as tasks:
        for number in range(10):
            tasks.create_task(write(store, number, int(sys.argv[2])))

asyncio.run(main())
"""


class _Body(msgspec.Struct):
    data: dict[str, str]


@pytest.mark.long
async def test_kill_9_two_hundred_times(tmp_path: Path) -> None:
    file, dice = tmp_path / "s.db", random.Random(9)
    acknowledged = 0
    for round_number in range(ROUNDS):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(file), str(round_number), str(OBJECTS)],
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )
        assert child.stdout is not None
        assert child.stdout.readline().startswith("ready")
        await asyncio.sleep(dice.uniform(0, LONGEST_S))
        child.send_signal(signal.SIGKILL)
        said = [line.split() for line in child.stdout if line.endswith("\n")]
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL
        acknowledged += len(said)
        await _look(file, said)
    assert acknowledged > ROUNDS


async def _look(file: Path, said: list[list[str]]) -> None:
    store = await Store.open(file)
    rows = {row.ref.name: row for row in store.list(("", "ConfigMap"))}
    written = {(name, who): int(revision) for name, revision, who, _ in said if who != "-"}
    newest = max((int(revision) for _, _, _, revision in said), default=0)
    assert store.revision >= newest, "an acknowledged revision is missing"
    for (name, who), revision in written.items():
        row = rows.get(name)
        if row is None or row.revision != revision:
            # a later write, acknowledged or not, has come after it; never an earlier one
            after = [
                version.revision
                for version in await store.history(Ref("", "ConfigMap", "default", name))
                if version.revision > revision
            ]
            assert after or (row is not None and row.revision > revision), f"{name} of revision {revision} is lost"
        else:
            assert msgspec.json.decode(row.body, type=_Body).data["who"] == who
    for row in store.rows():
        assert row.decode()["metadata"]["name"] == row.ref.name, "an object is torn"
    revisions = [row.revision for row in store.rows()]
    assert len(set(revisions)) == len(revisions)
    await _resumes(store, newest)
    await store.close()


async def _resumes(store: Store, revision: int) -> None:
    """A watcher of before is either told to list again, or misses nothing."""
    if store.keeps(("", "ConfigMap"), revision):
        assert revision == store.revision
        return
    with pytest.raises(GoneError):
        await anext(store.changes(("", "ConfigMap"), revision))
    since, seen = store.revision, list[Change]()
    changes = store.changes(("", "ConfigMap"), since, idle_s=0.0)
    seen += await anext(changes)
    assert seen == []
