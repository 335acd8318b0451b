"""Role, ClusterRole and their bindings (rbac.authorization.k8s.io/v1): who may do what in the API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from lateen.api.problems import Problem
from lateen.api.struct import NonEmpty, Object, Struct, field

GROUP = "rbac.authorization.k8s.io"


class PolicyRule(Struct, frozen=True):
    """Verbs on resources, or on paths that are no resources; `*` is all."""

    verbs: tuple[str, ...]
    api_groups: tuple[str, ...] = ()
    non_resource_urls: tuple[str, ...] = field(default=(), name="nonResourceURLs")
    resource_names: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()

    def problems(self) -> Iterator[Problem]:
        if not self.verbs:
            yield Problem("verbs", "a rule without verbs allows nothing", 'name verbs, or "*"')
        if not self.resources and not self.non_resource_urls:
            yield Problem("", "the rule is about nothing", "set resources and apiGroups, or nonResourceURLs")


class RoleRef(Struct, frozen=True):
    """The role that is given."""

    kind: Literal["Role", "ClusterRole"]
    name: NonEmpty
    api_group: str | None = None


class Subject(Struct, frozen=True):
    """Who gets it."""

    kind: Literal["User", "Group", "ServiceAccount"]
    name: NonEmpty
    api_group: str | None = None
    namespace: str | None = None

    def problems(self) -> Iterator[Problem]:
        if self.kind == "ServiceAccount" and not self.namespace:
            yield Problem("namespace", "a ServiceAccount is in a namespace", "set namespace")


class Role(Object, frozen=True):
    """Rights inside of one namespace."""

    GROUP: ClassVar[str] = GROUP
    KIND: ClassVar[str] = "Role"

    rules: tuple[PolicyRule, ...] = ()


class ClusterRole(Object, frozen=True):
    """Rights in all namespaces, or in the one where it is bound."""

    GROUP: ClassVar[str] = GROUP
    KIND: ClassVar[str] = "ClusterRole"

    aggregation_rule: Mapping[str, Any] | None = None
    rules: tuple[PolicyRule, ...] = ()


class RoleBinding(Object, frozen=True):
    """A role for somebody in one namespace."""

    GROUP: ClassVar[str] = GROUP
    KIND: ClassVar[str] = "RoleBinding"

    role_ref: RoleRef
    subjects: tuple[Subject, ...] = ()


class ClusterRoleBinding(Object, frozen=True):
    """A ClusterRole for somebody everywhere."""

    GROUP: ClassVar[str] = GROUP
    KIND: ClassVar[str] = "ClusterRoleBinding"

    role_ref: RoleRef
    subjects: tuple[Subject, ...] = ()
