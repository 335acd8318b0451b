"""Three Envoys in a chain inside one network namespace, each fed on demand; real redirection, real applications.

    client --10.96.0.1:9080--> front:15001 ==> middle:16006 -> application
                                    application --10.97.0.1:9080--> middle:15101 ==> last:17006 -> application

Connections to 10.96/16 are redirected to the front's outbound listener, those to 10.97/16 to the middle's; the
proxies' own connections carry a mark. The outbound shape is the one lateen ships: `virtualOutbound` hands over by
original destination to `0.0.0.0_9080`, which binds no port and has route table "9080" without a `*` host.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from tests.envoy.harness import Envoy, ads_bootstrap, in_own_network, short_directory
from tests.envoy.on_demand import Host, Json, OnDemandServer, Role

MARK = 0x539
TYPE = "type.googleapis.com/envoy.extensions."
FROM_ADS: Json = {"ads": {}, "resource_api_version": "V3"}
READY_S = 15

RULES = f"""
table inet proxies {{
  chain output {{
    type nat hook output priority -100
    meta mark {MARK} return
    ip daddr 10.96.0.0/16 meta l4proto tcp redirect to :15001
    ip daddr 10.97.0.0/16 meta l4proto tcp redirect to :15101
  }}
}}
"""

ORIGIN = """
import http.server, json, socketserver, sys, urllib.request
name, port, further = sys.argv[1], int(sys.argv[2]), sys.argv[3]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"; wbufsize = -1
    def do_GET(self):
        seen = [{"server": name, "headers": {k.lower(): v for k, v in self.headers.items()}}]
        if further:
            request = urllib.request.Request(further, headers={"host": "last"})
            seen += json.load(urllib.request.urlopen(request, timeout=10))
        body = json.dumps(seen).encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments): pass
class Server(http.server.ThreadingHTTPServer):
    server_bind = socketserver.TCPServer.server_bind
Server(("127.0.0.1", port), Handler).serve_forever()
"""

GRPC_ORIGIN = """
import grpc, sys
from concurrent import futures
def chat(requests, context):
    context.send_initial_metadata([("x-first", "yes")])
    n = 0
    for each in requests:
        n += 1
        yield b"echo " + each
    context.set_trailing_metadata([("x-count", str(n))])
def fail(request, context):
    context.set_trailing_metadata([("x-why", "because")])
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now")
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("echo.Echo", {
    "Chat": grpc.stream_stream_rpc_method_handler(chat), "Fail": grpc.unary_unary_rpc_method_handler(fail)})])
server.add_insecure_port("127.0.0.1:" + sys.argv[1]); server.start(); server.wait_for_termination()
"""

GRPC_CLIENT = """
import grpc, json, sys
with grpc.insecure_channel(sys.argv[1], [("grpc.default_authority", sys.argv[2])]) as channel:
    call = channel.stream_stream("/echo.Echo/Chat")(iter([b"a", b"b", b"c"]), timeout=10)
    answers = [each.decode() for each in call]
    found = {"answers": answers, "first": dict(call.initial_metadata()), "trailers": dict(call.trailing_metadata())}
    try: channel.unary_unary("/echo.Echo/Fail")(b"", timeout=10)
    except grpc.RpcError as e:
        found["failure"] = [e.code().name, e.details(), dict(e.trailing_metadata())["x-why"]]
print(json.dumps(found))
"""

BANNER = """
import socketserver, sys
class Handler(socketserver.StreamRequestHandler):
    def handle(self): self.wfile.write(b"hello from " + sys.argv[1].encode() + b"\\n")
socketserver.ThreadingTCPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""

HTTP_CLIENT = """
import http.client, json, sys
c = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=10)
try:
    c.request("GET", "/", headers=json.loads(sys.argv[3])); a = c.getresponse()
    print(json.dumps([a.status, a.read().decode(), {k.lower(): v for k, v in a.getheaders()}]))
except OSError as error: print(json.dumps([0, repr(error), {}]))
"""

TCP_CLIENT = """
import json, socket, sys
try:
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5); print(json.dumps(s.makefile().readline()))
except OSError as error: print(json.dumps(repr(error)))
"""

STEADY_CLIENT = """
import http.client, json, sys, time
end, counts = time.monotonic() + float(sys.argv[4]), {}
c = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=10)
print("started", flush=True)
while time.monotonic() < end:
    c.request("GET", "/", headers=json.loads(sys.argv[3])); a = c.getresponse(); a.read()
    counts[a.status] = counts.get(a.status, 0) + 1
print(json.dumps(counts))
"""


def manager(table: str, filters: Sequence[Json], *, eager: bool = False) -> Json:
    """An HTTP connection manager on a route table; `on_demand` comes first unless the table is eager."""
    on_demand: Json = {
        "name": "envoy.filters.http.on_demand",
        "typed_config": {
            "@type": TYPE + "filters.http.on_demand.v3.OnDemand",
            "odcds": {"source": FROM_ADS, "timeout": "5s"},
        },
    }
    router: Json = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": TYPE + "filters.http.router.v3.Router"},
    }
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": table,
            "rds": {"route_config_name": table, "config_source": FROM_ADS},
            "http_filters": [*([] if eager else [on_demand]), *filters, router],
        },
    }


def outbound(port: int, filters: Sequence[Json] = (), tables: Sequence[str] = ("9080",)) -> list[Json]:
    """`virtualOutbound`, whose own chain takes a TCP cluster by original destination, and the HTTP ports."""
    by_destination: Json = {
        "name": "envoy.filters.network.set_filter_state",
        "typed_config": {
            "@type": TYPE + "filters.network.set_filter_state.v3.Config",
            "on_new_connection": [
                {
                    "object_key": "envoy.tcp_proxy.cluster",
                    "format_string": {"text_format_source": {"inline_string": "%DOWNSTREAM_LOCAL_ADDRESS%"}},
                }
            ],
        },
    }
    tcp: Json = {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": TYPE + "filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "tcp",
            "cluster": "PassthroughCluster",
            "on_demand": {"odcds_config": FROM_ADS, "timeout": "2s"},
        },
    }
    catch: Json = {
        "name": "virtualOutbound",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "use_original_dst": True,
        "listener_filters": [
            {
                "name": "envoy.filters.listener.original_dst",
                "typed_config": {"@type": TYPE + "filters.listener.original_dst.v3.OriginalDst"},
            }
        ],
        "filter_chains": [{"filters": [by_destination, tcp]}],
    }
    return [catch, *[http_port(table, filters) for table in tables]]


def http_port(table: str, filters: Sequence[Json] = (), *, eager: bool = False) -> Json:
    """The listener of one HTTP port; it binds nothing and gets its connections from `virtualOutbound`."""
    return {
        "name": f"0.0.0.0_{table}",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": int(table)}},
        "bind_to_port": False,
        "filter_chains": [{"filters": [manager(table, filters, eager=eager)]}],
    }


def inbound(port: int, cluster: str) -> list[Json]:
    """What a proxy does for its own application: everything goes to it."""
    table: Json = {
        "name": f"inbound-{port}",
        "virtual_hosts": [
            {
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}],
            }
        ],
    }
    made = manager(table["name"], (), eager=True)
    del made["typed_config"]["rds"]
    made["typed_config"]["route_config"] = table
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return [{"name": f"inbound-{port}", "address": address, "filter_chains": [{"filters": [made]}]}]


def vhds(table: str) -> Json:
    """A table whose virtual hosts come on demand."""
    return {
        "name": table,
        "ignore_port_in_host_matching": True,
        "vhds": {"config_source": {**FROM_ADS, "initial_fetch_timeout": "0.05s"}},
    }


def cluster(name: str, port: int, *, h2: bool = False) -> tuple[Json, Json]:
    """An EDS cluster and its only endpoint, a port of loopback."""
    made: Json = {"name": name, "type": "EDS", "eds_cluster_config": {"eds_config": FROM_ADS}}
    protocol: Json = {"http2_protocol_options": {}} if h2 else {"http_protocol_options": {}}
    made["typed_extension_protocol_options"] = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": TYPE + "upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": protocol,
        }
    }
    where = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    return made, {"cluster_name": name, "endpoints": [{"lb_endpoints": [where]}]}


def host(name: str, to: str, more: Json | None = None, routes: Sequence[Json] = ()) -> Host:
    """A virtual host that routes everything to one cluster; `more` is what a patch would merge into it."""
    last: Json = {"match": {"prefix": "/"}, "route": {"cluster": to, "timeout": "0s"}}
    clusters = {to, *[each["route"]["cluster"] for each in routes]}
    full = f"{name}.default.svc.cluster.local"
    return Host(full, (name, full), {"routes": [*routes, last], **(more or {})}, tuple(sorted(clusters)))


class Chain:
    """The world; a context manager. `roles` are front, middle and last."""

    def __init__(self, front_filters: Sequence[Json] = ()) -> None:
        self.directory = short_directory()
        self.roles = {
            "front": Role(outbound(15001, front_filters), [vhds("9080")]),
            "middle": Role([*outbound(15101), *inbound(16006, "app")], [vhds("9080")]),
            "last": Role(inbound(17006, "app"), []),
        }
        self.roles["front"].clusters = {"outbound|9080||middle": cluster("outbound|9080||middle", 16006)}
        self.roles["middle"].clusters = {"outbound|9080||last": cluster("outbound|9080||last", 17006)}
        self.roles["front"].hosts.append(host("middle", "outbound|9080||middle"))
        self.roles["middle"].hosts.append(host("last", "outbound|9080||last"))
        self.server = OnDemandServer(self.roles)
        self._programs: list[subprocess.Popen[bytes]] = []
        self.envoys: dict[str, Envoy] = {}
        self._transport = grpc.server(ThreadPoolExecutor(8))
        self._transport.add_generic_rpc_handlers((self.server,))
        self._transport.add_insecure_port(f"unix:{self.directory}/xds.sock")
        self._transport.start()
        self._space = subprocess.Popen([*in_own_network(), "sleep", "infinity"])

    def __enter__(self) -> Chain:
        try:
            self._prepare()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self.envoys.values():
            each.stop()
        for each in [*self._programs, self._space]:
            each.kill()
            each.communicate()
        self._transport.stop(None).wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _prepare(self) -> None:
        own = Path("/proc/self/ns/net").readlink()
        space = Path(f"/proc/{self._space.pid}/ns/net")
        self._until(lambda: space.readlink() != own, "the namespace is there")
        for command in (
            "link set lo up",
            "link add eth0 type veth peer name eth1",
            "link set eth1 up",
            "address add 10.88.0.5/16 dev eth0",
            "link set eth0 up",
            "route add default dev eth0",
        ):
            self._run("ip", *command.split())
        self._run("nft", "-f", "-", stdin=RULES)
        ports = {"front": 0, "middle": 9001, "last": 9002}
        for name, port in ports.items():
            place = self.directory / name
            place.mkdir()
            self.envoys[name] = Envoy(self._bootstrap(name, port), place, prefix=self._inside())
        self.start(ORIGIN, "middle", "9001", "http://10.97.0.1:9080/")
        self.start(ORIGIN, "last", "9002", "")
        for each in self.envoys.values():
            each.wait_live()
        self.listening(9001)
        self.listening(9002)

    def _bootstrap(self, name: str, port: int) -> Json:
        made = ads_bootstrap(self.directory / "xds.sock", f"sidecar~10.88.0.5~{name}.default~default.svc.cluster.local")
        option = {"level": 1, "name": 36, "int_value": MARK, "state": "STATE_PREBIND"}
        made["cluster_manager"] = {"upstream_bind_config": {"socket_options": [option]}}
        static: list[Json] = made["static_resources"]["clusters"]
        static.append({"name": "PassthroughCluster", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED"})
        if port:
            app, where = cluster("app", port)
            static.append({**app, "type": "STATIC", "eds_cluster_config": None, "load_assignment": where})
        return made

    # -- what happens in it ---------------------------------------------------------------------------------

    def get(self, host: str, address: str = "10.96.0.1", port: int = 9080, **headers: str) -> tuple[int, Any, Json]:
        """GET / with a Host header: status (0: no answer), body (decoded when it is JSON), response headers."""
        sent = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
        status, body, answered = self.ask(HTTP_CLIENT, address, str(port), json.dumps(sent))
        return status, json.loads(body) if body.startswith("[") else body, answered

    def ask(self, source: str, *arguments: str) -> Any:
        """Runs a client program and decodes what it prints."""
        done = subprocess.run(
            [*self._inside(), sys.executable, "-I", "-W", "ignore", "-c", source, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def start(self, source: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts a program that runs until the chain ends."""
        command = [*self._inside(), sys.executable, "-I", "-W", "ignore", "-c", source, *arguments]
        started = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert started.stdout is not None
        self._programs.append(started)
        return started

    def listening(self, port: int) -> None:
        """Waits until something listens on that port."""
        self._until(lambda: f":{port} " in self._run("ss", "-Hltn"), f"something listens on {port}")

    def _until(self, condition: Any, what: str) -> None:
        end = time.monotonic() + READY_S
        while not condition():
            assert time.monotonic() < end, f"not in {READY_S} s: {what}"
            time.sleep(0.02)

    def _run(self, *command: str, stdin: str = "") -> str:
        done = subprocess.run([*self._inside(), *command], input=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def _inside(self) -> list[str]:
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self._space.pid), *user, "--net"]
