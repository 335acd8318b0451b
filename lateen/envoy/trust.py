"""The secret `ROOTCA`: what proxies check the certificates of the mesh with.

Envoy's SPIFFE validator takes a bundle of roots for each trust domain, so that the CA of one cannot speak for another.
Revocation lists stand in the bundles: the validator ignores the field `crl` and honours lists there (decision 0019).

Source: https://www.envoyproxy.io/docs/envoy/latest/api-v3/extensions/transport_sockets/tls/v3/tls_spiffe_validator_config.proto
"""

from __future__ import annotations

from collections.abc import Mapping

from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.extensions.transport_sockets.tls.v3.tls_spiffe_validator_config_pb2 import SPIFFECertValidatorConfig

from lateen.envoy.sources import TRUST


def trust_secret(bundles: Mapping[str, str]) -> bytes:
    """The encoded secret for bundles (PEM: roots and revocation lists) by trust domain."""
    validator = SPIFFECertValidatorConfig()
    for domain, bundle in sorted(bundles.items()):
        each = validator.trust_domains.add()
        each.name = domain
        each.trust_bundle.inline_string = bundle
    secret = Secret()
    secret.name = TRUST
    custom = secret.validation_context.custom_validator_config
    custom.name = "envoy.tls.cert_validator.spiffe"
    custom.typed_config.Pack(validator)
    return secret.SerializeToString(deterministic=True)
