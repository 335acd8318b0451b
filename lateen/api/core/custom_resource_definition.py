"""CustomResourceDefinition (apiextensions.k8s.io/v1): a kind that the API learns while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from lateen.api.problems import Problem, at
from lateen.api.struct import Meta, NonEmpty, Object, Struct, field

GROUP = "apiextensions.k8s.io"


class CustomResourceDefinitionNames(Struct, frozen=True):
    """The words for the kind."""

    kind: NonEmpty
    plural: NonEmpty
    categories: tuple[str, ...] = ()
    list_kind: str | None = None
    short_names: tuple[str, ...] = ()
    singular: str | None = None


class CustomResourceColumnDefinition(Struct, frozen=True):
    """A column of the kind's table."""

    json_path: str
    name: NonEmpty
    type: NonEmpty
    description: str | None = None
    format: str | None = None
    priority: int | None = None


class CustomResourceSubresourceScale(Struct, frozen=True):
    """Where the number of replicas is."""

    spec_replicas_path: NonEmpty
    status_replicas_path: NonEmpty
    label_selector_path: str | None = None


class CustomResourceSubresources(Struct, frozen=True):
    """Status and scale."""

    scale: CustomResourceSubresourceScale | None = None
    status: Mapping[str, Any] | None = None


class CustomResourceValidation(Struct, frozen=True):
    """The structural schema, as plain JSON."""

    open_api_v3_schema: Mapping[str, Any] | None = field(default=None, name="openAPIV3Schema")


class SelectableField(Struct, frozen=True):
    """A field that field selectors may name."""

    json_path: str


class CustomResourceDefinitionVersion(Struct, frozen=True):
    """One version of the kind."""

    name: NonEmpty
    served: bool
    storage: bool
    additional_printer_columns: tuple[CustomResourceColumnDefinition, ...] = ()
    deprecated: bool | None = None
    deprecation_warning: str | None = None
    schema: CustomResourceValidation | None = None
    selectable_fields: tuple[SelectableField, ...] = ()
    subresources: CustomResourceSubresources | None = None


class CustomResourceDefinitionSpec(Struct, frozen=True):
    """Names, versions and schemas."""

    group: NonEmpty
    names: CustomResourceDefinitionNames
    scope: Literal["Namespaced", "Cluster"]
    versions: Annotated[tuple[CustomResourceDefinitionVersion, ...], Meta(min_length=1)]
    conversion: Mapping[str, Any] | None = None
    preserve_unknown_fields: bool | None = None

    def problems(self) -> Iterator[Problem]:
        if [each.storage for each in self.versions].count(True) != 1:
            yield Problem("versions", "not exactly one version is stored", "set storage: true on one of them")
        for index, each in enumerate(self.versions):
            if each.schema is None or each.schema.open_api_v3_schema is None:
                yield Problem(at("versions", index, "schema"), "the schema is missing", "set openAPIV3Schema")
        if self.preserve_unknown_fields:
            yield Problem("preserveUnknownFields", "it is not possible any more", "use the schema's extension")
        if (self.conversion or {}).get("strategy", "None") != "None":
            yield Problem("conversion.strategy", "versions are not converted here", "use None: one schema for all")


class CustomResourceDefinition(Object, frozen=True):
    """A kind that the API learns while it runs."""

    GROUP: ClassVar[str] = GROUP
    KIND: ClassVar[str] = "CustomResourceDefinition"

    spec: CustomResourceDefinitionSpec

    def problems(self) -> Iterator[Problem]:
        name = f"{self.spec.names.plural}.{self.spec.group}"
        if self.metadata.name != name:
            yield Problem("metadata.name", f'it must be "{name}"', "PLURAL.GROUP")
