"""Each page of docs/features does what it says, on the real Envoy."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lateen.analysis.findings import all_findings
from lateen.api.check import check as check_document
from lateen.api.objects import transaction
from lateen.engine import Graph
from lateen.features import FEATURES
from lateen.lib.findings import Finding, Level
from lateen.lib.yaml import parse
from tests.configuration import objects
from tests.docs.pages import Step, steps
from tests.envoy.expectations import check
from tests.envoy.playground import Playground, services
from tests.lab.pages import LabPage

TRUST = ("mesh-tls",)
"""Pages about handshakes: tests/docs/test_trust_pages.py runs them."""
PAGES = Path(__file__).resolve().parents[2] / "docs" / "features"
SECURITY = (
    *("authorization", "external-authorization", "request-authentication", "peer-authentication"),
    *("tcp-authorization", "path-normalization", "dry-run"),
)
"""Pages that need callers with certificates: tests/docs/test_security_pages.py runs them."""
ELSEWHERE = (*SECURITY, *TRUST, "dns", "virtual-machines", "proxy-config")
"""Pages with tests of their own: tests/docs/test_dns_page.py, tests/docs/test_proxy_config_page.py,
tests/e2e/test_machines_pages.py."""


@pytest.mark.parametrize(
    "page", [each for each in sorted(PAGES.glob("*.md")) if each.stem not in ELSEWHERE], ids=lambda page: page.stem
)
def test_page(page: Path, request: pytest.FixtureRequest) -> None:
    checked = 0
    before = Step("apply", "", 0)
    where: Playground | LabPage = request.getfixturevalue("playground")
    assert where.apply("") == [], "a page begins without configuration"
    for step in steps(page):
        if step.kind == "findings":
            checked += check_findings(before, yaml.safe_load(step.text), f"{page.name}:{step.line}")
            continue
        if step.kind != "expect":
            before = step
        if step.kind == "refused":
            continue
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


def check_findings(step: Step, wanted: list[str], where: str) -> int:
    """Whether everything that is wanted is said about a configuration; a refused document has nothing else wrong."""
    documents, broken = parse(step.text, "page.yaml")
    assert broken == [], where
    found = [each for document in documents for each in check_document(document)]
    said = [f"{each.code} {each.position.line}:{each.position.column} {_rest(each)}" for each in found if each.position]
    if step.kind == "refused":
        wrong = [text for text, each in zip(said, found, strict=True) if each.level is Level.ERROR]
        assert len(wrong) == len(wanted), (where, wrong)
    else:
        graph = Graph()
        graph.commit(transaction([*services(), *objects(step.text)]))
        said += [f"{each.code} {each.ref.short} {_rest(each)}" for each in graph.pull(all_findings) if each.ref]
    for text in wanted:
        assert any(each.startswith(text) for each in said), (where, text, said)
    return len(wanted)


def _rest(finding: Finding) -> str:
    return f"{finding.path}: {finding.message}"
