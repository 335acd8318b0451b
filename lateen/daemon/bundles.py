"""What `lateen vm` asks the control plane for: the makings of a bundle for the machines of a WorkloadGroup.

Whoever may use the API's socket may have it; a bundle's token is good for the group's service account alone.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lateen.api.istio.workload_group import WorkloadGroup
from lateen.api.objects import ref_of
from lateen.apiserver.errors import BadRequestError, InvalidError, NotFoundError
from lateen.apiserver.store import Store
from lateen.daemon.inputs import typed
from lateen.daemon.machines import Groups
from lateen.daemon.settings import Settings
from lateen.security.tokens import MAX_LIFETIME_S, TokenIssuer

PATH = "/lateen/v1/bundles"
MIN_LIFETIME_S = 60


class BundleRequest(msgspec.Struct, frozen=True, rename="camel"):
    """For which group, and how long the token is good."""

    namespace: str
    group: str
    lifetime_s: int = 3600


class BundleParts(msgspec.Struct, frozen=True, rename="camel"):
    """What a bundle says beside what was asked. Addresses are `HOST:PORT`, `gateway` empty where there is none."""

    service_account: str
    network: str
    token: str
    roots: str
    xds: str
    login: str
    gateway: str
    trust_domain: str
    domain: str


def bundle_route(
    settings: Settings,
    store: Store,
    tokens: TokenIssuer,
    roots: Callable[[], str],
    trust_domain: Callable[[], str],
    domain: str,
) -> Route:
    """The route that makes them."""

    async def create(request: Request) -> Response:
        try:
            asked = msgspec.json.decode(await request.body(), type=BundleRequest)
        except msgspec.DecodeError as error:
            raise BadRequestError(f"the request cannot be read: {error}") from None
        if not settings.vm_host:
            raise InvalidError(
                "this mesh lets no virtual machines in: it has no address for them",
                remedy="start it with `lateen up --vm-host ADDRESS`, an address of this machine that they can reach",
            )
        row = store.get(ref_of(WorkloadGroup, asked.namespace, asked.group))
        group = typed(row) if row is not None else None
        if not isinstance(group, WorkloadGroup):
            raise NotFoundError(
                f"there is no WorkloadGroup {asked.namespace}/{asked.group}",
                remedy="apply it first: `lateen vm group create` writes one, `lateen apply -f` applies it",
            )
        if not MIN_LIFETIME_S <= asked.lifetime_s <= MAX_LIFETIME_S:
            message = f"a token is good for {MIN_LIFETIME_S} to {MAX_LIFETIME_S} seconds, not {asked.lifetime_s}"
            raise BadRequestError(message, remedy="say another --token-duration")
        account = group.spec.template.service_account or "default"
        account_uid = Groups(store).account_uid(group.namespace, account)
        if account_uid is None:
            raise NotFoundError(
                f"there is no ServiceAccount {group.namespace}/{account}, which WorkloadGroup {group.name} runs as",
                remedy="apply one, or say another `serviceAccount` in the group's template",
            )
        token = tokens.issue(
            namespace=group.namespace,
            service_account=account,
            group=group.name,
            uid=group.metadata.uid,
            account_uid=account_uid,
            lifetime_s=asked.lifetime_s,
        )
        parts = BundleParts(
            service_account=account,
            network=group.spec.template.network or "",
            token=token,
            roots=roots(),
            xds=f"{settings.vm_host}:{settings.xds_port}",
            login=f"{settings.vm_host}:{settings.vm_login_port}",
            gateway=f"{settings.vm_host}:{settings.vm_gateway_port}" if settings.vm_gateway_port else "",
            trust_domain=trust_domain(),
            domain=domain,
        )
        return Response(msgspec.json.encode(parts), media_type="application/json")

    return Route(PATH, create, methods=["POST"])
