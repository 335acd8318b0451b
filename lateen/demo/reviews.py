"""Bookinfo's reviews: what readers say about a book. `GET /reviews/{id}`, `GET /health`.

Version 1 has no stars. With ENABLE_RATINGS=true it asks `ratings` and shows stars in STAR_COLOR: version 2
black, version 3 red. Version 2 waits 10 s for ratings and version 3 only 2.5 s: the page above waits 3 s, so
a delay injected into ratings breaks version 2 and not version 3. That mismatch is the lesson of Istio's fault
injection tutorial and is kept on purpose.
"""

from __future__ import annotations

import http.client
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lateen.demo.server import Request, Response, Upstream, answer, not_found, pod_identity, serve

REVIEWS = (
    ("Reviewer1", "Two pairs of twins, one port, no end of trouble. I laughed until the last embrace."),
    ("Reviewer2", "Short, loud and clever. It lacks the depth of the later plays and does not miss it."),
)


@dataclass(frozen=True)
class Reviews:
    """One version of the service. `color` is None for the version without stars; `ratings_timeout_s` seconds."""

    color: str | None
    ratings_timeout_s: float
    ratings: Upstream = field(default_factory=lambda: Upstream("ratings"))

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        if request.path == "/health":
            return answer({"status": "Reviews is healthy"})
        head, _, product = request.path.rpartition("/")
        if head != "/reviews":
            return not_found(request)
        if not product.isdecimal():
            return answer({"error": "please provide numeric product ID"}, 400)
        reviews: list[dict[str, object]] = [{"reviewer": name, "text": text} for name, text in REVIEWS]
        if self.color is not None:
            given = self._ratings(product, request.forwarded())
            for review in reviews:
                review["rating"] = rating(given, str(review["reviewer"]), self.color)
        return answer({"id": product, **pod_identity(), "reviews": reviews})

    def _ratings(self, product: str, headers: Mapping[str, str]) -> Any:
        """The ratings document, or None when the service fails or takes too long."""
        try:
            status, value = self.ratings.get(f"/ratings/{product}", headers, self.ratings_timeout_s)
        except (OSError, http.client.HTTPException):
            return None
        return value if status == 200 else None


def rating(given: Any, reviewer: str, color: str) -> dict[str, object]:
    """One reviewer's rating, or the error shown in its place."""
    if given is None:
        return {"error": "Ratings service is currently unavailable"}
    return {"stars": given.get("ratings", {}).get(reviewer, 1), "color": color}


def from_environment(environment: Mapping[str, str]) -> Reviews:
    """The version the Deployment asks for. SERVICE_VERSION sets the defaults of the other two variables."""
    version = environment.get("SERVICE_VERSION", "v1")
    enabled = environment.get("ENABLE_RATINGS", "false" if version == "v1" else "true").lower() == "true"
    color = environment.get("STAR_COLOR", "red" if version == "v3" else "black")
    return Reviews(color if enabled else None, 2.5 if color == "red" else 10.0)


if __name__ == "__main__":
    serve(from_environment(os.environ).handle)
