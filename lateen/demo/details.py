"""Bookinfo's details: the facts about a book. `GET /details/{id}`, `GET /health`."""

from __future__ import annotations

from lateen.demo.server import Request, Response, answer, not_found, pod_identity, serve


def handle(request: Request) -> Response:
    """Answer one request."""
    if request.path == "/health":
        return answer({"status": "Details is healthy"})
    head, _, product = request.path.rpartition("/")
    if head != "/details":
        return not_found(request)
    if not product.isdecimal():
        return answer({"error": "please provide numeric product id"}, 400)
    return answer(
        {
            "id": int(product),
            "author": "William Shakespeare",
            "year": 1595,
            "type": "paperback",
            "pages": 200,
            "publisher": "PublisherA",
            "language": "English",
            "ISBN-10": "1234567890",
            "ISBN-13": "123-1234567890",
            **pod_identity(),
        }
    )


if __name__ == "__main__":
    serve(handle)
