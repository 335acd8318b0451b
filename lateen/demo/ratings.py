"""Bookinfo's ratings: how many stars each reviewer gave. `GET` and `POST /ratings/{id}`, `GET /health`.

Ratings posted are kept in memory: they last as long as the Pod.
"""

from __future__ import annotations

import json
import threading
from typing import cast

from lateen.demo.server import Request, Response, answer, not_found, pod_identity, serve


class Ratings:
    """The ratings of this replica, by product."""

    def __init__(self) -> None:
        self._posted: dict[int, dict[str, int]] = {}
        self._lock = threading.Lock()

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        if request.path == "/health":
            return answer({"status": "Ratings is healthy"})
        head, _, text = request.path.rpartition("/")
        if head != "/ratings":
            return not_found(request)
        if not text.isdecimal():
            return answer({"error": "please provide numeric product ID"}, 400)
        product = int(text)
        if request.method == "POST":
            posted = stars(request.body)
            if posted is None:
                return answer({"error": "please provide valid ratings JSON"}, 400)
            with self._lock:
                self._posted[product] = posted
        with self._lock:
            ratings = self._posted.get(product, {"Reviewer1": 5, "Reviewer2": 4})
        return answer({"id": product, "ratings": ratings, **pod_identity()})


def stars(body: bytes) -> dict[str, int] | None:
    """A JSON object of reviewer to stars, or None when it is anything else."""
    try:
        value = json.loads(body)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    entries = cast("dict[str, object]", value)
    return {name: count for name, count in entries.items() if isinstance(count, int)} if entries else None


if __name__ == "__main__":
    serve(Ratings().handle)
