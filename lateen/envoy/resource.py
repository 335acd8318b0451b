"""What goes to a proxy: one xDS resource as bytes, and the table entry that makes resources of one type.

Adding an xDS type is adding one `ResourceType`; the server has no code per type.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import msgspec

from lateen.engine import Q
from lateen.intent.scope import Scope
from lateen.lib.ids import Ref
from lateen.model.hosts import HostSet

_CLUSTER = re.compile(rb"outbound\|[0-9]+\|[a-zA-Z0-9._-]*\|[a-zA-Z0-9.*-]+")


class Resource(msgspec.Struct, frozen=True):
    """One named xDS resource: the serialised message and a version that is a function of its content.

    `origins` are the objects it was made from, so that a refusal by Envoy leads back to them. A proxy that discovers
    on demand gets `clusters` (by name) ahead of it, and `together` (names of the same type) along with it. `endpoints`
    is what a cluster's assignment is called when it isn't called like the cluster.
    """

    name: str
    version: str
    body: bytes
    origins: tuple[Ref, ...] = ()
    clusters: tuple[str, ...] = ()
    together: tuple[str, ...] = ()
    endpoints: str = ""


def resource(
    name: str,
    body: bytes,
    origins: tuple[Ref, ...] = (),
    clusters: tuple[str, ...] = (),
    together: tuple[str, ...] = (),
    endpoints: str = "",
) -> Resource:
    """A Resource whose version is a hash of its bytes."""
    version = hashlib.blake2b(body, digest_size=8).hexdigest()
    return Resource(name, version, body, origins, clusters, together, endpoints)


def mentioned(body: bytes) -> tuple[str, ...]:
    """The clusters of services that an encoded message names, whatever the field."""
    return tuple(dict.fromkeys(each.decode() for each in _CLUSTER.findall(body)))


class Shares(msgspec.Struct, frozen=True, cache_hash=True):
    """The Scopes that resources of one type are made for in place of a proxy's own, from the proxy itself (level 0) to
    all that see the mesh alike. The Scope at the level of a resource makes the same as the proxy's own.

    `apart` are hosts of which the proxy may see something of its own, `placed` those whose endpoints are in an order
    that depends on where it is, `labelled` those where its labels or its node count too.
    """

    levels: tuple[Scope, ...]
    apart: HostSet = HostSet()
    placed: HostSet = HostSet()
    labelled: HostSet = HostSet()


def unshared(_q: Q, scope: Scope) -> Shares:
    """Everything is made for the very proxy."""
    return Shares((scope,))


def own_level(_shares: Shares, _name: str) -> int:
    """The level of what is made for the very proxy."""
    return 0


class ResourceType(msgspec.Struct, frozen=True):
    """One row of the type table.

    `names(q, scope)` lists what a wildcard subscriber of that Scope gets, `resource(q, scope, name)` makes one
    resource, or None when it does not exist for that Scope. Both are queries.

    `shares` and `level` say for which Scope a resource is made, so that proxies share it. `names_at(q, scope, level)`
    lists what wildcard subscribers get of a level, for the Scope of that level; without it names are listed for each
    proxy.

    A type whose resources are asked for by other names than their own has `resolve(q, scope, asked)`, the name that
    stands behind; `instead` makes what a proxy gets of a resource it has refused and never had, since one that waits
    for an answer waits for ever.
    """

    type_url: str
    short: str
    wildcard: bool
    names: Callable[[Q, Scope], tuple[str, ...]]
    resource: Callable[[Q, Scope, str], Resource | None]
    shares: Callable[[Q, Scope], Shares] = unshared
    level: Callable[[Shares, str], int] = own_level
    names_at: Callable[[Q, Scope, int], tuple[str, ...]] | None = None
    resolve: Callable[[Q, Scope, str], str] | None = None
    instead: Callable[[Resource], Resource] | None = None
