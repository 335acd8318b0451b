"""What a controller wants done: values, so that a test reads them and `work.py` carries them out."""

from __future__ import annotations

import msgspec

from lateen.api.struct import Json
from lateen.platform.controllers.documents import Key


class Create(msgspec.Struct, frozen=True):
    """Make an object. With `metadata.generateName` the API server names it. `by`: the object it is made for, which gets
    an event."""

    document: Json
    by: Json | None = None


class Delete(msgspec.Struct, frozen=True):
    """Delete an object, if it is still the one with this uid. `by`: see Create."""

    kind: str
    key: Key
    uid: str
    by: Json | None = None


class Patch(msgspec.Struct, frozen=True):
    """Change fields by a JSON merge patch (RFC 7386)."""

    kind: str
    key: Key
    patch: Json


class Status(msgspec.Struct, frozen=True):
    """Set the status of the object, provided it has not changed since `document` was read."""

    document: Json
    status: Json


class Say(msgspec.Struct, frozen=True):
    """Tell people of something that happened to an object, as an Event. The same again counts up."""

    about: Json
    reason: str
    message: str
    component: str
    warning: bool = False


Action = Create | Delete | Patch | Status | Say


class Outcome(msgspec.Struct, frozen=True):
    """The actions for one object. `again_s`: look at it again after so many seconds even if nothing changes."""

    actions: tuple[Action, ...] = ()
    again_s: float | None = None


def with_status(document: Json, status: Json) -> tuple[Status, ...]:
    """The action that sets this status, or none when it is the one the object has, findings aside: those are the
    API server's own part of it."""
    set_before: Json = document.get("status") or {}
    before = {name: value for name, value in set_before.items() if name != "findings"}
    return () if before == status else (Status(document, status),)


def soonest(*times_s: float | None) -> float | None:
    """The smallest of the times that are not None."""
    return min((each for each in times_s if each is not None), default=None)
