"""A browser at a gateway: it takes a connection for another host, hears 421, and asks again on one of its own."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.envoy.test_gateway_connections import gateway, routes, server
from tests.lab.lab import Lab
from tests.lab.world import GATEWAY

PAGE = "<html><body>nothing yet<script src='https://b.shop.test:8443/say.js'></script></body></html>"
SCRIPT = "document.body.textContent = 'the other host answered'"


def answering(name: str, host: str, gateways: str, kind: str, body: str) -> str:
    """A VirtualService that answers by itself."""
    headers = f"headers: {{response: {{set: {{content-type: {kind}}}}}}}"
    rule = f'http: [{{{headers}, directResponse: {{status: 200, body: {{string: "{body}"}}}}}}]'
    return routes(name, f"[{host}]", "", gateways, rule)


def shown(lab: Lab, profile: Path, url: str) -> str:
    """What a page is when its scripts have run."""
    leaf = x509.load_pem_x509_certificate(lab.certificates.read("edge.pem").encode())
    key = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    trusted = base64.b64encode(hashlib.sha256(key).digest()).decode()
    command = [
        *lab.sidecar.inside(),
        *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *("--no-first-run", f"--user-data-dir={profile}", f"--host-resolver-rules=MAP *.shop.test {GATEWAY}"),
        f"--ignore-certificate-errors-spki-list={trusted}",
        *("--timeout=30000", "--dump-dom", url),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed (apt-get install chromium)")
def test_a_browser_asks_again_on_a_connection_of_its_own(tmp_path: Path) -> None:
    """Both servers show one wildcard certificate at one address, so the browser takes the connection that it has."""
    pages = answering("a", "a.shop.test", "[istio-system/one]", "text/html", PAGE)
    scripts = answering("b", "b.shop.test", "[istio-system/two]", "text/javascript", SCRIPT)
    with Lab() as lab:
        one, two = gateway("one", server("one", "[a.shop.test]")), gateway("two", server("two", "[b.shop.test]"))
        lab.configure(one, two, pages, scripts)
        assert "the other host answered" in shown(lab, tmp_path / "two", "https://a.shop.test:8443/")
        assert _refused(lab) == 1
        both = gateway("one", server("one", "[a.shop.test, b.shop.test]"))
        lab.configure(both, pages, scripts.replace("/two", "/one"))
        assert "the other host answered" in shown(lab, tmp_path / "one", "https://a.shop.test:8443/")
        assert _refused(lab) == 1


def _refused(lab: Lab) -> int:
    """How many requests were answered 4xx so far; both hosts have an answer to every path."""
    return lab.stat(r"http\.outbound_0\.0\.0\.0_8443\.downstream_rq_4xx", "gateway")
