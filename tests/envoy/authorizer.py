"""External authorizers for tests, with the protocol of Istio's sample: allowed is who sends `x-ext-authz: allow`.

Both forms record what they are asked. The HTTP one listens on a Unix socket or a TCP port, the gRPC one too; they
run as programs inside of the network namespace of the Pod under test: `python -m tests.envoy.authorizer KIND ADDRESS
PORT`, where KIND is `http`, `grpc`, `slow` or `failing`.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse

CHECK_HEADER = "x-ext-authz"
ALLOWED = "allow"
RESULT = "x-ext-authz-check-result"
RECEIVED = "x-ext-authz-check-received"
SLOW_S = 3.0


def check(request: CheckRequest) -> CheckResponse:
    """The answer of the gRPC form. Connections are allowed for principals that end with `alice`."""
    http = request.attributes.request.http
    response = CheckResponse()
    if not http.method:
        allowed = request.attributes.source.principal.endswith("alice")
        response.status.code = 0 if allowed else 7
        return response
    allowed = http.headers.get(CHECK_HEADER) == ALLOWED
    seen = json.dumps({"path": http.path, "body": http.body or http.raw_body.decode()})
    answer: Any = response.ok_response if allowed else response.denied_response
    assert isinstance(answer, (OkHttpResponse, DeniedHttpResponse))
    for key, value in ((RESULT, "allowed" if allowed else "denied"), (RECEIVED, seen)):
        answer.headers.append(HeaderValueOption(header=HeaderValue(key=key, value=value)))
    if isinstance(answer, DeniedHttpResponse):
        answer.status.code = 403  # pyright: ignore[reportAttributeAccessIssue] -- the number of a status
        answer.body = "denied by ext_authz"
        response.status.code = 7
    return response


class Handler(BaseHTTPRequestHandler):
    """The HTTP form; any method and path."""

    protocol_version = "HTTP/1.1"
    kind = "http"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        if self.kind == "slow":
            time.sleep(SLOW_S)
        if self.kind == "failing":
            self.send_response(500)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        allowed = self.headers.get(CHECK_HEADER) == ALLOWED
        seen = {"path": self.path, "body": body, "headers": {k.lower(): v for k, v in self.headers.items()}}
        self.send_response(200 if allowed else 403)
        self.send_header(RESULT, "allowed" if allowed else "denied")
        self.send_header(RECEIVED, json.dumps(seen))
        self.send_header("x-other", "kept to ourselves")
        text = b"" if allowed else b"denied by ext_authz"
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main(kind: str, address: str, port: str) -> None:
    """Serves until killed."""
    if kind == "grpc":
        server = grpc.server(ThreadPoolExecutor(8))

        def answer(request: CheckRequest, _: grpc.ServicerContext) -> CheckResponse:
            return check(request)

        handler = grpc.unary_unary_rpc_method_handler(answer, CheckRequest.FromString, CheckResponse.SerializeToString)
        service = "envoy.service.auth.v3.Authorization"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Check": handler}),))
        server.add_insecure_port(f"{address}:{port}")
        server.start()
        server.wait_for_termination()
    else:
        Handler.kind = kind
        ThreadingHTTPServer((address, int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
