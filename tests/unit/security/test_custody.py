"""The CA over its life: replaced in steps, taken up again after a kill at any point, and never without its files."""

from __future__ import annotations

import datetime as dt
import shutil
import stat
from pathlib import Path

import pytest
from cryptography import x509

from lateen.security.ca import CaError
from lateen.security.ca_files import FILES, REVOKED, open_ca
from lateen.security.custody import Custody
from tests.envoy.plug_in import PlugIn


def files(plug_in: PlugIn, **changed: str) -> dict[str, bytes]:
    return {name: text.encode() for name, text in (plug_in.files() | changed).items()}


def test_a_new_root_in_three_steps(tmp_path: Path) -> None:
    clock = [dt.datetime.now(dt.UTC)]
    custody = Custody(tmp_path / "ca", now=lambda: clock[0], max_validity=dt.timedelta(hours=1))
    old = custody.current
    heard: list[str] = []
    custody.on_change(lambda: heard.append(custody.stage))
    custody.begin()
    assert (custody.current.signer, len(custody.current.roots)) == (old.signer, 2)
    with pytest.raises(CaError, match="being made known"):
        custody.begin()
    custody.switch()
    assert custody.current.signer != old.signer
    assert set(old.roots) < set(custody.current.roots)
    assert custody.retires_at == clock[0] + dt.timedelta(hours=1)
    with pytest.raises(CaError, match="still trusted"):
        custody.begin()
    with pytest.raises(CaError, match="no CA is waiting"):
        custody.switch()
    custody.retire()
    assert [each.subject for each in custody.current.roots] == [custody.current.certificate.subject]
    assert heard == ["distributing", "retiring", "steady"]
    assert {stat.S_IMODE(each.stat().st_mode) for each in (tmp_path / "ca").iterdir()} == {0o600}
    with pytest.raises(CaError, match="no roots of a former CA"):
        custody.retire()


@pytest.mark.parametrize("step", ["begin", "switch", "retire"])
def test_what_was_begun_is_taken_up_again(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill at every write of every step: whoever opens the folder next can go on to the end."""
    done = tmp_path / "done"
    custody = Custody(done)
    for each in ("begin", "switch", "retire"):
        if each == step:
            break
        getattr(custody, each)()
    killed = 0
    for writes in range(20):
        place = tmp_path / f"{step}-{writes}"
        shutil.copytree(done, place)
        left = [writes]

        def write(path: Path, content: bytes, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)

        custody = Custody(place)
        with monkeypatch.context() as patch:
            patch.setattr("lateen.security.custody.write_secret", write)
            patch.setattr("lateen.security.ca_files.write_secret", write)
            try:
                getattr(custody, step)()
            except KeyboardInterrupt:
                killed += 1
            else:
                break
        again = Custody(place)
        if again.stage == "steady" and step == "begin":
            again.begin()
        if again.stage == "distributing":
            again.switch()
        if again.stage == "retiring":
            again.retire()
        assert (again.stage, len(again.current.roots)) == ("steady", 1)
        assert Custody(place).current.signer == again.current.signer
    assert killed


def test_another_intermediate_of_the_same_root_signs_at_once(tmp_path: Path) -> None:
    plug_in = PlugIn()
    custody = Custody(tmp_path / "ca", first=files(plug_in))
    before = custody.current
    plug_in.renew()
    custody.begin(files(plug_in))
    assert custody.stage == "steady"
    assert custody.current.signer != before.signer
    assert custody.current.trust_pem == before.trust_pem


def test_revocation_lists_come_and_go_with_their_ca(tmp_path: Path) -> None:
    plug_in = PlugIn()
    lists = plug_in.revocation_lists()
    custody = Custody(tmp_path / "ca")
    custody.begin(files(plug_in, **{REVOKED: lists}))
    subjects = {each.issuer for each in _lists(custody.current.revoked_pem)}
    assert subjects == {each.subject for each in custody.current.roots} | {plug_in.signing[0].subject}
    custody.switch()
    custody.retire()
    assert len(_lists(custody.current.revoked_pem)) == 2
    custody.begin()
    custody.switch()
    custody.retire()
    assert custody.current.revoked_pem == ""
    assert not (tmp_path / "ca" / REVOKED).exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ca-key.pem": PlugIn().files()["ca-key.pem"]}, "ca-key.pem is not the key of ca-cert.pem"),
        ({"root-cert.pem": PlugIn().files()["root-cert.pem"]}, "cert-chain.pem does not lead from"),
        ({"ca-crl.pem": "nothing"}, "ca-crl.pem holds no revocation list"),
        ({"ca-crl.pem": PlugIn().revocation_lists()}, "ca-crl.pem has no list signed by"),
        ({"root-cert.pem": ""}, "root-cert.pem holds no PEM certificate"),
    ],
)
def test_files_that_are_no_ca_change_nothing(tmp_path: Path, changed: dict[str, str], words: str) -> None:
    custody = Custody(tmp_path / "ca")
    before = {each.name: each.read_bytes() for each in (tmp_path / "ca").iterdir()}
    with pytest.raises(CaError, match=words) as refused:
        custody.begin(files(PlugIn(), **changed))
    assert str(tmp_path) not in str(refused.value)
    assert "PRIVATE" not in str(refused.value)
    assert {each.name: each.read_bytes() for each in (tmp_path / "ca").iterdir()} == before


def test_a_ca_that_is_over_and_one_that_lacks_a_file_are_refused(tmp_path: Path) -> None:
    custody = Custody(tmp_path / "ca")
    with pytest.raises(CaError, match=r"ca-cert.pem: CN=plug-in intermediate ended at .*renew it"):
        custody.begin(files(PlugIn(days=-1)))
    with pytest.raises(CaError, match=r"ca-key.pem is missing"):
        custody.begin({name: content for name, content in files(PlugIn()).items() if name != "ca-key.pem"})
    assert custody.stage == "steady"
    assert sorted(each.name for each in (tmp_path / "ca").iterdir()) == sorted(FILES)
    open_ca(tmp_path / "ca")


def _lists(pem: str) -> list[x509.CertificateRevocationList]:
    end = "-----END X509 CRL-----\n"
    return [x509.load_pem_x509_crl((part + end).encode()) for part in pem.split(end)[:-1]]


def test_two_roots_of_one_name_must_be_told_apart(tmp_path: Path) -> None:
    """A verifier takes the first root of the name, unless the certificate says by which key it was issued."""
    first, second, vague = PlugIn(), PlugIn(), PlugIn(identified=False)
    custody = Custody(tmp_path / "ca", first={name: text.encode() for name, text in first.files().items()})
    before = custody.current
    with pytest.raises(CaError, match="two roots are called CN=plug-in root") as refused:
        custody.begin({name: text.encode() for name, text in vague.files().items()})
    assert "authorityKeyIdentifier" in refused.value.remedy
    assert (custody.stage, custody.current.roots, custody.current.signer) == ("steady", before.roots, before.signer)
    custody.begin({name: text.encode() for name, text in second.files().items()})
    assert (custody.stage, len(custody.current.roots)) == ("distributing", 2)
