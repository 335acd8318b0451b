"""Each page of docs/features does what it says, on the real Envoy."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lateen.features import FEATURES
from tests.docs.pages import steps
from tests.envoy.expectations import check
from tests.envoy.playground import Playground
from tests.lab.pages import LabPage

TRUST = ("mesh-tls",)
"""Pages about handshakes: tests/docs/test_trust_pages.py runs them."""
PAGES = Path(__file__).resolve().parents[2] / "docs" / "features"
SECURITY = (
    *("authorization", "external-authorization", "request-authentication", "peer-authentication"),
    *("tcp-authorization", "path-normalization", "dry-run"),
)
"""Pages that need callers with certificates: tests/docs/test_security_pages.py runs them."""
ELSEWHERE = (*SECURITY, *TRUST, "dns", "virtual-machines")
"""Pages with tests of their own: tests/docs/test_dns_page.py, tests/e2e/test_machines_pages.py."""


@pytest.mark.parametrize(
    "page", [each for each in sorted(PAGES.glob("*.md")) if each.stem not in ELSEWHERE], ids=lambda page: page.stem
)
def test_page(page: Path, request: pytest.FixtureRequest) -> None:
    checked = 0
    where: Playground | LabPage = request.getfixturevalue("playground")
    for step in steps(page):
        if step.kind != "expect":
            where = request.getfixturevalue("playground" if step.kind == "apply" else "lab_page")
            assert where.apply(step.text) == [], f"{page.name}:{step.line}"
            continue
        for expectation in yaml.safe_load(step.text):
            try:
                check(where, expectation)
            except Exception as error:
                error.add_note(f"{page.name}:{step.line}: {expectation}")
                raise
            checked += 1
    assert checked, f"{page.name} checks nothing"


def test_every_feature_has_a_page() -> None:
    assert {each.name.replace("_", "-") for each in FEATURES} <= {page.stem for page in PAGES.glob("*.md")}
