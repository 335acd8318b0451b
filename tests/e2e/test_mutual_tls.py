"""Mutual TLS between the demo's sidecars: what the certificate says, and what a stranger gets."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography import x509

from tests.e2e.conftest import sample
from tests.e2e.mesh import Mesh, eventually

Json = dict[str, Any]

STRANGER: Json = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "stranger", "namespace": "default", "labels": {"sidecar.istio.io/inject": "false"}},
    "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "shell", "command": ["sleep", "1000"]}]},
}
STRICT: Json = {
    "apiVersion": "security.istio.io/v1",
    "kind": "PeerAuthentication",
    "metadata": {"name": "default", "namespace": "default"},
    "spec": {"mtls": {"mode": "STRICT"}},
}
CERTIFICATE = """
import socket, ssl, sys
context = ssl._create_unverified_context()
context.set_alpn_protocols(["istio"])
with socket.create_connection((sys.argv[1], 9080), 5) as plain:
    with context.wrap_socket(plain, server_hostname="x") as secure:
        print(ssl.DER_cert_to_PEM_cert(secure.getpeercert(True)))
"""
PLAINTEXT = """
import sys, urllib.request
print(urllib.request.urlopen("http://" + sys.argv[1] + ":9080/details/0", timeout=5).status)
"""


@pytest.fixture
def stranger(bookinfo: Mesh) -> Iterator[Json]:
    """A Pod without a proxy."""
    bookinfo.apply(STRANGER)

    def pod() -> Json | None:
        found = [each for each in bookinfo.get("pods") if each["metadata"]["name"] == "stranger"]
        ready = found and any(
            each["type"] == "Ready" and each["status"] == "True"
            for each in found[0].get("status", {}).get("conditions", ())
        )
        return found[0] if ready else None

    made = eventually(pod)
    assert made is not None
    yield made
    bookinfo.lateen("delete", "pod", "stranger")


def python(mesh: Mesh, pod: Json, program: str, *arguments: str) -> tuple[bool, str]:
    return mesh.inside(pod, "shell", ["python3", "-c", program, *arguments], timeout_s=15)


def test_a_sidecar_shows_the_certificate_of_its_service_account(bookinfo: Mesh, stranger: Json) -> None:
    for app in ("details", "ratings", "productpage"):
        (pod,) = bookinfo.pods(app)
        ok, output = python(bookinfo, stranger, CERTIFICATE, pod["status"]["podIP"])
        assert ok, output
        certificate = x509.load_pem_x509_certificate(output[output.index("-----BEGIN") :].encode())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        assert f"spiffe://cluster.local/ns/default/sa/bookinfo-{app}" in uris
        root = x509.load_pem_x509_certificate((bookinfo.settings.layout().ca / "root-cert.pem").read_bytes())
        certificate.verify_directly_issued_by(root)


def test_a_new_root_reaches_everybody_under_load(bookinfo: Mesh) -> None:
    """`lateen ca rotate`: no request fails, every sidecar has a certificate of the new root, and the old one goes."""
    root = bookinfo.settings.layout().ca / "root-cert.pem"
    before = root.read_text()
    with ThreadPoolExecutor(1) as background:
        load = background.submit(bookinfo.load, "/productpage", rate=20, duration_s=15)
        assert "trusted until" in bookinfo.lateen("ca", "rotate", "--wait").stdout
        report = load.result()
    assert report.failed == 0, report.lines()
    assert before in root.read_text()
    again = bookinfo.lateen("ca", "rotate", expect=1)
    assert "--retire" in again.stderr
    bookinfo.lateen("ca", "rotate", "--retire")
    eventually(lambda: json.loads(bookinfo.lateen("ca", "show", "-o", "json").stdout)["behind"], lambda each: not each)
    assert before not in root.read_text()
    assert bookinfo.lateen("ca", "export").stdout == root.read_text()
    report = bookinfo.load("/productpage", requests=50, connections=4)
    assert report.failed == 0, report.lines()


def test_strict_refuses_plaintext_and_the_mesh_goes_on(bookinfo: Mesh, stranger: Json) -> None:
    (details,) = bookinfo.pods("details")
    address = details["status"]["podIP"]
    ok, output = python(bookinfo, stranger, PLAINTEXT, address)
    assert ok, f"permissive mode refuses plaintext: {output}"
    bookinfo.apply(sample("destination-rule-all-mtls"), STRICT)
    refused = eventually(lambda: python(bookinfo, stranger, PLAINTEXT, address), lambda done: not done[0])
    assert "Connection reset" in refused[1] or "Remote end closed" in refused[1]
    report = bookinfo.load("/productpage", requests=100, connections=4)
    assert report.failed == 0, report.lines()
    page = bookinfo.ask("/productpage").text
    assert "Book Details" in page
    assert "Book Reviews" in page


@pytest.mark.long
def test_a_mesh_whose_certificates_last_a_minute_drops_nothing() -> None:
    """Every certificate is replaced several times, and every connection to the control plane with them."""
    mesh = Mesh(f"short-{os.getpid()}")
    mesh.flags["certificate_validity_s"] = 60
    try:
        mesh.up()
        answers: Counter[int] = Counter()
        end = time.monotonic() + 100
        while time.monotonic() < end:
            answers[mesh.ask("/productpage").status] += 1
        assert answers.keys() == {200}
        assert answers[200] > 100
        log = (mesh.settings.layout().logs / "controlplane.log").read_text()
        lines = [json.loads(line) for line in log.splitlines()]
        issued = Counter(each["pod"] for each in lines if each["event"] == "certificate issued")
        connected = Counter(each["proxy"] for each in lines if each["event"] == "proxy connected")
        assert min(issued.values()) >= 3
        assert min(connected.values()) >= 3
        assert not [each for each in lines if each["event"] in ("stream refused", "certificate refused")]
        statuses = json.loads(mesh.lateen("proxy-status", "-o", "json").stdout)
        assert len(statuses) == len(connected)
    finally:
        mesh.remove()
