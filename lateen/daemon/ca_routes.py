"""`/lateen/v1/ca`: what the mesh trusts and signs with, and replacing it. Private keys go in here and never come out.

GET  /lateen/v1/ca             the CA, its roots, where a replacement is and who is behind
POST /lateen/v1/ca             {"do": "begin" | "switch" | "retire", "files": {"ca-cert.pem": TEXT, ...}}
"""

from __future__ import annotations

from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lateen.api.struct import Json
from lateen.apiserver.errors import BadRequestError, ConflictError, TooLargeError
from lateen.daemon.authority import Authority, describe
from lateen.security.ca import CaError

_BYTES = 1 << 20


class _Order(msgspec.Struct, frozen=True):
    do: Literal["begin", "switch", "retire"]
    files: dict[str, str] | None = None


def ca_routes(authority: Authority) -> list[Route]:
    """The routes, for the API that only the mesh's own user can open."""

    async def show(_: Request) -> Response:
        return _answer(authority)

    async def order(request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _BYTES:
                raise TooLargeError(f"the request is larger than {_BYTES} bytes")
        try:
            asked = msgspec.json.decode(body, type=_Order)
        except msgspec.DecodeError as error:
            raise BadRequestError(f"the request cannot be read: {error}") from None
        try:
            match asked.do:
                case "begin":
                    files = asked.files
                    authority.begin({name: text.encode() for name, text in files.items()} if files else None)
                case "switch":
                    authority.custody.switch()
                case "retire":
                    authority.custody.retire()
        except CaError as error:
            raise ConflictError(str(error), remedy=error.remedy) from None
        return _answer(authority)

    return [Route("/lateen/v1/ca", show), Route("/lateen/v1/ca", order, methods=["POST"])]


def _answer(authority: Authority) -> Response:
    ca = authority.ca()
    retires_at = authority.custody.retires_at
    found: Json = {
        "trustDomain": authority.domain(),
        "signing": describe(ca.certificate),
        "roots": [describe(each) for each in ca.roots],
        "intermediates": len(ca.chain_pem),
        "certificatesLastSeconds": int(ca.longest.total_seconds()),
        "revocationLists": ca.revoked_pem.count("BEGIN X509 CRL"),
        "stage": authority.custody.stage,
        "retiresAt": f"{retires_at:%Y-%m-%dT%H:%M:%SZ}" if retires_at is not None else "",
        "behind": list(authority.behind()),
        "bundle": ca.trust_pem,
    }
    return Response(msgspec.json.encode(found), media_type="application/json")
