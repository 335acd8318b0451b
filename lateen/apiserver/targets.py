"""What a request is about: its path and method taken apart.

/api/v1[/namespaces/NS]/PLURAL[/NAME[/PART[/...]]]
/apis/GROUP/VERSION/...                              the same
"""

from __future__ import annotations

from typing import Final

import msgspec

from lateen.apiserver.errors import NoMethodError, NotFoundError
from lateen.apiserver.resources import Form, Resource, Resources
from lateen.lib.ids import Ref

PARTS: Final = ("status", "scale", "findings")
"""Parts of objects with paths of their own; `findings` is lateen's."""

_ONE: Final = {"GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "POST": "create"}
_MANY: Final = {"GET": "list", "HEAD": "list", "POST": "create", "DELETE": "deletecollection"}


class Target(msgspec.Struct, frozen=True):
    """A collection or an object of one resource, or a part of one; `rest` is what follows the part. `home`: where a
    version with another shape is stored."""

    resource: Resource
    form: Form
    verb: str
    namespace: str = ""
    name: str = ""
    part: str = ""
    rest: str = ""
    home: tuple[Resource, Form] | None = None

    @property
    def stored(self) -> Target:
        """The same in the version that is stored, for a version with another shape."""
        if self.home is None:
            return self
        return msgspec.structs.replace(self, resource=self.home[0], form=self.home[1], home=None)

    @property
    def ref(self) -> Ref:
        """The object."""
        return Ref(*self.resource.collection, self.namespace, self.name)

    @property
    def api_version(self) -> str:
        """As documents write it."""
        return self.resource.api_version(self.form.name)


class Attributes(msgspec.Struct, frozen=True):
    """What access is decided on: a verb on a resource, or (`path` is set) on a path that is none."""

    verb: str
    group: str = ""
    resource: str = ""
    part: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


def attributes(target: Target) -> Attributes:
    """What a request wants to do."""
    resource = target.resource
    return Attributes(target.verb, resource.group, resource.plural, target.part, target.namespace, target.name)


def parse(resources: Resources, method: str, group: str, version: str, path: str, *, watch: bool) -> Target:
    """The target of a request below `/api/v1` or `/apis/GROUP/VERSION`. NotFoundError when there is no such thing."""
    steps = [each for each in path.split("/") if each]
    namespace = ""
    if len(steps) > 2 and steps[0] == "namespaces" and steps[2] not in (*PARTS, "finalize"):
        namespace, steps = steps[1], steps[2:]
    resource = resources.at(group, version, steps[0]) if steps else None
    if resource is None:
        raise NotFoundError("the server could not find the requested resource", remedy="kubectl api-resources")
    name, part, *more = [*steps[1:], "", ""]
    if name and resource.namespaced != bool(namespace):
        where = "in a namespace" if resource.namespaced else "in no namespace"
        raise NotFoundError(f"{resource.plural} are {where}", remedy="add or leave out /namespaces/NAMESPACE")
    if namespace and not resource.namespaced:
        raise NotFoundError(f"{resource.plural} are in no namespace", remedy="leave out /namespaces/NAMESPACE")
    verb = (_ONE if name else _MANY).get(method, "")
    if not verb or (verb == "create" and bool(name) != bool(part)):
        raise NoMethodError(f"{method} is not possible here", remedy="see the API's verbs")
    if verb == "list" and watch:
        verb = "watch"
    form = resource.versions[version]
    if (part == "status" and not form.status) or (part == "scale" and form.scale is None):
        raise NotFoundError(f"{resource.plural} have no {part}", remedy="kubectl get --raw /apis shows the parts")
    return Target(resource, form, verb, namespace, name, part, "/".join(filter(None, more)), stored_as(resources, form))


def stored_as(resources: Resources, form: Form) -> tuple[Resource, Form] | None:
    """The resource and version in which a version of another shape is stored."""
    if form.view is None:
        return None
    kind = form.schema["x-kubernetes-group-version-kind"][0]["kind"]
    found = resources.of_document({"apiVersion": form.view.api_version, "kind": kind})
    assert found is not None
    return found
