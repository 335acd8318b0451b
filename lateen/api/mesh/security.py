"""What is wrong with the mesh configuration's TLS settings and trust, beyond the types of its fields.

The names of ciphers and curves are those that Envoy takes (tried on 1.40); it would refuse every listener and cluster
for one that it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from lateen.api.mesh.config import CertificateData, MeshConfig, TLSConfig
from lateen.api.problems import Problem, at, warning
from lateen.api.rules import CIPHER_SUITES
from lateen.lib.bundles import authorities
from lateen.lib.suggest import did_you_mean

CURVES: Final = ("P-256", "P-384", "P-521", "X25519", "X25519MLKEM768")
_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}")
NOT_THERE: Final = "LTN0001"


def security_problems(config: MeshConfig) -> Iterator[Problem]:
    """The problems; their paths are inside of the configuration."""
    yield from _tls("meshMTLS", config.mesh_mtls, mesh=True)
    yield from _tls("tlsDefaults", config.tls_defaults, mesh=False)
    for place, name in (
        (at("trustDomain"), config.trust_domain),
        *((at("trustDomainAliases", index), each) for index, each in enumerate(config.trust_domain_aliases)),
    ):
        yield from _domain(place, name)
    for index, each in enumerate(config.ca_certificates):
        yield from _trusted(index, each)


def _tls(field: str, said: TLSConfig, *, mesh: bool) -> Iterator[Problem]:
    for key, names, known in (
        ("cipherSuites", said.cipher_suites, CIPHER_SUITES),
        ("ecdhCurves", said.ecdh_curves, CURVES),
    ):
        for index, name in enumerate(names):
            if name not in known:
                remedy = did_you_mean(name, known, at_most=len(known))
                yield Problem(at(field, key, index), f'"{name}" is none that proxies know', remedy)
    if said.cipher_suites and said.min_protocol_version == "TLSV1_3":
        yield warning(
            at(field, "cipherSuites"),
            "cipher suites can be chosen up to TLS 1.2, and nothing older than 1.3 is spoken",
            "remove one of the two",
        )
    if mesh and said.cipher_suites and not any("ECDSA" in each for each in said.cipher_suites):
        yield warning(
            at(field, "cipherSuites"),
            "none of them goes with the certificates of the mesh, which have EC keys: TLS 1.2 fails",
            "add one of ECDHE-ECDSA-...",
        )


def _domain(place: str, name: str) -> Iterator[Problem]:
    if not _DOMAIN.fullmatch(name):
        yield Problem(place, f'"{name}" is no trust domain', "use lower case letters, digits, '.', '-' and '_'")


def _trusted(index: int, said: CertificateData) -> Iterator[Problem]:
    if bool(said.pem) == bool(said.spiffe_bundle_url):
        yield Problem(at("caCertificates", index), "it needs one of pem and spiffeBundleUrl", "give one of them")
    if said.pem:
        try:
            authorities(said.pem)
        except ValueError as error:
            yield Problem(at("caCertificates", index, "pem"), str(error), "give certificates of CAs in PEM")
    if said.spiffe_bundle_url and not said.spiffe_bundle_url.startswith(("https://", "http://")):
        yield Problem(at("caCertificates", index, "spiffeBundleUrl"), "it is no address of HTTP", "use https://...")
    elif said.spiffe_bundle_url and said.spiffe_bundle_url.startswith("http://"):
        yield warning(
            at("caCertificates", index, "spiffeBundleUrl"),
            "whoever is on the way can say whom the mesh trusts",
            "use https://...",
        )
    for number, name in enumerate(said.trust_domains):
        yield from _domain(at("caCertificates", index, "trustDomains", number), name)
    if said.cert_signers:
        yield warning(
            at("caCertificates", index, "certSigners"), "it is not implemented yet and has no effect", code=NOT_THERE
        )
