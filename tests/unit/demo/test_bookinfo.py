"""The demo's programs on loopback, each a real server in a thread, asked over HTTP."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from lateen.demo import details, productpage
from lateen.demo.productpage import ProductPage
from lateen.demo.ratings import Ratings
from lateen.demo.reviews import Reviews, from_environment
from lateen.demo.server import Handle, Request, Response, Server, Upstream, answer

DEMO = Path(productpage.__file__).parent


@contextmanager
def serving(handle: Handle) -> Iterator[int]:
    server = Server(("127.0.0.1", 0), handle)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        assert server.drain(5)
        thread.join()


def ask(
    port: int, path: str, method: str = "GET", headers: dict[str, str] | None = None, body: bytes | None = None
) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode(), {k.lower(): v for k, v in response.getheaders()}
    finally:
        connection.close()


@dataclass
class Bookinfo:
    """The four programs wired together. `seen` are the headers that arrived at ratings, each request's."""

    port: int = 0
    seen: list[dict[str, str]] = field(default_factory=list)
    ratings_status: int = 200
    ratings_delay_s: float = 0.0
    ratings: Ratings = field(default_factory=Ratings)
    reviews: list[Reviews] = field(default_factory=list)

    def use(self, reviews: Reviews) -> None:
        """Run this version of reviews from now on."""
        self.reviews.append(reviews)

    def answer_ratings(self, request: Request) -> Response:
        self.seen.append(dict(request.headers))
        time.sleep(self.ratings_delay_s)
        return self.ratings.handle(request) if self.ratings_status == 200 else answer({}, self.ratings_status)

    def answer_reviews(self, request: Request) -> Response:
        return self.reviews[-1].handle(request)


@pytest.fixture
def bookinfo(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bookinfo]:
    app = Bookinfo()
    for name in ("DETAILS", "REVIEWS", "RATINGS"):
        monkeypatch.setenv(f"{name}_HOSTNAME", "127.0.0.1")
    with ExitStack() as stack:
        monkeypatch.setenv("RATINGS_SERVICE_PORT", str(stack.enter_context(serving(app.answer_ratings))))
        monkeypatch.setenv("DETAILS_SERVICE_PORT", str(stack.enter_context(serving(details.handle))))
        monkeypatch.setenv("REVIEWS_SERVICE_PORT", str(stack.enter_context(serving(app.answer_reviews))))
        page = ProductPage()
        app.use(version("v2"))
        app.port = stack.enter_context(serving(page.handle))
        yield app
    for upstream in (page.details, page.reviews, page.ratings, *(reviews.ratings for reviews in app.reviews)):
        upstream.close()


def version(name: str) -> Reviews:
    return from_environment({"SERVICE_VERSION": name})


def test_the_api_has_the_shapes_of_the_published_interface(bookinfo: Bookinfo) -> None:
    port = bookinfo.port
    products = json.loads(ask(port, "/api/v1/products")[1])
    assert [set(product) for product in products] == [{"id", "title", "descriptionHtml"}]
    book = json.loads(ask(port, "/api/v1/products/0")[1])
    assert set(book) >= {"id", "publisher", "language", "author", "ISBN-10", "ISBN-13", "year", "type", "pages"}
    reviews = json.loads(ask(port, "/api/v1/products/0/reviews")[1])
    assert reviews["id"] == "0"
    assert [review["rating"] for review in reviews["reviews"]] == [
        {"stars": 5, "color": "black"},
        {"stars": 4, "color": "black"},
    ]
    ratings = json.loads(ask(port, "/api/v1/products/0/ratings")[1])
    assert ratings["ratings"] == {"Reviewer1": 5, "Reviewer2": 4}
    assert all("podname" in document and "clustername" in document for document in (book, reviews, ratings))
    assert ask(port, "/api/v1/products/x")[0] == 400
    assert ask(port, "/nothing")[0] == 404


def test_versions_of_reviews_differ_in_their_stars(bookinfo: Bookinfo) -> None:
    port = bookinfo.port
    assert "color:black" in ask(port, "/productpage")[1]
    bookinfo.use(version("v3"))
    assert "color:red" in ask(port, "/productpage")[1]
    bookinfo.use(version("v1"))
    shown = ask(port, "/productpage")[1]
    assert "color:" not in shown
    assert "Book Reviews" in shown


def test_a_logged_in_user_and_the_trace_reach_the_last_service(bookinfo: Bookinfo) -> None:
    port = bookinfo.port
    form = {"content-type": "application/x-www-form-urlencoded"}
    status, _, headers = ask(port, "/login", "POST", form, b"username=jason&passwd=secret")
    assert (status, headers["location"]) == (302, "/productpage")
    cookie = headers["set-cookie"].partition(";")[0]
    shown = ask(port, "/productpage", headers={"cookie": cookie, "x-request-id": "r-1", "traceparent": "00-1"})[1]
    assert "Hello, <b>jason</b>" in shown
    last = bookinfo.seen[-1]
    assert (last["end-user"], last["x-request-id"], last["traceparent"]) == ("jason", "r-1", "00-1")
    out = ask(port, "/logout")[2]["set-cookie"]
    assert out.startswith("session=;")
    ask(port, "/productpage")
    assert "end-user" not in bookinfo.seen[-1]


@pytest.mark.parametrize("cookie", ["session=", "session=%%%", "session=W10=", "session=eyJ1c2VyIjogMX0=", "=;;"])
def test_a_strange_session_is_nobody(cookie: str) -> None:
    assert productpage.session_user({"cookie": cookie}) == ""


def test_failing_ratings_cost_the_stars_only(bookinfo: Bookinfo) -> None:
    bookinfo.ratings_status = 500
    shown = ask(bookinfo.port, "/productpage")[1]
    assert "Ratings service is currently unavailable" in shown
    assert "Book Reviews" in shown


def test_slow_ratings_break_version_2_but_not_version_3(bookinfo: Bookinfo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tutorial's timing, ten times faster: ratings 0.7 s, page 2 x 0.3 s, reviews v2 1 s, v3 0.25 s."""
    monkeypatch.setattr(productpage, "TIMEOUT_S", 0.3)
    bookinfo.ratings_delay_s = 0.7
    bookinfo.use(Reviews("black", 1.0))
    started = time.monotonic()
    shown = ask(bookinfo.port, "/productpage")[1]
    assert 0.6 <= time.monotonic() - started < 0.7
    assert "Error fetching product reviews!" in shown
    bookinfo.use(Reviews("red", 0.25))
    shown = ask(bookinfo.port, "/productpage")[1]
    assert "Ratings service is currently unavailable" in shown


def test_the_documented_timeouts_are_the_shipped_ones() -> None:
    assert productpage.TIMEOUT_S * productpage.REVIEW_ATTEMPTS == 6
    assert from_environment({"SERVICE_VERSION": "v2"}).ratings_timeout_s == 10
    assert from_environment({"SERVICE_VERSION": "v3"}).ratings_timeout_s == 2.5
    assert from_environment({}).color is None
    assert from_environment({"ENABLE_RATINGS": "true", "STAR_COLOR": "red"}).color == "red"


def test_a_kept_connection_that_was_closed_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETAILS_HOSTNAME", "127.0.0.1")
    with serving(details.handle) as port:
        monkeypatch.setenv("DETAILS_SERVICE_PORT", str(port))
        upstream = Upstream("details")
        assert upstream.get("/details/0", {}, 2)[0] == 200
        upstream._kept[0].sock.shutdown(2)
        assert upstream.get("/details/0", {}, 2)[0] == 200
        upstream.close()


def test_requests_in_flight_are_answered_before_the_end() -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow(_: Request) -> Response:
        entered.set()
        assert leave.wait(5)
        return answer({"done": True})

    server = Server(("127.0.0.1", 0), slow)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    got: list[tuple[int, str, dict[str, str]]] = []
    asking = threading.Thread(target=lambda: got.append(ask(server.server_address[1], "/")))
    asking.start()
    assert entered.wait(5)
    drained: list[bool] = []
    draining = threading.Thread(target=lambda: drained.append(server.drain(5)))
    draining.start()
    while not server.draining:
        time.sleep(0.001)
    leave.set()
    draining.join()
    asking.join()
    assert drained == [True]
    assert got[0][0] == 200
    assert got[0][2]["connection"] == "close"


def test_posted_ratings_are_kept_and_checked() -> None:
    with serving(Ratings().handle) as port:
        assert ask(port, "/ratings/7", "POST", body=b'{"Reviewer1": 1}')[0] == 200
        assert json.loads(ask(port, "/ratings/7")[1])["ratings"] == {"Reviewer1": 1}
        assert ask(port, "/ratings/7", "POST", body=b"[]")[0] == 400
        assert ask(port, "/ratings/x")[0] == 400


def test_static_files_are_served_and_nothing_else(bookinfo: Bookinfo) -> None:
    port = bookinfo.port
    status, text, headers = ask(port, "/static/style.css")
    assert (status, headers["content-type"]) == (200, "text/css; charset=utf-8")
    assert "body" in text
    assert ask(port, "/static/../server.py")[0] == 404
    assert ask(port, "/static/%2e%2e/server.py")[0] == 404
    for asset in re.findall(r'(?:href|src)="(/static/[^"]+)"', ask(port, "/")[1]):
        assert ask(port, asset)[0] == 200


def test_the_manifests_run_every_program_under_the_samples_names() -> None:
    documents = list(yaml.safe_load_all((DEMO / "bookinfo.yaml").read_text()))
    deployments = {d["metadata"]["name"]: d for d in documents if d["kind"] == "Deployment"}
    assert set(deployments) == {
        "details-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3", "productpage-v1", "istio-ingressgateway",
    }  # fmt: skip
    accounts = {d["metadata"]["name"] for d in documents if d["kind"] == "ServiceAccount"}
    for name, deployment in deployments.items():
        template = deployment["spec"]["template"]
        assert deployment["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
        assert template["spec"]["serviceAccountName"] in accounts
        (container,) = template["spec"]["containers"]
        assert "image" not in container  # there are none here: it would only be a finding
        if name == "istio-ingressgateway":
            assert container["name"] == "istio-proxy"
            assert template["metadata"]["annotations"]["inject.istio.io/templates"] == "gateway"
        else:
            module = container["command"][-1]
            assert (DEMO / f"{module.rpartition('.')[2]}.py").is_file()
