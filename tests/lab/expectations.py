"""What pages promise beyond one request: streams, gRPC, WebSocket, requests at once, what a server saw.

- LINE: ratings:9000          a line of text on a connection of its own
- GRPC: reviews:9090          calls on one HTTP/2 connection, `of` so many
- WEBSOCKET: ratings:9080     an upgrade and a line
- GET: http://reviews:9080/   as everywhere, and with it
  at: 10.97.0.7               the address (or `unix://PATH`) that is dialled instead of the name's
  tls: shop.test              over TLS with that server name, as a client that trusts `root.pem`
  client: client              ... and shows that certificate
  outside: true               by a client without a proxy, to the application
  together: 3                 so many at once, each on a connection of its own
  before: 5                   so many requests before, whose answers don't count
  logged: [audit, " 200"]     after it a line of the gateway's log has all of these
Each with `from` (null: no answer), `status`, `statuses` (of requests at once), `shares` and `endpoints` (of calls),
and `saw`: parts of what the server says about the connection and the request (`tests/lab/server.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from tests.lab.client import Answer, Caller2, ask, at_once, exchange, line
from tests.lab.lab import OUTSIDE, Lab
from tests.lab.world import APPLICATION

Json = dict[str, Any]
VERBS = ("LINE", "GRPC", "WEBSOCKET", "GET")
OWN = {"logged", "at", "tls", "client", "outside", "together", "before", "saw", "statuses", "LINE", "GRPC", "WEBSOCKET"}
KEYS = {*OWN, *VERBS, "from", "status", "shares", "endpoints", "of", "headers", "script"}


def check(lab: Lab, expectation: Json) -> bool:
    """Does what an expectation of this kind says; False for one of another kind. AssertionError when it comes out
    otherwise, ValueError for an unknown key."""
    if not OWN & expectation.keys():
        return False
    if unknown := expectation.keys() - KEYS:
        raise ValueError(f"an expectation has no {', '.join(sorted(unknown))}")
    for server, steps in expectation.get("script", {}).items():
        lab.servers.script(server.replace("/", "-"), *(str(each) for each in steps))
    verb = next(each for each in VERBS if each in expectation)
    words = expectation.get("logged", ())
    before = _logged(lab, words)
    url = urlsplit(expectation[verb] if verb == "GET" else f"//{expectation[verb]}")
    host, port = url.hostname or "", url.port or 80
    how: Json = {"mark": OUTSIDE} if expectation.get("outside") else {}
    at = str(expectation.get("at") or (APPLICATION if how else host)).replace(
        "unix:///run/", f"unix://{lab.directory}/"
    )
    if verb == "LINE":
        _told(expectation, line(lab, at, port, **how))
    elif verb == "WEBSOCKET":
        _told(expectation, _upgraded(lab, at, host, port, how))
    elif verb == "GRPC":
        _calls(lab, expectation, at, host, port)
    else:
        if "tls" in expectation:
            how |= {"tls": lab.certificates.client_context(expectation.get("client", "")), "sni": expectation["tls"]}
        headers = expectation.get("headers", {})
        asked: Json = {"path": url.path, "port": port, "authority": host, "headers": headers, **how}
        for _ in range(expectation.get("before", 0)):
            ask(lab, at, **asked)
        _requests(lab, expectation, at, asked)
    if words:
        lab.wait(lambda: _logged(lab, words) > before)
    return True


def _logged(lab: Lab, words: Sequence[str]) -> int:
    """How many lines of the gateway's log have all words."""
    return sum(all(word in line for word in words) for line in lab.gateway.envoy.logs().splitlines()) if words else 0


def _requests(lab: Lab, expectation: Json, at: str, asked: Json) -> None:
    if "together" in expectation:
        found = Counter(each.status for each in at_once(lab, expectation["together"], host=at, **asked))
        assert found == Counter(expectation["statuses"]), found
        return
    answer: Answer = ask(lab, at, **asked)
    assert answer.status == expectation.get("status", 0 if expectation.get("from", "") is None else 200), answer
    if "from" in expectation or "saw" in expectation:
        _told(expectation, {**answer.seen, "server": answer.server} if answer.server else {})


def _told(expectation: Json, seen: Json) -> None:
    """Compares who answered, and what it saw of the connection."""
    if "from" in expectation:
        assert (seen.get("server") or None) == (expectation["from"] and expectation["from"].replace("/", "-")), seen
    for name, value in expectation.get("saw", {}).items():
        assert seen.get(name) == value, f"{name}: {seen}"


def _upgraded(lab: Lab, at: str, host: str, port: int, how: Json) -> Json:
    with lab.connect(at, port, **how) as one:
        one.sendall(f"GET / HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            more = one.recv(1)
            assert more, head
            head += more
        assert head.startswith(b"HTTP/1.1 101"), head
        return exchange(one)


def _calls(lab: Lab, expectation: Json, at: str, host: str, port: int) -> None:
    times = int(expectation["of"])
    with Caller2(lab, at, port) as caller:
        how = {"content-type": "application/grpc", "te": "trailers"}
        answers = [caller.ask(f"{host}:{port}", 1, "/x.Y/Z", **how)[0] for _ in range(times)]
    found = Counter(each.server.replace("-", "/", 1) for each in answers)
    assert len(found) == expectation.get("endpoints", len(found)), found
    for server, share in expectation.get("shares", {}).items():
        assert abs(found[server] - times * share / 100) <= 1, found
