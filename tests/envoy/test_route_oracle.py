"""Random route tables: a plain reading of the rules and a real Envoy choose the same one for random requests, and do
with it what the rule says.

Texts come from small alphabets, so that requests meet the rules. Every rule leaves a mark (a header of the request,
the place of a redirect, the body of an answer, a status), so what is compared is the rule, not only where it leads.
Some rules are those of a delegate: both matches must hold. What was exercised is counted by the parts of the match
block that decided and by action; a part that never decided fails.
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

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
    "sourceNamespace",
    "gateways",
)
ACTIONS = (
    "route",
    "split",
    "redirect",
    "answer",
    "rewrite",
    "regex rewrite",
    "mirror",
    "abort",
    "retry",
    "timeout",
    "cors",
    "headers",
)
ORIGIN = "http://pages.test"
ABORTED = 520
"""The status of an abort by rule 0; the next rules have the next ones."""


@dataclass(frozen=True)
class Rule:
    """A rule: any of the blocks (all requests when there is none), and an action or the rules of a delegate."""

    number: int
    blocks: tuple[Json, ...]
    action: str = ""
    delegate: tuple[Rule, ...] = ()


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
            return {by.choice(NAMES): by.choice((_text(by, "value"), {}))}
        case "port":
            return by.choice((9080, 9081))
        case "sourceLabels":
            return {"app": by.choice(("productpage", "other"))}
        case "sourceNamespace":
            return by.choice(("default", "other"))
        case "gateways":
            return [by.choice(("mesh", "default/edge"))]
        case _:
            return _text(by, field)


def _block(by: Random, fields: tuple[str, ...] = FIELDS) -> Json:
    block = {field: _part(by, field) for field in by.sample(fields, by.choice((1, 1, 2)))}
    if "uri" in block and "regex" not in block["uri"] and by.random() < 0.4:
        block["ignoreUriCase"] = True
    return block


def _blocks(by: Random, fields: tuple[str, ...] = FIELDS) -> tuple[Json, ...]:
    """No match, one block or two; none is rare, since it hides what comes after."""
    return tuple(_block(by, fields) for _ in range(by.choice((0, 1, 1, 1, 1, 2, 2))))


def _rules(by: Random) -> list[Rule]:
    """Some rules. A delegate's rules match by properties that the root's match does not have."""
    numbers = itertools.count()
    rules: list[Rule] = []
    for _ in range(by.randint(2, 6)):
        blocks = _blocks(by)
        free = tuple(each for each in FIELDS if not any(each in block for block in blocks))
        if by.random() < 0.15:
            inner = [Rule(next(numbers), _blocks(by, free), by.choice(ACTIONS)) for _ in range(by.randint(1, 2))]
            rules.append(Rule(-1, blocks, delegate=tuple(inner)))
        else:
            rules.append(Rule(next(numbers), blocks, by.choice(ACTIONS)))
    return rules


def _request(by: Random) -> Json:
    return {
        "path": by.choice(PATHS),
        "method": by.choice(METHODS),
        "host": by.choice(HOSTS),
        "headers": {"origin": ORIGIN} | {name: by.choice(VALUES) for name in NAMES if by.random() < 0.5},
        "query": {name: by.choice(VALUES) for name in NAMES if by.random() < 0.5},
    }


@pytest.fixture(scope="module")
def playground() -> Iterator[Playground]:
    directory = short_directory()
    made = Playground(directory)
    yield made
    made.close()
    shutil.rmtree(directory, ignore_errors=True)


def _documents(rules: list[Rule]) -> list[Json]:
    """The VirtualService of the rules, and one for each delegate."""
    spec: Json = {"hosts": ["reviews"], "gateways": ["mesh", "default/edge"], "http": []}
    found = [_virtual_service("reviews", spec)]
    for place, rule in enumerate(rules):
        match: Json = {"match": list(rule.blocks)} if rule.blocks else {}
        if rule.delegate:
            name = f"part-{place}"
            spec["http"].append({**match, "delegate": {"name": name}})
            found.append(_virtual_service(name, {"http": [_rule(each) for each in rule.delegate]}))
        else:
            spec["http"].append(_rule(rule))
    return found


def _virtual_service(name: str, spec: Json) -> Json:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name},
        "spec": spec,
    }


def _rule(rule: Rule) -> Json:
    number = rule.number
    made: Json = {"match": list(rule.blocks)} if rule.blocks else {}
    if rule.action == "redirect":
        return {**made, "redirect": {"uri": f"/rule-{number}"}}
    if rule.action == "answer":
        return {**made, "directResponse": {"status": 418, "body": {"string": f"rule-{number}"}}}
    route = [{"destination": {"host": "reviews", "subset": _subset(number)}, "weight": 1}]
    made |= {"route": route, "headers": {"request": {"set": {"x-rule": f"rule-{number}"}}}}
    match rule.action:
        case "split":
            route.append({"destination": {"host": "ratings", "subset": "v1"}, "weight": 1})
        case "rewrite":
            made["rewrite"] = {"uri": "/new"}
        case "regex rewrite":
            made["rewrite"] = {"uriRegexRewrite": {"match": "^/([aA])", "rewrite": "/-\\1-"}}
        case "mirror":
            made["mirror"] = {"host": "details", "subset": "v1"}
        case "abort":
            made["fault"] = {"abort": {"httpStatus": ABORTED + number, "percentage": {"value": 100}}}
        case "retry":
            made["retries"] = {"attempts": 1, "retryOn": "503", "backoff": "1ms"}
        case "timeout":
            made["timeout"] = "60ms"
        case "cors":
            made["corsPolicy"] = {"allowOrigins": [{"exact": ORIGIN}]}
        case "headers":
            made["headers"]["response"] = {"set": {"x-by": f"rule-{number}"}, "remove": ["content-type"]}
        case _:
            pass
    return made


def _subset(number: int) -> str:
    return SUBSETS[number % len(SUBSETS)]


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
        and block.get("sourceNamespace", "default") == "default"
        and block.get("sourceLabels", {}).get("app", "productpage") == "productpage"
        and block.get("gateways", ["mesh"]) == ["mesh"]
    )


def _choose(rules: Iterable[Rule], request: Json) -> tuple[Rule, tuple[Json, ...]] | None:
    """The first rule that holds, and the blocks that decided: the root's and the delegate's where there is one."""
    for rule in rules:
        block = next((each for each in rule.blocks or ({},) if _holds(each, request)), None)
        if block is None:
            continue
        if not rule.delegate:
            return rule, (block,)
        if (found := _choose(rule.delegate, request)) is not None:
            return found[0], (block, *found[1])
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
    *(f"queryParams {kind}" for kind in ("exact", "prefix", "regex", "present")),
    *("ignoreUriCase", "port", "sourceLabels", "sourceNamespace", "gateways", "no match", "no rule", "delegate"),
    *ACTIONS,
}


def test_envoy_chooses_as_the_rules_read(playground: Playground, capsys: pytest.CaptureFixture[str]) -> None:
    decided: Counter[str] = Counter()

    for seed in range(EXAMPLES):
        by = Random(seed)
        rules, requests = _rules(by), [_request(by) for _ in range(REQUESTS)]
        documents = _documents(rules)
        for document in documents:
            assert not [each for each in check_raw(document) if each.level is Level.ERROR], document
        assert playground.apply(yaml.safe_dump_all(documents)) == []
        for request in requests:
            found = _choose(rules, request)
            if found is None:
                answer = _ask(playground, request)
                assert _mark(playground, answer) is None, (request, answer)
                assert answer.status in (404, 200), answer
                decided["no rule"] += 1
                continue
            rule, blocks = found
            _prepare(playground, rule)
            answer = _ask(playground, request)
            assert _mark(playground, answer) == f"rule-{rule.number}", (request, rule, answer)
            _check_action(playground, rule, blocks, request, answer)
            parts = {rule.action, *(part for block in blocks for part in _parts(block))}
            decided.update(parts | ({"delegate"} if len(blocks) > 1 else set()))

    with capsys.disabled():
        print("\n  decided: " + ", ".join(f"{part} {count}" for part, count in sorted(decided.items())))  # noqa: T201
    assert not PARTS - decided.keys(), "never decided anything"


def _prepare(playground: Playground, rule: Rule) -> None:
    """What the server does with the next request of a rule that retries, or gives up waiting."""
    steps: dict[str, list[int | str]] = {"retry": [503], "timeout": ["wait 0.3"]}
    playground.script(f"reviews/{_subset(rule.number)}", steps.get(rule.action, []))


def _ask(playground: Playground, request: Json) -> Answer:
    playground.forget()
    query = "&".join(f"{name}={value}" for name, value in request["query"].items())
    path = request["path"] + (f"?{query}" if query else "")
    return playground.request(request["host"], path, request["method"], request["headers"])


def _mark(playground: Playground, answer: Answer) -> str | None:
    """The mark of the rule that was chosen."""
    if answer.status == 301:
        return urlsplit(answer.headers["location"]).path.removeprefix("/")
    if answer.status == 418:
        return answer.body.decode()
    if answer.status >= ABORTED:
        return f"rule-{answer.status - ABORTED}"
    if answer.status == 504:  # given up before the server may have looked at it
        playground.wait_seen(1, deadline_s=30)
    return playground.log[0].headers.get("x-rule") if playground.log else None


def _check_action(playground: Playground, rule: Rule, blocks: tuple[Json, ...], request: Json, answer: Answer) -> None:
    """Whether the answer is what the rule does, and what arrived too."""
    own = f"reviews/{_subset(rule.number)}"
    allowed = answer.headers.get("access-control-allow-origin")
    assert allowed == (ORIGIN if rule.action == "cors" else None)
    match rule.action:
        case "redirect":
            assert answer.status == 301
        case "answer":
            assert answer.status == 418
        case "split":
            assert answer.headers["x-server"] in (own, "ratings/v1")
        case "abort":
            assert answer.status == ABORTED + rule.number
            assert playground.log == []
        case "timeout":
            assert answer.status == 504
        case "retry":
            assert answer.status == 200
            assert [each.server for each in playground.log] == [own, own]
        case "mirror":
            seen = playground.wait_seen(2, deadline_s=30)
            assert {each.server for each in seen} == {own, "details/v1"}
        case "headers":
            assert (answer.headers["x-by"], answer.headers.get("content-type")) == (f"rule-{rule.number}", None)
        case _:
            assert answer.headers["x-server"] == own
            assert urlsplit(playground.log[0].path).path == _path(rule.action, blocks, request["path"])


def _path(action: str, blocks: tuple[Json, ...], path: str) -> str:
    """The path that arrives."""
    if action == "regex rewrite":
        return re.sub("^/([aA])", r"/-\1-", path)
    if action != "rewrite":
        return path
    said = next((block["uri"] for block in blocks if "uri" in block), {"prefix": "/"})
    return "/new" + (path[len(said["prefix"]) :] if "prefix" in said else "")
