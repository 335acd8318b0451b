"""The mesh's CA in the control plane: what it signs with, what everybody is told to trust, and replacing it.

Key material comes from the state directory, or from Secret `cacerts` of the root namespace (Istio's name and keys),
which is followed: another CA in it takes over as with `lateen ca import`. A new CA signs only when the proxy of every
connected Pod has said that it trusts it; the roots of the old one go when nothing it signed can be alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509

from lateen.api.core.secret import Secret
from lateen.api.mesh.config import ROOT_NAMESPACE
from lateen.api.objects import ref_of
from lateen.apiserver.operations import SetFindings
from lateen.apiserver.rows import Change
from lateen.apiserver.store import Store
from lateen.daemon.inputs import typed
from lateen.envoy.trust import trust_secret
from lateen.lib.findings import Finding, Level
from lateen.lib.request_counts import Report
from lateen.lib.signing import Trust
from lateen.model.mesh import trust_domains
from lateen.model.trust import anchors
from lateen.security.ca import CaError, CertificateAuthority
from lateen.security.ca_files import FILES, REVOKED
from lateen.security.custody import Custody
from lateen.security.files import write_secret
from lateen.security.peer import utc_now
from lateen.security.trust import TrustService
from lateen.xds.pump import Pump

SECRET: Final = ref_of(Secret, ROOT_NAMESPACE, "cacerts")
REFUSED: Final = "LTN0340"
ORIGIN: Final = "ca"
SETTLE_S: Final = 1.0
SETTLE_AFTER_START_S: Final = 60.0
"""How long a new CA waits at least: proxies may be on their way, and after a start all of them are."""
_LOOK_S: Final = 1.0

_log = structlog.stdlib.get_logger("lateen.ca")


class Authority:
    """The CA of a running mesh. For the loop's thread, but `ca` and `domain`, which handshakes ask too."""

    def __init__(
        self,
        directory: Path,
        store: Store,
        pump: Pump,
        proxies: Callable[[], Iterable[str]],
        on_report: Callable[[Report], None] = lambda _: None,
        *,
        validity: dt.timedelta,
        settle_after_start_s: float = SETTLE_AFTER_START_S,
        now: Callable[[], dt.datetime] = utc_now,
    ) -> None:
        """`proxies`: the Pods (`namespace/name`) whose proxies are connected. `on_report` takes what they count."""
        self._directory = directory
        self._store = store
        self._proxies = proxies
        self._now = now
        self._settle_s = settle_after_start_s
        self._started = dt.datetime.now(dt.UTC)
        self._woken = asyncio.Event()
        self._woken.set()
        self._said = ""
        files = self._secret_files()
        empty = not any((directory / name).exists() for name in FILES)
        self.custody = Custody(directory, first=files, now=now, max_validity=validity)
        if files is not None and empty:
            self._remember(files)
        self._domains = pump.watch(self._spread, trust_domains)
        self._anchors = pump.watch(self._spread, anchors)
        self._domain = self._domains.value()[0]
        self.service = TrustService(self._trust(), self._woken.set, on_report)
        self.custody.on_change(self._spread)
        store.subscribe(self._changed)

    def ca(self) -> CertificateAuthority:
        """The CA that signs now."""
        return self.custody.current

    def domain(self) -> str:
        """The mesh's trust domain."""
        return self._domain

    def behind(self) -> tuple[str, ...]:
        """The Pods whose proxies do not use yet, as far as is known, what is trusted now."""
        pods = self.service.pods()
        return tuple(sorted(pod for pod in {*pods, *self._proxies()} if not pods.get(pod, False)))

    def begin(self, files: Mapping[str, bytes] | None) -> None:
        """Starts to replace the CA; CaError when that cannot be."""
        self.custody.begin(files)
        self._started, self._settle_s = dt.datetime.now(dt.UTC), SETTLE_S
        _log.info("new CA", stage=self.custody.stage, own=files is None)
        self._woken.set()

    async def run(self) -> None:
        """Takes each step of a replacement when it is time, until cancelled."""
        while True:
            self._woken.clear()
            await self._follow_secret()
            try:
                self._step()
            except (CaError, OSError) as error:
                _log.error("CA not replaced", reason=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S if self.custody.stage != "steady" else None):
                    await self._woken.wait()

    def _step(self) -> None:
        custody = self.custody
        if custody.stage == "distributing" and self._settled() and not self.behind():
            custody.switch()
            _log.info("the new CA signs", expires=custody.current.expires.isoformat())
        retires_at = custody.retires_at
        if custody.stage == "retiring" and retires_at is not None and retires_at <= self._now():
            custody.retire()
            _log.info("the roots of the former CA are trusted no more")

    def _settled(self) -> bool:
        return (dt.datetime.now(dt.UTC) - self._started).total_seconds() >= self._settle_s

    # -- what is trusted -----------------------------------------------------------------------------------

    def _spread(self) -> None:
        self._domain = self._domains.value()[0]
        self.service.publish(self._trust())
        self._woken.set()

    def _trust(self) -> Trust:
        ca = self.custody.current
        bundles = dict.fromkeys(self._domains.value(), ca.trust_pem + ca.revoked_pem)
        for domain, pem in self._anchors.value():
            bundles[domain] = bundles.get(domain, "") + pem
        secret = trust_secret(bundles)
        digest = hashlib.blake2b(secret + ca.trust_pem.encode() + ca.signer.encode(), digest_size=8)
        return Trust(digest.hexdigest(), ca.trust_pem, secret, ca.signer)

    # -- Secret cacerts ------------------------------------------------------------------------------------

    def _changed(self, changes: Sequence[Change]) -> None:
        if any(each.row.ref == SECRET for each in changes):
            self._woken.set()

    def _secret_files(self) -> dict[str, bytes] | None:
        row = self._store.get(SECRET)
        found = typed(row) if row is not None else None
        if not isinstance(found, Secret):
            return None
        values = {name: found.value(name) for name in (*FILES, REVOKED)}
        return {name: value.reveal() for name, value in values.items() if value is not None}

    async def _follow_secret(self) -> None:
        files = self._secret_files()
        if files is None or self._digest(files) == self._remembered() or self.custody.stage == "distributing":
            return
        try:
            self.begin(files)
        except CaError as error:
            await self._say(str(error))
        else:
            self._remember(files)
            await self._say("")

    async def _say(self, reason: str) -> None:
        """Keeps the finding on the Secret, and one line in the log for each reason."""
        if reason and reason != self._said:
            _log.warning("Secret cacerts not used", reason=reason)
        if reason != self._said or not reason:
            remedy = "mend the Secret; until then the CA stays as it is"
            finding = Finding(code=REFUSED, level=Level.ERROR, message=reason, ref=SECRET, path="data", remedy=remedy)
            await self._store.write([SetFindings(SECRET, ORIGIN, (finding,) if reason else ())], author="lateen")
        self._said = reason

    @property
    def _record(self) -> Path:
        return self._directory / "secret.digest"

    def _digest(self, files: Mapping[str, bytes]) -> str:
        digest = hashlib.sha256()
        for name, content in sorted(files.items()):
            digest.update(f"{name} {len(content)}\n".encode() + content)
        return digest.hexdigest()

    def _remembered(self) -> str:
        try:
            return self._record.read_text()
        except FileNotFoundError:
            return ""

    def _remember(self, files: Mapping[str, bytes]) -> None:
        write_secret(self._record, self._digest(files).encode())


def describe(certificate: x509.Certificate) -> dict[str, str]:
    """A certificate in words: subject, serial number, end, SHA-256 fingerprint."""
    from cryptography.hazmat.primitives import hashes

    return {
        "subject": certificate.subject.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "expires": f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        "fingerprint": certificate.fingerprint(hashes.SHA256()).hex(),
    }
