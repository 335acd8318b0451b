"""What a kubelet needs of the API and of the platform."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Protocol

from lateen.api.struct import Json
from lateen.lib.findings import Finding
from lateen.platform.controllers.work import Api
from lateen.platform.pod import PodSandbox, PodState, ServiceVip
from lateen.platform.sandbox import PodChanged, PodGone


class PodApi(Api, Protocol):
    """What the kubelet needs of the API beside what controllers do."""

    async def token(self, pod: Json, lifetime_s: int) -> str:
        """A service account token bound to that Pod, for the certificate authority."""
        ...

    async def findings(self, pod: Json, findings: Iterable[Finding]) -> None:
        """What the node has to say about a Pod, in place of what it said before."""
        ...

    async def finalize(self, pod: Json) -> None:
        """The end of a Pod's object, now that its processes have ended."""
        ...


class Pods(Protocol):
    """The part of `lateen.platform.sandbox.Platform` that makes and ends Pods."""

    def pods(self) -> Mapping[str, PodState]: ...
    async def create(self, spec: PodSandbox) -> PodState: ...
    async def delete(self, uid: str, grace_s: float) -> None: ...
    async def lock(self, uid: str, *, on: bool) -> None: ...
    async def services(self, services: tuple[ServiceVip, ...]) -> None: ...
    def events(self) -> AsyncIterator[PodChanged | PodGone]: ...
