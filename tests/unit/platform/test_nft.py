"""Rule texts: what a Pod's capture excludes, and that changes of Services lead where a fresh table would."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from lateen.platform.nft import capture, services
from lateen.platform.pod import Redirect, ServiceVip
from lateen.platform.settings import PlatformSettings


def test_capture_names_what_is_excluded() -> None:
    redirect = Redirect(
        exclude_inbound_ports=(9000,), exclude_outbound_ports=(3306, 5432), exclude_outbound_ranges=("192.0.2.0/24",)
    )
    text = capture(redirect, PlatformSettings())
    assert "tcp dport { 9000, 15006, 15008, 15020, 15021, 15090 } return" in text
    assert "tcp dport { 3306, 5432 } return; ip daddr 192.0.2.0/24 return" in text
    assert text.index("3306") < text.index("redirect to :15001")


class Table:
    """The table as the kernel would have it, for the commands that `services` writes. Each refusal is a KeyError."""

    def __init__(self) -> None:
        self.chains: dict[str, list[str]] = {}
        self.map: dict[str, str] = {}

    def apply(self, line: str) -> None:
        if found := re.fullmatch(r"add chain ip lateen (\S+)", line):
            assert found[1] not in self.chains
            self.chains[found[1]] = []
        elif found := re.fullmatch(r"flush chain ip lateen (\S+)", line):
            self.chains[found[1]].clear()
        elif found := re.fullmatch(r"delete chain ip lateen (\S+)", line):
            assert found[1] not in self.map.values(), "in use"
            assert not self.chains.pop(found[1])
        elif found := re.fullmatch(r"add rule ip lateen (\S+) (.*)", line):
            self.chains[found[1]].append(found[2])
        elif found := re.fullmatch(r"add element ip lateen services \{ (.*) : goto (\S+) \}", line):
            assert found[2] in self.chains
            self.map[found[1]] = found[2]
        elif found := re.fullmatch(r"delete element ip lateen services \{ (.*) \}", line):
            del self.map[found[1]]
        else:
            raise KeyError(line)


ENDPOINTS = st.lists(st.tuples(st.sampled_from(["10.88.0.2", "10.88.0.3"]), st.integers(1, 3)), unique=True, max_size=3)
SERVICES = st.dictionaries(
    st.tuples(st.sampled_from(["10.96.0.1", "10.96.0.2"]), st.integers(1, 3), st.sampled_from(["tcp", "udp"])),
    ENDPOINTS.map(tuple),
).map(
    lambda found: tuple(
        ServiceVip(vip=vip, port=port, protocol="udp" if protocol == "udp" else "tcp", endpoints=endpoints)
        for (vip, port, protocol), endpoints in found.items()
    )
)


@given(st.lists(SERVICES, min_size=1, max_size=4))
def test_changes_lead_to_the_same_table_as_a_fresh_start(history: list[tuple[ServiceVip, ...]]) -> None:
    changed, fresh = Table(), Table()
    before: tuple[ServiceVip, ...] = ()
    for after in history:
        for batch in services(before, after):
            for line in batch.splitlines():
                changed.apply(line)
        before = after
    for batch in services((), before):
        for line in batch.splitlines():
            fresh.apply(line)
    assert (changed.chains, changed.map) == (fresh.chains, fresh.map)
    assert services(before, before) == []


def test_many_services_come_in_several_transactions() -> None:
    many = tuple(ServiceVip(vip=f"10.96.1.{n}", port=80, endpoints=(("10.88.0.2", 1),)) for n in range(200))
    batches = services((), many)
    assert len(batches) == 4
    assert len(services(many, ())) == 4
    wide = tuple(
        ServiceVip(vip=f"10.96.1.{n}", port=80, endpoints=tuple((f"10.88.{i}.2", 1) for i in range(200)))
        for n in range(10)
    )
    assert len(services((), wide)) >= 2
