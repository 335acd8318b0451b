"""Who may see what is shown on loopback: a bearer token's user, or the mesh's own user, by the roles of the API.

On loopback other users of the machine knock too. A connection of the user that the mesh runs as (or of root, who can
do everything anyway) is told apart by the kernel; everybody else needs a token of the Kubernetes API and a role.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lateen.apiserver.credentials import Identify, by_token
from lateen.apiserver.errors import ForbiddenError, UnauthorizedError, to_status
from lateen.apiserver.peers import uid_of
from lateen.apiserver.shown import json_response
from lateen.apiserver.targets import Attributes
from lateen.apiserver.users import OWNER, Authenticator, Authorizer


def own_or_token(authenticate: Authenticator) -> Identify:
    """Tells callers apart; UnauthorizedError for a token that is nobody's."""
    return by_token(authenticate, lambda connection: OWNER if uid_of(connection) in (0, os.getuid()) else None)


def guarded(routes: Sequence[Route], identify: Identify, allows: Authorizer) -> list[Route]:
    """The same routes for callers that may `get` their paths; others get a Status that says why not."""
    return [_guarded(each, identify, allows) for each in routes]


def _guarded(route: Route, identify: Identify, allows: Authorizer) -> Route:
    async def endpoint(request: Request) -> Response:
        try:
            user = identify(request)
            if user is None:
                raise UnauthorizedError("Unauthorized", remedy="send a bearer token: `lateen token ACCOUNT` makes one")
            if (why_not := allows(user, Attributes("get", path=request.url.path))) is not None:
                raise ForbiddenError(f"forbidden: {why_not}", remedy="bind the ClusterRole lateen:debug to this user")
        except (ForbiddenError, UnauthorizedError) as error:
            return json_response(to_status(error), error.CODE)
        return await route.endpoint(request)

    return Route(route.path, endpoint)
