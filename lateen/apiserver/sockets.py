"""Websockets of Pods: who may, and what is served there."""

from __future__ import annotations

from typing import Final

from starlette.websockets import WebSocket

from lateen.apiserver import streams
from lateen.apiserver.errors import ApiError, ForbiddenError, NotFoundError, to_status
from lateen.apiserver.rbac import Roles
from lateen.apiserver.shown import json_response
from lateen.apiserver.targets import Attributes


class Sockets:
    """Websockets: what goes on between a client and a Pod."""

    def __init__(self, roles: Roles, pods: streams.Pods | None) -> None:
        self._roles = roles
        self._pods = pods

    async def serve(self, socket: WebSocket) -> None:
        part, namespace, name = (socket.path_params[each] for each in ("part", "namespace", "name"))
        try:
            serve = STREAMED.get(part)
            if serve is None or self._pods is None:
                raise NotFoundError("the server could not find the requested resource")
            wanted = Attributes("create", "", "pods", part, namespace, name)
            why_not = self._roles(socket.scope["state"]["user"], wanted)
            if why_not is not None:
                raise ForbiddenError(f'pods "{name}" is forbidden: {why_not}', remedy="kubectl auth can-i --list")
            await serve(socket, self._pods, namespace, name)
        except ApiError as error:
            await socket.send_denial_response(json_response(to_status(error), error.CODE))


STREAMED: Final = {"attach": streams.attach, "exec": streams.execute, "portforward": streams.forward}
