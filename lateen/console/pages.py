"""The control plane's pages on loopback: one overview for people, JSON for programs, health and metrics.

    /            objects with findings, proxies in sync, Pods, where things are
    /api/...     the same as JSON: overview, proxies, objects[/KIND]
    /healthz /readyz /metrics

Read-only, no script, nothing from elsewhere. Only requests that name this machine are answered, so that a page on
the web cannot read the mesh through a name it points at 127.0.0.1.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route

from lateen import __version__
from lateen.api.struct import Json
from lateen.apiserver.rows import Row
from lateen.apiserver.users import User
from lateen.console.certificates import of_files, of_secrets, of_workloads
from lateen.console.data import Mesh, View, findings_of, json_response, mesh_routes, metrics_response, proxy_json
from lateen.console.glance import Glance, glance
from lateen.console.login import Login

PROXY: Final = "istio-proxy"
"""The container that a Pod's proxy is."""
_HOSTS = ["localhost", "127.0.0.1"]
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_HEADERS = {"content-security-policy": _POLICY, "referrer-policy": "same-origin"}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #1c2024; }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .3rem .8rem .3rem 0;
border-bottom: 1px solid #d8dce0; vertical-align: top; overflow-wrap: anywhere } th { font-weight: 600 }
.error, .REFUSED { color: #b42318 } .warning, .STALE { color: #93570c } .SYNCED, .ok { color: #1d6b3a }
code { font-size: .9em } p.none { color: #60666c }
@media (prefers-color-scheme: dark) { body { background: #15181b; color: #e4e7ea } th, td { border-color: #33383d }
.error, .REFUSED { color: #ff8a7a } .warning, .STALE { color: #e8b04c } .SYNCED, .ok { color: #6fcf97 } }
"""

_TYPES = ("CDS", "EDS", "ECDS", "LDS", "RDS", "VHDS", "SDS")


def pages(mesh: Mesh, login: Login | None = None) -> Starlette:
    """The pages as an ASGI application; with `login` for who has logged in."""

    async def index(request: Request) -> Response:
        view = mesh.view(request)
        return page(mesh.name, render(view, _glance(view, await of_workloads(view.layout))))

    async def healthy(_: Request) -> Response:
        return Response("ok\n")

    async def ready(_: Request) -> Response:
        return Response("ok\n") if mesh.ready() else Response("loading\n", status_code=503)

    routes = mesh_routes(mesh)
    api = [Route(each.path.removeprefix("/lateen/v1"), each.endpoint) for each in routes
           if each.path.startswith("/lateen/v1/")]  # fmt: skip
    rest = [each for each in routes if not each.path.startswith("/lateen/v1/")]
    return Starlette(
        routes=[
            Route("/", index),
            Route("/healthz", healthy),
            Route("/readyz", ready),
            Mount("/api", routes=api),
            *rest,
            *(login.routes if login is not None else ()),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS),
            *([Middleware(login.asked)] if login is not None else ()),
        ],
    )


def debug_pages(mesh: Mesh, routes: Sequence[Route]) -> Starlette:
    """What programs ask for: health, version and metrics for everybody on this machine, and `routes`."""

    async def ready(_: Request) -> Response:
        return Response("ok\n") if mesh.ready() else Response("loading\n", status_code=503)

    async def version(_: Request) -> Response:
        return json_response({"version": __version__})

    async def metrics(_: Request) -> Response:
        return metrics_response(mesh)

    return Starlette(
        routes=[Route("/ready", ready), Route("/version", version), Route("/metrics", metrics), *routes],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=_HOSTS)],
    )


def render(view: View, seen: Glance) -> str:
    """The overview; `seen`: what is not well."""
    state = "ready" if view.ready else "loading"
    parts = [
        _who(view.user),
        f"<h1>{escape(view.name)}</h1><p>{state} at revision {view.revision}, {len(view.rows)} objects</p>",
        f"<p>{escape(seen.summary)}</p>",
        *(_listed(title, lines) for title, lines in seen.parts),
        _section("Findings", ("Level", "Object", "Where", "What", "Remedy"), _finding_rows(view.rows)),
        _section("Proxies", ("Proxy", "Kind", *_TYPES), _proxy_rows(view)),
        _section("Pods", ("Pod", "Phase", "Ready", "Address"), _pod_rows(view.rows)),
        _section("Objects", ("Kind", "Object", "Generation", "Findings"), _object_rows(view.rows)),
        _section("Where things are", ("What", "Path"), _path_rows(view)),
    ]
    return "".join(parts)


def _glance(view: View, workloads: list[Json]) -> Glance:
    objects = [row.decode() for row in view.rows if row.ref.group.endswith(".istio.io")]
    secrets = [row.decode() for row in view.rows if row.ref.kind == "Secret"]
    pods = [(row.ref, _status_of(row)) for row in view.rows if row.ref.kind == "Pod"]
    expected = [
        f"{ref.name}.{ref.namespace}"
        for ref, status in pods
        if status.get("phase") == "Running"
        and any(each["name"] == PROXY for each in status.get("containerStatuses") or ())
    ]
    certificates = [*of_files(view.layout), *of_secrets(secrets, objects)]
    proxies = [proxy_json(each) for each in view.proxies]
    return glance(proxies, objects, expected, certificates, dt.datetime.now(dt.UTC), workloads)


def _status_of(row: Row) -> Json:
    return row.decode().get("status") or {}


def _listed(title: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h2>{escape(title.capitalize())}</h2><ul>{items}</ul>"


def page(title: str, content: str) -> HTMLResponse:
    """A page: no script, nothing from elsewhere, its forms for these pages alone."""
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>lateen: {escape(title)}"
    text = f"<!doctype html><html lang=en><head>{head}</title><style>{_STYLE}</style></head><body>{content}</body>"
    return HTMLResponse(text, headers=_HEADERS)


def _who(user: User | None) -> str:
    if user is None:
        return ""
    return f"<form method=post action=/logout><p>{escape(user.name)} <button>Log out</button></p></form>"


def _section(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    if not cells:
        return f"<h2>{title}</h2><p class=none>none</p>"
    head = "".join(f"<th>{column}</th>" for column in columns)
    return f"<h2>{title}</h2><table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _finding_rows(rows: Sequence[Row]) -> Iterable[Sequence[str]]:
    for row in rows:
        for each in findings_of(row):
            yield (
                f"<span class={each.level.value}>{each.level.value}</span> {escape(each.code)}",
                escape(row.ref.short),
                escape(str(each.position or each.path)),
                escape(each.message),
                escape(each.remedy),
            )


def _proxy_rows(view: View) -> Iterable[Sequence[str]]:
    for status in view.proxies:
        each = proxy_json(status)
        types: dict[str, Json] = each["types"]
        yield (
            escape(f"{each['namespace']}/{each['name']}"),
            escape(each["kind"]),
            *(_type_cell(types.get(short)) for short in _TYPES),
        )


def _type_cell(status: Json | None) -> str:
    if status is None:
        return "-"
    said = escape("; ".join(f"{name}: {error}" for name, error in status["errors"].items()))
    return f"<span class={status['state']} title='{said}'>{status['state']}</span> {status['held']}"


def _pod_rows(rows: Sequence[Row]) -> Iterable[Sequence[str]]:
    for row in rows:
        if row.ref.kind == "Pod":
            status: Json = row.decode().get("status") or {}
            ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", ()))
            yield (
                escape(f"{row.ref.namespace}/{row.ref.name}"),
                escape(status.get("phase", "Pending")),
                "<span class=ok>yes</span>" if ready else "<span class=warning>no</span>",
                escape(status.get("podIP", "-")),
            )


def _object_rows(rows: Sequence[Row]) -> Iterable[Sequence[str]]:
    for row in rows:
        if row.ref.kind not in ("Pod", "EndpointSlice"):
            name = f"{row.ref.namespace}/{row.ref.name}" if row.ref.namespace else row.ref.name
            held = " <span class=error>refused by proxies</span>" if row.held else ""
            yield (
                escape(row.ref.kind),
                f"{escape(name)}{held}",
                str(row.generation),
                str(len(findings_of(row)) or ""),
            )


def _path_rows(view: View) -> Iterable[Sequence[str]]:
    layout = view.layout
    for what, path in (("state", layout.state), ("logs", layout.logs), ("API", layout.api_socket)):
        yield (what, f"<code>{escape(str(path))}</code>")
