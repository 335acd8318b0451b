"""Event (core v1): what happened to an object. Its fields stand beside metadata, not in a spec."""

from __future__ import annotations

from typing import ClassVar

from lateen.api.core.selectors import ObjectReference
from lateen.api.struct import Object, Struct


class EventSource(Struct, frozen=True):
    """Who saw it."""

    component: str | None = None
    host: str | None = None


class EventSeries(Struct, frozen=True):
    """How often it happened."""

    count: int | None = None
    last_observed_time: str | None = None


class Event(Object, frozen=True):
    """Something that happened to an object."""

    GROUP: ClassVar[str] = ""
    KIND: ClassVar[str] = "Event"

    involved_object: ObjectReference
    action: str | None = None
    count: int | None = None
    event_time: str | None = None
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    message: str | None = None
    reason: str | None = None
    related: ObjectReference | None = None
    reporting_component: str | None = None
    reporting_instance: str | None = None
    series: EventSeries | None = None
    source: EventSource | None = None
    type: str | None = None
