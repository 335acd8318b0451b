"""A WebAssembly module out of an image in a registry, by the registry's HTTP API.

Two forms are known: an artifact whose layer is the module itself, and an image whose last layer is a tar archive with
the file `plugin.wasm`. Every blob is checked against the digest that names it. Registries on loopback are spoken to
without TLS.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md,
https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import tarfile
from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import urlencode

import httpcore
import msgspec

from lateen.security.fetching import FetchError, get

MANIFEST_BYTES: Final = 1 << 22
_PLUGIN: Final = "plugin.wasm"
_INDEXES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_REFERENCE: Final = re.compile(r"oci://([^/]+)/([a-z0-9._/-]+?)(?::([\w.-]+))?(?:@(sha256:[0-9a-f]{64}))?")
_CHALLENGE: Final = re.compile(r'(\w+)="([^"]*)"')


class _Registry:
    """One repository of a registry; it answers a challenge once and remembers how."""

    def __init__(self, pool: httpcore.AsyncConnectionPool, host: str, repository: str, login: str) -> None:
        scheme = "http" if host.rpartition(":")[0] in ("localhost", "127.0.0.1") else "https"
        self._base = f"{scheme}://{host}/v2/{repository}"
        self._pool = pool
        self._login = login
        self._authorization = ""

    async def get(self, path: str, accept: str, max_bytes: int) -> bytes:
        """A document of the repository."""
        url = f"{self._base}/{path}"
        for _ in range(2):
            headers = {"accept": accept} | ({"authorization": self._authorization} if self._authorization else {})
            found = await get(self._pool, url, headers, max_bytes, (200, 401))
            if found.status == 200:
                return found.body
            if self._authorization:
                break
            self._authorization = await self._answer(found.headers.get("www-authenticate", ""))
        raise FetchError(f"the registry lets nobody read {path.partition('/')[2]} with these credentials")

    async def _answer(self, challenge: str) -> str:
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "basic" and self._login:
            return f"Basic {self._login}"
        said = dict(_CHALLENGE.findall(rest))
        if scheme.lower() != "bearer" or "realm" not in said:
            raise FetchError("the registry asks for credentials: set imagePullSecret")
        query = urlencode({name: said[name] for name in ("service", "scope") if name in said})
        headers = {"authorization": f"Basic {self._login}"} if self._login else {}
        found = await get(self._pool, f"{said['realm']}?{query}", headers, MANIFEST_BYTES)
        token = _document(found.body)
        return f"Bearer {token.get('token') or token.get('access_token') or ''}"


async def pull(pool: httpcore.AsyncConnectionPool, reference: str, login: str, max_bytes: int) -> tuple[bytes, str]:
    """The module of an image, and the digest (hexadecimal SHA-256) of the image itself. `login` is `user:password` in
    base64, empty for none."""
    matched = _REFERENCE.fullmatch(reference)
    if matched is None:
        raise FetchError("it is no image reference such as oci://registry.example/name:tag")
    host, repository, tag, digest = matched.groups()
    registry = _Registry(pool, host, repository, login)
    manifest, image = await _manifest(registry, digest or tag or "latest", digest or "")
    layers: list[dict[str, Any]] = manifest.get("layers") or []
    if not layers:
        raise FetchError("the image has no layers")
    layer = layers[-1]
    media, name = str(layer.get("mediaType", "")), str(layer.get("digest", ""))
    body = await registry.get(f"blobs/{name}", media or "*/*", max_bytes)
    _check(body, name)
    return (body if "wasm" in media else _unpacked(body, max_bytes)), image


async def _manifest(registry: _Registry, reference: str, digest: str) -> tuple[dict[str, Any], str]:
    accept = ", ".join((*_MANIFESTS, *_INDEXES))
    body = await registry.get(f"manifests/{reference}", accept, MANIFEST_BYTES)
    if digest:
        _check(body, digest)
    found = _document(body)
    if found.get("manifests"):
        inner = str(cast("list[dict[str, Any]]", found["manifests"])[0].get("digest", ""))
        return await _manifest(registry, inner, inner)
    return found, hashlib.sha256(body).hexdigest()


def _check(body: bytes, digest: str) -> None:
    if digest != f"sha256:{hashlib.sha256(body).hexdigest()}":
        raise FetchError("the registry sent something else than the digest says")


def _unpacked(body: bytes, max_bytes: int) -> bytes:
    try:
        with tarfile.open(fileobj=io.BytesIO(body)) as archive:
            for member in archive:
                if member.isfile() and member.name.removeprefix("./") == _PLUGIN:
                    if member.size > max_bytes:
                        raise FetchError(f"{_PLUGIN} has more than {max_bytes} bytes")
                    file = archive.extractfile(member)
                    assert file is not None
                    return file.read()
    except (tarfile.TarError, OSError, EOFError):
        raise FetchError("the image's last layer is neither a module nor an archive") from None
    raise FetchError(f"the image's last layer has no file {_PLUGIN}")


def _document(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError:
        raise FetchError("the registry's answer is no JSON") from None


def login_for(config: bytes, host: str) -> str:
    """The `user:password` (base64) that a Docker configuration has for a registry; empty for none."""
    try:
        auths: Mapping[str, Any] = msgspec.json.decode(config, type=dict[str, Any]).get("auths") or {}
        for name, entry in auths.items():
            if name.removeprefix("https://").removeprefix("http://").partition("/")[0] == host:
                if entry.get("auth"):
                    return str(entry["auth"])
                both = f"{entry.get('username', '')}:{entry.get('password', '')}"
                return base64.b64encode(both.encode()).decode()
    except (msgspec.MsgspecError, AttributeError, binascii.Error):
        return ""
    return ""
