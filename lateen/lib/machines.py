"""What a machine outside of the Pods (a virtual machine) and the control plane say to each other.

A machine joins over one gRPC stream, `/lateen.machines.v1.Machines/Join`, on the port that asks for client
certificates: it says where it is and, from then on, how its application does; the control plane says which
WorkloadEntry it is, how to probe the application, and what names the mesh has. Messages are JSON, tagged by `type`.

The stream is the registration: the entry lives as long as the stream, and a while longer (`GRACE_S`), so that a
machine that comes back soon was never away. One that says that it leaves is gone at once.
"""

from __future__ import annotations

from typing import Any

import msgspec

SERVICE = "lateen.machines.v1.Machines"
METHOD = f"/{SERVICE}/Join"
GRACE_S = 10.0
"""How long an entry outlives the stream of its machine."""
ADDRESS_KEY = "ADDRESS"
"""In the metadata of a certificate request: the address of the machine that asks."""
PEER_TYPE = "workloadgroup"
"""The `type` in the certificate of a machine, whose `workload` is the WorkloadGroup then."""
NAME_KINDS = ("Service", "EndpointSlice", "ServiceEntry")
"""The kinds that the names of the mesh are made of."""

Json = dict[str, Any]


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The first message of a machine. `machine` is a random text of its own that it keeps for ever: it tells the
    same machine on a new connection from another one with the same address."""

    address: str
    machine: str
    version: str = ""


class Health(msgspec.Struct, frozen=True, tag="health"):
    """What the probe of the application found last."""

    healthy: bool
    message: str = ""


class Leaving(msgspec.Struct, frozen=True, tag="leaving"):
    """The last message of a machine that does not come back."""


class ProxySettings(msgspec.Struct, frozen=True):
    """How the machine's proxy is to be started: threads (None: as the agent likes, 0: one for each processor),
    variables of its process, further fields of its node's metadata, and how long replaced listeners drain."""

    concurrency: int | None = None
    environment: dict[str, str] = {}
    metadata: dict[str, str] = {}
    drain_s: float | None = None


class Joined(msgspec.Struct, frozen=True, tag="joined"):
    """The machine's WorkloadEntry, the `probe` of its group as written there (None: there is none), and the settings
    of its proxy at its next start. Sent again when the group changes."""

    namespace: str
    entry: str
    probe: Json | None = None
    proxy: ProxySettings = ProxySettings()


class Objects(msgspec.Struct, frozen=True, tag="objects"):
    """Objects that names are made of. With `listing` they are all of that kind; `gone` are (namespace, name)."""

    kind: str
    items: tuple[Json, ...] = ()
    gone: tuple[tuple[str, str], ...] = ()
    listing: bool = False


FromMachine = Hello | Health | Leaving
ToMachine = Joined | Objects

encode = msgspec.json.encode
from_machine = msgspec.json.Decoder(FromMachine).decode
to_machine = msgspec.json.Decoder(ToMachine).decode
