"""WebAssembly for tests, built from its text form, and a server that has it: by HTTP, and as images of a registry."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.server
import io
import json
import tarfile
import threading
from functools import cache
from typing import Any

import wasmtime

SOURCE = r"""
(module
  (import "env" "proxy_get_buffer_bytes" (func $buffer (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_header_map_value" (func $header (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
  (memory (export "memory") 4)
  (global $free (mut i32) (i32.const 65536))
  (data (i32.const 1024) "NAMEx-envx-trapplugin_root_idx-root")
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (global.get $free))
    (global.set $free (i32.and (i32.add (i32.add (global.get $free) (local.get $size)) (i32.const 7)) (i32.const -8)))
    (local.get $at))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_vm_start") (param i32 i32) (result i32) (i32.const 1))
  (func (export "proxy_on_configure") (param $root i32) (param $size i32) (result i32)
    (drop (call $buffer (i32.const 7) (i32.const 0) (local.get $size) (i32.const 16) (i32.const 20)))
    (drop (call $sizes (i32.const 32) (i32.const 36)))
    (drop (call $environ (i32.const 64) (i32.const 4096)))
    (i32.const 1))
  (func $length (param $at i32) (result i32)
    (local $n i32)
    (block $end (loop $more
      (br_if $end (i32.eqz (i32.load8_u (i32.add (local.get $at) (local.get $n)))))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br $more)))
    (local.get $n))
  (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
    (if (i32.eqz (call $header (i32.const 0) (i32.const 1033) (i32.const 6) (i32.const 48) (i32.const 52)))
      (then unreachable))
    (drop (call $add (i32.const 0) (i32.const 1024) (i32.const 4) (i32.load (i32.const 16)) (i32.load (i32.const 20))))
    (if (i32.eqz (call $property (i32.const 1039) (i32.const 14) (i32.const 56) (i32.const 60))) (then
      (drop (call $add (i32.const 0) (i32.const 1053) (i32.const 6)
        (i32.load (i32.const 56)) (i32.load (i32.const 60))))))
    (if (i32.load (i32.const 32)) (then
      (drop (call $add (i32.const 0) (i32.const 1028) (i32.const 5)
        (i32.load (i32.const 64)) (call $length (i32.load (i32.const 64)))))))
    (i32.const 0))
  (func (export "proxy_on_new_connection") (param i32) (result i32) (i32.const ANSWER))
)
"""
"""Adds a header NAME with its configuration to requests, `x-env` with its first environment variable, `x-root` with the
name of its root; a request with `x-trap` makes it fail. What it answers to a new connection is ANSWER: 0 lets it go on,
1 stops it."""

MODULE_LAYER = "application/vnd.module.wasm.content.layer.v1+wasm"
IMAGE_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LOGIN = "puller:secret"
REGISTRY = "registry.lab"
"""What stands for a registry of a lab in configuration."""


@cache
def module(name: str = "wasm", *, stops: bool = False) -> bytes:
    """A module whose header has that name, of four letters."""
    assert len(name) == 4
    return bytes(wasmtime.wat2wasm(SOURCE.replace("NAME", name).replace("ANSWER", "1" if stops else "0")))


def digest(body: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(body).hexdigest()


def archive(body: bytes, name: str = "plugin.wasm") -> bytes:
    """An image layer with one file."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as made:
        member = tarfile.TarInfo(name)
        member.size = len(body)
        made.addfile(member, io.BytesIO(body))
    return gzip.compress(written.getvalue(), mtime=0)


class Registry:
    """A server on loopback: files by path, and a registry that may ask for a token. Use it as a context manager."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[str, bytes]] = {}
        self.private = ("team/private",)
        self.asked: list[str] = []
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, headers, body = registry.answer(self.path, self.headers.get("authorization", ""))
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.put("/wasm.wasm", module())
        self.put("/othr.wasm", module("othr"))
        self.put("/stop.wasm", module("stop", stops=True))
        self.image("team/private", archive(module()), tag="v1")

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def host(self) -> str:
        """Address and port."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def put(self, path: str, body: bytes, media: str = "application/wasm") -> str:
        """Makes a file be there; its address."""
        self.files[path] = (media, body)
        return f"http://{self.host}{path}"

    def image(
        self, name: str, layer: bytes, *, tag: str = "latest", media: str = IMAGE_LAYER, index: bool = False
    ) -> str:
        """Makes an image be there; its reference."""
        where = f"/v2/{name}"
        self.put(f"{where}/blobs/sha256:{digest(layer)}", layer, media)
        layers = [{"mediaType": media, "digest": f"sha256:{digest(layer)}", "size": len(layer)}]
        manifest = json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers}).encode()
        self.put(f"{where}/manifests/sha256:{digest(manifest)}", manifest, MANIFEST)
        if index:
            manifests = [{"mediaType": MANIFEST, "digest": f"sha256:{digest(manifest)}"}]
            manifest = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
        self.put(f"{where}/manifests/{tag}", manifest, INDEX if index else MANIFEST)
        return f"oci://{self.host}/{name}:{tag}"

    def answer(self, path: str, authorization: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer."""
        path, _, _ = path.partition("?")
        self.asked.append(path)
        if path == "/token":
            basic = f"Basic {base64.b64encode(LOGIN.encode()).decode()}"
            return (200, {}, b'{"token": "good"}') if authorization == basic else (401, {}, b"")
        if any(path.startswith(f"/v2/{each}/") for each in self.private) and authorization != "Bearer good":
            challenge = f'Bearer realm="http://{self.host}/token",service="here",scope="repository:x:pull"'
            return 401, {"www-authenticate": challenge}, b""
        if path not in self.files:
            return 404, {}, b""
        media, body = self.files[path]
        return 200, {"content-type": media}, body
