"""The demo's HTML: one layout, a product page and a short index. Everything shown is escaped here."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

FACTS = (
    ("Type", "type"),
    ("Pages", "pages"),
    ("Publisher", "publisher"),
    ("Language", "language"),
    ("Year", "year"),
    ("ISBN-10", "ISBN-10"),
    ("ISBN-13", "ISBN-13"),
)


def layout(title: str, body: str, user: str) -> str:
    """A whole document: header with the login form (or the user's name) and the body given as HTML."""
    if user:
        session = f'<span>Hello, <b>{escape(user)}</b></span> <a class="button" href="/logout">Sign out</a>'
    else:
        session = (
            '<form method="post" action="/login">'
            '<input name="username" placeholder="User name" aria-label="User name" autocomplete="username" required>'
            '<input name="passwd" type="password" placeholder="Any password" aria-label="Password">'
            '<button class="button" type="submit">Sign in</button></form>'
        )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="icon" href="/static/book.svg">'
        '<link rel="stylesheet" href="/static/style.css"></head><body>'
        '<header><a class="brand" href="/productpage"><img src="/static/book.svg" alt="">Bookinfo</a>'
        f'<div class="session">{session}</div></header><main>{body}</main></body></html>\n'
    )


def product(
    item: Mapping[str, object], details: tuple[int, Any], reviews: tuple[int, Any], user: str, podname: str
) -> str:
    """The product page. `details` and `reviews` are status and document; a failed one shows its error."""
    title = str(item["title"])
    body = (
        f'<section class="book"><h1>{escape(title)}</h1><p>{item["descriptionHtml"]}</p></section>'
        f'<div class="columns">{_details(*details)}{_reviews(*reviews)}</div>'
        f"<footer>This page came from <code>{escape(podname)}</code></footer>"
    )
    return layout(title, body, user)


def _details(status: int, value: Any) -> str:
    if status != 200:
        return _failed("details", value)
    rows = "".join(f"<dt>{label}</dt><dd>{escape(str(value[key]))}</dd>" for label, key in FACTS if key in value)
    return (
        f'<section class="card"><h2>Book Details</h2><p class="author">{escape(str(value.get("author", "")))}</p>'
        f"<dl>{rows}</dl>{_served('Details', value)}</section>"
    )


def _reviews(status: int, value: Any) -> str:
    if status != 200:
        return _failed("reviews", value)
    quotes = "".join(
        f"<blockquote>{_stars(review)}<p>{escape(str(review['text']))}</p>"
        f"<cite>{escape(str(review['reviewer']))}</cite></blockquote>"
        for review in value["reviews"]
    )
    return f'<section class="card"><h2>Book Reviews</h2>{quotes}{_served("Reviews", value)}</section>'


def _stars(review: Mapping[str, Any]) -> str:
    rating = review.get("rating")
    if rating is None:
        return ""
    if "stars" not in rating:
        return f'<p class="missing">{escape(str(rating.get("error", "")))}</p>'
    count, color = int(rating["stars"]), escape(str(rating["color"]))
    drawn = "".join(f'<span class="{"on" if n < count else "off"}">&#9733;</span>' for n in range(5))
    return f'<p class="stars" style="color:{color}" role="img" aria-label="{count} of 5 stars, {color}">{drawn}</p>'


def _served(noun: str, value: Mapping[str, Any]) -> str:
    pod = escape(str(value.get("podname", "")))
    cluster = str(value.get("clustername", "null"))
    where = f" on cluster <code>{escape(cluster)}</code>" if cluster != "null" else ""
    return f'<p class="served">{noun} served by: <code>{pod}</code>{where}</p>'


def _failed(noun: str, value: Any) -> str:
    return (
        f'<section class="card failed"><h2>Error fetching product {noun}!</h2>'
        f"<p>{escape(str(value.get('error', '')))}</p></section>"
    )


def index() -> str:
    """The front page: what the demo consists of and where to look."""
    body = (
        '<section class="book"><h1>Bookinfo</h1><p>Four services behind one page. <b>productpage</b> asks '
        "<b>details</b> and <b>reviews</b>; versions 2 and 3 of reviews ask <b>ratings</b>.</p>"
        '<p><a class="button" href="/productpage">Open the product page</a> '
        '<a class="button" href="/api/v1/products">JSON</a></p></section>'
    )
    return layout("Bookinfo", body, "")
