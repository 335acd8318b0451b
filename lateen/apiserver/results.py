"""What an apply or delete of whole files answers, on both sides of the API."""

from __future__ import annotations

import msgspec

from lateen.lib.findings import Finding


class Applied(msgspec.Struct, frozen=True):
    """One object of an apply and what became of it: created, configured, unchanged or deleted."""

    kind: str
    namespace: str
    name: str
    action: str


class ApplyResult(msgspec.Struct, frozen=True):
    """What an apply or delete of files did; `applied` False: nothing of it happened, `findings` say why."""

    applied: bool
    objects: tuple[Applied, ...] = ()
    findings: tuple[Finding, ...] = ()
