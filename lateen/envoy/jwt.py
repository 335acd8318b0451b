"""JSON Web Tokens: the filter that verifies them and leaves their claims where rules and routes find them.

A request without a token passes, one with a token that no issuer vouches for is refused with 401; whether a token
is needed is for authorization policies to say. Keys come with the listener, so the proxy calls nobody.

Source: https://www.envoyproxy.io/docs/envoy/latest/api-v3/extensions/filters/http/jwt_authn/v3/config.proto
"""

from __future__ import annotations

from collections.abc import Sequence

from envoy.extensions.filters.http.jwt_authn.v3.config_pb2 import JwtAuthentication, JwtProvider

from lateen.intent.authorization import JWT_FILTER, JWT_PAYLOAD, rule_name
from lateen.intent.security import Issuer

NAME = JWT_FILTER
SPACE_DELIMITED = ("permission", "scope")
"""Claims whose text is always a list of words, as in Istio."""


def jwt_authentication(issuers: Sequence[Issuer], *, reroutes: bool) -> JwtAuthentication:
    """The filter for some issuers. `reroutes`: the route is chosen again when a token's claims are known."""
    config = JwtAuthentication()
    rule = config.rules.add()
    rule.match.prefix = "/"
    alternatives = rule.requires.requires_any.requirements
    for each in issuers:
        name = rule_name(each.attached.ref, each.attached.index)
        _write_provider(config.providers[name], each, reroutes)
        alternatives.add().provider_name = name
    alternatives.add().allow_missing.SetInParent()
    return config


def _write_provider(provider: JwtProvider, issuer: Issuer, reroutes: bool) -> None:
    rule = issuer.attached.rule
    provider.issuer = rule.issuer or ""
    provider.audiences.extend(rule.audiences)
    provider.local_jwks.inline_string = issuer.keys
    provider.forward = bool(rule.forward_original_token)
    for each in rule.from_headers:
        header = provider.from_headers.add()
        header.name = each.name
        header.value_prefix = each.prefix or ""
    provider.from_params.extend(rule.from_params)
    provider.from_cookies.extend(rule.from_cookies)
    provider.forward_payload_header = rule.output_payload_to_header or ""
    for each in rule.output_claim_to_headers:
        claim = provider.claim_to_headers.add()
        claim.header_name = each.header
        claim.claim_name = each.claim
    provider.payload_in_metadata = JWT_PAYLOAD
    words = dict.fromkeys((*SPACE_DELIMITED, *rule.space_delimited_claims))
    provider.normalize_payload_in_metadata.space_delimited_claims.extend(words)
    provider.clear_route_cache = reroutes
