"""ServiceAccount (core v1): who a workload is. Its fields stand beside metadata, not in a spec."""

from __future__ import annotations

from typing import Annotated, ClassVar

from lateen.api.core.selectors import LocalObjectReference, ObjectReference
from lateen.api.struct import Object, list_map


class ServiceAccount(Object, frozen=True):
    """An identity that Pods can have."""

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "ServiceAccount"

    automount_service_account_token: bool | None = None
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    secrets: Annotated[tuple[ObjectReference, ...], list_map("name")] = ()
