"""Who asks: what authentication finds out, and what the rest of the API asks about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

from lateen.apiserver.targets import Attributes

MASTERS: Final = "system:masters"
AUTHENTICATED: Final = "system:authenticated"


class User(msgspec.Struct, frozen=True):
    """A caller with its groups."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = {}


OWNER: Final = User("lateen:owner", (MASTERS, AUTHENTICATED))
"""Whoever can open the mesh's Unix socket: the user the mesh belongs to, and its own processes."""


class Authenticator(Protocol):
    """Knows bearer tokens."""

    def __call__(self, token: str) -> User | None:
        """Whose token it is, None when nobody's."""
        ...


class Authorizer(Protocol):
    """Decides."""

    def __call__(self, user: User, wanted: Attributes) -> str | None:
        """Why not, None when it is allowed."""
        ...
