"""Credentials of gateways and of some sidecars (SDS over the control plane's stream): `kubernetes://name` from Secrets.

A Secret holds a certificate and its key (`tls.crt`, `tls.key`, or `cert`, `key`) and may hold the authorities of
clients' certificates (`ca.crt` or `cacert`, revocation lists in `ca.crl` or `crl`); these may also be in a Secret of
their own, `name-cacert`. Only Secrets of the proxy's own namespace are served: the namespace comes from the proxy's
identity, never from what it asks for. A router may have any of them, a sidecar those that a DestinationRule with a
`workloadSelector` names for it.

Source: https://istio.io/latest/docs/tasks/traffic-management/ingress/secure-ingress/
"""

from __future__ import annotations

from collections.abc import Iterable

from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret as Message

from lateen.api.core.secret import Secret
from lateen.api.istio.destination_rule import DestinationRule
from lateen.api.objects import get
from lateen.engine import Q
from lateen.envoy.resource import Resource, resource
from lateen.envoy.sources import CA_SUFFIX, CREDENTIAL_PREFIX
from lateen.intent.scope import Scope
from lateen.model.visibility import client_of

_CERTIFICATE = ("tls.crt", "cert")
_KEY = ("tls.key", "key")
_AUTHORITY = ("ca.crt", "cacert")
_REVOKED = ("ca.crl", "crl")
_STAPLE = ("tls.ocsp-staple",)


def secret_names(_q: Q, _scope: Scope) -> tuple[str, ...]:
    """None: secrets are asked for by name."""
    return ()


def secret_resource(q: Q, scope: Scope, name: str) -> Resource | None:
    """A credential for a proxy; None when it isn't meant for it, isn't there or lacks what is asked for."""
    if not name.startswith(CREDENTIAL_PREFIX):
        return None
    if not scope.router:
        rules = q(client_of, scope.namespace, scope.labels, False).rules
        wanted = name.removeprefix(CREDENTIAL_PREFIX)
        named = q(credentials_of, scope.namespace, rules) if rules else frozenset[str]()
        if wanted not in named and wanted.removesuffix(CA_SUFFIX) not in named:
            return None
    return q(credential, scope.namespace, name)


def credentials_of(q: Q, namespace: str, rules: tuple[str, ...]) -> frozenset[str]:
    """The credentials that DestinationRules of a namespace name."""
    found = [rule.spec for name in rules if (rule := get(q, DestinationRule, namespace, name)) is not None]
    policies = [
        policy
        for spec in found
        for policy in (spec.traffic_policy, *(each.traffic_policy for each in spec.subsets))
        if policy is not None
    ]
    settings = [each.tls for policy in policies for each in (policy, *policy.port_level_settings)]
    return frozenset(each.credential_name for each in settings if each is not None and each.credential_name)


def credential(q: Q, namespace: str, name: str) -> Resource | None:
    """The credential of that SDS name from the Secrets of a namespace."""
    secret_name = name.removeprefix(CREDENTIAL_PREFIX)
    if not secret_name.endswith(CA_SUFFIX):
        found = get(q, Secret, namespace, secret_name)
        return _key_pair(name, found) if found is not None else None
    found = get(q, Secret, namespace, secret_name)
    if found is None or not _first(found, _AUTHORITY):
        found = get(q, Secret, namespace, secret_name.removesuffix(CA_SUFFIX))
    return _authority(name, found) if found is not None else None


def _key_pair(name: str, secret: Secret) -> Resource | None:
    chain, key = _first(secret, _CERTIFICATE), _first(secret, _KEY)
    if not chain or not key:
        return None
    message = Message()
    message.name = name
    message.tls_certificate.certificate_chain.inline_bytes = chain
    message.tls_certificate.private_key.inline_bytes = key
    if staple := _first(secret, _STAPLE):
        message.tls_certificate.ocsp_staple.inline_bytes = staple
    return resource(name, message.SerializeToString(), (secret.ref,))


def _authority(name: str, secret: Secret) -> Resource | None:
    authority = _first(secret, _AUTHORITY)
    if not authority:
        return None
    message = Message()
    message.name = name
    message.validation_context.trusted_ca.inline_bytes = authority
    if revoked := _first(secret, _REVOKED):
        message.validation_context.crl.inline_bytes = revoked
    return resource(name, message.SerializeToString(), (secret.ref,))


def _first(secret: Secret, keys: Iterable[str]) -> bytes:
    """The value of the first key that is there; a `stringData` value counts before a `data` value."""
    for key in keys:
        found = secret.string_data.get(key) or secret.data.get(key)
        if found is not None:
            return found.reveal()
    return b""
