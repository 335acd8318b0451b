"""ProxyConfig: settings of the proxies themselves (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from lateen.api.istio.selectors import PolicySelector
from lateen.api.struct import Meta, NonNegativeInt32, Object, Struct


class ProxyImage(Struct, frozen=True):
    """Which build of the proxy runs."""

    image_type: str | None = None


class ProxyConfigSpec(Struct, frozen=True):
    """Settings of the proxies themselves."""

    concurrency: NonNegativeInt32 | None = None
    environment_variables: Mapping[str, Annotated[str, Meta(max_length=2048)]] = {}
    image: ProxyImage | None = None
    selector: PolicySelector | None = None


class ProxyConfig(Object, frozen=True):
    """Settings of proxies."""

    GROUP: ClassVar[str] = "networking.istio.io"
    KIND: ClassVar[str] = "ProxyConfig"

    spec: ProxyConfigSpec = ProxyConfigSpec()
