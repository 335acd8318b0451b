"""The findings of objects as queries: what the checks say, kept up to date by the engine.

An object silences a check by the annotation `galley.istio.io/analyze-suppress: IST0101,LTN0106`, as with istioctl;
`*` stands for any part of a code.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cache
from typing import cast

from lateen.analysis.check import Check
from lateen.analysis.checks import CHECKS
from lateen.api import kinds
from lateen.api.objects import everywhere
from lateen.api.struct import Object
from lateen.engine import Q
from lateen.lib.findings import Finding
from lateen.lib.ids import Ref

SUPPRESS_ANNOTATION = "galley.istio.io/analyze-suppress"


def findings(q: Q, ref: Ref) -> tuple[Finding, ...]:
    """What the checks say about one object; nothing when it is not there. Findings have no positions."""
    checks = _checks_of(ref.group, ref.kind)
    subject = cast("Object | None", q.read(ref)) if checks else None
    if subject is None:
        return ()
    silenced = [each.strip() for each in subject.metadata.annotations.get(SUPPRESS_ANNOTATION, "").split(",")]
    return tuple(
        Finding(code=each.code, level=each.level, message=said.message, ref=ref, path=said.path, remedy=said.remedy)
        for each in checks
        if not any(fnmatchcase(each.code, pattern) for pattern in silenced)
        for said in each.run(q, subject)
    )


def all_findings(q: Q) -> tuple[Finding, ...]:
    """What the checks say about every object. Wide: it re-reads each object's own findings."""
    return tuple(finding for ref in q(_subjects) for finding in q(findings, ref))


def _subjects(q: Q) -> tuple[Ref, ...]:
    checked = {each.kind for each in CHECKS}
    return tuple(each.ref for kind in kinds.KINDS if kind.type in checked for each in everywhere(q, kind.type))


@cache
def _checks_of(group: str, kind: str) -> tuple[Check, ...]:
    return tuple(each for each in CHECKS if (group, kind) == (each.kind.GROUP, each.kind.KIND))
