"""What a write may not do even where the kind may be written: give away rights that the writer does not have, take the
names of another kind, change what never changes.
"""

from __future__ import annotations

from typing import Any, Final

from lateen.api.core.access import GROUP
from lateen.api.struct import Json
from lateen.apiserver.definitions import definition_faults
from lateen.apiserver.errors import ForbiddenError, InvalidError
from lateen.apiserver.rbac import Roles, binding_in, rules_in
from lateen.apiserver.resources import DEFINITIONS, Resources, value_at
from lateen.apiserver.targets import Attributes
from lateen.apiserver.users import User
from lateen.lib.findings import Finding, Level

_FIXED: Final[dict[tuple[str, str], tuple[tuple[str, ...], ...]]] = {
    ("apps", "Deployment"): (("spec", "selector"),),
    ("apps", "ReplicaSet"): (("spec", "selector"),),
    ("apps", "StatefulSet"): (("spec", "selector"), ("spec", "serviceName"), ("spec", "podManagementPolicy")),
    ("apps", "DaemonSet"): (("spec", "selector"),),
    ("batch", "Job"): (("spec", "template"), ("spec", "completions")),
    (GROUP, "RoleBinding"): (("roleRef",),),
    (GROUP, "ClusterRoleBinding"): (("roleRef",),),
    DEFINITIONS: (("spec", "group"), ("spec", "scope"), ("spec", "names", "kind"), ("spec", "names", "plural")),
}
_FIXED_CODE: Final = "LTN0361"


class Guard:
    """Looks at documents with the writer in mind."""

    def __init__(self, roles: Roles, resources: Resources) -> None:
        self._roles = roles
        self._resources = resources

    def check(self, user: User, document: Json, before: Json | None) -> None:
        """ForbiddenError or InvalidError when it may not be written."""
        group = str(document["apiVersion"]).rpartition("/")[0]
        kind = document["kind"]
        if before is not None:
            self._fixed((group, kind), document, before)
        if (group, kind) == DEFINITIONS:
            faults = definition_faults(document, self._resources)
            if faults:
                said = "; ".join(f"{each.path}: {each.message}" for each in faults)
                name = document["metadata"].get("name")
                raise InvalidError(f'{kind}.{group} "{name}" is invalid: {said}', causes=faults)
        elif group == GROUP:
            self._rights(user, kind, document, before)

    def _fixed(self, collection: tuple[str, str], document: Json, before: Json) -> None:
        changed = [
            ".".join(steps)
            for steps in _FIXED.get(collection, ())
            if _set(value_at(document, steps)) != _set(value_at(before, steps))
        ]
        if collection in (("", "Secret"), ("", "ConfigMap")) and before.get("immutable"):
            changed += [part for part in ("data", "binaryData", "immutable") if document.get(part) != before.get(part)]
        if changed:
            said = "; ".join(f"{path}: Invalid value: field is immutable" for path in changed)
            raise InvalidError(
                f'{document["kind"]} "{document["metadata"].get("name")}" is invalid: {said}',
                remedy="delete the object and make a new one",
                causes=[
                    Finding(code=_FIXED_CODE, level=Level.ERROR, message="field is immutable", path=path)
                    for path in changed
                ],
            )

    def _rights(self, user: User, kind: str, document: Json, before: Json | None) -> None:
        metadata = document["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata.get("name", "")
        if kind in ("Role", "ClusterRole"):
            if before is not None and document.get("rules") == before.get("rules"):
                return
            rules, verb, resource = rules_in(document), "escalate", f"{kind.lower()}s"
        else:
            role, subjects = binding_in(document, namespace)
            if before is not None and subjects == binding_in(before, namespace)[1]:
                return
            rules, verb, resource = self._roles.rules(role, namespace), "bind", f"{role.kind.lower()}s"
            name = role.name
        excess = self._roles.excess(user, rules, namespace)
        wanted = Attributes(verb, GROUP, resource, "", namespace, name)
        if excess and self._roles(user, wanted) is not None:
            raise ForbiddenError(
                f'{resource}.{GROUP} "{name}" is forbidden: user "{user.name}" is attempting to grant RBAC permissions '
                f"not currently held: {'; '.join(excess[:10])}",
                remedy="ask somebody who has these rights",
            )


def _set(value: Any) -> Any:
    """Unset and empty are the same."""
    return value or None
