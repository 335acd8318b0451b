"""One Pod's certificate, kept good: obtained, served, renewed at half of its life, and held on to while the control
plane is away.

Every wait is bounded by a minute and measured on the wall clock, so a machine that slept notices when it wakes.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from lateen.lib.keypair import new_request
from lateen.lib.signing import Signer, SigningError, Trust, issuer_identifier
from lateen.node.identity import Identity, from_answer, load, save
from lateen.node.sds import SecretServer

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 30.0
LONGEST_WAIT_S = 60.0
JITTER = 0.1
"""Renewals happen up to this part of the half life early, so that Pods started together do not ask together."""
SHORTEST_S = 1.0
"""Renewals are never closer than this, whatever the CA's clock says."""

_log = structlog.stdlib.get_logger("lateen.node.workload")


class PodSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A Pod the agent serves. `token_path` is read anew for each request, `sds_socket` made in a folder that exists;
    `admin_socket` is the proxy's, whose counts are reported (empty: none)."""

    uid: str
    namespace: str
    name: str
    service_account: str
    token_path: str
    sds_socket: str
    admin_socket: str = ""


class WorkloadState(msgspec.Struct, frozen=True, kw_only=True):
    """What `list` says of a Pod: when its certificate ends and is renewed (seconds since 1970; 0 for none), how
    many secret streams are open, and why the last request failed (empty after a success)."""

    uid: str
    namespace: str
    name: str
    ends: float
    renew_at: float
    streams: int
    error: str


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Workload:
    """Serves one Pod from `run` on."""

    def __init__(
        self,
        spec: PodSpec,
        signer: Signer,
        *,
        kept: Path | None = None,
        resumed: bool = False,
        now: Callable[[], dt.datetime] = utc_now,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`kept` is the file where the certificate is kept; it is beside the socket where nothing is said. `resumed`:
        an earlier agent has served this Pod."""
        self.spec = spec
        self._kept = kept or Path(spec.sds_socket).with_name("identity.json")
        self._signer = signer
        self._now = now
        self._jitter = jitter
        self._server = SecretServer(f"{spec.namespace}/{spec.name}", resumed=resumed)
        self._identity: Identity | None = None
        self._renew_at = now()
        self._wanted = asyncio.Event()
        self._error = ""
        self._trust: bytes | None = None

    @property
    def state(self) -> WorkloadState:
        """As of now."""
        return WorkloadState(
            uid=self.spec.uid,
            namespace=self.spec.namespace,
            name=self.spec.name,
            ends=self._identity.ends.timestamp() if self._identity else 0.0,
            renew_at=self._renew_at.timestamp() if self._identity else 0.0,
            streams=self._server.streams,
            error=self._error,
        )

    async def start(self) -> None:
        """Listens, and serves the kept certificate if that is still good. OSError when it cannot listen."""
        await self._server.start(Path(self.spec.sds_socket))
        kept = load(self._kept, self._now())
        if kept is not None:
            self._serve(kept, kept.leaf.not_valid_before_utc)

    @property
    def behind(self) -> bool:
        """True while the Pod's proxy does not use the trust that it was given last."""
        return self._server.behind

    def trust(self, trust: Trust) -> bool:
        """Serves what the mesh trusts now; False when the Pod's certificate is of another CA than signs now."""
        self._trust = trust.secret
        if self._identity is None:
            return True
        self._server.update(self._identity, self._trust)
        return issuer_identifier(self._identity.leaf) == trust.signer

    async def stop(self) -> None:
        """Ends the streams; Envoy keeps what it has."""
        await self._server.stop()

    def refresh(self) -> None:
        """Asks for a new certificate now: the Pod's labels, its account or the root changed."""
        self._wanted.set()

    async def run(self) -> None:
        """Renews until cancelled. Failures are logged, shown in `state`, and tried again ever more slowly."""
        failures = 0
        while True:
            if self._identity is not None and failures == 0:
                await self._until(self._renew_at)
            self._wanted.clear()
            try:
                identity = await self._obtain()
            except (SigningError, OSError, ValueError) as error:
                failures += 1
                self._note(str(error))
                delay = min(FIRST_RETRY_S * 2 ** min(failures - 1, 20), LAST_RETRY_S) * (0.5 + self._jitter() / 2)
                await self._until(self._now() + dt.timedelta(seconds=delay))
            else:
                failures = 0
                self._error = ""
                self._serve(identity, self._now())
                _log.info("certificate renewed", pod=self.spec.name, ends=identity.ends.isoformat())
                self._keep(identity)

    @property
    def identity(self) -> Identity | None:
        """The certificate that is served now."""
        return self._identity

    def _keep(self, identity: Identity) -> None:
        try:
            save(identity, self._kept)
        except OSError as error:
            _log.warning("certificate not kept", pod=self.spec.name, reason=str(error))

    def _serve(self, identity: Identity, since: dt.datetime) -> None:
        """Hands a certificate out that was got at a time, and plans when to replace it."""
        self._identity = identity
        half = (identity.ends - since) / 2
        self._renew_at = max(
            since + half * (1 - JITTER * self._jitter()), self._now() + dt.timedelta(seconds=SHORTEST_S)
        )
        self._server.update(identity, self._trust)

    async def _obtain(self) -> Identity:
        """A new key with its certificate: by the old certificate while that is good and accepted, else by token (the
        CA may have been replaced, or the Pod's account)."""
        key, csr = new_request()
        held = self._identity
        if held is not None and held.ends > self._now():
            try:
                return from_answer(key, await self._signer.renew(csr, key=held.key, chain=held.chain))
            except SigningError as error:
                _log.info("renewal by certificate failed", pod=self.spec.name, reason=str(error))
        return from_answer(key, await self._signer.sign(csr, token=self._token()))

    def _token(self) -> str:
        return Path(self.spec.token_path).read_text().strip()

    async def _until(self, moment: dt.datetime) -> None:
        """Returns at a wall clock time, or at once when a refresh is wanted."""
        while (left := (moment - self._now()).total_seconds()) > 0:
            try:
                async with asyncio.timeout(min(left, LONGEST_WAIT_S)):
                    await self._wanted.wait()
            except TimeoutError:
                continue
            return

    def _note(self, error: str) -> None:
        if error != self._error:
            good_until = self._identity.ends.isoformat() if self._identity else None
            _log.warning("no certificate", pod=self.spec.name, reason=error, good_until=good_until)
        self._error = error
