"""How much of the machine something uses: values that the node measures and the API shows."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Amount(msgspec.Struct, frozen=True):
    """Processors (1.5: one and a half) over a time, and memory that is resident at its end."""

    cpus: float
    memory_bytes: int


class Measured(msgspec.Struct, frozen=True):
    """One look. `at`: seconds since the epoch, `window_s` the time before it over which processors are counted;
    `pods` by uid and container, `nodes` by name. What started within the window is not in it."""

    at: float = 0.0
    window_s: float = 0.0
    pods: Mapping[str, Mapping[str, Amount]] = {}
    nodes: Mapping[str, Amount] = {}
