"""RequestAuthentication: JSON Web Tokens that workloads accept (security.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar

from lateen.api import rules
from lateen.api.istio.selectors import PolicySelector, PolicyTargetReference
from lateen.api.problems import Problem, at, warning
from lateen.api.struct import Meta, NonEmpty, Object, PositiveDuration, Struct, field
from lateen.lib.keysets import is_key_set, usable_keys


class JWTHeader(Struct, frozen=True):
    """A header that may hold a token."""

    name: NonEmpty
    prefix: str | None = None


class ClaimToHeader(Struct, frozen=True):
    """A claim that is copied to a header."""

    claim: NonEmpty
    header: Annotated[str, Meta(min_length=1, pattern=r"^[-_A-Za-z0-9]+$")]


class JWTRule(Struct, frozen=True):
    """One issuer of tokens, and where its tokens are found."""

    audiences: tuple[NonEmpty, ...] = ()
    forward_original_token: bool | None = None
    from_cookies: tuple[NonEmpty, ...] = ()
    from_headers: tuple[JWTHeader, ...] = ()
    from_params: tuple[NonEmpty, ...] = ()
    issuer: NonEmpty | None = None
    jwks: str | None = None
    jwks_uri_alias: Annotated[str, Meta(min_length=1, max_length=2048)] | None = field(default=None, name="jwks_uri")
    jwks_uri: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None
    output_claim_to_headers: tuple[ClaimToHeader, ...] = ()
    output_payload_to_header: str | None = None
    space_delimited_claims: Annotated[tuple[NonEmpty, ...], Meta(max_length=64)] = ()
    timeout: PositiveDuration | None = None

    def problems(self) -> Iterator[Problem]:
        keys = {"jwks": self.jwks, "jwksUri": self.jwks_uri, "jwks_uri": self.jwks_uri_alias}
        said = [name for name, value in keys.items() if value]
        if len(said) > 1:
            yield Problem(said[-1], f"{' and '.join(said)} exclude each other", "keep one of them")
        if not self.issuer and not said:
            yield Problem("", '"issuer" is missing', "set it; only with jwksUri or jwks it can be left out")
        for name in said:
            if name != "jwks":
                yield from rules.url(name, keys[name] or "", ("https", "http"))
        if self.jwks and not is_key_set(self.jwks):
            yield Problem("jwks", "it is not a JSON Web Key Set", 'write {"keys": [...]}')
        elif self.jwks and len(said) == 1 and not usable_keys(self.jwks):
            yield warning("jwks", "no key in it is usable, so every token is refused", "see RFC 7517 for their form")
        for index, each in enumerate(self.from_headers):
            yield from rules.header_name(at("fromHeaders", index, "name"), each.name)
        if self.output_payload_to_header:
            yield from rules.header_name("outputPayloadToHeader", self.output_payload_to_header)


class RequestAuthenticationSpec(Struct, frozen=True):
    """Which tokens a workload accepts."""

    jwt_rules: Annotated[tuple[JWTRule, ...], Meta(max_length=4096)] = ()
    selector: PolicySelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: Annotated[tuple[PolicyTargetReference, ...], Meta(max_length=16)] = ()

    def problems(self) -> Iterator[Problem]:
        yield from rules.one_selector(self.selector, self.target_ref, self.target_refs)


class RequestAuthentication(Object, frozen=True):
    """The tokens that workloads accept."""

    GROUP: ClassVar[str] = "security.istio.io"
    KIND: ClassVar[str] = "RequestAuthentication"

    spec: RequestAuthenticationSpec = RequestAuthenticationSpec()
