"""Every document that Istio publishes in its samples passes, or is listed here with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lateen.api import codec
from lateen.api.check import check
from lateen.lib.findings import Level
from lateen.lib.yaml import parse
from tests.paths import shared

REFUSED = {
    "LTN0003": "kinds and versions that are in no schema of today (Mixer, extensions/v1beta1, cert-manager, SPIRE)",
    "LTN0004": "kinds that lateen does not take yet (Gateway API, RBAC, DaemonSet, Ingress)",
}


def sample_files() -> Iterator[Path]:
    for path in sorted(shared("samples").rglob("*")):
        if path.suffix in (".yaml", ".yml"):
            yield path


def test_samples_pass_or_are_listed() -> None:
    seen = 0
    for path in sample_files():
        found, broken = parse(path.read_text(), path.name)
        assert broken == [], path
        for document in found:
            errors = {each.code for each in check(document) if each.level is Level.ERROR}
            assert errors <= REFUSED.keys(), check(document)
            if not errors:
                codec.decode(document.raw)
                seen += 1
    assert seen > 250
