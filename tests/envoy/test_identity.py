"""Certificates from agent to wire: two Envoys speak mutual TLS while leaves, agent and control plane change under
traffic."""

from __future__ import annotations

import asyncio
import datetime as dt
import signal
from pathlib import Path

from lateen.lib.layout import Layout
from lateen.security.peer import parse_peer
from tests.envoy.identities import tls_from_sds, until
from tests.envoy.pair import cluster, mesh_of_two, proxy


async def test_leaves_rotate_under_traffic_and_nothing_is_dropped(layout: Layout) -> None:
    async with mesh_of_two(layout, dt.timedelta(seconds=8)) as pair, pair.running() as traffic:
        connections = pair.client_envoy.stat("cluster.kept.upstream_cx_total")
        serials: set[int] = set()

        async def rotated() -> bool:
            assert traffic.failures == []
            serials.add((await pair.shown()).serial_number)
            return len(serials) >= 4

        await until(rotated, 60)
        identity = parse_peer(await pair.shown())
        assert (str(identity.spiffe), identity.pod) == ("spiffe://cluster.local/ns/default/sa/server", "server-1")
        assert pair.client_envoy.stat("cluster.kept.upstream_cx_total") == connections == 1
        assert traffic.failures == []


async def test_a_killed_agent_loses_no_traffic_and_serves_again_without_a_control_plane(layout: Layout) -> None:
    async with mesh_of_two(layout) as pair, pair.running() as traffic:
        serial = (await pair.shown()).serial_number
        await pair.signing.stop()
        await pair.agent.end(signal.SIGKILL)
        await traffic.more()
        await pair.agent.start()

        async def reconnected() -> bool:
            states = await pair.agent.call("list")
            return len(states) == 2 and all(each["streams"] >= 2 for each in states)

        await until(reconnected)
        await traffic.more()
        assert (await pair.shown()).serial_number == serial
        # A Pod that starts now has what it had before: its Envoy gets the kept certificate.
        again = proxy(layout, pair.server, [], [cluster("x", 1, transport_socket=tls_from_sds("Upstream"))])
        try:
            await asyncio.to_thread(again.wait_live)
        finally:
            again.stop()
        assert traffic.failures == []


async def test_certificates_are_renewed_when_the_control_plane_is_back(layout: Layout) -> None:
    async with mesh_of_two(layout, dt.timedelta(seconds=8)) as pair, pair.running() as traffic:
        await pair.signing.stop()

        async def missing() -> bool:
            return "UNAVAILABLE" in (await pair.agent.state(pair.server["uid"]))["error"]

        await until(missing)
        issued = pair.signing.issued
        await pair.signing.start()

        async def renewed() -> bool:
            state = await pair.agent.state(pair.server["uid"])
            return not state["error"] and pair.signing.issued > issued

        await until(renewed)
        await traffic.more()


async def test_the_agent_ends_on_request(layout: Layout) -> None:
    async with mesh_of_two(layout) as pair:
        await pair.agent.add(pair.server)
        await pair.agent.call("remove_pod", uid=pair.server["uid"])
        assert await pair.agent.call("list") == []
        assert not Path(pair.server["sds_socket"]).exists()
        assert await pair.agent.end(signal.SIGTERM) == 0, pair.agent.log()
