"""Events end an hour after they last happened."""

from __future__ import annotations

import datetime as dt

from lateen.apiserver.expiry import EVENTS, expired
from lateen.apiserver.operations import Create
from lateen.apiserver.store import Store

NOW = dt.datetime(2030, 1, 1, 12, tzinfo=dt.UTC)


async def test_events_end(store: Store) -> None:
    about = {"kind": "Pod", "name": "web", "namespace": "default"}
    for name, last in (("old", "2030-01-01T10:59:00Z"), ("new", "2030-01-01T11:30:00Z"), ("odd", "yesterday")):
        metadata = {"name": name, "namespace": "default"}
        event = {"apiVersion": "v1", "kind": "Event", "metadata": metadata, "involvedObject": about}
        await store.write([Create({**event, "lastTimestamp": last})])
    assert [row.ref.name for row in store.list(EVENTS) if expired(row, NOW)] == ["odd", "old"]
    assert not any(expired(row, NOW - dt.timedelta(days=365 * 4)) for row in store.list(EVENTS))
