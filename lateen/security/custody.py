"""The CA over its life: the one that signs now, and how another takes its place without a connection lost.

A replacement goes in three steps, each whole on disk before the next begins, so a kill in between is taken up again:

1. `begin`: the new CA waits in `next/`, its roots are trusted besides the old ones. Everybody is told.
2. `switch`: when everybody trusts it, it signs. What the old one signed is still trusted and is renewed.
3. `retire`: when nothing that the old one signed can be alive, its roots are trusted no more.

A new signing certificate under roots that are trusted already needs the second step only.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec
from cryptography import x509

from lateen.security.ca import DEFAULT_VALIDITY, CaError, CertificateAuthority, pem_of
from lateen.security.ca_files import CERTIFICATE, CHAIN, FILES, KEY, REVOKED, ROOTS, made, open_ca, put_files
from lateen.security.files import write_secret
from lateen.security.peer import utc_now

Stage = Literal["steady", "distributing", "retiring"]

_NEXT: Final = "next"
_MOVING: Final = "moving"
_RECORD: Final = "rotation.json"


class _Retiring(msgspec.Struct, frozen=True):
    """What is trusted, and which revocation lists count, after `at`."""

    at: dt.datetime
    roots: str
    revoked: str


class Custody:
    """The CA in a folder, and the one that is to follow it. `on_change` is called whenever it is another."""

    def __init__(
        self,
        directory: Path,
        *,
        first: Mapping[str, bytes] | None = None,
        now: Callable[[], dt.datetime] = utc_now,
        max_validity: dt.timedelta = DEFAULT_VALIDITY,
    ) -> None:
        """Opens the folder, or makes it of the files `first`, or of a root of its own. CaError when it is no CA."""
        self._directory = directory
        self._now = now
        self._max_validity = max_validity
        self._listeners: list[Callable[[], None]] = []
        if first is not None and not any((directory / name).exists() for name in FILES):
            self._try(first, directory)
        self._finish_move()
        self._current = self._open(directory)
        if self.stage == "distributing":
            self._spread(self._open(directory / _NEXT))

    @property
    def current(self) -> CertificateAuthority:
        """The CA that signs now."""
        return self._current

    @property
    def stage(self) -> Stage:
        """Where a replacement is."""
        if (self._directory / _NEXT).exists():
            return "distributing"
        return "retiring" if self._record is not None else "steady"

    @property
    def retires_at(self) -> dt.datetime | None:
        """When the roots of the CA before stop being trusted; None when there are none."""
        record = self._record
        return record.at if record is not None else None

    def on_change(self, listener: Callable[[], None]) -> None:
        """Calls back after every change of what signs or is trusted."""
        self._listeners.append(listener)

    def begin(self, files: Mapping[str, bytes] | None = None) -> None:
        """Starts to replace the CA by that of some files, or by a new self-made root. CaError when the files are no CA
        (nothing has changed then), or a replacement is under way."""
        if self.stage == "distributing":
            raise CaError("a new CA is being made known already", remedy="wait for it: `lateen ca show`")
        if self.stage == "retiring":
            raise CaError(
                "the roots of the CA before are still trusted",
                remedy="wait until they are not (`lateen ca show`), or end it: `lateen ca rotate --retire`",
            )
        waiting = self._directory / _NEXT
        following = self._try(made(self._now()) if files is None else files, waiting)
        before = self._current
        try:
            _distinguishable(before, following)
            self._spread(following)
        except CaError:
            shutil.rmtree(waiting)
            self._trust(before.roots, before.revoked_pem)
            raise
        if set(following.roots) <= set(before.roots):
            self.switch()
        else:
            self._changed()

    def switch(self) -> None:
        """Signs with the new CA from now on. CaError when none is waiting."""
        waiting = self._directory / _NEXT
        if not waiting.exists():
            raise CaError("no CA is waiting to take over", remedy="start with `lateen ca rotate` or `lateen ca import`")
        following = self._open(waiting)
        retiring = not {*self._current.roots} <= {*following.roots}
        if retiring:
            ends = self._now() + self._max_validity
            record = _Retiring(ends, following.trust_pem, following.revoked_pem)
            write_secret(self._directory / _RECORD, msgspec.json.encode(record))
        waiting.rename(self._directory / _MOVING)
        self._finish_move()
        if not retiring:
            self._trust(following.roots, following.revoked_pem)
        self._changed()

    def retire(self) -> None:
        """Stops trusting the roots of the CA before. CaError when there are none."""
        record = self._record
        if record is None:
            raise CaError("there are no roots of a former CA")
        roots = x509.load_pem_x509_certificates(record.roots.encode())
        self._trust(tuple(roots), record.revoked)
        (self._directory / _RECORD).unlink()
        self._changed()

    @property
    def _record(self) -> _Retiring | None:
        try:
            return msgspec.json.decode((self._directory / _RECORD).read_bytes(), type=_Retiring)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise CaError(f"cannot read {self._directory / _RECORD}: {error}") from error

    def _open(self, directory: Path) -> CertificateAuthority:
        return open_ca(directory, now=self._now, max_validity=self._max_validity)

    def _try(self, files: Mapping[str, bytes], directory: Path) -> CertificateAuthority:
        """Puts files into a new folder, which is there afterwards only if they are a CA."""
        missing = [name for name in FILES if name not in files]
        if missing:
            raise CaError(f"a CA has {', '.join(FILES)}: {', '.join(missing)} is missing")
        known = {name: files[name] for name in (*FILES, REVOKED) if name in files}
        put_files(directory, known)
        try:
            return self._open(directory)
        except CaError as error:
            shutil.rmtree(directory)
            raise CaError(str(error).replace(f"{directory}/", ""), remedy=error.remedy) from None

    def _spread(self, following: CertificateAuthority) -> None:
        """Trusts a CA besides the one that signs."""
        lists: dict[x509.Name, str] = {}
        if self._current.revoked_pem or following.revoked_pem:
            lists = self._current.revocation_lists() | following.revocation_lists()
        self._trust((*self._current.roots, *following.roots), "".join(lists.values()))

    def _trust(self, roots: tuple[x509.Certificate, ...], revoked: str) -> None:
        """Writes roots and revocation lists, and reads all anew; CaError when they do not go with the CA. In between
        there are never roots without their lists."""
        files = [
            (ROOTS, "".join(pem_of(each) for each in dict.fromkeys(roots))),
            (REVOKED, revoked),
        ]
        for name, content in files if set(roots) < set(self._current.roots) else reversed(files):
            if content:
                write_secret(self._directory / name, content.encode())
            else:
                (self._directory / name).unlink(missing_ok=True)
        self._current = self._open(self._directory)

    def _finish_move(self) -> None:
        """Puts the files of the CA that takes over into place; again and again, if it was interrupted, until done."""
        moving = self._directory / _MOVING
        if moving.exists():
            for name in (KEY, CHAIN, CERTIFICATE):
                write_secret(self._directory / name, (moving / name).read_bytes())
            self._current = self._open(self._directory)
            shutil.rmtree(moving)

    def _changed(self) -> None:
        for each in self._listeners:
            each()


def _distinguishable(before: CertificateAuthority, following: CertificateAuthority) -> None:
    """CaError when a verifier could not tell which of two roots of one name has issued a certificate: it takes the
    first, and finds the signature wrong."""
    roots = {*before.roots, *following.roots}
    for ca in (before, following):
        for each in (ca.certificate, *map(_certificate, ca.chain_pem)):
            names = [root for root in roots if root.subject == each.issuer]
            if len(names) > 1 and each not in roots and not _names_issuer(each):
                name, issuer = each.subject.rfc4514_string(), each.issuer.rfc4514_string()
                raise CaError(
                    f"two roots are called {issuer}, and {name} does not say by which key it was issued",
                    remedy="issue it with an authorityKeyIdentifier, or give the new root another name",
                )


def _certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def _names_issuer(certificate: x509.Certificate) -> bool:
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except x509.ExtensionNotFound:
        return False
    return found.key_identifier is not None
