"""Bundles as they are written and read, broken ones, and what is said of a way to the control plane that fails."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from pathlib import Path

import pytest

from lateen.lib.keypair import new_request
from lateen.lib.spiffe import control_plane_id
from lateen.node.bundle import Bundle, BundleError, read, replace_token, write
from lateen.node.diagnosis import diagnose
from lateen.security.ca_files import open_ca


@pytest.fixture
def good(tmp_path: Path) -> Bundle:
    made = Bundle(
        group="it's",
        namespace="default",
        service_account="vm",
        xds="192.0.2.1:15012",
        login="192.0.2.1:15013",
        gateway="192.0.2.1:15443",
        network="lan west",
        directory=tmp_path / "bundle",
    )
    write(made, token="secret", roots=open_ca(tmp_path / "ca").trust_pem)
    return made


def test_what_was_written_is_read(good: Bundle) -> None:
    assert read(good.directory) == good
    assert good.token.read_text() == "secret"
    assert good.token.stat().st_mode & 0o777 == 0o600
    assert good.directory.stat().st_mode & 0o777 == 0o700
    replace_token(good.token, "another")
    assert good.token.read_text() == "another"
    assert good.token.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("cluster.env", "POD_NAMESPACE=default\n", "", "does not say POD_NAMESPACE"),
        ("cluster.env", "SERVICE_ACCOUNT=vm", "SERVICE_ACCOUNT='vm", "cluster.env:12: not NAME='VALUE'"),
        ("cluster.env", "192.0.2.1:15012", "192.0.2.1", "LATEEN_XDS_ADDRESS is not HOST:PORT"),
        ("cluster.env", "192.0.2.1:15443", "192.0.2.1:99999", "LATEEN_GATEWAY_ADDRESS is not HOST:PORT"),
        ("root-cert.pem", "BEGIN", "BEGUN", "root-cert.pem holds no PEM certificate"),
    ],
)
def test_a_broken_file_is_named(good: Bundle, file: str, old: str, new: str, said: str) -> None:
    path = good.directory / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(BundleError, match=said) as raised:
        read(good.directory)
    assert "lateen vm entry configure" in raised.value.remedy


@pytest.mark.parametrize("file", ["cluster.env", "istio-token", "root-cert.pem"])
def test_a_missing_file_is_named(good: Bundle, file: str) -> None:
    (good.directory / file).unlink()
    with pytest.raises(BundleError, match=f"{file} is not there"):
        read(good.directory)


def _server_context(directory: Path) -> ssl.SSLContext:
    ca = open_ca(directory / "ca")
    key, csr = new_request()
    chain = ca.issue_serving(csr, control_plane_id("cluster.local"), ("localhost",))
    file = directory / "server.pem"
    file.touch(mode=0o600)
    file.write_text(key + "".join(chain[:-1]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def test_the_way_to_the_control_plane_is_explained(tmp_path: Path) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    secure = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=_server_context(tmp_path))
    plain = await asyncio.start_server(speak, "127.0.0.1", 0)
    target, other = (f"127.0.0.1:{each.sockets[0].getsockname()[1]}" for each in (secure, plain))
    now = dt.datetime.now(dt.UTC)
    assert await diagnose(target, "UNAVAILABLE: restarting") == ""
    for days in (-2, 2):
        skewed = await diagnose(target, "UNAVAILABLE", lambda days=days: now + dt.timedelta(days=days))
        assert skewed.startswith("by the clock of this machine it is")
        assert skewed.endswith("set the clock")
    untrusted = await diagnose(target, "Ssl handshake failed: CERTIFICATE_VERIFY_FAILED: unable to get issuer")
    assert "is not vouched for by root-cert.pem of the bundle" in untrusted
    assert "does not speak TLS (WRONG_VERSION_NUMBER)" in await diagnose(other, "UNAVAILABLE")
    for each in (secure, plain):
        each.close()
    assert f"{target} cannot be reached (Connection refused)" in await diagnose(target, "UNAVAILABLE")
