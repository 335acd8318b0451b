"""AuthorizationPolicy: who may call what (security.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from lateen.api import rules
from lateen.api.istio.selectors import PolicySelector, PolicyTargetReference
from lateen.api.problems import Problem, at, warning
from lateen.api.struct import Meta, Object, Struct
from lateen.lib.names import is_label


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

    def problems(self) -> Iterator[Problem]:
        accounts = self.service_accounts or self.not_service_accounts
        if accounts and (self.principals or self.not_principals or self.namespaces or self.not_namespaces):
            message = "serviceAccounts excludes principals and namespaces"
            yield Problem("", message, "an account is written namespace/name, so namespaces are not needed")
        for name, accounts in (
            ("serviceAccounts", self.service_accounts),
            ("notServiceAccounts", self.not_service_accounts),
        ):
            for index, each in enumerate(accounts):
                namespace, slash, own = each.rpartition("/")
                if (slash and not is_label(namespace)) or not own or "*" in each:
                    yield Problem(
                        at(name, index), f'"{each[:80]}" is no service account', "write namespace/name or name"
                    )
        for name, blocks in (
            ("ipBlocks", self.ip_blocks),
            ("notIpBlocks", self.not_ip_blocks),
            ("remoteIpBlocks", self.remote_ip_blocks),
            ("notRemoteIpBlocks", self.not_remote_ip_blocks),
        ):
            for index, each in enumerate(blocks):
                yield from rules.network(at(name, index), each)


class RuleFrom(Struct, frozen=True):
    """One way a caller may match."""

    source: Source | None = None

    def problems(self) -> Iterator[Problem]:
        if self.source is None or self.source == Source():
            yield Problem("", "the source is empty", "say who calls, or leave from out to mean anybody")


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

    def problems(self) -> Iterator[Problem]:
        for name, ports in (("ports", self.ports), ("notPorts", self.not_ports)):
            for index, each in enumerate(ports):
                if not (each.isascii() and each.isdecimal() and 1 <= int(each[:6]) <= 65535):
                    yield Problem(at(name, index), f'"{each[:40]}" is not a port', "ports are 1 to 65535")
        for name, paths in (("paths", self.paths), ("notPaths", self.not_paths)):
            for index, each in enumerate(paths):
                if reason := _path_problem(each):
                    yield Problem(at(name, index), reason, "write {*} for one segment, and {**} last for any number")


class RuleTo(Struct, frozen=True):
    """One way a request may match."""

    operation: Operation | None = None

    def problems(self) -> Iterator[Problem]:
        if self.operation is None or self.operation == Operation():
            yield Problem("", "the operation is empty", "say what is called, or leave to out to mean anything")


class Condition(Struct, frozen=True):
    """A further condition on one attribute of a request."""

    key: str
    not_values: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    def problems(self) -> Iterator[Problem]:
        if not self.values and not self.not_values:
            yield Problem("", "what the attribute must be is missing", 'set "values" or "notValues"')
        if not _KEY.fullmatch(self.key):
            yield Problem("key", f'"{self.key[:80]}" is not an attribute', "write it like request.headers[x-user]")
        for name, values in (("values", self.values), ("notValues", self.not_values)):
            for index, each in enumerate(values):
                place = at(name, index)
                if self.key in ("source.ip", "remote.ip", "destination.ip"):
                    yield from rules.network(place, each)
                elif self.key == "destination.port" and not (each.isdecimal() and 1 <= int(each[:6]) <= 65535):
                    yield Problem(place, f'"{each[:40]}" is not a port', "ports are 1 to 65535")


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

    def problems(self) -> Iterator[Problem]:
        yield from rules.one_selector(self.selector, self.target_ref, self.target_refs)
        if self.action == "CUSTOM":
            if self.provider is None or not self.provider.name:
                yield Problem("", "action CUSTOM needs a provider", "set provider.name")
        elif self.provider is not None:
            yield Problem("provider", "only action CUSTOM has a provider", "leave it out, or change the action")
        if self.action == "DENY" and not self.rules:
            yield warning("", "without rules nothing is denied", "write rules: [{}] to deny everything")


class AuthorizationPolicy(Object, frozen=True):
    """Who may call what."""

    GROUP: ClassVar[str] = "security.istio.io"
    KIND: ClassVar[str] = "AuthorizationPolicy"

    spec: AuthorizationPolicySpec = AuthorizationPolicySpec()


_KEY = re.compile(
    r"source\.(ip|namespace|principal|serviceAccount|trustDomain)|remote\.ip|destination\.(ip|port)|connection\.sni"
    r"|request\.auth\.(principal|audiences|presenter)|request\.(headers|auth\.claims)(\[[^\]]+\])+"
    r"|experimental\.envoy\.filters\..+"
)
_SEGMENT = re.compile(r"\{\*\}|[^{}]*")


def _path_problem(path: str) -> str | None:
    """What is wrong with a path that may have `{*}` and `{**}`; both exclude a plain `*`."""
    if "{" not in path and "}" not in path:
        return None
    segments = path.split("/")
    if "*" in path.replace("{**}", "").replace("{*}", ""):
        return "a template has no plain *"
    if any(each == "{**}" for each in segments[:-1]):
        return "{**} must be the last segment"
    if any(not _SEGMENT.fullmatch(each) for each in segments if each != "{**}"):
        return "a template variable must be a whole segment, {*} or {**}"
    return None
