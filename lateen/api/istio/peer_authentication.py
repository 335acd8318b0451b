"""PeerAuthentication: mutual TLS on the accepting side (security.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from lateen.api.istio.selectors import PolicySelector
from lateen.api.problems import Problem, at
from lateen.api.struct import Meta, Object, Struct


class MutualTLS(Struct, frozen=True):
    """Mutual TLS: off, accepted or demanded."""

    mode: Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"] | None = None


class PeerAuthenticationSpec(Struct, frozen=True):
    """Which TLS a workload demands of its callers."""

    mtls: MutualTLS | None = None
    port_level_mtls: Annotated[Mapping[str, MutualTLS], Meta(min_length=1)] = {}
    selector: PolicySelector | None = None

    def problems(self) -> Iterator[Problem]:
        if self.port_level_mtls and (self.selector is None or not self.selector.match_labels):
            yield Problem("portLevelMtls", "modes of single ports need a selector", "set selector.matchLabels")
        for port in self.port_level_mtls:
            if not (port.isascii() and port.isdecimal() and 1 <= int(port[:6]) <= 65535):
                yield Problem(at("portLevelMtls", port), f'"{port[:40]}" is not a port', "ports are 1 to 65535")


class PeerAuthentication(Object, frozen=True):
    """The TLS that workloads demand of their callers."""

    GROUP: ClassVar[str] = "security.istio.io"
    KIND: ClassVar[str] = "PeerAuthentication"

    spec: PeerAuthenticationSpec = PeerAuthenticationSpec()
