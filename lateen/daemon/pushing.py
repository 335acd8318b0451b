"""`GET /lateen/v1/pushes`: what the last changes became, for `lateen why-push`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lateen.api.struct import Json
from lateen.apiserver.errors import BadRequestError
from lateen.apiserver.rows import Change
from lateen.lib.ids import parse_ref
from lateen.xds.journal import Journal, Push

_LIMIT = 20


class StoredRevisions:
    """A subscriber of the store that tells the journal which revision an object's change is."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __call__(self, changes: Sequence[Change]) -> None:
        for change in changes:
            before, after = change.before, change.after
            if before is None or after is None or before.body != after.body or before.metadata != after.metadata:
                self._journal.stored(change.row.ref, change.revision)


def push_route(journal: Journal) -> Route:
    """Takes `proxy` (NAME.NAMESPACE), `ref`, `revision` and `limit`, each optional."""

    async def pushes(request: Request) -> Response:
        query = request.query_params
        try:
            name = parse_ref(query["ref"]).short if query.get("ref") else ""
            limit, revision = int(query.get("limit", _LIMIT)), int(query.get("revision") or 0)
        except ValueError as error:
            raise BadRequestError(str(error), remedy="write ref=KIND.GROUP/NAMESPACE/NAME, limit=20") from None
        found = journal.pushes(limit, query.get("proxy", ""), name, revision)
        return Response(msgspec.json.encode({"pushes": [_json(each) for each in found]}), media_type="application/json")

    return Route("/lateen/v1/pushes", pushes)


def _json(push: Push) -> Json:
    return {
        "revision": push.revision,
        "at": push.at,
        "objects": [{"object": name, "revision": revision} for name, revision in push.objects],
        "changed": push.changed,
        "queries": push.queries,
        "workedOutS": push.worked_out_s,
        "messages": push.messages,
        "bytes": push.bytes,
        "resources": push.types,
        "scopes": push.scopes,
        "firstS": push.first_s,
        "lastS": push.last_s,
        "proxies": {
            name: {"resources": each.types, "bytes": each.bytes, "ackedS": each.acked_s, "refused": each.refused}
            for name, each in sorted(push.clients.items())
        },
    }
