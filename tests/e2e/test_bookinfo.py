"""Istio's published Bookinfo rules, applied as they are, on the real mesh: each does what its documentation says."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

import lateen.demo
from tests.e2e.conftest import sample
from tests.e2e.mesh import Mesh, eventually

REVIEWS = "/api/v1/products/0/reviews"
BY_VERSION = r"text:reviews-(v\d)"


def versions(mesh: Mesh, headers: dict[str, str] | None = None, requests: int = 40) -> set[str]:
    """The versions of reviews that answer."""
    report = mesh.load(
        REVIEWS, requests=requests, connections=4, group_by=BY_VERSION, headers=tuple((headers or {}).items())
    )
    assert report.failed == 0, report.lines()
    return set(report.groups)


def apply(mesh: Mesh, *names: str) -> None:
    for name in names:
        mesh.apply(sample(name))


def settled(mesh: Mesh, wanted: set[str], headers: dict[str, str] | None = None) -> None:
    eventually(lambda: versions(mesh, headers, 12), lambda seen: seen <= wanted)
    assert versions(mesh, headers) == wanted


def test_the_page_is_complete(bookinfo: Mesh) -> None:
    page = bookinfo.ask("/productpage")
    assert page.status == 200
    for part in ("The Comedy of Errors", "Book Details", "Book Reviews", "Reviewer1", "Reviewer2", "ISBN-13"):
        assert part in page.text
    for asset in set(re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)):
        assert bookinfo.ask(asset).status == 200
    assert page.headers["server"] == "istio-envoy"
    assert bookinfo.ask("/api/v1/products").json[0]["title"] == "The Comedy of Errors"
    assert bookinfo.ask("/api/v1/products/0").json["author"] == "William Shakespeare"
    assert bookinfo.ask("/api/v1/products/0/ratings").json["ratings"] == {"Reviewer1": 5, "Reviewer2": 4}
    assert bookinfo.ask("/nothing-here").status == 404


def test_without_rules_every_version_answers(bookinfo: Mesh) -> None:
    assert versions(bookinfo) == {"v1", "v2", "v3"}


def test_istios_own_gateway_replaces_the_demos(bookinfo: Mesh) -> None:
    apply(bookinfo, "bookinfo-gateway")
    assert eventually(lambda: bookinfo.ask("/productpage").status, lambda status: status == 200) == 200
    assert [each["metadata"]["name"] for each in bookinfo.get("gateways")] == ["bookinfo-gateway"]


def test_all_v1_means_no_stars(bookinfo: Mesh) -> None:
    apply(bookinfo, "destination-rule-all", "virtual-service-all-v1")
    settled(bookinfo, {"v1"})
    assert "color:" not in bookinfo.ask("/productpage").text


def test_a_users_header_chooses_the_version(bookinfo: Mesh) -> None:
    apply(bookinfo, "destination-rule-all", "virtual-service-all-v1", "virtual-service-reviews-test-v2")
    jason, other = bookinfo.login("jason"), bookinfo.login("somebody")
    settled(bookinfo, {"v2"}, jason)
    assert versions(bookinfo, other) == versions(bookinfo) == {"v1"}
    page = bookinfo.ask("/productpage", jason)
    assert "Hello, <b>jason</b>" in page.text
    assert "color:black" in page.text


def test_one_user_gets_v2_and_all_others_v3(bookinfo: Mesh) -> None:
    apply(bookinfo, "destination-rule-all", "virtual-service-reviews-jason-v2-v3")
    settled(bookinfo, {"v2"}, bookinfo.login("jason"))
    assert versions(bookinfo) == {"v3"}
    assert "color:red" in bookinfo.ask("/productpage").text


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("virtual-service-reviews-90-10", {"v1": 0.9, "v2": 0.1}),
        ("virtual-service-reviews-50-v3", {"v1": 0.5, "v3": 0.5}),
    ],
)
def test_weights_within_five_sigma(bookinfo: Mesh, name: str, weights: dict[str, float]) -> None:
    apply(bookinfo, "destination-rule-all", name)
    eventually(lambda: versions(bookinfo), lambda seen: seen <= set(weights))
    requests = 2000
    report = bookinfo.load(REVIEWS, requests=requests, connections=8, group_by=BY_VERSION)
    assert report.failed == 0, report.lines()
    assert set(report.groups) == set(weights)
    for version, weight in weights.items():
        sigma = math.sqrt(requests * weight * (1 - weight))
        assert abs(report.groups[version] - requests * weight) < 5 * sigma, report.groups


def test_an_abort_hits_one_user_only(bookinfo: Mesh) -> None:
    rules = ("virtual-service-all-v1", "virtual-service-reviews-test-v2", "virtual-service-ratings-test-abort")
    apply(bookinfo, "destination-rule-all", *rules)
    jason = bookinfo.login("jason")
    ratings = "/api/v1/products/0/ratings"
    eventually(lambda: bookinfo.ask(ratings, jason).status, lambda status: status == 500)
    eventually(lambda: versions(bookinfo, jason, 8), lambda seen: seen == {"v2"})
    page = bookinfo.ask("/productpage", jason).text
    assert "Ratings service is currently unavailable" in page
    assert "Book Reviews" in page
    assert bookinfo.ask(ratings).status == 200
    assert bookinfo.ask(ratings, bookinfo.login("somebody")).status == 200


def test_a_delay_shows_the_bug_in_the_timeouts(bookinfo: Mesh) -> None:
    """Istio's fault injection task: 7 s of delay are within reviews' 10 s but beyond the page's 2 x 3 s."""
    rules = ("virtual-service-all-v1", "virtual-service-reviews-test-v2", "virtual-service-ratings-test-delay")
    apply(bookinfo, "destination-rule-all", *rules)
    jason = bookinfo.login("jason")
    eventually(lambda: versions(bookinfo, bookinfo.login("somebody"), 8), lambda seen: seen == {"v1"})

    def slow() -> float:
        return bookinfo.ask("/api/v1/products/0/ratings", jason).took_s

    assert 2.9 < eventually(slow, lambda took_s: took_s > 2.9) < 4  # productpage itself gives up after 3 s
    page = bookinfo.ask("/productpage", jason)
    assert 5.9 < page.took_s < 7
    assert "Error fetching product reviews!" in page.text
    assert "Book Details" in page.text
    others = bookinfo.ask("/productpage")
    assert others.took_s < 2
    assert "Book Reviews" in others.text


def test_the_delay_itself_is_seven_seconds(bookinfo: Mesh) -> None:
    apply(bookinfo, "destination-rule-all", "virtual-service-all-v1", "virtual-service-ratings-test-delay")
    (reviews,) = bookinfo.pods("reviews", "v2")
    program = (
        "import time, urllib.request as u; t = time.monotonic(); "
        "u.urlopen(u.Request('http://ratings:9080/ratings/0', headers={'end-user': 'jason'})).read(); "
        "print(time.monotonic() - t)"
    )

    def delay() -> float:
        ok, output = bookinfo.inside(reviews, "reviews", ["python3", "-c", program])
        assert ok, output
        return float(output.split()[-1])

    assert eventually(delay, lambda took_s: took_s > 6.9, within_s=30) < 8


def test_details_abort_with_their_own_status(bookinfo: Mesh) -> None:
    apply(bookinfo, "fault-injection-details-v1")
    details = "/api/v1/products/0"
    eventually(lambda: bookinfo.ask(details).status, lambda status: status == 555)
    report = bookinfo.load(details, requests=50, expect=(555,))
    assert report.failed == 0, report.lines()
    page = bookinfo.ask("/productpage").text
    assert "Error fetching product details!" in page
    assert "Book Reviews" in page


def test_the_demos_files_are_applied_again_without_a_change(bookinfo: Mesh) -> None:
    demo = Path(lateen.demo.__file__).parent
    said = bookinfo.lateen("apply", "-f", str(demo / "bookinfo.yaml")).stdout
    assert said
    assert {line.split()[-1] for line in said.splitlines()} == {"unchanged"}
    assert versions(bookinfo) == {"v1", "v2", "v3"}
