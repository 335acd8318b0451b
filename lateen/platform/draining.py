"""When a proxy has drained: what its admin interface says of requests and connections that are open.

Source: https://www.envoyproxy.io/docs/envoy/latest/operations/admin (`/stats`, `/drain_listeners`)
"""

from __future__ import annotations

from lateen.platform import probe


def admin_request(method: str, path: str) -> bytes:
    """A request to Envoy's admin interface."""
    return f"{method} {path} HTTP/1.1\r\nHost: admin\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


def no_requests(answer: bytes) -> tuple[bool, str]:
    """Whether no HTTP request is being answered."""
    return _all_zero(answer, "http.", "downstream_rq_active")


def no_connections(answer: bytes) -> tuple[bool, str]:
    """Whether no downstream connection is open."""
    return _all_zero(answer, "listener.", "downstream_cx_active")


def _all_zero(answer: bytes, prefix: str, name: str) -> tuple[bool, str]:
    """Whether Envoy's gauges of that sort, those of its admin interface apart, are all zero; those that aren't."""
    status, body = probe.read_answer(answer)
    open_now = [
        line
        for line in body.decode(errors="replace").splitlines()
        if line.startswith(prefix) and f".{name}: " in line and ".admin." not in line and not line.endswith(": 0")
    ]
    return status == 200 and not open_now, "; ".join(open_now)
