"""The base of every API type: frozen structs that know unset from zero.

`None` (or an empty tuple or mapping) means the document did not set the field. Field names are snake_case
here and camelCase on the wire. Unknown fields are not part of the typed view: the store keeps the raw
document, so nothing is lost; `lateen.api.check` reports them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta as Meta
from msgspec import field as field

from lateen.api.problems import Problem
from lateen.lib.durations import Duration
from lateen.lib.ids import Ref

UInt32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
UInt64 = Annotated[int, Meta(ge=0)]
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
NonNegativeInt32 = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Port = Annotated[int, Meta(ge=1, le=65535)]
PercentValue = Annotated[float, Meta(ge=0, le=100)]
"""0.0 to 100.0."""
NonEmpty = Annotated[str, Meta(min_length=1)]
PositiveDuration = Annotated[Duration, Meta(extra={"min_nanoseconds": 1_000_000})]
"""At least one millisecond, as Istio's CRDs demand of most durations."""
Base64 = Annotated[str, Meta(extra={"base64": True})]


def list_map(*keys: str, min_length: int | None = None) -> Meta:
    """Metadata of a list whose items are told apart by these of their fields: patches and server-side apply merge it
    item by item. The first key is the one that strategic merge patches go by."""
    return Meta(extra={"list_map": keys}, min_length=min_length)


LIST_SET = Meta(extra={"list_set": True})
"""Metadata of a list of texts without an order or doubles: merged text by text."""


class Struct(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A part of an object. Values are immutable; mappings are never changed after decoding.

    `AT_MOST_ONE` has groups of fields (names as on the wire) that exclude each other.
    `problems` yields what is wrong with a value beyond the types of its fields; paths are relative to it.
    """

    AT_MOST_ONE: ClassVar[tuple[tuple[str, ...], ...]] = ()

    def problems(self) -> Iterator[Problem]:
        yield from ()


class OwnerReference(Struct, frozen=True):
    """The object that made this one and whose end is its end."""

    api_version: str
    kind: str
    name: str
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(Struct, frozen=True):
    """Identity and labels. `resourceVersion`, `generation` and `managedFields` belong to the store and are
    left out on purpose: they change without the meaning of the object changing."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    owner_references: Annotated[tuple[OwnerReference, ...], list_map("uid")] = ()
    finalizers: Annotated[tuple[str, ...], LIST_SET] = ()


class Object(Struct, frozen=True, kw_only=True):
    """What all kinds have in common. Subclasses set GROUP and KIND and add `spec`, and `status` only where
    the status is read by translation (Pod, ServiceEntry, WorkloadEntry)."""

    GROUP: ClassVar[str]
    KIND: ClassVar[str]

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()

    @property
    def ref(self) -> Ref:
        return Ref(self.GROUP, self.KIND, self.metadata.namespace, self.metadata.name)

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace


Json = dict[str, Any]
"""A decoded JSON object."""


def map_at(of: Any, name: str) -> Json:
    """The object under a name of another, empty when there is none."""
    found: Any = of.get(name) if isinstance(of, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return found if isinstance(found, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def list_at(of: Any, name: str) -> list[Any]:
    """The list under a name of an object, empty when there is none."""
    found: Any = of.get(name) if isinstance(of, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return found if isinstance(found, list) else []  # pyright: ignore[reportUnknownVariableType]
