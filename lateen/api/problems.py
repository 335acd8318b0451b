"""What the rules of an API type say: a place inside the value, a sentence, and what to do.

A Problem becomes a Finding when `lateen.api.check` knows the object and the document around it.
"""

from __future__ import annotations

import msgspec

from lateen.lib.findings import Level


class Problem(msgspec.Struct, frozen=True):
    """One statement about a value. `path` is relative to it: `route[0].weight`, empty for the value itself."""

    path: str
    message: str
    remedy: str = ""
    level: Level = Level.ERROR
    code: str = "IST0106"
