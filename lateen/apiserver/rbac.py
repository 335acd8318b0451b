"""Access by roles: what the API's own Role and ClusterRole objects, bound to users and groups, allow.

Nothing is allowed that no binding allows; a member of `system:masters` may do everything. Nobody can give away more
than he has: writing a role or a binding needs all the rights that are in it, or the verbs `escalate` and `bind`.

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from lateen.api.codec import decode_as
from lateen.api.core.access import GROUP, PolicyRule, RoleRef, Subject
from lateen.api.struct import Json, list_at
from lateen.apiserver.rows import Row
from lateen.apiserver.store import Store
from lateen.apiserver.targets import Attributes
from lateen.apiserver.users import AUTHENTICATED, MASTERS, User
from lateen.lib.ids import Ref

_BINDINGS: Final = ((GROUP, "ClusterRoleBinding"), (GROUP, "RoleBinding"))
_READ: Final = ("get", "list", "watch")
_WRITE: Final = ("create", "delete", "deletecollection", "patch", "update")
_MESH: Final = (
    "extensions.istio.io",
    "networking.istio.io",
    "security.istio.io",
    "telemetry.istio.io",
)


class Roles:
    """Decisions over the objects of a store. Decoded roles are kept as long as their revision is."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rules: dict[Ref, tuple[int, tuple[PolicyRule, ...]]] = {}
        self._bound: dict[Ref, tuple[int, RoleRef, tuple[Subject, ...]]] = {}

    def __call__(self, user: User, wanted: Attributes) -> str | None:
        """Why not, None when it is allowed."""
        if MASTERS in user.groups or any(allows(rule, wanted) for rule in self.rules_of(user, wanted.namespace)):
            return None
        if wanted.path:
            return f'User "{user.name}" cannot {wanted.verb} path "{wanted.path}"'
        what = f"{wanted.resource}/{wanted.part}" if wanted.part else wanted.resource
        where = f' in the namespace "{wanted.namespace}"' if wanted.namespace else " at the cluster scope"
        return f'User "{user.name}" cannot {wanted.verb} resource "{what}" in API group "{wanted.group}"{where}'

    def rules_of(self, user: User, namespace: str) -> Iterator[PolicyRule]:
        """All rules that a user has in a namespace, or (empty) everywhere."""
        for collection in _BINDINGS:
            for row in self._store.members(collection):
                if row.ref.namespace not in ("", namespace):
                    continue
                role, subjects = self._binding(row)
                if any(_is(each, user) for each in subjects):
                    yield from self.rules(role, row.ref.namespace)

    def rules(self, role: RoleRef, namespace: str) -> tuple[PolicyRule, ...]:
        """The rules of a role; none when there is no such role."""
        ref = Ref(GROUP, role.kind, namespace if role.kind == "Role" else "", role.name)
        row = self._store.get(ref)
        if row is None:
            return ()
        kept = self._rules.get(ref)
        if kept is None or kept[0] != row.revision:
            kept = (row.revision, rules_in(row.decode()))
            self._rules[ref] = kept
        return kept[1]

    def excess(self, user: User, rules: Iterable[PolicyRule], namespace: str) -> list[str]:
        """What of some rules a user does not have himself, in words."""
        if MASTERS in user.groups:
            return []
        own = list(self.rules_of(user, namespace))
        return [
            words(each) for rule in rules for each in _singles(rule) if not any(_covers(mine, each) for mine in own)
        ]

    def _binding(self, row: Row) -> tuple[RoleRef, tuple[Subject, ...]]:
        kept = self._bound.get(row.ref)
        if kept is None or kept[0] != row.revision:
            role, subjects = binding_in(row.decode(), row.ref.namespace)
            kept = (row.revision, role, subjects)
            self._bound[row.ref] = kept
        return kept[1], kept[2]


def rules_in(document: Json) -> tuple[PolicyRule, ...]:
    """The rules of a role's document."""
    return decode_as(list_at(document, "rules"), tuple[PolicyRule, ...])


def binding_in(document: Json, namespace: str) -> tuple[RoleRef, tuple[Subject, ...]]:
    """The role and the subjects of a binding's document."""
    subjects = decode_as(list_at(document, "subjects"), tuple[Subject, ...])
    return decode_as(document["roleRef"], RoleRef), subjects


def allows(rule: PolicyRule, wanted: Attributes) -> bool:
    """Whether one rule allows it."""
    if not _has(rule.verbs, wanted.verb):
        return False
    if wanted.path:
        return any(_path(each, wanted.path) for each in rule.non_resource_urls)
    resource = f"{wanted.resource}/{wanted.part}" if wanted.part else wanted.resource
    return (
        _has(rule.api_groups, wanted.group)
        and (_has(rule.resources, resource) or bool(wanted.part and f"*/{wanted.part}" in rule.resources))
        and (not rule.resource_names or wanted.name in rule.resource_names)
    )


def words(rule: PolicyRule) -> str:
    """A rule in one line."""
    if rule.non_resource_urls:
        return f"{','.join(rule.verbs)} on {','.join(rule.non_resource_urls)}"
    names = f" named {','.join(rule.resource_names)}" if rule.resource_names else ""
    group = ",".join(each or '""' for each in rule.api_groups)
    return f"{','.join(rule.verbs)} {','.join(rule.resources)} of {group}{names}"


def _has(allowed: Sequence[str], wanted: str) -> bool:
    return "*" in allowed or wanted in allowed


def _path(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))


def _is(subject: Subject, user: User) -> bool:
    match subject.kind:
        case "User":
            return subject.name == user.name
        case "Group":
            return subject.name in user.groups
        case "ServiceAccount":
            return user.name == f"system:serviceaccount:{subject.namespace}:{subject.name}"


def _singles(rule: PolicyRule) -> Iterator[PolicyRule]:
    """A rule as rules with one of everything."""
    for verb in rule.verbs:
        for path in rule.non_resource_urls:
            yield PolicyRule(verbs=(verb,), non_resource_urls=(path,))
        for group in rule.api_groups:
            for resource in rule.resources:
                for name in rule.resource_names or ("",):
                    names = (name,) if name else ()
                    yield PolicyRule(verbs=(verb,), api_groups=(group,), resources=(resource,), resource_names=names)


def _covers(mine: PolicyRule, single: PolicyRule) -> bool:
    if not _has(mine.verbs, single.verbs[0]):
        return False
    if single.non_resource_urls:
        return any(_path(each, single.non_resource_urls[0]) for each in mine.non_resource_urls)
    resource = single.resources[0]
    part = resource.partition("/")[2]
    return (
        _has(mine.api_groups, single.api_groups[0])
        and (_has(mine.resources, resource) or bool(part and f"*/{part}" in mine.resources))
        and (not mine.resource_names or set(single.resource_names) <= set(mine.resource_names) != set())
        and (bool(single.resource_names) or not mine.resource_names)
    )


# -- what is there from the start ----------------------------------------------------------------------


_OPEN: Final = (
    *("/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"),
    *("/healthz", "/livez", "/readyz", "/version", "/version/"),
)


def _rule(groups: Sequence[str], resources: Sequence[str], verbs: Sequence[str]) -> Json:
    return {"apiGroups": list(groups), "resources": list(resources), "verbs": list(verbs)}


_WORKLOADS: Final = (
    ("", ("configmaps", "events", "pods", "pods/log", "pods/status", "secrets", "serviceaccounts", "services",
          "services/status")),
    ("apps", ("daemonsets", "deployments", "deployments/scale", "replicasets", "replicasets/scale", "statefulsets",
              "statefulsets/scale")),
    ("autoscaling", ("horizontalpodautoscalers",)),
    ("batch", ("cronjobs", "jobs")),
    ("coordination.k8s.io", ("leases",)),
    ("discovery.k8s.io", ("endpointslices",)),
)  # fmt: skip


def _view() -> list[Json]:
    rules = [
        _rule((group,), [each for each in resources if each != "secrets"], _READ) for group, resources in _WORKLOADS
    ]
    measures = _rule(("metrics.k8s.io",), ("pods",), ("get", "list"))
    findings = _rule(("lateen.io",), ("findingsreviews",), ("create",))
    return [*rules, _rule(("",), ("namespaces",), _READ), measures, findings, _rule(_MESH, ("*",), _READ)]


def _edit() -> list[Json]:
    writable = [_rule((group,), resources, (*_READ, *_WRITE)) for group, resources in _WORKLOADS]
    streams = _rule(("",), ("pods/attach", "pods/eviction", "pods/exec", "pods/portforward"), ("create", "get"))
    tokens = _rule(("",), ("serviceaccounts/token",), ("create",))
    return [*_view(), *writable, streams, tokens, _rule(_MESH, ("*",), (*_READ, *_WRITE))]


def initial() -> list[Json]:
    """The roles and bindings that every API has from its start."""
    everything: list[Json] = [_rule("*", "*", "*"), {"nonResourceURLs": ["*"], "verbs": ["*"]}]
    reviews = ("selfsubjectaccessreviews", "selfsubjectrulesreviews")
    roles: dict[str, list[Json]] = {
        "cluster-admin": everything,
        "admin": [*_edit(), _rule((GROUP,), ("rolebindings", "roles"), (*_READ, *_WRITE))],
        "edit": _edit(),
        "view": _view(),
        "system:basic-user": [
            _rule(("authorization.k8s.io",), reviews, ("create",)),
            _rule(("authentication.k8s.io",), ("selfsubjectreviews",), ("create",)),
        ],
        "system:discovery": [{"nonResourceURLs": list(_OPEN), "verbs": ["get"]}],
        "lateen:debug": [{"nonResourceURLs": ["/debug", "/debug/*", "/metrics"], "verbs": ["get"]}],
    }
    bindings = {
        "cluster-admin": MASTERS,
        "system:basic-user": AUTHENTICATED,
        "system:discovery": AUTHENTICATED,
    }
    labels = {"lateen.io/initial": "true"}
    version = f"{GROUP}/v1"
    made: list[dict[str, Any]] = [
        {"apiVersion": version, "kind": "ClusterRole", "metadata": {"name": name, "labels": labels}, "rules": rules}
        for name, rules in roles.items()
    ]
    made += [
        {
            "apiVersion": version,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name, "labels": labels},
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": GROUP, "kind": "Group", "name": group}],
        }
        for name, group in bindings.items()
    ]
    return made
