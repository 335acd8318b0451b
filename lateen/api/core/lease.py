"""Lease (coordination.k8s.io/v1): who leads, and until when."""

from __future__ import annotations

from typing import ClassVar

from lateen.api.struct import NonNegativeInt32, Object, Struct


class LeaseSpec(Struct, frozen=True):
    """The holder and its times; they are the clients' business."""

    acquire_time: str | None = None
    holder_identity: str | None = None
    lease_duration_seconds: NonNegativeInt32 | None = None
    lease_transitions: NonNegativeInt32 | None = None
    preferred_holder: str | None = None
    renew_time: str | None = None
    strategy: str | None = None


class Lease(Object, frozen=True):
    """A lock that must be renewed."""

    GROUP: ClassVar[str] = "coordination.k8s.io"
    KIND: ClassVar[str] = "Lease"

    spec: LeaseSpec = LeaseSpec()
