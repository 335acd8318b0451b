"""Discovery: which groups, versions and kinds there are (`/api`, `/apis`, one by one or all at once), and OpenAPI.

Source: https://kubernetes.io/docs/concepts/overview/kubernetes-api/
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lateen import __version__
from lateen.api import schema
from lateen.api.struct import Json, map_at
from lateen.apiserver import openapi_protobuf
from lateen.apiserver.errors import NotFoundError
from lateen.apiserver.measures import MEASURES
from lateen.apiserver.resources import VERBS, Form, Resource, Resources
from lateen.apiserver.shown import json_response

KUBERNETES: Final = ("1", "34")
"""The version of Kubernetes whose API this is like; clients turn features on by it."""

_AGGREGATED: Final = "as=APIGroupDiscoveryList"
_ELSEWHERE: Final[Mapping[str, Json]] = {
    "scale": {"group": "autoscaling", "version": "v1"},
    "eviction": {"group": "policy", "version": "v1"},
    "token": {"group": "authentication.k8s.io", "version": "v1"},
}
"""Parts whose kind is of another group than the object."""
_STREAMS: Final = {
    "pods": (
        ("log", "Pod", ("get",)),
        ("attach", "PodAttachOptions", ("create", "get")),
        ("eviction", "Eviction", ("create",)),
        ("exec", "PodExecOptions", ("create", "get")),
        ("portforward", "PodPortForwardOptions", ("create", "get")),
    ),
    "serviceaccounts": (("token", "TokenRequest", ("create",)),),
}
REVIEWS: Final[Mapping[tuple[str, str], Sequence[tuple[str, str, bool]]]] = {
    ("authorization.k8s.io", "v1"): (
        ("selfsubjectaccessreviews", "SelfSubjectAccessReview", False),
        ("selfsubjectrulesreviews", "SelfSubjectRulesReview", False),
        ("subjectaccessreviews", "SubjectAccessReview", False),
        ("localsubjectaccessreviews", "LocalSubjectAccessReview", True),
    ),
    ("authentication.k8s.io", "v1"): (
        ("selfsubjectreviews", "SelfSubjectReview", False),
        ("tokenreviews", "TokenReview", False),
    ),
    ("lateen.io", "v1"): (("findingsreviews", "FindingsReview", False),),
    ("policy", "v1"): (),  # its Eviction is a part of Pods; clients look for the group before they use it
}
"""Questions that look like objects: they can be created, and nothing is kept."""


class Discovery:
    """Answers over the resources as they are."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._specs: dict[tuple[int, str], bytes] = {}

    def version(self) -> Response:
        """What clients take the server for."""
        major, minor = KUBERNETES
        return json_response(
            {
                "major": major,
                "minor": minor,
                "gitVersion": f"v{major}.{minor}.0+lateen-{__version__}",
                "gitCommit": "",
                "gitTreeState": "clean",
                "buildDate": "1970-01-01T00:00:00Z",
                "goVersion": "",
                "compiler": "python",
                "platform": "linux/amd64",
            }
        )

    # -- groups ----------------------------------------------------------------------------------------

    def core(self, request: Request) -> Response:
        """`/api`."""
        if _AGGREGATED in request.headers.get("accept", ""):
            return _aggregated([self._group("")])
        said = {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        return json_response(said)

    def groups(self, request: Request) -> Response:
        """`/apis`."""
        names = sorted({name for name, _ in self._versions() if name})
        if _AGGREGATED in request.headers.get("accept", ""):
            return _aggregated([self._group(each) for each in names])
        said = {"kind": "APIGroupList", "apiVersion": "v1", "groups": [self._named(each) for each in names]}
        return json_response(said)

    def group(self, name: str) -> Response:
        """`/apis/GROUP`."""
        if not name or name not in {each for each, _ in self._versions()}:
            raise NotFoundError("the server could not find the requested resource")
        return json_response({"kind": "APIGroup", "apiVersion": "v1", **self._named(name)})

    def kinds(self, group: str, version: str) -> Response:
        """`/api/v1`, `/apis/GROUP/VERSION`."""
        if (group, version) not in self._versions():
            raise NotFoundError("the server could not find the requested resource")
        listed = [each for resource, form in self._forms(group, version) for each in _listed(resource, form)]
        for plural, kind, namespaced, verbs in _kept_nowhere(group, version):
            said = {"name": plural, "singularName": kind.lower(), "namespaced": namespaced, "kind": kind}
            listed.append({**said, "verbs": list(verbs)})
        group_version = f"{group}/{version}" if group else version
        head = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version}
        return json_response({**head, "resources": listed})

    def _versions(self) -> list[tuple[str, str]]:
        """Group and version of everything, preferred versions first."""
        found = {(each.group, version): None for each in self._resources.all() for version in each.versions}
        return list(found | dict.fromkeys((*REVIEWS, *MEASURES)))

    def _forms(self, group: str, version: str) -> Iterator[tuple[Resource, Form]]:
        for each in self._resources.all():
            if each.group == group and version in each.versions:
                yield each, each.versions[version]

    def _named(self, group: str) -> Json:
        versions = [
            {"groupVersion": f"{group}/{version}", "version": version}
            for name, version in self._versions()
            if name == group
        ]
        return {"name": group, "versions": versions, "preferredVersion": versions[0]}

    def _group(self, group: str) -> Json:
        versions = [
            {"version": version, "resources": self._aggregated_kinds(group, version), "freshness": "Current"}
            for name, version in self._versions()
            if name == group
        ]
        return {"metadata": {"name": group, "creationTimestamp": None}, "versions": versions}

    def _aggregated_kinds(self, group: str, version: str) -> list[Json]:
        found: list[Json] = []
        for resource, form in self._forms(group, version):
            kind = {"group": resource.group, "version": version, "kind": resource.kind}
            each: Json = {
                "resource": resource.plural,
                "responseKind": kind,
                "scope": "Namespaced" if resource.namespaced else "Cluster",
                "singularResource": resource.singular,
                "verbs": list(VERBS),
            }
            if resource.short_names:
                each["shortNames"] = list(resource.short_names)
            if resource.categories:
                each["categories"] = list(resource.categories)
            parts = [
                {
                    "subresource": part,
                    "responseKind": {**kind, "kind": part_kind, **_ELSEWHERE.get(part, {})},
                    "verbs": list(verbs),
                }
                for part, part_kind, verbs in _parts(resource, form)
            ]
            if parts:
                each["subresources"] = parts
            found.append(each)
        for plural, name, namespaced, verbs in _kept_nowhere(group, version):
            found.append(
                {
                    "resource": plural,
                    "responseKind": {"group": group, "version": version, "kind": name},
                    "scope": "Namespaced" if namespaced else "Cluster",
                    "singularResource": name.lower(),
                    "verbs": list(verbs),
                }
            )
        return found

    # -- OpenAPI ---------------------------------------------------------------------------------------

    def openapi_index(self) -> Response:
        """`/openapi/v3`: where each group's document is, under its hash."""
        paths: Json = {}
        for group, version in self._versions():
            place = f"apis/{group}/{version}" if group else f"api/{version}"
            digest = hashlib.sha256(self._document(group, version)).hexdigest()[:32].upper()
            paths[place] = {"serverRelativeURL": f"/openapi/v3/{place}?hash={digest}"}
        return json_response({"paths": paths})

    def openapi(self, group: str, version: str) -> Response:
        """One group's document."""
        if (group, version) not in self._versions():
            raise NotFoundError("the server could not find the requested resource")
        return json_response(self._document(group, version))

    def openapi_v2(self, request: Request) -> Response:
        """`/openapi/v2`: the definitions of everything, as JSON, or in protobuf for clients that take nothing else."""
        if openapi_protobuf.asked_for(request.headers.get("accept", "")):
            content = self._kept("v2 protobuf", lambda: openapi_protobuf.encode(self._definitions_v2()))
            return Response(content, media_type=openapi_protobuf.MEDIA_TYPE)
        return json_response(self._kept("v2", lambda: msgspec.json.encode(self._definitions_v2())))

    def _definitions_v2(self) -> Json:
        definitions: Json = {}
        for each in self._resources.all():
            for form in each.versions.values():
                definitions |= _definitions(each, form)
        info = {"title": "lateen", "version": __version__}
        said = msgspec.json.encode({"swagger": "2.0", "info": info, "paths": {}, "definitions": definitions})
        return msgspec.json.decode(said.replace(b"#/components/schemas/", b"#/definitions/"))

    def _kept(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What is made once for all until a definition changes."""
        key = (self._resources.generation, name)
        made = self._specs.get(key)
        if made is None:
            self._specs = {old: each for old, each in self._specs.items() if old[0] == key[0]}
            made = self._specs[key] = make()
        return made

    def _document(self, group: str, version: str) -> bytes:
        return self._kept(f"{group}/{version}", lambda: msgspec.json.encode(self._make(group, version)))

    def _make(self, group: str, version: str) -> Json:
        schemas: Json = {}
        paths: Json = {}
        for resource, form in self._forms(group, version):
            schemas |= _definitions(resource, form)
            paths |= _paths(resource, form)
        head = {"openapi": "3.0.0", "info": {"title": "lateen", "version": __version__}}
        return {**head, "paths": paths, "components": {"schemas": schemas}}


def _kept_nowhere(group: str, version: str) -> Iterator[tuple[str, str, bool, Sequence[str]]]:
    """Plural, kind, whether in namespaces, and verbs of what looks like objects and is in no store."""
    for plural, kind, namespaced in REVIEWS.get((group, version), ()):
        yield plural, kind, namespaced, ("create",)
    for plural, kind, namespaced in MEASURES.get((group, version), ()):
        yield plural, kind, namespaced, ("get", "list")


def _listed(resource: Resource, form: Form) -> Iterator[Json]:
    each: Json = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(VERBS),
    }
    if resource.short_names:
        each["shortNames"] = list(resource.short_names)
    if resource.categories:
        each["categories"] = list(resource.categories)
    yield each
    for part, kind, verbs in _parts(resource, form):
        said = {"name": f"{resource.plural}/{part}", "singularName": "", "namespaced": resource.namespaced}
        yield {**said, **_ELSEWHERE.get(part, {}), "kind": kind, "verbs": list(verbs)}


def _parts(resource: Resource, form: Form) -> Iterator[tuple[str, str, Sequence[str]]]:
    if form.status:
        yield "status", resource.kind, ("get", "patch", "update")
    if form.scale is not None:
        yield "scale", "Scale", ("get", "patch", "update")
    if resource.group == "":
        yield from _STREAMS.get(resource.plural, ())


def _aggregated(groups: list[Json]) -> Response:
    said: Json = {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}}
    said["items"] = groups
    kind = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    return Response(msgspec.json.encode(said), media_type=kind)


def _definitions(resource: Resource, form: Form) -> Json:
    """The components that a kind's documents are described by."""
    if resource.kind_of is not None:
        found: Json = {}
        _reach(schema.ref(schema.component_name(resource.kind_of.type)), found)
        return found
    kind = {"group": resource.group, "version": form.name, "kind": resource.kind}
    own = dict(form.schema)
    properties = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        **map_at(own, "properties"),
        "metadata": {"allOf": [schema.ref(schema.META)]},
    }
    own |= {"properties": properties, "x-kubernetes-group-version-kind": [kind]}
    name = ".".join([*reversed(resource.group.split(".")), form.name, resource.kind])
    found = {name: own}
    _reach(schema.ref(schema.META), found)
    return found


def _reach(node: Any, found: Json) -> None:
    """Adds the components that a schema refers to."""
    todo: list[Any] = [node]
    while todo:
        each = todo.pop()
        if isinstance(each, list):
            todo += each
        elif isinstance(each, dict):
            name = str(each.get("$ref", "")).rpartition("/")[2]  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            if name and name not in found:
                found[name] = schema.components()[name]
                todo.append(found[name])
            todo += each.values()  # pyright: ignore[reportUnknownMemberType]


def _paths(resource: Resource, form: Form) -> Json:
    """The paths of a kind, with what clients look for in them: that a patch can be tried out."""
    prefix = f"/apis/{resource.group}/{form.name}" if resource.group else f"/api/{form.name}"
    if resource.namespaced:
        prefix += "/namespaces/{namespace}"
    kind = {"group": resource.group, "version": form.name, "kind": resource.kind}
    parameters = [
        {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
        for name in ("dryRun", "fieldManager", "fieldValidation")
    ]

    def operation(action: str) -> Json:
        return {
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind,
            "parameters": parameters,
            "responses": {"200": {"description": "OK"}},
        }

    return {
        f"{prefix}/{resource.plural}": {"get": operation("list"), "post": operation("post")},
        f"{prefix}/{resource.plural}/{{name}}": {
            "get": operation("get"),
            "put": operation("put"),
            "patch": operation("patch"),
            "delete": operation("delete"),
        },
    }
