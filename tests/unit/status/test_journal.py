"""What each change became: counts by object, proxy and type; times that end with the slowest; bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from lateen.daemon.pushing import StoredRevisions
from lateen.intent.scope import Proxy as Identity
from lateen.intent.scope import ProxyKind
from lateen.lib.ids import Ref
from lateen.xds.journal import CLIENTS, OBJECTS, PUSHES, Histogram, Journal
from tests.unit.status.plane import Plane, route, running


@pytest.fixture
async def plane() -> AsyncIterator[Plane]:
    async with running() as each:
        each.store.subscribe(StoredRevisions(each.xds.journal))
        yield each


async def test_a_change_from_the_object_to_the_last_proxy(plane: Plane) -> None:
    for name in ("reviews-1", "ratings-1"):
        await plane.proxy(name)
    assert all(not push.clients for push in plane.xds.journal.pushes(100)), "to connect is nobody's change"
    slow = plane.proxies[1]
    slow.answering.clear()
    await plane.apply(route("a", "reviews"))
    name = plane.ref("vs", "a").short

    def push() -> dict[str, float | None]:
        found = plane.xds.journal.pushes(1, name=name)
        return {who: took.acked_s for who, took in found[0].clients.items()} if found else {}

    await plane.until(lambda: push().get("reviews-1.default") is not None)
    assert push()["ratings-1.default"] is None
    (made,) = plane.xds.journal.pushes(1, name=name)
    assert made.last_s is None
    assert made.first_s is not None
    slow.answering.set()
    await plane.until(lambda: made.last_s is not None)
    assert made.types == {"RDS": 2}
    assert (made.messages, made.scopes, made.changed) == (2, 2, 1)
    assert made.bytes == sum(took.bytes for took in made.clients.values()) > 0
    assert made.queries > 0
    assert made.worked_out_s is not None
    assert made.worked_out_s <= made.first_s < (made.last_s or 0)
    row = plane.store.get(plane.ref("vs", "a"))
    assert row is not None
    history = await plane.store.history(row.ref)
    assert made.objects == ((name, history[0].revision),)
    assert plane.xds.journal.pushes(5, revision=history[0].revision) == [made]
    assert plane.xds.journal.pushes(5, proxy="ratings-1.default")[0] is made
    assert plane.xds.journal.pushes(5, proxy="nobody.default") == []
    assert sum(plane.xds.journal.convergence.counts) == 2


async def test_who_refuses_and_who_leaves(plane: Plane) -> None:
    first, second = await plane.proxy("reviews-1"), await plane.proxy("ratings-1")
    first.refuses = lambda body: "no" if b"7s" in body or b"reviews" in body else ""
    second.answering.clear()
    await plane.apply(route("a", "reviews", "7s"))
    name = plane.ref("vs", "a").short
    await plane.until(lambda: bool(plane.xds.journal.pushes(1, name=name)))
    (made,) = plane.xds.journal.pushes(1, name=name)
    await plane.until(lambda: len(made.clients) == 2)
    await second.leave()
    await plane.until(lambda: list(made.clients) == ["reviews-1.default"])
    await plane.until(lambda: made.clients["reviews-1.default"].refused)
    await asyncio.sleep(0)


class Stream:
    """One that is sent whatever the test says."""

    def __init__(self, number: int) -> None:
        self.proxy = Identity(ProxyKind.SIDECAR, "default", f"p{number}")


def test_the_journal_is_bounded() -> None:
    journal = Journal()
    clients = [Stream(number) for number in range(100)]
    for revision in range(2 * PUSHES):
        keys = [Ref("", "Pod", "default", f"x{number}") for number in range(2 * OBJECTS)]
        journal.committed(revision, keys, 0.0, 0)
        for each in clients:
            journal.sent(each, 1, "CDS", 1, 10, 0.0, True)
            journal.settled(each)
    kept = journal.pushes(10 * PUSHES)
    assert sum(len(each.clients) for each in kept) <= CLIENTS + len(clients)
    assert len(kept) <= PUSHES
    assert (len(kept[0].objects), kept[0].changed) == (OBJECTS, 2 * OBJECTS)
    assert journal.triggers["Pod"] == 2 * PUSHES


def test_a_histogram_is_cumulative() -> None:
    histogram = Histogram((1, 10))
    for value in (0.5, 1, 5, 50):
        histogram.observe(value)
    assert histogram.buckets() == [("1", 2), ("10", 3), ("+Inf", 4)]
    assert histogram.sum == 56.5
