"""Credentials of gateways and of some sidecars (SDS over the control plane's stream): `kubernetes://name` from Secrets,
`file-cert:chain~key` and `file-root:authorities~revoked` from files of the proxy itself.

A Secret holds a certificate and its key (`tls.crt`, `tls.key`, or `cert`, `key`) and may hold the authorities of
clients' certificates (`ca.crt` or `cacert`, revocation lists in `ca.crl` or `crl`); these may also be in a Secret of
their own, `name-cacert`, or in a ConfigMap. Only those of the proxy's own namespace are served: the namespace comes
from the proxy's identity, never from what it asks for. A router may have any of them, a sidecar those that a
DestinationRule with a `workloadSelector` names for it. Files are read by the proxy, again whenever something is moved
into their directory.

Source: https://istio.io/latest/docs/tasks/traffic-management/ingress/secure-ingress/
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret as Message

from lateen.api.core.config_map import ConfigMap
from lateen.api.core.secret import Secret
from lateen.api.istio.destination_rule import DestinationRule
from lateen.api.objects import get
from lateen.engine import Q
from lateen.envoy.resource import Resource, resource
from lateen.envoy.sources import (
    CA_SUFFIX,
    CREDENTIAL_PREFIX,
    FILE_AUTHORITY_PREFIX,
    FILE_CERTIFICATE_PREFIX,
    FILE_SEPARATOR,
)
from lateen.envoy.tls import authority_files, certificate_files
from lateen.intent.inbound import inbound_ports
from lateen.intent.scope import Scope
from lateen.lib.ids import Ref
from lateen.model.gateways import gateway_servers
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
    if name.startswith((FILE_CERTIFICATE_PREFIX, FILE_AUTHORITY_PREFIX)):
        return q(_of_files, scope, name)
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


def _of_files(q: Q, scope: Scope, name: str) -> Resource | None:
    """The names of files that some server of a router, or a port of a sidecar, has its certificate or its clients'
    authorities in."""
    kind, _, files = name.partition(":")
    first, _, second = files.partition(FILE_SEPARATOR)
    if scope.router:
        servers = [(each.tls, each.gateway) for each in q(gateway_servers, scope.namespace, scope.labels)]
    else:
        servers = [(each.tls, ref) for each in q(inbound_ports, scope) for ref in each.origins]
    users = [
        ref
        for tls, ref in servers
        if tls is not None and ((first, second) in certificate_files(tls) or (first, second) == authority_files(tls))
    ]
    if not users or not first:
        return None
    message = Message()
    message.name = name
    directory = str(PurePosixPath(first).parent)
    if f"{kind}:" == FILE_CERTIFICATE_PREFIX:
        message.tls_certificate.certificate_chain.filename = first
        message.tls_certificate.private_key.filename = second
        message.tls_certificate.watched_directory.path = directory
    else:
        message.validation_context.trusted_ca.filename = first
        message.validation_context.watched_directory.path = directory
        if second:
            message.validation_context.crl.filename = second
    return resource(name, message.SerializeToString(), tuple(dict.fromkeys(users)))


def credential(q: Q, namespace: str, name: str) -> Resource | None:
    """The credential of that SDS name from the Secrets of a namespace."""
    secret_name = name.removeprefix(CREDENTIAL_PREFIX)
    if not secret_name.endswith(CA_SUFFIX):
        found = get(q, Secret, namespace, secret_name)
        return _key_pair(name, found) if found is not None else None
    found = get(q, Secret, namespace, secret_name)
    if found is None or not _first(found, _AUTHORITY):
        secret_name = secret_name.removesuffix(CA_SUFFIX)
        found = get(q, Secret, namespace, secret_name)
    if found is not None and _first(found, _AUTHORITY):
        return _authority(name, _first(found, _AUTHORITY), _first(found, _REVOKED), found.ref)
    public = get(q, ConfigMap, namespace, secret_name)
    if public is None:
        return None
    return _authority(name, _text(public, _AUTHORITY), _text(public, _REVOKED), public.ref)


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


def _authority(name: str, authority: bytes, revoked: bytes, source: Ref) -> Resource | None:
    if not authority:
        return None
    message = Message()
    message.name = name
    message.validation_context.trusted_ca.inline_bytes = authority
    if revoked:
        message.validation_context.crl.inline_bytes = revoked
    return resource(name, message.SerializeToString(), (source,))


def _text(public: ConfigMap, keys: Iterable[str]) -> bytes:
    return next((public.data[each].encode() for each in keys if each in public.data), b"")


def _first(secret: Secret, keys: Iterable[str]) -> bytes:
    """The value of the first key that is there; a `stringData` value counts before a `data` value."""
    for key in keys:
        found = secret.string_data.get(key) or secret.data.get(key)
        if found is not None:
            return found.reveal()
    return b""
