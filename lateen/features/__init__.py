"""What routes can do, one file each. To add one: its file, its slot in `RouteIntent`, a line here."""

from __future__ import annotations

from typing import Any, Final

from lateen.features import (
    cors,
    direct_response,
    dynamic_host,
    fault,
    hash_policy,
    headers,
    mirror,
    redirect,
    retries,
    rewrite,
    timeout,
)
from lateen.features.feature import Feature

FEATURES: Final[tuple[Feature[Any], ...]] = (
    redirect.FEATURE,
    direct_response.FEATURE,
    rewrite.FEATURE,
    timeout.FEATURE,
    retries.FEATURE,
    hash_policy.FEATURE,
    mirror.FEATURE,
    headers.FEATURE,
    fault.FEATURE,
    cors.FEATURE,
    dynamic_host.FEATURE,
)
"""Every feature, in the order in which they write into a route; the first two decide what kind of route it is."""
