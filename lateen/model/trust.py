"""Who is trusted besides the mesh's own CA: `caCertificates` of the mesh configuration, by trust domain.

An entry holds roots (`pem`) or the address of a SPIFFE bundle, which the control plane fetches. Without `trustDomains`
its roots count for the mesh's own trust domain and its aliases.

Source: https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/#MeshConfig-CertificateData
"""

from __future__ import annotations

from lateen.engine import Q
from lateen.model.jwt_keys import KeySource
from lateen.model.mesh import mesh_config, trust_domains

Anchors = tuple[tuple[str, str], ...]
"""Trust domains with PEM texts; a domain may come several times."""


def bundle_source(url: str) -> KeySource:
    """The key of the input that holds a fetched SPIFFE bundle, as PEM."""
    return KeySource(url, bundle=True)


def bundle_sources(q: Q) -> tuple[KeySource, ...]:
    """The SPIFFE bundles that the mesh configuration names."""
    certificates = q(mesh_config).ca_certificates
    return tuple(sorted({bundle_source(each.spiffe_bundle_url) for each in certificates if each.spiffe_bundle_url}))


def anchors(q: Q) -> Anchors:
    """The roots that are trusted besides the mesh's own, as far as they are there."""
    found: list[tuple[str, str]] = []
    for each in q(mesh_config).ca_certificates:
        fetched: str | None = q.read(bundle_source(each.spiffe_bundle_url)) if each.spiffe_bundle_url else None
        for pem in filter(None, (each.pem, fetched)):
            found += [(domain, pem) for domain in each.trust_domains or q(trust_domains)]
    return tuple(found)
