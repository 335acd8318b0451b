"""Fetches WebAssembly modules for the whole mesh, in the control plane, and keeps them.

Each source has a task: take what is kept, or fetch; check that it is WebAssembly and has the checksum that is asked
for; publish. A source that is to be looked at again (`always`) is, every REFRESH_S; a failure is tried again ever more
slowly, and what was good before stays in force. Kept files are named after their source and checked when they are read.

Files are those of the machine that the control plane runs on. Fetches by HTTP are restrained
(`lateen/security/fetching.py`) and end after TIMEOUT_S.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import stat
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import httpcore
import msgspec
import structlog

from lateen.lib.secrets import Masked
from lateen.model.extensions import Module, ModuleSource
from lateen.security.fetching import FetchError, get, pool, shown
from lateen.security.files import write_secret
from lateen.security.following import Following, backoff_s
from lateen.security.oci import login_for, pull

MAX_BYTES: Final = 32 << 20
TIMEOUT_S: Final = 30.0
REFRESH_S: Final = 60.0
HEAD: Final = b"\0asm\1\0\0\0"
"""How every module begins: its magic number and version."""

_log = structlog.stdlib.get_logger("lateen.modules")

Login = Callable[[ModuleSource], Masked | None]
"""The Docker configuration of a source's pull secret, None when there is none."""


class ModuleFetcher:
    """Keeps the modules of all sources that are wanted. `publish` is told of each module and each problem.

    `wait` is the clock; tests bring their own.
    """

    def __init__(
        self,
        publish: Callable[[ModuleSource, Module], None],
        login: Login,
        cache: Path | None = None,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
        roots: ssl.SSLContext | None = None,
    ) -> None:
        self.fetched = 0
        self._publish = publish
        self._login = login
        self._cache = cache
        self._wait = wait
        self._roots = roots
        self._following = Following(self._follow, self._forget)

    def want(self, sources: Iterable[ModuleSource]) -> None:
        """Says which sources are needed from now on."""
        self._following.want(sources)

    async def run(self) -> None:
        """Fetches until cancelled."""
        await self._following.run()

    async def _follow(self, source: ModuleSource) -> None:
        known = self._kept(source)
        if known is not None:
            self._publish(source, Module(known))
            if not source.always:
                return
        failures = 0
        while True:
            try:
                body = await fetch(source, self._login(source), self._roots)
            except FetchError as error:
                failures += 1
                if failures == 1:
                    _log.warning("module not fetched", source=shown(source.url), reason=str(error))
                    if known is None:
                        self._publish(source, Module(problem=str(error)))
                delay_s = backoff_s(failures)
            else:
                failures = 0
                self.fetched += 1
                if body != known:
                    known = body
                    self._keep(source, body)
                    self._publish(source, Module(body))
                if not source.always:
                    return
                delay_s = REFRESH_S
            await self._wait(delay_s)

    def _file(self, source: ModuleSource) -> Path | None:
        if self._cache is None or source.url.startswith("file://"):
            return None
        return self._cache / f"{hashlib.sha256(msgspec.json.encode(source)).hexdigest()}.wasm"

    def _kept(self, source: ModuleSource) -> bytes | None:
        file = self._file(source)
        if file is None or not file.exists():
            return None
        digest, _, body = file.read_bytes().partition(b"\n")
        return body if hashlib.sha256(body).hexdigest() == digest.decode(errors="replace") else None

    def _keep(self, source: ModuleSource, body: bytes) -> None:
        if (file := self._file(source)) is not None:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_secret(file, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)

    def _forget(self, source: ModuleSource) -> None:
        if (file := self._file(source)) is not None:
            file.unlink(missing_ok=True)


async def fetch(source: ModuleSource, secret: Masked | None, roots: ssl.SSLContext | None = None) -> bytes:
    """The module of a source now. FetchError when there is none, or another than was asked for."""
    if source.secret and secret is None:
        raise FetchError(f"there is no Secret {source.namespace}/{source.secret} with .dockerconfigjson")
    parts = urlsplit(source.url)
    image = ""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            if parts.scheme == "file":
                body = await asyncio.to_thread(_read, Path(unquote(parts.path)))
            else:
                async with pool(roots) as connections:
                    if parts.scheme == "oci":
                        login = login_for(secret.reveal(), parts.netloc) if secret is not None else ""
                        body, image = await pull(connections, source.url, login, MAX_BYTES)
                    else:
                        body = (await get(connections, source.url, {"accept": "*/*"}, MAX_BYTES)).body
    except TimeoutError:
        raise FetchError(f"no answer within {TIMEOUT_S:g} s") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
        raise FetchError(f"{type(error).__name__}: {error}") from None
    if not body.startswith(HEAD):
        raise FetchError("it is not WebAssembly: it begins with something else")
    digest = hashlib.sha256(body).hexdigest()
    if source.sha256 and source.sha256 not in (digest, image):
        raise FetchError(f"its checksum is {digest}, and {source.sha256} is asked for")
    return body


def _read(path: Path) -> bytes:
    try:
        known = path.stat()
        if not stat.S_ISREG(known.st_mode) or known.st_size > MAX_BYTES:
            raise FetchError(f"{path} is no file of up to {MAX_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise FetchError(f"{path} cannot be read: {error.strerror}") from None
