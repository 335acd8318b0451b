"""Random route tables: a plain reading of the rules and a real Envoy choose the same one for random requests.

Texts come from small alphabets, so that requests meet the rules. Every rule leaves a mark (a header of the request,
the place of a redirect, the body of an answer), so what is compared is the rule, not only where it leads. What was
exercised is counted by the parts of the match block that decided and by action; a part that never decided fails.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lateen.api.check import check_raw
from lateen.lib.findings import Level
from tests.envoy.harness import short_directory
from tests.envoy.playground import SUBSETS, Answer, Playground

Json = dict[str, Any]
EXAMPLES = 150
REQUESTS = 12

PATHS = ("/", "/a", "/a/b", "/A/b", "/b")
VALUES = ("x", "xy", "z")
METHODS = ("GET", "POST", "DELETE")
HOSTS = ("reviews", "reviews.default", "reviews.default.svc.cluster.local")
NAMES = ("x-one", "x-two")
TEXTS: Mapping[str, tuple[str, ...]] = {
    "uri": PATHS,
    "method": METHODS,
    "authority": HOSTS,
    "scheme": ("http", "https"),
    "value": VALUES,
}


FIELDS = (
    "uri",
    "method",
    "authority",
    "scheme",
    "headers",
    "withoutHeaders",
    "queryParams",
    "port",
    "sourceLabels",
    "gateways",
)
ACTIONS = ("route", "split", "redirect", "answer")


def _text(by: Random, of: str) -> Json:
    text = by.choice(TEXTS[of])
    how = by.choice(("exact", "prefix", "regex"))
    if how == "exact":
        return {"exact": text}
    return {"prefix": text[: max(1, len(text) - 1)]} if how == "prefix" else {"regex": re.escape(text[:1]) + ".*"}


def _part(by: Random, field: str) -> Any:
    match field:
        case "headers" | "withoutHeaders":
            return {by.choice(NAMES): by.choice((_text(by, "value"), {}))}
        case "queryParams":
            return {by.choice(NAMES): _text(by, "value")}
        case "port":
            return by.choice((9080, 9081))
        case "sourceLabels":
            return {"app": by.choice(("productpage", "other"))}
        case "gateways":
            return [by.choice(("mesh", "default/edge"))]
        case _:
            return _text(by, field)


def _block(by: Random) -> Json:
    block = {field: _part(by, field) for field in by.sample(FIELDS, by.choice((1, 1, 2)))}
    if "uri" in block and "regex" not in block["uri"] and by.random() < 0.4:
        block["ignoreUriCase"] = True
    return block


def _rules(by: Random) -> list[tuple[list[Json], str]]:
    """Rules with no match, one block or two; a rule without a match is rare, since it hides what comes after."""
    count = by.randint(2, 6)
    return [([_block(by) for _ in range(by.choice((0, 1, 1, 1, 1, 2, 2)))], by.choice(ACTIONS)) for _ in range(count)]


def _request(by: Random) -> Json:
    return {
        "path": by.choice(PATHS),
        "method": by.choice(METHODS),
        "host": by.choice(HOSTS),
        "headers": {name: by.choice(VALUES) for name in NAMES if by.random() < 0.5},
        "query": {name: by.choice(VALUES) for name in NAMES if by.random() < 0.5},
    }


@pytest.fixture(scope="module")
def playground() -> Iterator[Playground]:
    directory = short_directory()
    made = Playground(directory)
    yield made
    made.close()
    shutil.rmtree(directory, ignore_errors=True)


def _rule(index: int, blocks: list[Json], action: str) -> Json:
    rule: Json = {"match": blocks} if blocks else {}
    subset = {"host": "reviews", "subset": SUBSETS[index % len(SUBSETS)]}
    if action == "redirect":
        return {**rule, "redirect": {"uri": f"/rule-{index}"}}
    if action == "answer":
        return {**rule, "directResponse": {"status": 418, "body": {"string": f"rule-{index}"}}}
    route = [{"destination": subset, "weight": 1}]
    if action == "split":
        route.append({"destination": {"host": "ratings", "subset": "v1"}, "weight": 1})
    return {**rule, "route": route, "headers": {"request": {"set": {"x-rule": f"rule-{index}"}}}}


def _like(text: str | None, said: Json, *, fold: bool = False) -> bool:
    """Whether a text (None: there is none) is what a comparison wants."""
    if text is None or not said:
        return text is not None and not said
    (kind, wanted), *_ = said.items()
    if fold:
        text, wanted = text.lower(), wanted.lower()
    if kind == "exact":
        return text == wanted
    return text.startswith(wanted) if kind == "prefix" else re.fullmatch(wanted, text) is not None


def _holds(block: Json, request: Json) -> bool:
    """The plain reading of one match block."""
    plain = {"uri": request["path"], "method": request["method"], "authority": request["host"], "scheme": "http"}
    fold = block.get("ignoreUriCase", False)
    return (
        all(_like(plain[each], block[each], fold=fold and each == "uri") for each in plain if each in block)
        and all(_like(request["headers"].get(name), said) for name, said in block.get("headers", {}).items())
        and not any(_like(request["headers"].get(name), said) for name, said in block.get("withoutHeaders", {}).items())
        and all(_like(request["query"].get(name), said) for name, said in block.get("queryParams", {}).items())
        and block.get("port", 9080) == 9080
        and block.get("sourceLabels", {}).get("app", "productpage") == "productpage"
        and block.get("gateways", ["mesh"]) == ["mesh"]
    )


def _choose(rules: list[tuple[list[Json], str]], request: Json) -> tuple[int, Json] | None:
    """The first rule that holds, and the block that decided."""
    for index, (blocks, _) in enumerate(rules):
        for block in blocks or [{}]:
            if _holds(block, request):
                return index, block
    return None


def _parts(block: Json) -> Iterator[str]:
    for field, said in block.items():
        if field in ("uri", "method", "authority", "scheme"):
            yield f"{field} {next(iter(said))}"
        elif field in ("headers", "withoutHeaders", "queryParams"):
            yield f"{field} {next(iter(next(iter(said.values()))), 'present')}"
        else:
            yield field
    if not block:
        yield "no match"


PARTS = {
    *(f"{field} {kind}" for field in ("uri", "method", "authority", "scheme") for kind in ("exact", "prefix", "regex")),
    *(f"{field} {kind}" for field in ("headers", "withoutHeaders") for kind in ("exact", "prefix", "regex", "present")),
    *(f"queryParams {kind}" for kind in ("exact", "prefix", "regex")),
    *("ignoreUriCase", "port", "sourceLabels", "gateways", "no match", "no rule"),
    *("route", "split", "redirect", "answer"),
}


def test_envoy_chooses_as_the_rules_read(playground: Playground, capsys: pytest.CaptureFixture[str]) -> None:
    decided: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.integers(0, 2**32))
    def check(seed: int) -> None:
        by = Random(seed)
        rules, requests = _rules(by), [_request(by) for _ in range(REQUESTS)]
        spec: Json = {"hosts": ["reviews"], "gateways": ["mesh", "default/edge"]}
        spec["http"] = [_rule(index, *each) for index, each in enumerate(rules)]
        document = {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "reviews"},
            "spec": spec,
        }
        assert not [each for each in check_raw(document) if each.level is Level.ERROR], document
        assert playground.apply(yaml.safe_dump(document)) == []
        for request in requests:
            found = _choose(rules, request)
            answer = _ask(playground, request)
            assert _mark(playground, answer) == (None if found is None else f"rule-{found[0]}"), (request, answer)
            if found is None:
                assert answer.status in (404, 200), answer
                decided["no rule"] += 1
            else:
                _check_action(rules[found[0]][1], found[0], answer)
                decided.update({rules[found[0]][1], *_parts(found[1])})

    check()
    with capsys.disabled():
        print("\n  decided: " + ", ".join(f"{part} {count}" for part, count in sorted(decided.items())))  # noqa: T201
    assert not PARTS - decided.keys(), "never decided anything"


def _ask(playground: Playground, request: Json) -> Answer:
    playground.log.clear()
    query = "&".join(f"{name}={value}" for name, value in request["query"].items())
    path = request["path"] + (f"?{query}" if query else "")
    return playground.request(request["host"], path, request["method"], request["headers"])


def _mark(playground: Playground, answer: Answer) -> str | None:
    """The mark of the rule that was chosen."""
    if answer.status == 301:
        return urlsplit(answer.headers["location"]).path.removeprefix("/")
    if answer.status == 418:
        return answer.body.decode()
    return playground.log[0].headers.get("x-rule") if playground.log else None


def _check_action(action: str, index: int, answer: Answer) -> None:
    own = f"reviews/{SUBSETS[index % len(SUBSETS)]}"
    match action:
        case "redirect":
            assert answer.status == 301
        case "answer":
            assert answer.status == 418
        case "split":
            assert answer.headers["x-server"] in (own, "ratings/v1")
        case _:
            assert answer.headers["x-server"] == own
