"""Keys that tokens are verified with: inline in the policy, or fetched by the control plane and put in the graph.

A policy names a key set by its address (`jwksUri`) or, without one, by its issuer, whose discovery document leads
to it. Queries say which sources are wanted and read what the fetcher has put in; until something is there, nobody's
token is good. Envoy never fetches keys itself, so a key server that is away hurts nobody's requests.

Source: https://openid.net/specs/openid-connect-discovery-1_0.html, RFC 7517
"""

from __future__ import annotations

import msgspec

from lateen.api.istio.request_authentication import JWTRule, RequestAuthentication
from lateen.api.objects import everywhere
from lateen.engine import Q
from lateen.lib.keysets import NOBODYS, encoded, usable_keys

DEFAULT_TIMEOUT_S = 5.0


class KeySource(msgspec.Struct, frozen=True, order=True, cache_hash=True):
    """Where a key set is fetched from; the key of the input that holds it.

    `url` is the key set's address, or with `discovery` the issuer's, whose discovery document names it. With `bundle`
    it is that of a SPIFFE bundle, whose roots are kept as PEM.
    """

    url: str
    discovery: bool = False
    timeout_s: float = DEFAULT_TIMEOUT_S
    bundle: bool = False

    @property
    def collection(self) -> str:
        """What inputs of this kind have in common."""
        return "jwks"


def key_source(rule: JWTRule) -> KeySource | None:
    """Where the keys of an issuer come from; None when they are inline or nowhere to be had."""
    if rule.jwks:
        return None
    timeout_s = rule.timeout.seconds if rule.timeout is not None else DEFAULT_TIMEOUT_S
    if url := rule.jwks_uri or rule.jwks_uri_alias:
        return KeySource(url, timeout_s=timeout_s)
    if rule.issuer and rule.issuer.startswith(("https://", "http://")):
        return KeySource(rule.issuer, True, timeout_s)
    return None


def key_set(q: Q, rule: JWTRule) -> str:
    """The JSON Web Key Set of an issuer; one that nobody can sign for while there is nothing else."""
    if rule.jwks:
        return encoded(usable_keys(rule.jwks))
    source = key_source(rule)
    found: str | None = q.read(source) if source is not None else None
    return found or NOBODYS


def wanted_sources(q: Q) -> tuple[KeySource, ...]:
    """All sources that some policy names."""
    found = {
        source
        for each in everywhere(q, RequestAuthentication)
        for rule in each.spec.jwt_rules
        if (source := key_source(rule)) is not None
    }
    return tuple(sorted(found))
