"""Odd values in VirtualServices: what the checks of the API let through, Envoy accepts."""

from __future__ import annotations

import pytest
import yaml
from envoy.config.route.v3.route_pb2 import RouteConfiguration

from lateen.api.check import check_raw
from lateen.api.istio.substitutions import PLAIN
from lateen.envoy.route import route_configuration, route_names
from lateen.intent.scope import ProxyKind, Scope
from lateen.lib.findings import Level
from tests.configuration import graph_of, service, virtual_service
from tests.envoy.harness import ROUTE, Validator

SIDECAR = Scope(ProxyKind.SIDECAR, "default")
TO = "route: [{destination: {host: reviews}}]"
RULES = {
    "expression": "match: [{uri: {regex: '('}}]",
    "look-ahead": "match: [{uri: {regex: '(?!x)'}}]",
    "expression of a header": "match: [{headers: {a: {regex: '('}}}]",
    "header name": "match: [{headers: {'a b': {exact: x}}}]",
    "empty header name": "match: [{headers: {'': {exact: x}}}]",
    "line break in a match": 'match: [{headers: {a: {exact: "x\\ny"}}}]',
    "path without a slash": "match: [{uri: {exact: foo}}]",
    "empty prefix": "match: [{uri: {prefix: ''}}]",
    "query in a path": "match: [{uri: {exact: '/a?b'}}]",
    "empty parameter name": "match: [{queryParams: {'': {exact: a}}}]",
    "method": "match: [{method: {exact: 'G T'}}]",
    "stat prefix": "match: [{uri: {prefix: /a}, statPrefix: 'a b'}]",
    "no delay": "fault: {delay: {fixedDelay: 0s, percentage: {value: 10}}}",
    "short delay": "fault: {delay: {fixedDelay: 1us, percentage: {value: 10}}}",
    "abort with 100": "fault: {abort: {httpStatus: 100, percentage: {value: 10}}}",
    "abort with 600": "fault: {abort: {httpStatus: 600, percentage: {value: 10}}}",
    "negative share": "fault: {abort: {httpStatus: 500, percentage: {value: -1}}}",
    "large share": "fault: {abort: {httpStatus: 500, percentage: {value: 1000}}}",
    "gRPC status": "fault: {abort: {grpcStatus: '99', percentage: {value: 10}}}",
    "negative timeout": "timeout: -1s",
    "long timeout": "timeout: 100000h",
    "short timeout": "timeout: 1ns",
    "many attempts": "retries: {attempts: 2147483647}",
    "reason": "retries: {attempts: 1, retryOn: nonsense}",
    "status to retry": "retries: {attempts: 1, retryOn: '1000,99'}",
    "no back-off": "retries: {attempts: 1, backoff: 0s}",
    "short try": "retries: {attempts: 1, perTryTimeout: 1us}",
    "line break in a rewrite": 'rewrite: {uri: "/a\\nb"}',
    "line break in a host": 'rewrite: {authority: "a\\nb"}',
    "line break in an expression's text": 'rewrite: {uriRegexRewrite: {match: "/a", rewrite: "/a\\nb"}}',
    "long header value": f"headers: {{request: {{set: {{a: {'x' * 16_385}}}}}}}",
    "header value as long as may be": f"headers: {{request: {{set: {{a: {'x' * 16_384}}}}}}}",
    "unknown command": "headers: {request: {set: {a: '%NOPE%'}}}",
    "command without its argument": "headers: {request: {set: {a: '%REQ%'}}}",
    "rewrite without a slash": "rewrite: {uri: a}",
    "expression of a rewrite": "rewrite: {uriRegexRewrite: {match: '(', rewrite: x}}",
    "group of a rewrite": "rewrite: {uriRegexRewrite: {match: 'a', rewrite: '\\9'}}",
    "empty rewrite": "rewrite: {uriRegexRewrite: {match: '', rewrite: 'x'}}",
    "changed header name": "headers: {request: {set: {'a b': x}}}",
    "changed header value": 'headers: {request: {set: {a: "x\\ny"}}}',
    "removed pseudo header": "headers: {request: {remove: ['', 'a b', ':path']}}",
    "added host": "headers: {request: {add: {Host: x}}}",
    "expression of an origin": "corsPolicy: {allowOrigins: [{regex: '('}]}",
    "line break in a method": 'corsPolicy: {allowMethods: ["A\\nB"]}',
    "rule name": 'name: "a\\nb"',
    "large mirror": "mirror: {host: x}, mirrorPercentage: {value: 200}",
}
ACTIONS = {
    "code of a redirect": "redirect: {uri: /x, redirectCode: 200}",
    "line break in a redirect": 'redirect: {uri: "/a\\nb"}',
    "line break in the prefix of a redirect": 'match: [{uri: {prefix: /a}}], redirect: {prefixRewrite: "/a\\nb"}',
    "large weights": "route: [{destination: {host: a}, weight: 2147483647}, "
    "{destination: {host: b}, weight: 2147483647}, {destination: {host: c}, weight: 2}]",
    "port of a redirect": "redirect: {port: 70000}",
    "host of a redirect": "redirect: {authority: 'a b'}",
    "scheme of a redirect": "redirect: {scheme: 'x y'}",
    "no status": "directResponse: {status: 0}",
    "early status": "directResponse: {status: 100}",
    "late status": "directResponse: {status: 600}",
    "large body": f"directResponse: {{status: 200, body: {{string: {'x' * 1_100_000}}}}}",
    "nothing": "name: x",
    "negative weight": "route: [{destination: {host: a}, weight: -5}, {destination: {host: b}, weight: 5}]",
    "no weight": "route: [{destination: {host: a}}, {destination: {host: b}}]",
    "bar in a subset": "route: [{destination: {host: a, subset: 'x|y'}}]",
    "empty host": "route: [{destination: {host: ''}}]",
}
HOSTS = ("*", "a.*.com", "*a.com", "a b", "", "a.com:80", "10.0.0.1", "::1", "a\\n.com", "a.*", "A.com")

CASES = {
    **{name: f"{{hosts: [reviews], http: [{{{rule}, {TO}}}]}}" for name, rule in RULES.items()},
    **{name: f"{{hosts: [reviews], http: [{{{rule}}}]}}" for name, rule in ACTIONS.items()},
    **{f"host {host}": f'{{hosts: ["{host}"], http: [{{{TO}}}]}}' for host in HOSTS},
}


@pytest.mark.parametrize("name", CASES)
def test_refused_by_the_checks_or_accepted(name: str, validator: Validator) -> None:
    text = virtual_service("odd", CASES[name]).removesuffix("---")
    if any(each.level is Level.ERROR for each in check_raw(yaml.safe_load(text))):
        return
    graph = graph_of(service("reviews"), text)
    made = [graph.pull(route_configuration, SIDECAR, table) for table in graph.pull(route_names, SIDECAR)]
    assert made
    assert validator.accepts([(ROUTE, each) for each in made if each is not None]) == []


def test_every_known_command_is_one(validator: Validator) -> None:
    headers = ", ".join(f"x-{index}: '%{name}%'" for index, name in enumerate(sorted(PLAIN)))
    text = virtual_service(
        "odd", f"{{hosts: [reviews], http: [{{headers: {{request: {{set: {{{headers}}}}}}}, {TO}}}]}}"
    )
    made = graph_of(service("reviews"), text).pull(route_configuration, SIDECAR, "9080")
    assert made is not None
    written = RouteConfiguration.FromString(made.body).virtual_hosts[0].routes[0].request_headers_to_add
    assert {each.header.value for each in written} == {f"%{name}%" for name in PLAIN}
    assert validator.accepts([(ROUTE, made)]) == []
