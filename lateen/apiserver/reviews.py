"""Questions: may I, who am I, what may I, whose token is that; and what the mesh says of objects (FindingsReview).

Source: https://kubernetes.io/docs/reference/access-authn-authz/authorization/ (checking API access).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from lateen.api.core.access import PolicyRule
from lateen.api.kinds import by_group
from lateen.api.struct import Json, list_at, map_at
from lateen.apiserver.errors import BadRequestError, ForbiddenError
from lateen.apiserver.rbac import Roles
from lateen.apiserver.targets import Attributes
from lateen.apiserver.users import MASTERS, Authenticator, User
from lateen.lib.findings import Finding
from lateen.lib.ids import Ref

Analyse = Callable[[Sequence[Ref]], Awaitable[Sequence[Finding]]]
"""What the mesh as it is now has to say about objects."""


class Reviews:
    """Answers from the roles of a store, and from the mesh."""

    def __init__(self, roles: Roles, authenticate: Authenticator, analyse: Analyse) -> None:
        self._roles = roles
        self._authenticate = authenticate
        self._analyse = analyse

    async def answer(self, kind: str, asked: Json, user: User, namespace: str) -> Json:
        """The document with its status. BadRequestError when the question cannot be read."""
        spec = map_at(asked, "spec")
        match kind:
            case "FindingsReview":
                status: Json = {"findings": await self._findings(user, spec)}
            case "SelfSubjectReview":
                status = {"userInfo": _user(user)}
            case "SelfSubjectAccessReview":
                status = self._access(user, spec)
            case "SubjectAccessReview" | "LocalSubjectAccessReview":
                other = User(str(spec.get("user") or ""), tuple(list_at(spec, "groups")))
                if namespace and map_at(spec, "resourceAttributes").get("namespace") != namespace:
                    raise BadRequestError("the namespace of the question is not that of the path")
                status = self._access(other, spec)
            case "SelfSubjectRulesReview":
                status = self._rules(user, str(spec.get("namespace") or "default"))
            case _:
                found = self._authenticate(str(spec.get("token") or ""))
                status = {"authenticated": found is not None}
                if found is not None:
                    status["user"] = _user(found)
        return {**asked, "kind": kind, "status": status}

    async def _findings(self, user: User, spec: Json) -> list[Any]:
        """What the mesh has to say about the objects named, once all changes are in force."""
        try:
            refs = msgspec.convert(list_at(spec, "objects"), list[Ref])
        except msgspec.ValidationError as error:
            raise BadRequestError(
                f"spec.objects: {error}", remedy="list objects by group, kind, namespace and name"
            ) from None
        for ref in refs:
            kind = by_group(ref.group, ref.kind)
            plural = kind.plural if kind is not None else f"{ref.kind.lower()}s"
            why_not = self._roles(user, Attributes("get", ref.group, plural, "", ref.namespace, ref.name))
            if why_not is not None:
                raise ForbiddenError(f"{ref.short} is forbidden: {why_not}", remedy="name objects that you may read")
        return [msgspec.to_builtins(each) for each in await self._analyse(refs)]

    def _access(self, user: User, spec: Json) -> Json:
        said: Any = spec.get("resourceAttributes")
        path: Any = spec.get("nonResourceAttributes")
        if isinstance(said, dict):
            wanted = Attributes(
                verb=str(said.get("verb") or ""),  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
                group=str(said.get("group") or ""),  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
                resource=str(said.get("resource") or ""),  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
                part=str(said.get("subresource") or ""),  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
                namespace=str(said.get("namespace") or ""),  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
                name=str(said.get("name") or ""),  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
            )
        elif isinstance(path, dict):
            wanted = Attributes(verb=str(path.get("verb") or ""), path=str(path.get("path") or ""))  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
        else:
            raise BadRequestError("the question is about nothing", remedy="set resourceAttributes")
        why_not = self._roles(user, wanted)
        return {"allowed": why_not is None, **({"reason": why_not} if why_not else {})}

    def _rules(self, user: User, namespace: str) -> Json:
        rules = list(self._roles.rules_of(user, namespace))
        if MASTERS in user.groups:
            rules.append(PolicyRule(verbs=("*",), api_groups=("*",), resources=("*",)))
            rules.append(PolicyRule(verbs=("*",), non_resource_urls=("*",)))
        return {
            "resourceRules": [
                {
                    "verbs": list(each.verbs),
                    "apiGroups": list(each.api_groups),
                    "resources": list(each.resources),
                    "resourceNames": list(each.resource_names),
                }
                for each in rules
                if each.resources
            ],
            "nonResourceRules": [
                {"verbs": list(each.verbs), "nonResourceURLs": list(each.non_resource_urls)}
                for each in rules
                if each.non_resource_urls
            ],
            "incomplete": False,
        }


def _user(user: User) -> Json:
    said: Json = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        said["uid"] = user.uid
    if user.extra:
        said["extra"] = {key: list(values) for key, values in user.extra.items()}
    return said
