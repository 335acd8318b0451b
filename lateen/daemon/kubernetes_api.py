"""The Kubernetes API of a mesh put together: one application behind two doors.

The Unix socket is for the mesh's owner and its own processes; the TCP port on loopback speaks TLS and asks for
credentials. What every API has from its start (roles, their bindings) is made here, and the kubeconfig is written.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lateen.api.core.service_account import ServiceAccount
from lateen.api.objects import ref_of as ref_of_kind
from lateen.api.struct import list_at, map_at
from lateen.apiserver import expiry, protobuf, rbac
from lateen.apiserver.bodies import OBJECT_BYTES, body, decoded, media_type, number
from lateen.apiserver.credentials import account_user, by_credentials
from lateen.apiserver.definitions import Establisher
from lateen.apiserver.errors import NotFoundError
from lateen.apiserver.http import Part, application, identified, owner
from lateen.apiserver.operations import Create
from lateen.apiserver.resources import Resources
from lateen.apiserver.reviews import Analyse
from lateen.apiserver.serving import Tls, serve, tcp_listener, unix_listener
from lateen.apiserver.shown import json_response
from lateen.apiserver.store import Store
from lateen.apiserver.transactions import ref_of
from lateen.apiserver.users import AUTHENTICATED, User
from lateen.apiserver.validation import Check
from lateen.daemon.pod_streams import PodStreams
from lateen.daemon.settings import Settings
from lateen.security.account_tokens import Account, AccountTokens
from lateen.security.api_access import ApiAccess
from lateen.security.files import write_secret
from lateen.security.oidc import Oidc, issuer_of


class KubernetesApi:
    """The API of one store; `run` serves until cancelled."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        tokens: AccountTokens,
        oidc: Oidc | None,
        *,
        resources: Resources,
        check: Check,
        analyse: Analyse,
        ready: Callable[[], bool],
        pod_token: Part,
        routes: Sequence[Route],
    ) -> None:
        self._settings = settings
        self._store = store
        self._tokens = tokens
        self._oidc = oidc
        self._pod_token = pod_token
        self._application = application(
            store,
            check=check,
            analyse=analyse,
            ready=ready,
            resources=resources,
            authenticate=self.authenticate,
            parts={("serviceaccounts", "token"): self._token},
            pods=PodStreams(store, settings.layout()),
            routes=routes,
        )

    async def run(self) -> None:
        """Serves until cancelled."""
        await self._initial()
        layout = self._settings.layout()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(Establisher(self._store).run(), name="status of definitions")
            tasks.create_task(expiry.run(self._store), name="end of events")
            if self._settings.api_port:
                listener = tcp_listener("127.0.0.1", self._settings.api_port)
                access = ApiAccess(layout.api)
                tls = Tls(access.server.certificate, access.server.key, access.ca.certificate)
                outside = identified(self._application, by_credentials(self.authenticate))
                tasks.create_task(serve(outside, listener, tls), name="API on TCP")
                url = f"https://127.0.0.1:{self._settings.api_port}"
                write_secret(layout.kubeconfig, access.kubeconfig(self._settings.name, url))
            socket = unix_listener(layout.api_socket)
            tasks.create_task(serve(identified(self._application, owner), socket), name="API on a socket")

    def authenticate(self, token: str) -> User | None:
        """Whose token that is: a service account's, until that is gone or was made anew, or a person's."""
        if self._oidc is not None and issuer_of(token) == self._oidc.issuer:
            person = self._oidc.read(token)
            if person is None:
                self._oidc.look_again()
                return None
            return User(person.name, (*person.groups, AUTHENTICATED))
        account = self._tokens.read(token)
        row = self._store.get(ref_of_kind(ServiceAccount, account.namespace, account.name)) if account else None
        if account is None or row is None or row.decode()["metadata"]["uid"] != account.uid:
            return None
        return account_user(account.namespace, account.name, account.uid)

    async def _token(self, request: Request) -> Response:
        """A TokenRequest: for a Pod's certificates when it is bound to one, else for the API."""
        content = await body(request, OBJECT_BYTES)
        asked = (
            protobuf.decode(content) if media_type(request) == protobuf.MEDIA_TYPE else decoded(content, dict[str, Any])
        )
        spec = map_at(asked, "spec")
        if spec.get("boundObjectRef"):
            return await self._pod_token(request)
        namespace, name = request.path_params["namespace"], request.path_params["name"]
        row = self._store.get(ref_of_kind(ServiceAccount, namespace, name))
        if row is None:
            raise NotFoundError(f'serviceaccounts "{name}" not found', remedy=f"kubectl get sa -n {namespace}")
        account = Account(namespace, name, row.decode()["metadata"]["uid"])
        seconds = number("expirationSeconds", spec.get("expirationSeconds") or 3600)
        token, ends = self._tokens.issue(account, list_at(spec, "audiences"), seconds)
        when = dt.datetime.fromtimestamp(ends, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        head = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return json_response({**head, "status": {"token": token, "expirationTimestamp": when}}, 201)

    async def _initial(self) -> None:
        missing = [each for each in rbac.initial() if self._store.get(ref_of(each)) is None]
        if missing:
            await self._store.write([Create(each) for each in missing], author="lateen")
