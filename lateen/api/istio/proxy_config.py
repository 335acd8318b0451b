"""ProxyConfig: settings of the proxies themselves (networking.istio.io).

One attribute per field of the CRD; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

from lateen.api.istio.selectors import PolicySelector
from lateen.api.problems import Problem, at
from lateen.api.struct import Meta, NonNegativeInt32, Object, Struct

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_variable(name: str) -> bool:
    """True for a name that an environment variable of a proxy may have: not one that loads code into it."""
    return _VARIABLE.fullmatch(name) is not None and not name.startswith("LD_")


class ProxyImage(Struct, frozen=True):
    """Which build of the proxy runs."""

    image_type: str | None = None


class ProxyConfigSpec(Struct, frozen=True):
    """Settings of the proxies themselves."""

    concurrency: NonNegativeInt32 | None = None
    environment_variables: Mapping[str, Annotated[str, Meta(max_length=2048)]] = {}
    image: ProxyImage | None = None
    selector: PolicySelector | None = None

    def problems(self) -> Iterator[Problem]:
        for name in self.environment_variables:
            if not is_variable(name):
                remedy = "use letters, digits and _; variables of the loader (LD_...) are not set"
                yield Problem(at("environmentVariables", name), f'"{name[:80]}" cannot be set for a proxy', remedy)


class ProxyConfig(Object, frozen=True):
    """Settings of proxies."""

    GROUP: ClassVar[str] = "networking.istio.io"
    KIND: ClassVar[str] = "ProxyConfig"

    spec: ProxyConfigSpec = ProxyConfigSpec()
