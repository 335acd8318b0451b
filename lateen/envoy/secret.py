"""Credentials of gateways (SDS over the control plane's stream): `kubernetes://name` from Secrets.

A Secret holds a certificate and its key (`tls.crt`, `tls.key`, or `cert`, `key`) and may hold the authorities of
clients' certificates (`ca.crt` or `cacert`, revocation lists in `ca.crl` or `crl`); these may also be in a Secret of
their own, `name-cacert`. Only routers are served, and only Secrets of their own namespace: the namespace comes from
the proxy's identity, never from what it asks for.

Source: https://istio.io/latest/docs/tasks/traffic-management/ingress/secure-ingress/
"""

from __future__ import annotations

from collections.abc import Iterable

from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret as Message

from lateen.api.core.secret import Secret
from lateen.api.objects import get
from lateen.engine import Q
from lateen.envoy.resource import Resource, resource
from lateen.envoy.sources import CA_SUFFIX, CREDENTIAL_PREFIX
from lateen.intent.scope import Scope

_CERTIFICATE = ("tls.crt", "cert")
_KEY = ("tls.key", "key")
_AUTHORITY = ("ca.crt", "cacert")
_REVOKED = ("ca.crl", "crl")
_STAPLE = ("tls.ocsp-staple",)


def secret_names(_q: Q, _scope: Scope) -> tuple[str, ...]:
    """None: secrets are asked for by name."""
    return ()


def secret_resource(q: Q, scope: Scope, name: str) -> Resource | None:
    """A credential for a router; None for other proxies and when the Secret isn't there or lacks it."""
    if not scope.router or not name.startswith(CREDENTIAL_PREFIX):
        return None
    return q(credential, scope.namespace, name)


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
