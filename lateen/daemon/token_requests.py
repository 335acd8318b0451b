"""Service account tokens over the API, by Kubernetes' TokenRequest: how the node gets one for a Pod it starts.

https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/
"""

from __future__ import annotations

import datetime as dt

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lateen.api.core.pod import Pod
from lateen.api.objects import ref_of
from lateen.apiserver.errors import BadRequestError, ConflictError, NotFoundError
from lateen.apiserver.store import Store
from lateen.daemon.identities import Identities
from lateen.security.tokens import CA_AUDIENCE, MAX_LIFETIME_S, TokenIssuer

_MIN_LIFETIME_S = 600


class _Bound(msgspec.Struct, frozen=True):
    kind: str
    name: str
    uid: str


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    bound_object_ref: _Bound
    audiences: tuple[str, ...] = (CA_AUDIENCE,)
    expiration_seconds: int = 3600


class _TokenRequest(msgspec.Struct, frozen=True):
    spec: _Spec


def token_route(store: Store, tokens: TokenIssuer, identities: Identities) -> Route:
    """The route that makes tokens, each bound to one Pod that is there."""

    async def create(request: Request) -> Response:
        namespace, account = request.path_params["namespace"], request.path_params["name"]
        try:
            asked = msgspec.json.decode(await request.body(), type=_TokenRequest).spec
        except msgspec.DecodeError as error:
            raise BadRequestError(f"the TokenRequest cannot be read: {error}") from None
        bound = asked.bound_object_ref
        row = store.get(ref_of(Pod, namespace, bound.name)) if bound.kind == "Pod" else None
        if row is None:
            raise NotFoundError(f"there is no {bound.kind} {namespace}/{bound.name}", remedy="bind tokens to Pods")
        if row.decode()["metadata"]["uid"] != bound.uid:
            raise ConflictError(f"the Pod {namespace}/{bound.name} is another than that with uid {bound.uid}")
        account_uid = identities.account_uid(namespace, account)
        if account_uid is None:
            raise NotFoundError(f"there is no ServiceAccount {namespace}/{account}", remedy="make it")
        if identities.account_of(namespace, bound.name) != account:
            raise BadRequestError(f"the Pod {namespace}/{bound.name} does not run as {account}")
        lifetime_s = max(_MIN_LIFETIME_S, min(asked.expiration_seconds, MAX_LIFETIME_S))
        token = tokens.issue(
            namespace=namespace,
            service_account=account,
            pod=bound.name,
            uid=bound.uid,
            audiences=asked.audiences,
            lifetime_s=lifetime_s,
            account_uid=account_uid,
        )
        ends = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=lifetime_s)
        status = {"token": token, "expirationTimestamp": f"{ends:%Y-%m-%dT%H:%M:%SZ}"}
        head = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        return JSONResponse({**head, "status": status}, status_code=201)

    return Route("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", create, methods=["POST"])
