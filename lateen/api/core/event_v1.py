"""Event (events.k8s.io/v1): the same events as core's under newer names. They are stored as core/v1.

Source: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

from __future__ import annotations

from typing import ClassVar

from lateen.api.core.event import EventSeries, EventSource
from lateen.api.core.selectors import ObjectReference
from lateen.api.struct import Object


class EventV1(Object, frozen=True):
    """Something that happened to an object."""

    GROUP: ClassVar[str] = "events.k8s.io"
    KIND: ClassVar[str] = "Event"

    event_time: str | None
    action: str | None = None
    deprecated_count: int | None = None
    deprecated_first_timestamp: str | None = None
    deprecated_last_timestamp: str | None = None
    deprecated_source: EventSource | None = None
    note: str | None = None
    reason: str | None = None
    regarding: ObjectReference | None = None
    related: ObjectReference | None = None
    reporting_controller: str | None = None
    reporting_instance: str | None = None
    series: EventSeries | None = None
    type: str | None = None
