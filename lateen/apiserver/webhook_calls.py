"""How webhooks are reached: by a URL, or through a Service to one of its Pods.

The control plane is not in the Pods' network, so a Service's webhook is dialled from inside of a ready Pod behind it
(as `kubectl port-forward` does) and speaks TLS as `NAME.NAMESPACE.svc`, as in a cluster.

Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#contacting-the-webhook
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final

import httpcore
import httpx

from lateen.api.core.webhook_configuration import ServiceReference, WebhookClientConfig
from lateen.api.struct import Json, list_at, map_at
from lateen.apiserver.store import Store
from lateen.lib.ids import Ref

Dial = Callable[[str, str, int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""A connection to a Pod's port, by namespace and name."""

FAILURES: Final = (
    httpx.HTTPError,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    OSError,
    TimeoutError,
    ValueError,
)
"""What a call may fail with."""

_MOST_S: Final = 30
_HEADERS: Final[list[tuple[str, str]]] = [("content-type", "application/json")]
_SLICES: Final = ("discovery.k8s.io", "EndpointSlice")
_SERVICE_LABEL: Final = "kubernetes.io/service-name"
_HTTPS: Final = 443


class Caller:
    """Calls webhooks. `dial`: None where there are no Pods."""

    def __init__(self, store: Store, dial: Dial | None) -> None:
        self._store = store
        self._dial = dial
        self._clients: dict[bytes, httpx.AsyncClient] = {}

    async def close(self) -> None:
        """Ends the connections."""
        for each in self._clients.values():
            await each.aclose()

    async def post(self, config: WebhookClientConfig, content: bytes, at_most_bytes: int) -> tuple[int, bytes]:
        """Status and body of the answer. One of FAILURES when there is none, or a larger one."""
        context = _context(config.ca_bundle)
        if config.service is not None:
            return await self._to_service(config.service, context, content, at_most_bytes)
        assert config.url is not None
        client = self._client(config.ca_bundle, context)
        async with client.stream("POST", config.url, content=content, headers=_HEADERS) as response:
            return response.status_code, await _read(response.aiter_bytes(), at_most_bytes)

    def _client(self, ca_bundle: Any, context: ssl.SSLContext) -> httpx.AsyncClient:
        key = str(ca_bundle or "").encode()
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = httpx.AsyncClient(verify=context, timeout=_MOST_S, trust_env=False)
        return client

    async def _to_service(
        self, service: ServiceReference, context: ssl.SSLContext, content: bytes, at_most_bytes: int
    ) -> tuple[int, bytes]:
        host = f"{service.name}.{service.namespace}.svc"
        url = f"https://{host}:{service.port or _HTTPS}/{(service.path or '').removeprefix('/')}"
        backend = _Backend(lambda: self._connect(service))
        async with (
            httpcore.AsyncConnectionPool(ssl_context=context, network_backend=backend) as pool,
            pool.stream("POST", url, headers=_HEADERS, content=content) as response,
        ):
            return response.status, await _read(response.aiter_stream(), at_most_bytes)

    async def _connect(self, service: ServiceReference) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        where = f"service {service.namespace}/{service.name}"
        row = self._store.get(Ref("", "Service", service.namespace, service.name))
        if row is None:
            raise ValueError(f"there is no {where}")
        if self._dial is None:
            raise ValueError(f"no Pods run here that could be behind {where}")
        wanted = service.port or _HTTPS
        ports = [each for each in list_at(row.decode().get("spec"), "ports") if each.get("port") == wanted]
        if not ports:
            raise ValueError(f"{where} has no port {wanted}")
        found = list(self._endpoints(service, ports[0].get("name") or ""))
        if not found:
            raise ValueError(f"no ready Pod is behind {where}")
        pod, port = secrets.choice(found)
        return await self._dial(service.namespace, pod, port)

    def _endpoints(self, service: ServiceReference, port_name: str) -> Iterable[tuple[str, int]]:
        for row in self._store.list(_SLICES, service.namespace):
            if row.labels.get(_SERVICE_LABEL) != service.name:
                continue
            document: Json = row.decode()
            ports = [each["port"] for each in list_at(document, "ports") if (each.get("name") or "") == port_name]
            for each in list_at(document, "endpoints") if ports else ():
                target = map_at(each, "targetRef")
                if target.get("kind") == "Pod" and map_at(each, "conditions").get("ready", True):
                    yield target["name"], ports[0]


async def _read(parts: AsyncIterator[bytes], at_most_bytes: int) -> bytes:
    content = b""
    async for part in parts:
        content += part
        if len(content) > at_most_bytes:
            raise ValueError("the answer is too large")
    return content


def _context(ca_bundle: Any) -> ssl.SSLContext:
    if ca_bundle:
        return ssl.create_default_context(cadata=base64.b64decode(ca_bundle).decode())
    return ssl.create_default_context()


class _Backend(httpcore.AsyncNetworkBackend):
    """Connections that come from elsewhere than from a name and a port."""

    def __init__(self, connect: Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]) -> None:
        self._connect = connect

    async def connect_tcp(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        return _Stream(*await self._connect())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 (their interface)
        return await self._reader.read(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        self._writer.write(buffer)
        await self._writer.drain()

    async def aclose(self) -> None:
        self._writer.close()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        return self

    def get_extra_info(self, info: str) -> Any:
        return self._writer.get_extra_info("ssl_object") if info == "ssl_object" else None
