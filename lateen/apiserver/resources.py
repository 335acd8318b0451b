"""What the API serves: lateen's own kinds, and those that CustomResourceDefinitions add while it runs.

A `Resource` is what a path's group, version and plural stand for; everything that handles requests works on these
and does not ask which of the two a kind is. `Resources` follows the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from lateen.api import schema
from lateen.api.kinds import KINDS, VIEWS, Kind
from lateen.api.struct import Json, list_at, map_at
from lateen.apiserver.rows import Change, Row
from lateen.apiserver.views import VIEWS as SHAPES
from lateen.apiserver.views import View

DEFINITIONS: Final = ("apiextensions.k8s.io", "CustomResourceDefinition")
VERBS: Final = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


class Column(msgspec.Struct, frozen=True):
    """A column of a kind's table: a name, a JSON path into the document, and what kind of value it is."""

    name: str
    path: str
    type: str = "string"
    priority: int = 0
    description: str = ""
    format: str = ""


class Scale(msgspec.Struct, frozen=True):
    """Where a kind keeps its number of replicas; each is a path of fields."""

    wanted: tuple[str, ...] = ("spec", "replicas")
    there: tuple[str, ...] = ("status", "replicas")
    selector: tuple[str, ...] = ()


class Form(msgspec.Struct, frozen=True):
    """One version of a resource. `view`: for one with another shape than what is stored."""

    name: str
    schema: Json
    status: bool
    scale: Scale | None
    columns: tuple[Column, ...] = ()
    warning: str = ""
    selectable: tuple[str, ...] = ()
    view: View | None = None


class Resource(msgspec.Struct, frozen=True):
    """One kind as the API serves it. `versions` are the served ones, preferred first; documents are stored as
    `stored`. `kind_of` is None for custom resources."""

    group: str
    kind: str
    list_kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    categories: tuple[str, ...]
    namespaced: bool
    versions: Mapping[str, Form]
    stored: str
    kind_of: Kind | None = None
    stored_in: str | None = None
    """The group that the store keeps it in, where that is another."""

    @property
    def collection(self) -> tuple[str, str]:
        """The store's name of it."""
        return (self.group if self.stored_in is None else self.stored_in, self.kind)

    @property
    def qualified(self) -> str:
        """`deployments.apps`, `pods`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def api_version(self, version: str) -> str:
        """`apps/v1`, `v1`."""
        return f"{self.group}/{version}" if self.group else version


class Resources:
    """All resources at this moment. A subscriber of the store."""

    def __init__(self, rows: Sequence[Row] = ()) -> None:
        self._own = {each.collection: each for each in map(_own, KINDS)}
        self._views = _with_views(self._own)
        self._custom: dict[tuple[str, str], Resource] = {}
        self._by_path: dict[tuple[str, str, str], Resource] = {}
        self.generation = 0
        self._take([row for row in rows if row.ref.collection == DEFINITIONS])

    def __call__(self, changes: Sequence[Change]) -> None:
        """Takes over what a commit changed."""
        latest = {each.row.ref: each for each in changes if each.row.ref.collection == DEFINITIONS}
        if not latest:
            return
        for each in latest.values():
            if each.after is None:
                gone = custom(each.row.decode())
                self._custom.pop(gone.collection, None)
        self._take([each.after for each in latest.values() if each.after is not None])

    def all(self) -> Iterator[Resource]:
        """Every resource."""
        yield from self._own.values()
        yield from self._views
        yield from self._custom.values()

    def custom(self) -> list[Resource]:
        """Those that definitions added."""
        return list(self._custom.values())

    def at(self, group: str, version: str, plural: str) -> Resource | None:
        """What a path stands for."""
        return self._by_path.get((group, version, plural))

    def of(self, collection: tuple[str, str]) -> Resource | None:
        """By group and kind."""
        return self._own.get(collection) or self._custom.get(collection)

    def of_document(self, document: Json) -> tuple[Resource, Form] | None:
        """By a document's `apiVersion` and `kind`."""
        group, _, version = str(document.get("apiVersion", "")).rpartition("/")
        found = self.of((group, str(document.get("kind", ""))))
        form = found.versions.get(version) if found is not None else None
        return None if found is None or form is None else (found, form)

    def taken(self, definition: Json) -> str:
        """Why a definition's names cannot be had: who has them; empty when they can."""
        wanted = custom(definition)
        for each in self.all():
            if each.group != wanted.group or each.kind == wanted.kind:
                continue
            names = {each.plural, each.singular, *each.short_names}
            clash = names & {wanted.plural, wanted.singular, *wanted.short_names}
            if clash:
                return f"{sorted(clash)[0]} is a name of {each.kind}"
        own = self._own.get(wanted.collection)
        return f"{own.kind} of {own.group} is built in" if own is not None else ""

    def _take(self, rows: Sequence[Row]) -> None:
        for row in rows:
            each = custom(row.decode())
            if each.collection not in self._own:
                self._custom[each.collection] = each
        self._by_path = {(each.group, version, each.plural): each for each in self.all() for version in each.versions}
        self.generation += 1


def _own(kind: Kind) -> Resource:
    scale = Scale(selector=("spec", "selector")) if kind.scale else None
    form = {
        version: Form(version, schema.of_kind(kind), kind.status, scale, selectable=_SELECTABLE.get(kind.kind, ()))
        for version in kind.versions
    }
    return Resource(
        group=kind.group,
        kind=kind.kind,
        list_kind=f"{kind.kind}List",
        plural=kind.plural,
        singular=kind.singular,
        short_names=kind.short_names,
        categories=kind.categories,
        namespaced=kind.namespaced,
        versions=form,
        stored=kind.versions[0],
        kind_of=kind,
    )


def _with_views(own: dict[tuple[str, str], Resource]) -> tuple[Resource, ...]:
    """Adds versions of another shape to the kinds of their group; kinds that are shown in a second group."""
    others: list[Resource] = []
    for kind in VIEWS:
        alone = _own(kind)
        shapes = {each: SHAPES[f"{alone.api_version(each)} {kind.kind}"] for each in kind.versions}
        forms = {
            name: msgspec.structs.replace(alone.versions[name], view=view, selectable=tuple(view.fields))
            for name, view in shapes.items()
        }
        there = own.get(alone.collection)
        if there is not None:
            own[there.collection] = msgspec.structs.replace(there, versions={**there.versions, **forms})
            continue
        group = shapes[kind.versions[0]].api_version.rpartition("/")[0]
        others.append(msgspec.structs.replace(alone, versions=forms, stored_in=group))
    return tuple(others)


_SELECTABLE: Final[Mapping[str, tuple[str, ...]]] = {
    "Pod": ("spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "status.phase", "status.podIP"),
    "Event": (
        *(f"involvedObject.{part}" for part in ("kind", "namespace", "name", "uid", "apiVersion", "fieldPath")),
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    "Namespace": ("status.phase",),
    "Secret": ("type",),
    "Job": ("status.successful",),
    "Node": ("spec.unschedulable",),
    "ReplicaSet": ("status.replicas",),
}


def custom(definition: Json) -> Resource:
    """The resource that a CustomResourceDefinition describes. The document must have passed its checks."""
    spec = definition["spec"]
    names = spec["names"]
    forms = {each["name"]: _form(each) for each in spec["versions"] if each["served"]}
    ordered = sorted(forms, key=_priority)
    stored = next(each["name"] for each in spec["versions"] if each["storage"])
    return Resource(
        group=spec["group"],
        kind=names["kind"],
        list_kind=names.get("listKind") or f"{names['kind']}List",
        plural=names["plural"],
        singular=names.get("singular") or names["kind"].lower(),
        short_names=tuple(list_at(names, "shortNames")),
        categories=tuple(list_at(names, "categories")),
        namespaced=spec["scope"] == "Namespaced",
        versions={name: forms[name] for name in ordered},
        stored=stored,
    )


def _form(version: Json) -> Form:
    parts: Json = map_at(version, "subresources")
    scale: Json | None = parts.get("scale")
    own = version["schema"]["openAPIV3Schema"]
    columns = tuple(
        Column(
            each["name"],
            each["jsonPath"],
            each["type"],
            each.get("priority") or 0,
            each.get("description") or "",
            each.get("format") or "",
        )
        for each in list_at(version, "additionalPrinterColumns")
    )
    return Form(
        version["name"],
        own,
        "status" in parts,
        Scale(
            _steps(scale["specReplicasPath"]),
            _steps(scale["statusReplicasPath"]),
            _steps(scale.get("labelSelectorPath") or ""),
        )
        if scale
        else None,
        columns,
        _deprecation(version) if version.get("deprecated") else "",
        tuple(each["jsonPath"].removeprefix(".") for each in list_at(version, "selectableFields")),
    )


def _deprecation(version: Json) -> str:
    return version.get("deprecationWarning") or f"the version {version['name']} is deprecated"


def _steps(path: str) -> tuple[str, ...]:
    return tuple(filter(None, path.split(".")))


def _priority(version: str) -> tuple[Any, ...]:
    """Kubernetes' order of versions: v10, v2, v1, v11beta2, v10beta3, v3alpha1, others."""
    head, _, rest = version.removeprefix("v").partition("alpha")
    stage = 2 if rest else 0
    if not rest:
        head, _, rest = version.removeprefix("v").partition("beta")
        stage = 1 if rest else 0
    if not version.startswith("v") or not head.isdecimal() or (stage and not rest.isdecimal()):
        return (3, 0, 0, version)
    return (stage, -int(head), -int(rest or 0), "")


def value_at(document: Any, steps: Sequence[str]) -> Any:
    """What is under a path of fields, None when it is not there."""
    at = document
    for step in steps:
        if not isinstance(at, dict):
            return None
        at = at.get(step)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return at  # pyright: ignore[reportUnknownVariableType]
