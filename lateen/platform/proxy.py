"""The Envoy of a Pod on the local platform: its bootstrap, and the program that the Pod's init runs.

Settings and patches of the bootstrap hold from the proxy's start to its end. Patches are tried on Envoy before: one
that it would not start with is left out, so that it costs neither the proxy nor the other patches. What a proxy was
started with is kept in its Pod's directory, so that a later change can be told from it, also by another node process.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from lateen.api.struct import Json
from lateen.lib.findings import Finding, Level
from lateen.lib.ids import Ref
from lateen.lib.layout import Layout
from lateen.model.envoy_filters import BootstrapPatch
from lateen.model.proxy_config import ProxySettings
from lateen.node import bootstrap as envoy
from lateen.platform.controllers import documents as d
from lateen.platform.pod import ContainerState, Proxy
from lateen.platform.policies import Policies
from lateen.platform.process import open_files
from lateen.platform.settings import PlatformSettings
from lateen.platform.translate import Injection

PATCH_REFUSED: Final = "LTN0267"
"""A patch of the bootstrap was left out."""
SETTINGS_CHANGED: Final = "LTN0268"
"""A proxy runs with the settings of before."""
DRAIN_S = 5
"""How long a proxy drains when nobody says otherwise: connections of listeners that were replaced, and at its end."""
_TRIAL_S = 20.0

Patches = tuple[BootstrapPatch, ...]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What every Pod's proxy is told of the mesh. `drain_s`: between leaving the endpoints and SIGTERM."""

    node_name: str
    layout: Layout
    envoy_binary: Path
    platform: PlatformSettings = PlatformSettings()
    trust_domain: str = "cluster.local"
    drain_s: float = 1.0


class Start(msgspec.Struct, frozen=True):
    """What a proxy was started with, and which patches Envoy did not take: the place of each, and Envoy's words."""

    digest: str
    refused: dict[str, str] = {}
    trying: tuple[str, ...] = ()
    """Patches with which it has not been ready yet."""


class PodProxy:
    """The proxy of one Pod, at an address."""

    def __init__(self, facts: Facts, policies: Policies, pod: Json, injected: Injection, address: str) -> None:
        self._facts = facts
        self._pod = pod
        self._directory = facts.layout.pod(d.uid(pod))
        self._settings = policies.proxy(pod)
        self._spec = _spec(facts, pod, injected, address, self._settings)
        metadata = {key: each for key, each in envoy.node_metadata(self._spec).items() if isinstance(each, str)}
        self._patches = policies.bootstrap(pod, metadata, router=injected.kind == "router")

    async def prepare(self) -> Proxy:
        """Writes the bootstrap, with those patches that Envoy takes; what is to be run."""
        taken, refused = await tried(self._patches, self._complaint)
        await self._write(taken)
        self._keep(Start(self._digest, refused, tuple(map(_place, taken))))
        drain_s = self._settings.termination_drain_s
        return Proxy(
            argv=self._argv,
            env=dict(self._settings.environment),
            paths=(str(self._directory), str(self._facts.layout.xds_socket.parent)),
            admin_socket=self._spec.admin_path,
            drain_s=DRAIN_S if drain_s is None else drain_s,
        )

    async def look(self, state: ContainerState | None) -> list[Finding]:
        """What there is to say of the proxy as it was started, with its settings as they are now. One that ends before
        it was ever ready is started again without patches: what they ask for may fail only then."""
        try:
            start = msgspec.json.decode(self._started.read_bytes(), type=Start)
        except (OSError, msgspec.MsgspecError):
            return []
        if start.trying and state is not None and (state.ready or state.last is not None):
            why = f"it ended: {state.last.message}" if state.last is not None and not state.ready else ""
            if why:
                await self._write(())  # what runs it starts it anew from this file
            refused = {**start.refused, **dict.fromkeys(start.trying if why else (), why)}
            start = Start(start.digest, refused)
            self._keep(start)
        return list(self._findings(start))

    def _findings(self, start: Start) -> Iterator[Finding]:
        ref = Ref("", "Pod", d.namespace(self._pod), d.name(self._pod))
        for place, error in start.refused.items():
            message = f"the proxy was started without {place}: {error}"
            remedy = "correct the patch, then restart the Pod"
            yield Finding(code=PATCH_REFUSED, level=Level.WARNING, message=message, ref=ref, path="spec", remedy=remedy)
        if start.digest != self._digest:
            message = "the settings of the proxy have changed since it was started, and hold when it starts anew"
            remedy = "restart the Pod when it suits: delete it, or `kubectl rollout restart` what made it"
            yield Finding(code=SETTINGS_CHANGED, level=Level.INFO, message=message, ref=ref, path="spec", remedy=remedy)

    def _keep(self, start: Start) -> None:
        self._started.write_bytes(msgspec.json.encode(start))

    @property
    def _config(self) -> Path:
        return self._directory / "envoy.json"

    @property
    def _started(self) -> Path:
        return self._directory / "started.json"

    @property
    def _argv(self) -> tuple[str, ...]:
        return tuple(envoy.argv(self._spec, self._facts.envoy_binary, self._config))

    @property
    def _digest(self) -> str:
        return sha256(msgspec.json.encode((self._settings, self._patches), order="deterministic")).hexdigest()

    async def _write(self, patches: Patches) -> None:
        document = envoy.bootstrap(self._spec)
        if patches:
            document = await asyncio.to_thread(_patched, document, patches)
        envoy.write_bootstrap(document, self._config)

    async def _complaint(self, patches: Patches) -> str:
        """Why Envoy would not start with these patches; empty when it would."""
        await self._write(patches)
        process = await asyncio.create_subprocess_exec(
            *(*self._argv, "--mode", "validate"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_TRIAL_S):
                _, said = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return f"Envoy did not judge it in {_TRIAL_S:.0f} s"
        if process.returncode == 0:
            return ""
        last = (said.decode(errors="replace").strip().splitlines() or [f"Envoy ended with {process.returncode}"])[-1]
        return last.rpartition(f"'{self._config}': ")[2][:400]


async def tried(patches: Patches, complaint: Callable[[Patches], Awaitable[str]]) -> tuple[Patches, dict[str, str]]:
    """The patches that `complaint` has nothing against, and what it has against the others, by their place."""
    if not patches or not await complaint(patches):
        return patches, {}
    taken: Patches = ()
    refused: dict[str, str] = {}
    for each in patches:
        if error := await complaint((*taken, each)):
            refused[_place(each)] = error
        else:
            taken = (*taken, each)
    return taken, refused


def _place(patch: BootstrapPatch) -> str:
    """Where a patch is written, for people."""
    return f"{patch.ref.ref.short} spec.configPatches[{patch.ref.index}]"


def _patched(document: Json, patches: Patches) -> Json:
    # Envoy's messages are much code, which a node without such patches goes without.
    from lateen.envoy.patch_bootstrap import patched_bootstrap

    return patched_bootstrap(document, patches)


def _spec(facts: Facts, pod: Json, injected: Injection, address: str, settings: ProxySettings) -> envoy.BootstrapSpec:
    directory = facts.layout.pod(d.uid(pod))
    owner = d.owner(pod)
    return envoy.BootstrapSpec(
        pod=d.name(pod),
        namespace=d.namespace(pod),
        ip=address,
        xds=envoy.XdsAddress(path=str(facts.layout.xds_socket)),
        sds_path=str(directory / "sds.sock"),
        admin_path=str(directory / "admin.sock"),
        kind=injected.kind,
        service_account=d.spec(pod).get("serviceAccountName") or "default",
        labels=d.labels(pod),
        annotations=d.annotations_of(pod),
        workload=owner["name"] if owner else d.name(pod),
        node_name=facts.node_name,
        locality=envoy.labelled_locality(d.labels(pod)),
        trust_domain=facts.trust_domain,
        domain=facts.platform.cluster_domain,
        host_sockets={port: str(directory / f"gw-{port}.sock") for port in injected.ports},
        resolver=f"{facts.platform.gateway}:{facts.platform.proxy_dns_port}",
        open_files=open_files(),
        concurrency=(os.cpu_count() or 1) if settings.concurrency == 0 else settings.concurrency or 1,
        drain_s=DRAIN_S if settings.drain_s is None else round(settings.drain_s),
        metadata=settings.metadata,
    )
