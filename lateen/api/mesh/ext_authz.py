"""External authorizers in the mesh configuration: `extensionProviders[].envoyExtAuthzGrpc` and `envoyExtAuthzHttp`.

Source: https://istio.io/latest/docs/reference/config/istio.mesh.v1alpha1/ (MeshConfig.ExtensionProvider)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lateen.api.struct import Port, Struct, UInt32
from lateen.lib.durations import Duration

EXT_AUTHZ: Final = ("envoyExtAuthzGrpc", "envoyExtAuthzHttp")


class ExtAuthzRequestBody(Struct, frozen=True):
    """How much of a request's body goes to the authorizer."""

    allow_partial_message: bool = False
    max_request_bytes: UInt32 = 0
    pack_as_bytes: bool = False


class ExtGrpc(Struct, frozen=True):
    """An authorizer that speaks Envoy's gRPC protocol. `status_on_error` is an HTTP status as text."""

    service: str
    port: Port
    clear_route_cache: bool = False
    fail_open: bool = False
    include_request_body_in_check: ExtAuthzRequestBody | None = None
    status_on_error: str = ""
    timeout: Duration | None = None


class ExtHttp(Struct, frozen=True):
    """An authorizer that gets each request's head as an HTTP request of its own."""

    service: str
    port: Port
    clear_route_cache: bool = False
    fail_open: bool = False
    headers_to_downstream_on_allow: tuple[str, ...] = ()
    headers_to_downstream_on_deny: tuple[str, ...] = ()
    headers_to_upstream_on_allow: tuple[str, ...] = ()
    include_additional_headers_in_check: Mapping[str, str] = {}
    include_headers_in_check: tuple[str, ...] = ()
    include_request_body_in_check: ExtAuthzRequestBody | None = None
    include_request_headers_in_check: tuple[str, ...] = ()
    path_prefix: str = ""
    status_on_error: str = ""
    timeout: Duration | None = None


class ExtensionProvider(Struct, frozen=True):
    """A provider as far as authorization is concerned."""

    name: str
    envoy_ext_authz_grpc: ExtGrpc | None = None
    envoy_ext_authz_http: ExtHttp | None = None
