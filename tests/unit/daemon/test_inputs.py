from __future__ import annotations

from pathlib import Path
from typing import Any

from lateen.api.core.config_map import ConfigMap
from lateen.apiserver.deletion import Delete
from lateen.apiserver.operations import Create, Put, PutStatus, Replace, SetFindings
from lateen.apiserver.store import Store
from lateen.daemon.inputs import Inputs
from lateen.daemon.quarantine import StoreQuarantine
from lateen.engine import Transaction
from lateen.lib.findings import Finding, Level
from lateen.lib.ids import Ref

Json = dict[str, Any]


def config_map(value: str) -> Json:
    metadata = {"name": "a", "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"x": value}}


def pod(**status: Any) -> Json:
    metadata = {"name": "p", "namespace": "default"}
    spec = {"containers": [{"name": "c"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


REF = Ref("", "ConfigMap", "default", "a")


async def open_store(directory: Path) -> tuple[Store, list[Transaction]]:
    store = await Store.open(directory / "s.db")
    seen: list[Transaction] = []
    store.subscribe(Inputs(seen.append))
    return store, seen


async def test_only_what_queries_read_makes_a_transaction(tmp_path: Path) -> None:
    store, seen = await open_store(tmp_path)
    await store.write([Create(config_map("1")), Create(pod())])
    assert [len(list(each.put)) for each in seen] == [2]
    await store.write([PutStatus(config_map("1") | {"status": {"s": 1}})])
    await store.write([SetFindings(REF, "node", (Finding(code="X", level=Level.INFO, message="m"),))])
    assert len(seen) == 1
    await store.write([PutStatus(pod(phase="Running"))])
    assert len(seen) == 2
    await store.write([Delete(REF)])
    assert list(seen[2].delete) == [REF]
    await store.close()


async def test_what_proxies_refuse_goes_back_in_the_graph_with_a_finding_that_its_fix_ends(tmp_path: Path) -> None:
    store, seen = await open_store(tmp_path)
    source = b'{"file":"a.yaml","lines":{"":[3,1]}}'
    await store.write([Put(config_map("good"), source)])
    await store.write([Put(config_map("bad"), source)])
    await StoreQuarantine(store).hold(REF, "Envoy said no")

    def value() -> str:
        ((_, last),) = seen[-1].put
        assert isinstance(last, ConfigMap)
        return last.data["x"]

    assert value() == "good"
    row = store.get(REF)
    assert row is not None
    (finding,) = row.decode()["status"]["findings"]
    assert finding["position"] == {"file": "a.yaml", "line": 3, "column": 1}
    assert "Envoy said no" in finding["message"]
    # A restart sees the same.
    await store.close()
    store = await Store.open(tmp_path / "s.db")
    store.subscribe(Inputs(seen.append))
    assert (store.get(REF) or row).held is not None
    await store.write([Replace(config_map("fixed"))])
    assert value() == "fixed"
    fixed = store.get(REF)
    assert fixed is not None
    assert "status" not in fixed.decode()
    await StoreQuarantine(store).hold(Ref("", "ConfigMap", "default", "gone"), "no")
    await store.close()
