"""What goes to a proxy: one xDS resource as bytes, and the table entry that makes resources of one type.

Adding an xDS type is adding one `ResourceType`; the server has no code per type.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from lateen.engine import Q
from lateen.intent.scope import Scope
from lateen.lib.ids import Ref


class Resource(msgspec.Struct, frozen=True):
    """One named xDS resource: the serialised message and a version that is a function of its content.

    `origins` are the objects it was made from, so that a refusal by Envoy leads back to them.
    """

    name: str
    version: str
    body: bytes
    origins: tuple[Ref, ...] = ()


def resource(name: str, body: bytes, origins: tuple[Ref, ...] = ()) -> Resource:
    """A Resource whose version is a hash of its bytes."""
    return Resource(name, hashlib.blake2b(body, digest_size=8).hexdigest(), body, origins)


class ResourceType(msgspec.Struct, frozen=True):
    """One row of the type table.

    `names(q, scope)` lists what a wildcard subscriber of that Scope gets, `resource(q, scope, name)` makes one
    resource, or None when it does not exist for that Scope. Both are queries.
    """

    type_url: str
    short: str
    wildcard: bool
    names: Callable[[Q, Scope], tuple[str, ...]]
    resource: Callable[[Q, Scope, str], Resource | None]
