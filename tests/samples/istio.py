"""What the routing documents of Istio's samples are to do, by their comments and Istio's documentation.

A case applies a file, with those its task applies before it, and sends traffic; its docstring says what is shown.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from functools import partial

import yaml

from tests.lab.client import Answer, ask, at_once, line
from tests.paths import shared
from tests.samples.means import REGISTRY_ONLY, SELF, SIGMAS, Case, each_subset, identified, near, said, trusting
from tests.samples.programs import documents
from tests.samples.stage import Stage

BOOKINFO = "istio/bookinfo/networking"
TUTORIAL = "istio-tutorial/istiofiles"
ALL = f"{BOOKINFO}/destination-rule-all.yaml"
HOST = "istiod.shop.test"
AUTO = "outbound_.9080_.v1_.reviews.default.svc.cluster.local"


def leads(name: str, stage: Stage, **wanted: str) -> None:
    """All requests go to the versions that the file names."""
    stage.apply(ALL, f"{BOOKINFO}/{name}.yaml")
    for host, server in wanted.items():
        assert {stage.who(host) for _ in range(4)} == {server}


def splits(name: str, stage: Stage, **wanted: float) -> None:
    """Requests are shared out by the weights."""
    stage.apply(ALL, f"{BOOKINFO}/{name}.yaml")
    near(stage.shares("reviews", 400), {f"reviews-{version}": share for version, share in wanted.items()})


def users(name: str, stage: Stage, jason: str, others: str) -> None:
    """The user jason gets another version than everybody else."""
    stage.apply(ALL, f"{BOOKINFO}/{name}.yaml")
    assert stage.who("reviews", end_user="jason") == jason
    assert {stage.who("reviews"), stage.who("reviews", end_user="jasonx")} == {others}


def bookinfo_gateway(stage: Stage) -> None:
    """The page's paths lead to productpage, on the gateway's port 8080; others are not found."""
    stage.apply(f"{BOOKINFO}/bookinfo-gateway.yaml")
    paths = ("/productpage", "/static/x.css", "/login", "/logout", "/api/v1/products/0")
    assert {stage.edge(path, 8080) for path in paths} == {"productpage-v1"}
    assert {stage.edge(path, 8080) for path in ("/", "/productpage/x", "/logout2")} == {"404"}


def certmanager(stage: Stage) -> None:
    """Challenges of the ACME protocol lead to cert-manager's resolver, nothing else."""
    stage.apply(f"{BOOKINFO}/certmanager-gateway.yaml")
    assert stage.edge("/.well-known/acme-challenge/token") == "cert-manager-resolver"
    assert stage.edge("/") == "404"


def mutual(stage: Stage) -> None:
    """Every service is called by mutual TLS with the workload's own certificate, and its subsets are there."""
    with identified(stage, dict.fromkeys(stage.lab.world.names.values(), "workload")):
        for host in ("productpage", "reviews", "ratings", "details"):
            each_subset(stage, f"{BOOKINFO}/destination-rule-all-mtls.yaml", host)
            seen = ask(stage.lab, host, headers={"x-subset": "v1"}).seen
            assert (seen["tls"], seen["client"]) == (True, SELF)


def all_subsets(stage: Stage) -> None:
    """Each subset is the workloads with its version."""
    for host in ("productpage", "reviews", "ratings", "details"):
        each_subset(stage, ALL, host)


def reviews_subsets(stage: Stage) -> None:
    """Each subset is the workloads with its version; a subset's own load balancing does not keep it from answering."""
    each_subset(stage, f"{BOOKINFO}/destination-rule-reviews.yaml", "reviews")


def google(stage: Stage) -> None:
    """A plain request to port 80 leaves as TLS to port 443, for the right server name."""
    stage.apply(f"{BOOKINFO}/egress-rule-google-apis.yaml", edit=trusting)
    seen = ask(stage.lab, "10.88.90.1", port=80, authority="www.googleapis.com").seen
    assert (seen["server"], seen["tls"], seen["sni"], seen["port"]) == ("googleapis", True, "www.googleapis.com", 443)


def details_fault(stage: Stage) -> None:
    """Every request to details ends in 555; what is said about the rule that nothing reaches is a finding."""
    file = f"{BOOKINFO}/fault-injection-details-v1.yaml"
    stage.apply(file)
    assert said(file) == {("IST0130", "spec.http[1]")}
    assert {stage.who("details") for _ in range(3)} == {"555"}


def ratings_abort(stage: Stage) -> None:
    """jason gets 500 from ratings, everybody else an answer of v1."""
    stage.apply(ALL, f"{BOOKINFO}/virtual-service-ratings-test-abort.yaml")
    assert stage.who("ratings", end_user="jason") == "500"
    assert {stage.who("ratings"), stage.who("ratings", end_user="other")} == {"ratings-v1"}


def delays(stage: Stage) -> None:
    """jason waits 7 s for ratings, and half of the requests to recommendation do (by the old field percent, of which
    a finding names the new one); others don't."""
    half = (f"{TUTORIAL}/destination-rule-recommendation.yml", f"{TUTORIAL}/virtual-service-recommendation-delay.yml")
    stage.apply(ALL, f"{BOOKINFO}/virtual-service-ratings-test-delay.yaml", *half)
    assert said(half[1]) == {("IST0002", "spec.http[0].fault.delay.percent")}
    waited: list[Answer] = []
    jason = partial(ask, stage.lab, "ratings", headers={"end-user": "jason"})
    slow = threading.Thread(target=lambda: waited.append(jason()))
    slow.start()
    found = at_once(stage.lab, 40, host="recommendation", port=8080)
    slow.join()
    assert (waited[0].status, waited[0].server) == (200, "ratings-v1")
    assert 6.9 < waited[0].seconds < 20
    assert ask(stage.lab, "ratings", headers={"end-user": "other"}).seconds < 6
    assert {each.status for each in found} == {200}
    late = sum(each.seconds > 6.9 for each in found)
    assert abs(late - 20) <= SIGMAS * math.sqrt(10), late


def helloworld(stage: Stage) -> None:
    """/hello alone leads to helloworld, both versions."""
    stage.apply("istio/helloworld/helloworld-gateway.yaml")
    assert {stage.edge("/hello") for _ in range(20)} == {"helloworld-v1", "helloworld-v2"}
    assert stage.edge("/hello/x") == "404"


def httpbin(stage: Stage) -> None:
    """Everything leads to port 8000 of httpbin, which is port 8080 of its workload."""
    stage.apply("istio/httpbin/httpbin-gateway.yaml")
    assert stage.edge("/status/200") == "httpbin"
    assert ask(stage.lab, "gateway", port=80).seen["port"] == 8080


def websockets(stage: Stage) -> None:
    """A WebSocket is opened through the gateway, and what is said on it arrives."""
    stage.apply("istio/websockets/route.yaml")
    with stage.lab.connect("gateway", 80) as one:
        one.sendall(b"GET /ws HTTP/1.1\r\nhost: tornado\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
        answer = one.recv(65536)
        assert answer.startswith(b"HTTP/1.1 101"), answer
        one.sendall(b"frame\n")
        while b"frame" not in answer:
            more = one.recv(65536)
            assert more, answer
            answer += more
    assert b'"server": "tornado"' in answer


def tcp_echo(stage: Stage) -> None:
    """Connections to port 31400 of the gateway go to tcp-echo v1."""
    stage.apply("istio/tcp-echo/tcp-echo-all-v1.yaml")
    assert {line(stage.lab, "gateway", 31400)["server"] for _ in range(10)} == {"tcp-echo-v1"}


def tcp_echo_split(stage: Stage) -> None:
    """One connection in five goes to tcp-echo v2."""
    stage.apply("istio/tcp-echo/tcp-echo-all-v1.yaml", "istio/tcp-echo/tcp-echo-20-v2.yaml")
    found = Counter(line(stage.lab, "gateway", 31400)["server"] for _ in range(200))
    near(found, {"tcp-echo-v1": 0.8, "tcp-echo-v2": 0.2})


def istiod(stage: Stage) -> None:
    """Handshakes for any name pass through the east-west gateway to istiod, by port."""
    stage.gateway("eastwestgateway")
    stage.apply("istio/multicluster/expose-istiod.yaml", edit=in_system)
    for port, there in ((15012, 15012), (15017, 443)):
        tls = stage.lab.certificates.client_context()
        seen = line(stage.lab, "gateway", port, tls=tls, sni="any.name")
        assert (seen["server"], seen["port"], seen["sni"]) == ("istiod", there, "any.name")


def istiod_https(stage: Stage) -> None:
    """TLS ends at the east-west gateway and begins again to istiod; over HTTP/2 on port 15012."""
    stage.gateway("eastwestgateway")

    def filled(text: str) -> str:
        return in_system(trusting(text).replace("$CREDENTIAL_NAME", "edge").replace("ISTIOD-HOST.DOMAIN", HOST))

    stage.apply("istio/multicluster/expose-istiod-https.yaml", edit=filled)
    for port, there, protocol in ((15012, 15012, "h2"), (15017, 443, "http/1.1")):
        tls = stage.lab.certificates.client_context()
        seen = ask(stage.lab, "gateway", port=port, authority=HOST, tls=tls, sni=HOST).seen
        assert (seen["server"], seen["port"], seen["tls"], seen["protocol"]) == ("istiod", there, True, protocol)


def services(stage: Stage) -> None:
    """Mutual TLS of another cluster passes through the east-west gateway to the subset that its server name says; what
    is not the mesh's is turned away."""
    stage.gateway("eastwestgateway")
    with identified(stage, {"reviews-v1": "workload"}):
        subsets = (shared("samples") / ALL).read_text()
        stage.apply("istio/multicluster/expose-services.yaml", more=subsets, edit=in_system)
        ours = stage.lab.certificates.client_context("workload", ("istio",))
        seen = line(stage.lab, "gateway", 15443, tls=ours, sni=AUTO)
        assert (seen["server"], seen["sni"], seen["client"]) == ("reviews-v1", AUTO, SELF)
        assert line(stage.lab, "gateway", 15443, tls=stage.lab.certificates.client_context(), sni=AUTO) == {}


def in_system(text: str) -> str:
    """As `kubectl apply -n istio-system`."""
    return text.replace("\nmetadata:\n", "\nmetadata:\n  namespace: istio-system\n")


def github(stage: Stage) -> None:
    """Where only registered hosts may be reached: github.com by its server name, its addresses on port 22."""
    stage.apply("istio/external/github.yaml", more=REGISTRY_ONLY)
    tls = partial(stage.lab.certificates.client_context)
    assert line(stage.lab, "10.88.90.3", 443, tls=tls(), sni="github.com").get("server") == "github"
    assert line(stage.lab, "10.88.90.3", 443, tls=tls(), sni="outside.test") == {}
    assert line(stage.lab, "140.82.112.3", 22).get("server") == "github-ssh"
    assert line(stage.lab, "10.88.90.3", 22) == {}


def beside(stage: Stage) -> None:
    """Names of a program in the same Pod lead to 127.0.0.1, over HTTP and gRPC."""
    entries = [
        yaml.safe_dump(each)
        for each in documents(shared("samples") / "istio/extauthz/local-ext-authz.yaml")
        if each["kind"] == "ServiceEntry"
    ]
    route = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /grpc}}]
    route: [{destination: {host: ext-authz-grpc.local}}]
  - route: [{destination: {host: ext-authz-http.local}}]
"""
    stage.lab.configure("---\n".join([*entries, route]))
    assert ask(stage.lab, "reviews").seen["port"] == 8000
    seen = ask(stage.lab, "reviews", "/grpc").seen
    assert (seen["port"], seen["protocol"]) == (9000, "h2")


CASES: dict[str, Case] = {
    f"{BOOKINFO}/bookinfo-gateway.yaml": bookinfo_gateway,
    f"{BOOKINFO}/certmanager-gateway.yaml": certmanager,
    f"{BOOKINFO}/destination-rule-all-mtls.yaml": mutual,
    ALL: all_subsets,
    f"{BOOKINFO}/destination-rule-reviews.yaml": reviews_subsets,
    f"{BOOKINFO}/egress-rule-google-apis.yaml": google,
    f"{BOOKINFO}/fault-injection-details-v1.yaml": details_fault,
    f"{BOOKINFO}/virtual-service-ratings-test-abort.yaml": ratings_abort,
    f"{BOOKINFO}/virtual-service-ratings-test-delay.yaml": delays,
    **{
        f"{BOOKINFO}/{name}.yaml": partial(leads, name, **wanted)
        for name, wanted in {
            "virtual-service-all-v1": {each: f"{each}-v1" for each in ("productpage", "reviews", "ratings", "details")},
            "virtual-service-details-v2": {"details": "details-v2"},
            "virtual-service-ratings-db": {"reviews": "reviews-v3", "ratings": "ratings-v2"},
            "virtual-service-ratings-mysql": {"reviews": "reviews-v3", "ratings": "ratings-v2-mysql"},
            "virtual-service-ratings-mysql-vm": {"reviews": "reviews-v3", "ratings": "ratings-v2-mysql-vm"},
            "virtual-service-reviews-v3": {"reviews": "reviews-v3"},
        }.items()
    },
    **{
        f"{BOOKINFO}/virtual-service-reviews-{name}.yaml": partial(splits, f"virtual-service-reviews-{name}", **wanted)
        for name, wanted in {
            "50-v3": {"v1": 0.5, "v3": 0.5},
            "80-20": {"v1": 0.8, "v2": 0.2},
            "90-10": {"v1": 0.9, "v2": 0.1},
            "v2-v3": {"v2": 0.5, "v3": 0.5},
        }.items()
    },
    **{
        f"{BOOKINFO}/virtual-service-reviews-{name}.yaml": partial(
            users, f"virtual-service-reviews-{name}", jason="reviews-v2", others=others
        )
        for name, others in {"jason-v2-v3": "reviews-v3", "test-v2": "reviews-v1"}.items()
    },
    "istio/helloworld/helloworld-gateway.yaml": helloworld,
    "istio/httpbin/httpbin-gateway.yaml": httpbin,
    "istio/websockets/route.yaml": websockets,
    "istio/tcp-echo/tcp-echo-all-v1.yaml": tcp_echo,
    "istio/tcp-echo/tcp-echo-20-v2.yaml": tcp_echo_split,
    "istio/multicluster/expose-istiod.yaml": istiod,
    "istio/multicluster/expose-istiod-https.yaml": istiod_https,
    "istio/multicluster/expose-services.yaml": services,
    "istio/external/github.yaml": github,
    "istio/extauthz/local-ext-authz.yaml": beside,
}
