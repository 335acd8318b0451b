"""The Kubernetes API of a mesh put together: one application behind two doors.

The Unix socket is for the mesh's owner and its own processes; the TCP port on loopback speaks TLS and asks for
credentials. What every API has from its start (roles, their bindings) is made here, and the kubeconfig is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from starlette.routing import BaseRoute

from lateen.apiserver import files, rbac
from lateen.apiserver.credentials import by_credentials
from lateen.apiserver.definitions import Establisher
from lateen.apiserver.http import Part, application, identified, owner
from lateen.apiserver.operations import Create
from lateen.apiserver.resources import Resources
from lateen.apiserver.serving import Tls, serve, tcp_listener, unix_listener
from lateen.apiserver.store import Store
from lateen.apiserver.transactions import ref_of
from lateen.apiserver.users import Authenticator
from lateen.daemon.settings import Settings
from lateen.security.api_access import ApiAccess
from lateen.security.files import write_secret


class KubernetesApi:
    """The API of one store; `run` serves until cancelled."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        check: files.Check,
        analyse: files.Analyse,
        ready: Callable[[], bool],
        parts: Mapping[tuple[str, str], Part],
        routes: Sequence[BaseRoute],
        authenticate: Authenticator = lambda token: None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._authenticate = authenticate
        resources = Resources(store.rows())
        store.subscribe(resources)
        self._application = application(
            store,
            check=check,
            analyse=analyse,
            ready=ready,
            resources=resources,
            authenticate=authenticate,
            parts=parts,
            routes=routes,
        )

    async def run(self) -> None:
        """Serves until cancelled."""
        await self._initial()
        layout = self._settings.layout()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(Establisher(self._store).run(), name="status of definitions")
            if self._settings.api_port:
                listener = tcp_listener("127.0.0.1", self._settings.api_port)
                access = ApiAccess(layout.api)
                tls = Tls(access.server.certificate, access.server.key, access.ca.certificate)
                outside = identified(self._application, by_credentials(self._authenticate))
                tasks.create_task(serve(outside, listener, tls), name="API on TCP")
                url = f"https://127.0.0.1:{self._settings.api_port}"
                write_secret(layout.kubeconfig, access.kubeconfig(self._settings.name, url))
            socket = unix_listener(layout.api_socket)
            tasks.create_task(serve(identified(self._application, owner), socket), name="API on a socket")

    async def _initial(self) -> None:
        missing = [each for each in rbac.initial() if self._store.get(ref_of(each)) is None]
        if missing:
            await self._store.write([Create(each) for each in missing], author="lateen")
