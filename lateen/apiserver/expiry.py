"""Events end by themselves: an hour after they last happened, as in Kubernetes."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Final

import structlog

from lateen.api.struct import Json
from lateen.apiserver.deletion import Delete
from lateen.apiserver.errors import ApiError
from lateen.apiserver.rows import Row
from lateen.apiserver.store import Store, utc_now

EVENTS: Final = ("", "Event")
KEPT: Final = dt.timedelta(hours=1)
_EVERY_S: Final = 60.0

_log = structlog.stdlib.get_logger("lateen.apiserver.expiry")


def expired(row: Row, now: dt.datetime) -> bool:
    """Whether an event is over."""
    document = row.decode()
    last = document.get("lastTimestamp") or document.get("eventTime") or document["metadata"]["creationTimestamp"]
    return _moment(last, document) + KEPT < now


def _moment(text: object, document: Json) -> dt.datetime:
    for each in (text, document["metadata"]["creationTimestamp"]):
        try:
            found = dt.datetime.fromisoformat(str(each))
        except ValueError:
            continue
        return found if found.tzinfo else found.replace(tzinfo=dt.UTC)
    return dt.datetime.max.replace(tzinfo=dt.UTC) - KEPT * 2


async def run(store: Store) -> None:
    """Ends events until cancelled."""
    while True:
        over = [row for row in store.list(EVENTS) if expired(row, utc_now())]
        try:
            for row in over:
                await store.write([Delete(row.ref, uid=row.decode()["metadata"]["uid"])], author="lateen")
        except ApiError as error:
            _log.warning("event not ended", error=str(error))
        await asyncio.sleep(_EVERY_S)
