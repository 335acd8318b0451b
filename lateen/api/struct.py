"""The base of every API type: frozen structs that know unset from zero.

`None` (or an empty tuple or mapping) means the document did not set the field. Field names are snake_case
here and camelCase on the wire. Unknown fields are not part of the typed view: the store keeps the raw
document, so nothing is lost; `lateen.api.check` reports them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from lateen.lib.ids import Ref


class Struct(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A part of an object. Values are immutable; mappings are never changed after decoding."""


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
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()


class Object(Struct, frozen=True):
    """What all kinds have in common. Subclasses set GROUP and KIND and add `spec`, and `status` only where
    the status is read by translation (Pod, ServiceEntry)."""

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
