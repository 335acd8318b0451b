"""PeerAuthentication: mutual TLS on the accepting side (security.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from lateen.api.istio.selectors import PolicySelector
from lateen.api.struct import Meta, Object, Struct


class MutualTLS(Struct, frozen=True):
    """Mutual TLS: off, accepted or demanded."""

    mode: Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"] | None = None


class PeerAuthenticationSpec(Struct, frozen=True):
    """Which TLS a workload demands of its callers."""

    mtls: MutualTLS | None = None
    port_level_mtls: Annotated[Mapping[str, MutualTLS], Meta(min_length=1)] = {}
    selector: PolicySelector | None = None


class PeerAuthentication(Object, frozen=True):
    """The TLS that workloads demand of their callers."""

    GROUP: ClassVar[str] = "security.istio.io"
    KIND: ClassVar[str] = "PeerAuthentication"

    spec: PeerAuthenticationSpec = PeerAuthenticationSpec()
