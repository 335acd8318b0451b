"""The page about TLS of the mesh does what it says, in handshakes with whole proxies.

Beside requests (`tests/envoy/expectations.py`) it expects handshakes: `handshake` (host:port), `shows` (a certificate
of the lab; none: no certificate), `speaks`, `cipher` and `curve` bound the client; `becomes` is the version, or
`refused`; `status` what a request in it is answered.
"""

from __future__ import annotations

import ssl
from typing import Any

import pytest
import yaml

from tests.docs.pages import steps
from tests.docs.test_features import PAGES, TRUST
from tests.envoy.expectations import check
from tests.lab.client import Caller
from tests.lab.lab import OUTSIDE
from tests.lab.pages import LabPage


@pytest.mark.parametrize("page", [PAGES / f"{each}.md" for each in TRUST], ids=lambda page: page.stem)
def test_page(page: Any, lab_page: LabPage) -> None:
    for step in steps(page):
        if step.kind != "expect":
            assert lab_page.apply(step.text) == [], f"{page.name}:{step.line}"
            continue
        for expectation in yaml.safe_load(step.text):
            try:
                if "handshake" in expectation:
                    _handshake(lab_page, expectation)
                else:
                    check(lab_page, expectation)
            except Exception as error:
                error.add_note(f"{page.name}:{step.line}: {expectation}")
                raise


def _handshake(page: LabPage, expectation: dict[str, Any]) -> None:
    host, _, port = expectation["handshake"].partition(":")
    context = page.lab.certificates.client_context(expectation.get("shows", ""))
    context.verify_mode = ssl.CERT_NONE
    if "speaks" in expectation:
        version = ssl.TLSVersion[expectation["speaks"].replace(".", "_")]
        context.minimum_version = context.maximum_version = version
    if "cipher" in expectation:
        context.set_ciphers(expectation["cipher"])
    if "curve" in expectation:
        context.set_ecdh_curve(expectation["curve"])
    address = "10.88.0.5" if host == "app" else host
    sni = expectation.get("sni", "")
    try:
        with Caller(page.lab, address, int(port), tls=context, sni=sni, mark=OUTSIDE) as caller:
            answer = caller.ask(authority=sni or host)
            became = caller.tls_version if answer.status else "refused"
    except OSError:
        assert expectation["becomes"] == "refused"
        return
    assert became == expectation["becomes"], answer
    assert answer.status == expectation.get("status", answer.status)
