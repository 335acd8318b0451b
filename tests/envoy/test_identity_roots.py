"""The CA is replaced, and others are trusted besides it, under traffic between two real Envoys."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from lateen.lib.keypair import new_request
from lateen.lib.layout import Layout
from lateen.lib.signing import issuer_identifier
from lateen.lib.spiffe import SpiffeId
from lateen.security.ca import CertificateAuthority
from lateen.security.ca_files import FILES, REVOKED, open_ca
from lateen.security.peer import PeerIdentity
from tests.envoy.identities import Json, until
from tests.envoy.pair import Pair, mesh_of_two
from tests.envoy.plug_in import PlugIn

STRANGER = PeerIdentity(spiffe=SpiffeId("cluster.local", "default", "stranger"))


def leaf(ca: CertificateAuthority, identity: PeerIdentity = STRANGER) -> tuple[bytes, bytes]:
    """A certificate with its chain, and its key."""
    key, csr = new_request()
    return "".join(ca.issue(csr, identity)[:-1]).encode(), key.encode()


async def stage(pair: Pair, wanted: str) -> None:
    """Returns when the replacement of the CA is that far."""

    async def there() -> bool:
        return pair.signing.authority.custody.stage == wanted

    await until(there, 60)


async def all_signed_by(pair: Pair, ca: CertificateAuthority) -> None:
    """Returns when both Pods hold a certificate of a CA, and the server shows it."""

    async def held() -> bool:
        for pod in (pair.client, pair.server):
            kept = json.loads((pair.layout.pod(pod["uid"]) / "identity.json").read_bytes())
            if issuer_identifier(x509.load_pem_x509_certificate(kept["chain"].encode())) != ca.signer:
                return False
        return issuer_identifier(await pair.shown()) == ca.signer

    await until(held, 60)


async def trusted_by_all(pair: Pair) -> None:
    """Returns when every proxy uses what is trusted now."""

    async def done() -> bool:
        return not pair.signing.authority.behind()

    await until(done, 60)


async def test_a_new_root_takes_over_under_traffic(layout: Layout) -> None:
    async with mesh_of_two(layout) as pair, pair.running() as traffic:
        authority = pair.signing.authority
        old = authority.ca()
        connections = pair.client_envoy.stat("cluster.kept.upstream_cx_total")
        authority.begin(None)
        assert [authority.custody.stage, len(authority.ca().roots)] == ["distributing", 2]
        assert issuer_identifier(await pair.shown()) == old.signer
        await stage(pair, "retiring")
        assert authority.ca().signer != old.signer
        await all_signed_by(pair, authority.ca())
        await traffic.more()
        chain, key = leaf(old)
        assert await pair.accepts(chain, key), "what the old root signed counts until it is retired"
        authority.custody.retire()
        await trusted_by_all(pair)
        await traffic.more()
        assert not await pair.accepts(chain, key)
        assert await pair.accepts(*leaf(authority.ca()))
        assert pair.client_envoy.stat("cluster.kept.upstream_cx_total") == connections == 1
        assert traffic.failures == []


@pytest.mark.long
async def test_the_old_root_goes_by_itself_when_its_last_certificate_ends(layout: Layout) -> None:
    async with mesh_of_two(layout, dt.timedelta(seconds=8)) as pair, pair.running() as traffic:
        old = pair.signing.authority.ca()
        pair.signing.authority.begin(None)
        await stage(pair, "retiring")
        await stage(pair, "steady")
        await trusted_by_all(pair)
        assert not await pair.accepts(*leaf(old))
        await traffic.more()
        assert traffic.failures == []


@pytest.mark.long
async def test_a_proxy_that_does_not_trust_the_new_root_yet_holds_it_back(layout: Layout) -> None:
    """Kill the agent: nobody can tell whether its proxies trust the new root, until it is back."""
    async with mesh_of_two(layout) as pair, pair.running() as traffic:
        authority = pair.signing.authority
        before = authority.ca().signer
        served = pair.signing.authority.service.pods()
        await pair.agent.end()

        async def away() -> bool:
            return not authority.service.pods()

        await until(away)
        authority._proxies = lambda: served  # they stay connected to the control plane
        authority.begin(None)
        await asyncio.sleep(3)  # it would have switched after one second
        assert (authority.custody.stage, authority.ca().signer) == ("distributing", before)
        assert set(authority.behind()) == {"default/client-1", "default/server-1"}
        await pair.agent.start()
        await stage(pair, "retiring")
        await all_signed_by(pair, authority.ca())
        await traffic.more()
        assert traffic.failures == []


@pytest.mark.long
async def test_a_replacement_goes_on_after_a_restart(layout: Layout) -> None:
    async with mesh_of_two(layout) as pair, pair.running() as traffic:
        pair.signing.authority.begin(None)
        await pair.signing.stop()
        await pair.signing.start()
        assert len(pair.signing.authority.ca().roots) == 2
        await stage(pair, "retiring")
        await all_signed_by(pair, pair.signing.authority.ca())
        await traffic.more()
        assert traffic.failures == []


async def test_an_intermediate_from_a_secret_takes_over_with_its_revocation_list(
    layout: Layout, directory: Path
) -> None:
    plug_in = PlugIn()
    made = open_ca(plug_in.write(directory / "one"))
    revoked, key = leaf(made)
    good = leaf(made)
    async with mesh_of_two(layout) as pair, pair.running() as traffic:

        async def apply(files: dict[str, str]) -> None:
            metadata = {"name": "cacerts", "namespace": "istio-system"}
            secret: Json = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": files}
            await pair.signing.apply(secret)

        await apply(plug_in.files())
        await stage(pair, "retiring")
        await all_signed_by(pair, made)
        assert await pair.accepts(revoked, key)
        pair.signing.authority.custody.retire()
        # The same CA with a list of what no longer counts: its roots are trusted already, so it takes over at once.
        lists = plug_in.revocation_lists(revoked)
        await apply({**plug_in.files(), REVOKED: lists})

        async def refused() -> bool:
            return not await pair.accepts(revoked, key)

        await until(refused)
        assert await pair.accepts(*good)
        assert pair.signing.authority.custody.stage == "steady"
        # One that cannot be used changes nothing, and the Secret says why.
        await apply({**plug_in.files(), "ca-key.pem": PlugIn().files()["ca-key.pem"]})

        async def said() -> bool:
            row = next(each for each in pair.signing.store.rows() if each.ref.name == "cacerts")
            return b"LTN0340" in b"".join(row.findings.values())

        await until(said)
        assert pair.signing.authority.ca().signer == made.signer
        await traffic.more()
        assert traffic.failures == []


async def test_other_trust_domains_are_trusted_for_their_own_names_alone(layout: Layout, directory: Path) -> None:
    partner, stranger = (open_ca(directory / name) for name in ("partner", "other"))
    ours, theirs = (SpiffeId(domain, "default", "caller") for domain in ("cluster.local", "partner.example"))
    async with mesh_of_two(layout) as pair, pair.running() as traffic:
        authority = pair.signing.authority
        assert not await pair.accepts(*leaf(partner, PeerIdentity(spiffe=theirs)))
        mesh = {"caCertificates": [{"pem": partner.trust_pem, "trustDomains": ["partner.example"]}]}
        metadata = {"name": "istio", "namespace": "istio-system"}
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"mesh": yaml.safe_dump(mesh)}}
        before = authority.service.trust
        await pair.signing.apply(config)

        async def known() -> bool:
            return authority.service.trust != before and not authority.behind()

        await until(known)
        assert await pair.accepts(*leaf(partner, PeerIdentity(spiffe=theirs)))
        assert await pair.accepts(*leaf(authority.ca(), PeerIdentity(spiffe=ours)))
        assert not await pair.accepts(*leaf(partner, PeerIdentity(spiffe=ours))), "a partner made one of ours"
        assert not await pair.accepts(*leaf(authority.ca(), PeerIdentity(spiffe=theirs)))
        assert not await pair.accepts(*leaf(stranger, PeerIdentity(spiffe=theirs)))
        await traffic.more()
        assert traffic.failures == []


def test_files_of_the_ca_are_the_owners_alone(layout: Layout, directory: Path) -> None:
    open_ca(PlugIn().write(layout.ca))
    assert {(layout.ca / name).stat().st_mode & 0o077 for name in ("ca-key.pem",)} == {0}
    open_ca(directory / "own")
    assert {(directory / "own" / name).stat().st_mode & 0o777 for name in FILES} == {0o600}
