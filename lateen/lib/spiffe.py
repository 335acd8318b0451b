"""SPIFFE identities of workloads: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.

The CA writes them, Envoy checks them, the control plane reads who is calling from them; this file is the only
place that knows their form. Source: the SPIFFE ID standard (spiffe.io, "SPIFFE-ID") and Istio's path layout.
"""

from __future__ import annotations

import re

import msgspec

CONTROL_PLANE_NAMESPACE = "istio-system"
CONTROL_PLANE_ACCOUNT = "lateen-control-plane"
"""The identity of the control plane's own servers. No workload gets a certificate of this name."""

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]{1,253}")
_FORM = re.compile(r"spiffe://([^/]+)/ns/([^/]+)/sa/([^/]+)")


class SpiffeId(msgspec.Struct, frozen=True, order=True, cache_hash=True):
    """A workload identity. ValueError when a part has characters the standard does not allow."""

    trust_domain: str
    namespace: str
    service_account: str

    def __post_init__(self) -> None:
        if not _TRUST_DOMAIN.fullmatch(self.trust_domain):
            raise ValueError(f"trust domain {self.trust_domain!r} may have only a-z, 0-9, '.', '_' and '-'")
        for segment in (self.namespace, self.service_account):
            if not _SEGMENT.fullmatch(segment) or segment in (".", ".."):
                raise ValueError(f"{segment!r} cannot be part of a SPIFFE id")

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"


def parse_spiffe(text: str) -> SpiffeId:
    """The identity in a URI. ValueError when it is not of the form above."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT")
    return SpiffeId(match[1], match[2], match[3])


def control_plane_id(trust_domain: str) -> SpiffeId:
    """What the control plane's serving certificate says, and what its clients insist on."""
    return SpiffeId(trust_domain, CONTROL_PLANE_NAMESPACE, CONTROL_PLANE_ACCOUNT)
