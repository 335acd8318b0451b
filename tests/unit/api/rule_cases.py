"""How the tests of rules write their cases: the smallest document, and what must be said of it."""

from __future__ import annotations

from typing import Any

from lateen.api.check import check_raw
from lateen.lib.findings import Finding, Level
from lateen.lib.yaml import value


def findings(api_version: str, kind: str, spec: str, **more: Any) -> list[Finding]:
    """What `check` says about an object with that spec (YAML), coverage left out."""
    raw = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}, "spec": value(spec).raw, **more}
    return [each for each in check_raw(raw) if not each.code.startswith("LTN000")]


def said(found: list[Finding], *, warnings: bool = False) -> list[str]:
    """The errors (and warnings) as `path: message`, without `spec.`."""
    levels = {Level.ERROR, Level.WARNING} if warnings else {Level.ERROR}
    return [f"{each.path.removeprefix('spec.')}: {each.message}" for each in found if each.level in levels]


def expect(found: list[Finding], expected: str, level: Level = Level.ERROR) -> None:
    """Exactly one finding, of that level, and it begins or goes on as expected (`path: part of the message`)."""
    path, _, part = expected.partition(": ")
    assert [(each.path.removeprefix("spec").removeprefix("."), each.level) for each in found] == [(path, level)], found
    assert part in found[0].message, found[0].message
