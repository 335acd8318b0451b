"""Bookinfo's product page: the front of the demo, as HTML for people and as JSON under `/api/v1/products`.

It asks `details` and `reviews` with the headers of its own request, plus `end-user` when somebody is logged in
(any password will do; the name is kept in a cookie). Reviews are asked twice, 3 s each: the page therefore
gives up after 6 s, which is less than the 10 s `reviews` version 2 is ready to wait for `ratings`.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any, cast

from lateen.demo import page
from lateen.demo.server import Request, Response, Upstream, answer, not_found, pod_identity, serve

PRODUCTS: tuple[dict[str, object], ...] = (
    {
        "id": 0,
        "title": "The Comedy of Errors",
        "descriptionHtml": (
            '<a href="https://en.wikipedia.org/wiki/The_Comedy_of_Errors">The Comedy of Errors</a> is among the '
            "first plays of <b>William Shakespeare</b>. Two brothers and their two servants, each pair alike to the "
            "last button and parted at birth, end up in the same town on the same day. Nobody knows it, and "
            "everybody is taken for somebody else."
        ),
    },
)
TIMEOUT_S = 3.0
REVIEW_ATTEMPTS = 2
STATIC = Path(__file__).parent / "static"
TYPES = {".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True)
class ProductPage:
    """The program: its two upstreams, and ratings for the API."""

    details: Upstream = field(default_factory=lambda: Upstream("details"))
    reviews: Upstream = field(default_factory=lambda: Upstream("reviews"))
    ratings: Upstream = field(default_factory=lambda: Upstream("ratings"))

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        match request.path.strip("/").split("/"):
            case [""] | ["index.html"]:
                return Response(200, page.index().encode(), HTML)
            case ["health"]:
                return Response(200, b"Product page is healthy", "text/plain; charset=utf-8")
            case ["productpage"]:
                return self._page(request)
            case ["login"]:
                return login(request)
            case ["logout"]:
                return redirect("session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax")
            case ["static", *parts]:
                return static(parts) or not_found(request)
            case ["api", "v1", "products", *rest]:
                return self._api(request, rest)
            case _:
                return not_found(request)

    def _page(self, request: Request) -> Response:
        headers = passed_on(request)
        details = self._ask(self.details, "details", 0, headers)
        reviews = self._reviews(0, headers)
        user = session_user(request.headers)
        shown = page.product(PRODUCTS[0], details, reviews, user, pod_identity()["podname"])
        return Response(200, shown.encode(), HTML)

    def _api(self, request: Request, rest: list[str]) -> Response:
        if not rest:
            return answer(PRODUCTS)
        if not rest[0].isdecimal():
            return answer({"error": "the product id is a number"}, 400)
        product, headers = int(rest[0]), passed_on(request)
        match rest[1:]:
            case []:
                status, value = self._ask(self.details, "details", product, headers)
            case ["reviews"]:
                status, value = self._reviews(product, headers)
            case ["ratings"]:
                status, value = self._ask(self.ratings, "ratings", product, headers)
            case _:
                return not_found(request)
        return answer(value, status)

    def _ask(self, upstream: Upstream, noun: str, product: int, headers: Mapping[str, str]) -> tuple[int, Any]:
        """Status and document of a service; in place of a failed one an error that names what is missing."""
        try:
            status, value = upstream.get(f"/{noun}/{product}", headers, TIMEOUT_S)
        except (OSError, http.client.HTTPException):
            status, value = 500, None
        if status == 200:
            return status, value
        return status, {"error": f"Sorry, product {noun} are currently unavailable for this book."}

    def _reviews(self, product: int, headers: Mapping[str, str]) -> tuple[int, Any]:
        status, value = self._ask(self.reviews, "reviews", product, headers)
        for _ in range(REVIEW_ATTEMPTS - 1):
            if status == 200:
                break
            status, value = self._ask(self.reviews, "reviews", product, headers)
        return status, value


def passed_on(request: Request) -> dict[str, str]:
    """The headers for the services behind: those of the request, and who is logged in."""
    headers = request.forwarded()
    user = session_user(request.headers)
    if user:
        headers["end-user"] = user
    return headers


def session_user(headers: Mapping[str, str]) -> str:
    """The user named by the session cookie, empty when there is none or it is not one of ours."""
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get("session")
        if cookie is None:
            return ""
        value = json.loads(base64.urlsafe_b64decode(cookie.value))
    except (CookieError, binascii.Error, ValueError):
        return ""
    user = cast("dict[str, object]", value).get("user") if isinstance(value, dict) else None
    return user if isinstance(user, str) and user.isprintable() and user.isascii() else ""


def login(request: Request) -> Response:
    """Take a name (and any password) from a posted form and remember it in the session cookie."""
    user = request.form().get("username", "").strip()
    if request.method != "POST" or not user:
        return answer({"error": "post the form fields username and passwd"}, 400)
    value = base64.urlsafe_b64encode(json.dumps({"user": user}).encode()).decode()
    return redirect(f"session={value}; Path=/; HttpOnly; SameSite=Lax")


def redirect(cookie: str) -> Response:
    """Back to the page, with a changed session."""
    return Response(302, b"", HTML, (("location", "/productpage"), ("set-cookie", cookie)))


def static(parts: list[str]) -> Response | None:
    """A file of the static folder by name; None when there is none."""
    if len(parts) != 1 or parts[0] not in {file.name for file in STATIC.iterdir()}:
        return None
    file = STATIC / parts[0]
    return Response(200, file.read_bytes(), TYPES[file.suffix], (("cache-control", "max-age=3600"),))


if __name__ == "__main__":
    serve(ProductPage().handle)
