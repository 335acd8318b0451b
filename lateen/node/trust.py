"""Following what the mesh trusts: a new root reaches the proxies of this agent at once, and the control plane hears
when all of them use it. When another CA signs from now on, their certificates are renewed within seconds."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path

import msgspec
import structlog

from lateen.lib.request_counts import Report
from lateen.lib.signing import SigningError, Trust, TrustAnswer, TrustedSigner
from lateen.node.identity import Identity
from lateen.node.workload import FIRST_RETRY_S, LAST_RETRY_S, Workload

SPREAD_S = 2.0
"""Over how many seconds workloads ask for certificates of another CA, so that they do not ask together."""
_LOOK_S = 0.05

_log = structlog.stdlib.get_logger("lateen.node.trust")


class TrustFollower:
    """Keeps some workloads' trust as the control plane says; `told` after each change of which there are."""

    def __init__(
        self,
        signer: TrustedSigner,
        kept: Path,
        workloads: Callable[[], Collection[Workload]],
        *,
        identity: Callable[[], Identity | None] | None = None,
        roots: Path | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`kept` is the file that keeps the trust. `identity`: what to show to the control plane, where the way there
        is not this machine's own. `roots` is a file of the control plane's roots to keep as they are."""
        self._signer = signer
        self._kept = kept
        self._workloads = workloads
        self._identity = identity
        self._roots = roots
        self._jitter = jitter
        self._news = asyncio.Event()
        self._trust = self._load()
        self._report: Report | None = None

    def report(self, report: Report) -> None:
        """Tells the control plane what proxies counted; while it is away, nobody."""
        self._report = report
        self._news.set()

    def told(self, workload: Workload | None = None) -> None:
        """There is another workload, or one is gone."""
        if workload is not None and self._trust is not None:
            self._tell(workload, self._trust)
        self._news.set()

    async def run(self) -> None:
        """Follows until cancelled."""
        delay_s, said = FIRST_RETRY_S, ""
        while True:
            try:
                async for trust in self._follow():
                    self._take(trust)
                    delay_s, said = FIRST_RETRY_S, ""
            except SigningError as error:
                if str(error) != said:
                    said = str(error)
                    _log.warning("trust not followed", reason=said)
            await asyncio.sleep(delay_s * (0.5 + self._jitter() / 2))
            delay_s = min(delay_s * 2, LAST_RETRY_S)

    def _follow(self) -> AsyncIterator[Trust]:
        if self._identity is None:
            return self._signer.follow(self._answers())
        identity = self._identity()
        if identity is None:
            raise SigningError("there is no certificate yet")
        return self._signer.follow(self._answers(), key=identity.key, chain=identity.chain)

    def _take(self, trust: Trust) -> None:
        self._trust = trust
        _replace(self._kept, msgspec.json.encode(trust))
        if self._roots is not None:
            try:
                _replace(self._roots, trust.roots.encode())
            except OSError as error:
                _log.warning("roots not kept", file=str(self._roots), reason=str(error))
        for workload in self._workloads():
            self._tell(workload, trust)
        self._news.set()
        _log.info("trust received", version=trust.version)

    def _tell(self, workload: Workload, trust: Trust) -> None:
        if not workload.trust(trust):
            asyncio.get_running_loop().call_later(self._jitter() * SPREAD_S, workload.refresh)

    async def _answers(self) -> AsyncIterator[TrustAnswer]:
        """What the control plane is to know, whenever it is something else: which Pods there are, and the version that
        all of their proxies use."""
        said: TrustAnswer | None = None
        self._report = None  # what was counted while nobody listened is too old to be told
        while True:
            self._news.clear()
            workloads = self._workloads()
            behind = any(each.behind for each in workloads)
            if self._trust is not None:
                pods = tuple(sorted(f"{each.spec.namespace}/{each.spec.name}" for each in workloads))
                answer = TrustAnswer("" if behind else self._trust.version, pods)
                if answer != said or self._report is not None:
                    said, report, self._report = answer, self._report, None
                    yield msgspec.structs.replace(answer, report=report)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S if behind else None):
                    await self._news.wait()

    def _load(self) -> Trust | None:
        try:
            return msgspec.json.decode(self._kept.read_bytes(), type=Trust)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            _log.error("trust file unreadable", file=str(self._kept), reason=str(error))
            return None


def _replace(file: Path, content: bytes) -> None:
    draft = file.with_name(f".{file.name}.new")
    draft.write_bytes(content)
    draft.replace(file)
