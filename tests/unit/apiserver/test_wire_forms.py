"""Forms that Go clients speak: protobuf bodies, SPDY frames."""

from __future__ import annotations

import zlib

import pytest

from lateen.apiserver.errors import BadRequestError, MediaTypeError
from lateen.apiserver.protobuf import decode
from lateen.apiserver.spdy import DICTIONARY, Data, GoAway, Opened, Ping, Reset, Spdy, SpdyError


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def body(api_version: str, kind: str, message: bytes) -> bytes:
    head = field(1, api_version.encode()) + field(2, kind.encode())
    return b"k8s\x00" + field(1, head) + field(2, message) + field(3, b"") + field(4, b"")


def test_a_deployment_in_protobuf() -> None:
    metadata = field(1, b"web") + field(2, b"") + field(8, b"") + field(11, field(1, b"app") + field(2, b"web"))
    port = field(1, b"http") + field(2, 0) + field(3, 80) + field(4, b"TCP") + field(5, b"")
    probe = field(2, field(1, b"/") + field(2, field(1, 1) + field(2, 0) + field(3, b"http")))
    container = field(1, b"web") + field(6, port) + field(11, field(1, probe) + field(2, 0)) + field(18, 0)
    template = field(1, b"") + field(2, field(2, container))
    spec = field(1, 0) + field(2, field(1, field(1, b"app") + field(2, b"web"))) + field(3, template) + field(5, 0)
    found = decode(body("apps/v1", "Deployment", field(1, metadata) + field(2, spec) + field(3, b"")))
    assert (found["apiVersion"], found["kind"]) == ("apps/v1", "Deployment")
    assert found["metadata"] == {"name": "web", "labels": {"app": "web"}}
    assert found["spec"]["replicas"] == 0, "zero replicas are not the same as unset"
    assert "minReadySeconds" not in found["spec"]
    (one,) = found["spec"]["template"]["spec"]["containers"]
    assert one["ports"] == [{"name": "http", "containerPort": 80, "protocol": "TCP"}]
    assert (
        one["livenessProbe"]["httpGet"]
        if "livenessProbe" in one
        else one["readinessProbe"]["httpGet"]
        == {
            "path": "/",
            "port": "http",
        }
    )


def test_bodies_that_are_none() -> None:
    for content in (b"", b"{}", b"k8s\x00\xff", b"k8s\x00" + field(2, b"\x0a")):
        with pytest.raises((BadRequestError, MediaTypeError)):
            decode(content)
    with pytest.raises(MediaTypeError):
        decode(body("example.com/v1", "Thing", b""))
    with pytest.raises(BadRequestError, match="no field 99"):
        decode(body("v1", "ConfigMap", field(99, b"x")))


def control(kind: int, content: bytes) -> bytes:
    return b"\x80\x03" + kind.to_bytes(2, "big") + b"\x00" + len(content).to_bytes(3, "big") + content


def test_spdy_streams() -> None:
    spdy, deflate = Spdy(), zlib.compressobj(zdict=DICTIONARY)
    assert len(DICTIONARY) == 1423

    def opened(stream: int, headers: dict[str, str]) -> bytes:
        plain = len(headers).to_bytes(4, "big")
        for pair in headers.items():
            plain += b"".join(len(part).to_bytes(4, "big") + part.encode() for part in pair)
        block = deflate.compress(plain) + deflate.flush(zlib.Z_SYNC_FLUSH)
        return control(1, stream.to_bytes(4, "big") + bytes(6) + block)

    data = (3).to_bytes(4, "big") + b"\x01" + (5).to_bytes(3, "big") + b"hello"
    sent = opened(1, {"streamtype": "error", "port": "80"}) + opened(3, {"streamtype": "data"}) + data
    sent += control(3, (3).to_bytes(4, "big") + bytes(4)) + control(6, b"\x00\x00\x00\x01") + control(7, bytes(8))
    events = [event for byte in sent for event in spdy.receive(bytes([byte]))]
    assert events == [
        Opened(1, {"streamtype": "error", "port": "80"}),
        Opened(3, {"streamtype": "data"}),
        Data(3, b"hello", True),
        Reset(3),
        Ping(control(6, b"\x00\x00\x00\x01")),
        GoAway(),
    ]
    inflate = zlib.decompressobj(zdict=DICTIONARY)
    assert inflate.decompress(spdy.accept(1)[12:]) == bytes(4)
    with pytest.raises(SpdyError):
        list(Spdy().receive(b"\x80\x03\x00\x01\x00\xff\xff\xff"))
    with pytest.raises(SpdyError):
        list(Spdy().receive(control(1, bytes(10) + b"nonsense")))
