"""`lateen serve` as a process, spoken to as a stock xDS client would."""

from __future__ import annotations

import queue
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.base_pb2 import Node
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse

CDS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"


def service(name: str) -> str:
    return (
        f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n"
        "spec: {clusterIP: 10.96.1.1, ports: [{name: http, port: 80}]}\n"
    )


class Client:
    """A state-of-the-world stream of clusters."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address)
        call = self._channel.stream_stream(
            METHOD,
            request_serializer=DiscoveryRequest.SerializeToString,
            response_deserializer=DiscoveryResponse.FromString,
        )
        self._queue: queue.Queue[DiscoveryRequest | None] = queue.Queue()
        node = Node(id="sidecar~10.0.0.1~web.shop~shop.svc.cluster.local")
        self._queue.put(DiscoveryRequest(type_url=CDS, node=node))
        self._answers = call(iter(self._queue.get, None), wait_for_ready=True, timeout=60)

    def clusters(self) -> set[str]:
        """Names of the next answer's outbound clusters; accepts it."""
        answer = next(self._answers)
        self._queue.put(DiscoveryRequest(type_url=CDS, version_info=answer.version_info, response_nonce=answer.nonce))
        names = {Cluster.FromString(each.value).name for each in answer.resources}
        return {name for name in names if name.startswith("outbound|")}

    def close(self) -> None:
        self._queue.put(None)
        self._answers.cancel()
        self._channel.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str, subprocess.Popen[str]]]:
    folder = tmp_path / "config"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.yaml").write_text(service(name))
    address = f"unix:{tmp_path}/x.sock"
    program = [sys.executable, "-m", "lateen.cli.main", "serve", "--config-dir", str(folder), "--xds-address", address]
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(program, stderr=log, text=True)
    yield folder, address, process
    if process.poll() is None:
        process.kill()
    process.wait()
    log.close()


def cluster(name: str) -> str:
    return f"outbound|80||{name}.shop.svc.cluster.local"


def test_a_folder_is_served_and_followed(served: tuple[Path, str, subprocess.Popen[str]]) -> None:
    folder, address, process = served
    client = Client(address)
    assert client.clusters() == {cluster("a"), cluster("b"), cluster("c")}
    draft = folder / "d.tmp"
    draft.write_text(service("d"))
    draft.rename(folder / "d.yaml")
    assert client.clusters() == {cluster(each) for each in "abcd"}
    (folder / "b.yaml").unlink()
    assert client.clusters() == {cluster(each) for each in "acd"}
    for path in folder.glob("*.yaml"):
        path.unlink()
    (folder / "e.yaml").write_text("kind: [half")
    (folder / "f.yaml").write_text(service("f"))  # the next answer still has all of them
    assert client.clusters() == {cluster(each) for each in "acdf"}
    client.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0


def test_what_is_wrong_with_the_call_is_said_in_a_line(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "lateen.cli.main", "serve", "--config-dir"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for arguments, said in (
            ([str(tmp_path / "none")], "is not a folder"),
            ([str(tmp_path), "--xds-address", address], f"cannot listen on {address}"),
        ):
            done = subprocess.run([*program, *arguments], capture_output=True, text=True, check=False)
            assert done.returncode == 1
            assert said in done.stderr
            assert "Traceback" not in done.stderr
