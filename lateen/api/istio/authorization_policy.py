"""AuthorizationPolicy: who may call what (security.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from lateen.api.istio.selectors import PolicySelector, PolicyTargetReference
from lateen.api.struct import Meta, Object, Struct


class ExtensionProvider(Struct, frozen=True):
    """An authorizer declared in the mesh configuration."""

    name: str | None = None


class Source(Struct, frozen=True):
    """Who calls."""

    ip_blocks: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    not_ip_blocks: tuple[str, ...] = ()
    not_namespaces: tuple[str, ...] = ()
    not_principals: tuple[str, ...] = ()
    not_remote_ip_blocks: tuple[str, ...] = ()
    not_request_principals: tuple[str, ...] = ()
    not_service_accounts: Annotated[tuple[Annotated[str, Meta(max_length=320)], ...], Meta(max_length=16)] = ()
    not_trust_domains: tuple[str, ...] = ()
    principals: tuple[str, ...] = ()
    remote_ip_blocks: tuple[str, ...] = ()
    request_principals: tuple[str, ...] = ()
    service_accounts: Annotated[tuple[Annotated[str, Meta(max_length=320)], ...], Meta(max_length=16)] = ()
    trust_domains: tuple[str, ...] = ()


class RuleFrom(Struct, frozen=True):
    """One way a caller may match."""

    source: Source | None = None


class Operation(Struct, frozen=True):
    """What is called."""

    hosts: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    not_hosts: tuple[str, ...] = ()
    not_methods: tuple[str, ...] = ()
    not_paths: tuple[str, ...] = ()
    not_ports: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()


class RuleTo(Struct, frozen=True):
    """One way a request may match."""

    operation: Operation | None = None


class Condition(Struct, frozen=True):
    """A further condition on one attribute of a request."""

    key: str
    not_values: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


class Rule(Struct, frozen=True):
    """One rule: from, to and when must all match."""

    from_: Annotated[tuple[RuleFrom, ...], Meta(max_length=512)] = ()
    to: tuple[RuleTo, ...] = ()
    when: tuple[Condition, ...] = ()


class AuthorizationPolicySpec(Struct, frozen=True):
    """Who may call what."""

    action: Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"] | None = None
    provider: ExtensionProvider | None = None
    rules: Annotated[tuple[Rule, ...], Meta(max_length=512)] = ()
    selector: PolicySelector | None = None
    target_ref: PolicyTargetReference | None = None
    target_refs: Annotated[tuple[PolicyTargetReference, ...], Meta(max_length=16)] = ()


class AuthorizationPolicy(Object, frozen=True):
    """Who may call what."""

    GROUP: ClassVar[str] = "security.istio.io"
    KIND: ClassVar[str] = "AuthorizationPolicy"

    spec: AuthorizationPolicySpec = AuthorizationPolicySpec()
