"""The page on names does what it says, asked over real sockets.

Expectations: `ask` a name (with `type`, and `search`, a domain to complete it with), then `answer` (records without
name and TTL), `code`, `within` (the one address is in a range), or `relayed` (a resolver outside was asked and said
that there is no such name). `by: proxy` is the name server of proxies, `by: machine` that of a virtual machine of the
namespace default.
"""

from __future__ import annotations

import ipaddress
from typing import Any

import dns.rcode
import yaml

from lateen.api.codec import encode
from lateen.api.objects import transaction
from lateen.engine import Graph
from lateen.model.auto_addresses import unwritten_addresses
from lateen.node.dns import NameServer
from lateen.node.names import KINDS, Names
from lateen.node.resolvers import Resolvers
from tests.configuration import objects
from tests.docs.pages import steps
from tests.docs.test_features import PAGES
from tests.unit.node.test_dns import Mesh, Upstream, _found, upstream

__all__ = ["upstream"]  # a fixture

Json = dict[str, Any]


class Servers:
    """The three name servers over the same objects."""

    def __init__(self, upstream: Upstream) -> None:
        resolvers = Resolvers((upstream.resolver,))
        self.upstream = upstream
        self.tables = {"pod": Names(), "proxy": Names(), "machine": Names(home="default")}
        self.meshes = {name: Mesh(resolvers) for name in self.tables}
        for name, mesh in self.meshes.items():
            mesh.server = NameServer(self.tables[name], resolvers, external=name != "proxy", shuffle=lambda _: None)

    async def apply(self, text: str) -> None:
        """These objects instead of all others, with the addresses that the control plane would write."""
        found = objects(text)
        graph = Graph()
        graph.commit(transaction(found))
        written = dict(graph.pull(unwritten_addresses))
        documents: dict[str, list[Json]] = {kind: [] for kind in KINDS}
        for each in found:
            document = encode(each)
            if each.ref in written:
                pairs = [{"host": host, "value": address} for host, address in written[each.ref]]
                document["status"] = {"addresses": pairs}
            documents[each.KIND].append(document)
        for names in self.tables.values():
            for kind, items in documents.items():
                assert names.replace(kind, items) == []

    async def check(self, expected: Json) -> None:
        """Does what an expectation says."""
        name = expected["ask"] + (f".{expected['search']}" if "search" in expected else "")
        self.upstream.asked.clear()
        for tcp in (False, True):
            mesh = self.meshes[expected.get("by", "pod")]
            answer = await mesh.ask(name, expected.get("type", "A"), tcp=tcp)
            records = [record.partition(" ")[2] for record in _found(answer)]
            code = "NXDOMAIN" if expected.get("relayed") else expected.get("code", "NOERROR")
            assert dns.rcode.to_text(answer.rcode()) == code
            if "within" in expected:
                (address,) = records
                assert ipaddress.ip_address(address.removeprefix("A ")) in ipaddress.ip_network(expected["within"])
            else:
                assert sorted(records) == sorted(expected.get("answer", []))
        assert len(self.upstream.asked) == (2 if expected.get("relayed") else 0)


async def test_page(upstream: Upstream) -> None:
    servers = Servers(upstream)
    for mesh in servers.meshes.values():
        await mesh.start()
    checked = 0
    page = PAGES / "dns.md"
    for step in steps(page):
        if step.kind == "apply":
            await servers.apply(step.text)
            continue
        for expected in yaml.safe_load(step.text):
            try:
                await servers.check(expected)
            except Exception as error:
                error.add_note(f"{page.name}:{step.line}: {expected}")
                raise
            checked += 1
    for mesh in servers.meshes.values():
        await mesh.server.close()
    assert checked
