"""The generated modules are what their .proto files give."""

from __future__ import annotations

import subprocess
import sys

from lateen.security.protos.ca_pb2 import IstioCertificateRequest, IstioCertificateResponse
from tests.paths import REPOSITORY


def test_they_are_fresh() -> None:
    done = subprocess.run([sys.executable, REPOSITORY / "scripts/protos.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_wire_is_istios() -> None:
    assert IstioCertificateRequest(csr="a", validity_duration=1).SerializeToString() == b"\n\x01a\x18\x01"
    assert IstioCertificateResponse(cert_chain=["a"]).SerializeToString() == b"\n\x01a"
