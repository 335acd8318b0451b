"""Each rule of VirtualService with the smallest input that breaks it, and the values next to it that do not."""

from __future__ import annotations

import pytest

from lateen.lib.findings import Finding, Level
from tests.unit.api.rule_cases import expect, findings

TO = "route: [{destination: {host: a}}]"


def vs(spec: str) -> list[Finding]:
    return findings("networking.istio.io/v1", "VirtualService", spec)


def http(rule: str) -> list[Finding]:
    return vs(f"hosts: [a]\nhttp: [{{{rule}}}]")


@pytest.mark.parametrize(
    "rule",
    [
        TO,
        "route: [{destination: {host: a.b.svc.cluster.local, subset: v1, port: {number: 80}}, weight: 0}]",
        "route: [{destination: {host: a}, weight: 1}, {destination: {host: b}, weight: 0}]",
        "route: [{destination: {host: '*.b.c'}}]",
        "redirect: {uri: /x}",
        "redirect: {prefixRewrite: /x}, match: [{uri: {prefix: /}}]",
        "redirect: {port: 443}",
        "redirect: {derivePort: FROM_REQUEST_PORT, redirectCode: 308}",
        "directResponse: {status: 503}",
        "delegate: {name: b}",
        f"{TO}, match: [{{uri: {{regex: '/a.*'}}}}]",
        f"{TO}, match: [{{headers: {{x: {{}}}}}}]",
        f"{TO}, match: [{{headers: {{':path': {{exact: a}}}}, withoutHeaders: {{x: {{regex: '*'}}}}}}]",
        f"{TO}, retries: {{attempts: 0}}",
        f"{TO}, retries: {{attempts: 3, retryOn: '5xx, reset,503'}}",
        f"{TO}, rewrite: {{uri: /}}",
        f"{TO}, rewrite: {{uriRegexRewrite: {{match: '/(a)', rewrite: '/\\1'}}}}",
        f"{TO}, fault: {{delay: {{fixedDelay: 1s, percentage: {{value: 100}}}}}}",
        f"{TO}, fault: {{abort: {{grpcStatus: '14', percentage: {{value: 0.1}}}}}}",
        f"{TO}, fault: {{abort: {{grpcStatus: unavailable, percentage: {{value: 0}}}}}}",
        f"{TO}, headers: {{request: {{set: {{host: b, x: '%REQ(:path)% 5%% %PROTOCOL%'}}, remove: [b]}}}}",
        f"{TO}, corsPolicy: {{allowOrigins: [{{exact: '*'}}], allowMethods: ['*', GET], allowHeaders: [x]}}",
        f"{TO}, mirror: {{host: b}}, mirrorPercentage: {{value: 50}}",
    ],
)
def test_good_http_rules(rule: str) -> None:
    assert http(rule) == []


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("match: [{uri: {exact: /}}]", "http[0]: what becomes of the requests is missing"),
        (f"{TO}, redirect: {{uri: /}}", "http[0].redirect: exclude each other"),
        ("redirect: {uri: /}, directResponse: {status: 200}", "http[0].directResponse: exclude each other"),
        (f"{TO}, delegate: {{name: b}}", "http[0].delegate: exclude each other"),
        ("redirect: {uri: /}, rewrite: {uri: /}", "http[0].rewrite: meaningless"),
        ("directResponse: {status: 200}, mirror: {host: b}", "http[0].mirror: meaningless"),
        ("redirect: {}", "http[0].redirect: where to is missing"),
        ("redirect: {uri: /, redirectCode: 200}", "http[0].redirect.redirectCode: 200 is no redirect"),
        ("redirect: {scheme: ftp}", "http[0].redirect.scheme: not a scheme"),
        ("redirect: {port: 70000}", "http[0].redirect.port: 70000 is not a port"),
        (
            "redirect: {uri: /a, prefixRewrite: /b}, match: [{uri: {prefix: /}}]",
            "http[0].redirect.prefixRewrite: exclude",
        ),
        ("redirect: {prefixRewrite: /b}, match: [{uri: {exact: /}}]", "http[0].match[0]: needs a match on uri.prefix"),
        ("redirect: {prefixRewrite: /b}", "http[0].redirect: needs a match on uri.prefix"),
        ("directResponse: {status: 100}", "http[0].directResponse.status: 100 is not the status"),
        ("directResponse: {status: 600}", "http[0].directResponse.status: 600 is not the status"),
        (f"directResponse: {{status: 200, body: {{string: {'x' * 1048577}}}}}", "http[0].directResponse.body: 1048577"),
        ("delegate: {}", 'http[0].delegate: "name" is missing'),
        ("delegate: {name: b, namespace: B}", "http[0].delegate.namespace: no namespace"),
        ("route: [{destination: {host: ''}}]", "http[0].route[0].destination.host: the host is empty"),
        ("route: [{destination: {host: '*'}}]", "http[0].route[0].destination.host: * is no service"),
        ("route: [{destination: {host: 10.0.0.1}}]", "http[0].route[0].destination.host: is an address"),
        ("route: [{destination: {host: a b}}]", "http[0].route[0].destination.host: is no host name"),
        ("route: [{destination: {host: a, subset: 'v|1'}}]", "http[0].route[0].destination.subset: name of a subset"),
        (
            "route: [{destination: {host: a, port: {number: 0}}}]",
            "http[0].route[0].destination.port.number: not a port",
        ),
        ("route: [{destination: {host: a, port: {}}}]", "http[0].route[0].destination.port: has no number"),
        ("route: [{destination: {host: a}, weight: -1}]", "http[0].route[0].weight: negative"),
        ("route: [{destination: {host: a}}, {destination: {host: b}}]", "http[0].route: no destination has a weight"),
        (f"{TO}, match: [{{}}]", "http[0].match[0]: the match is empty"),
        (
            f"{TO}, match: [{{uri: {{regex: '(?=a)'}}}}]",
            "http[0].match[0].uri.regex: is not RE2: invalid perl operator",
        ),
        (f"{TO}, match: [{{uri: {{regex: '['}}}}]", "http[0].match[0].uri.regex: missing ]"),
        (f"{TO}, match: [{{headers: {{'a b': {{}}}}}}]", 'http[0].match[0].headers["a b"]: not the name of a header'),
        (f"{TO}, match: [{{headers: {{x: {{regex: '*'}}}}}}]", "http[0].match[0].headers.x.regex: is not RE2"),
        (f"{TO}, match: [{{headers: {{x: {{prefix: ''}}}}}}]", "http[0].match[0].headers.x.prefix: is empty"),
        (f"{TO}, match: [{{uri: {{regex: ''}}}}]", "http[0].match[0].uri.regex: is empty"),
        (f"{TO}, match: [{{uri: {{regex: '*'}}}}]", "http[0].match[0].uri.regex: is not RE2"),
        (f"{TO}, match: [{{method: {{prefix: ''}}}}]", "http[0].match[0].method.prefix: is empty"),
        (f"{TO}, match: [{{queryParams: {{q: {{regex: ''}}}}}}]", "http[0].match[0].queryParams.q.regex: is empty"),
        (f"{TO}, match: [{{sourceNamespace: A}}]", "http[0].match[0].sourceNamespace: is no namespace"),
        (
            f"{TO}, match: [{{headers: {{'@request.auth.claims.x': {{exact: a}}}}}}]",
            'http[0].match[0].headers["@request.auth.claims.x"]: on gateways only',
        ),
        (
            f"{TO}, rewrite: {{authority: b}}, headers: {{request: {{set: {{Host: c}}}}}}",
            "http[0].headers.request.set.Host: says already",
        ),
        (f"{TO}, corsPolicy: {{allowOrigins: [{{exact: ''}}]}}", "http[0].corsPolicy.allowOrigins[0].exact: empty"),
        (f"{TO}, corsPolicy: {{allowOrigins: [{{regex: '*'}}]}}", "http[0].corsPolicy.allowOrigins[0].regex: not RE2"),
        (f"{TO}, match: [{{port: 0}}]", "http[0].match[0].port: 0 is not a port"),
        (f"{TO}, match: [{{sourceLabels: {{a: '*'}}}}]", "http[0].match[0].sourceLabels.a: no wildcards"),
        (f"{TO}, match: [{{statPrefix: 'a b'}}]", "http[0].match[0].statPrefix: part of a metric"),
        (f"{TO}, match: [{{gateways: [A/b]}}]", "http[0].match[0].gateways[0]: is no gateway"),
        (f"{TO}, match: [{{queryParams: {{'': {{exact: a}}}}}}]", "http[0].match[0].queryParams: name of a parameter"),
        (f"{TO}, retries: {{attempts: -1}}", "http[0].retries.attempts: negative"),
        (f"{TO}, retries: {{attempts: 0, retryOn: 5xx}}", "http[0].retries.attempts: turn retries off"),
        (f"{TO}, retries: {{attempts: 1, retryOn: '5xx,conect-failure'}}", "http[0].retries.retryOn: conect-failure"),
        (f"{TO}, retries: {{attempts: 1, retryOn: '99'}}", "http[0].retries.retryOn: not a reason"),
        (f"{TO}, rewrite: {{}}", "http[0].rewrite: what is rewritten is missing"),
        (
            f"{TO}, rewrite: {{uri: /, uriRegexRewrite: {{match: a, rewrite: b}}}}",
            "http[0].rewrite.uriRegexRewrite: exclude",
        ),
        (f"{TO}, rewrite: {{uriRegexRewrite: {{match: a}}}}", "http[0].rewrite.uriRegexRewrite: belong together"),
        (
            f"{TO}, rewrite: {{uriRegexRewrite: {{match: '(', rewrite: b}}}}",
            "http[0].rewrite.uriRegexRewrite.match: missing )",
        ),
        (
            f"{TO}, rewrite: {{uriRegexRewrite: {{match: '(a)', rewrite: '\\2'}}}}",
            "http[0].rewrite.uriRegexRewrite.rewrite: no group \\2",
        ),
        (
            f"{TO}, rewrite: {{uriRegexRewrite: {{match: '(a)', rewrite: '\\x'}}}}",
            "http[0].rewrite.uriRegexRewrite.rewrite: backslash",
        ),
        (f"{TO}, fault: {{}}", "http[0].fault: what goes wrong is missing"),
        (f"{TO}, fault: {{delay: {{percentage: {{value: 1}}}}}}", "http[0].fault.delay: the delay is missing"),
        (
            f"{TO}, fault: {{delay: {{fixedDelay: 1s, percentage: {{value: 101}}}}}}",
            "http[0].fault.delay.percentage.value: 101 is not a percentage",
        ),
        (
            f"{TO}, fault: {{abort: {{percentage: {{value: 1}}}}}}",
            "http[0].fault.abort: what the request is answered with",
        ),
        (
            f"{TO}, fault: {{abort: {{httpStatus: 99, percentage: {{value: 1}}}}}}",
            "http[0].fault.abort.httpStatus: 99 is not the status",
        ),
        (
            f"{TO}, fault: {{abort: {{grpcStatus: BUSY, percentage: {{value: 1}}}}}}",
            "http[0].fault.abort.grpcStatus: not a gRPC status",
        ),
        (f"{TO}, headers: {{request: {{add: {{host: b}}}}}}", "http[0].headers.request.add.host: can only be set"),
        (f"{TO}, headers: {{response: {{set: {{host: b}}}}}}", "http[0].headers.response.set.host: can only be set"),
        (f"{TO}, headers: {{request: {{remove: ['a b']}}}}", "http[0].headers.request.remove[0]: name of a header"),
        (f"{TO}, headers: {{request: {{set: {{x: 50%}}}}}}", "http[0].headers.request.set.x: begins a command"),
        (f'{TO}, headers: {{response: {{add: {{x: "a\\nb"}}}}}}', "http[0].headers.response.add.x: no line breaks"),
        (f"{TO}, corsPolicy: {{allowMethods: [get]}}", "http[0].corsPolicy.allowMethods[0]: not a method"),
        (f"{TO}, corsPolicy: {{allowHeaders: ['a b']}}", "http[0].corsPolicy.allowHeaders[0]: name of a header"),
        (f"{TO}, corsPolicy: {{maxAge: 1500ms}}", "http[0].corsPolicy.maxAge: whole number of seconds"),
        (f"{TO}, mirror: {{host: b}}, mirrors: [{{destination: {{host: c}}}}]", "http[0].mirrors: exclude each other"),
    ],
)
def test_http_rules(rule: str, expected: str) -> None:
    expect(http(rule), expected)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (f"{TO}, corsPolicy: {{allowOrigin: [a]}}", "http[0].corsPolicy.allowOrigin: deprecated"),
        (f"{TO}, fault: {{delay: {{fixedDelay: 1s, percent: 5}}}}", "http[0].fault.delay.percent: deprecated"),
        (f"{TO}, fault: {{delay: {{fixedDelay: 1s}}}}", "http[0].fault.delay: without a percentage"),
        (f"{TO}, fault: {{abort: {{httpStatus: 500}}}}", "http[0].fault.abort: without a percentage"),
        (f"{TO}, mirror: {{host: b}}, mirror_percent: 5", "http[0].mirror_percent: deprecated"),
        (f"{TO}, mirror: {{host: b}}, mirrorPercent: 5", "http[0].mirrorPercent: deprecated"),
        (f"{TO}, match: [{{uri: {{regex: a}}, ignoreUriCase: true}}]", "http[0].match[0].ignoreUriCase: no effect"),
        (f"{TO}, match: [{{uri: {{prefix: ''}}}}]", "http[0].match[0].uri.prefix: the text is empty"),
        (f"{TO}, match: [{{headers: {{x: {{exact: ''}}}}}}]", "http[0].match[0].headers.x.exact: the text is empty"),
        (f"{TO}, match: [{{port: 1, ignoreUriCase: true}}]", "http[0].match[0].ignoreUriCase: without uri"),
        (f"{TO}, mirrorPercentage: {{value: 5}}", "http[0].mirrorPercentage: no effect without mirror"),
        (f"{TO}, timeout: 1s, retries: {{attempts: 1, perTryTimeout: 1s}}", "http[0].retries.perTryTimeout: as long"),
        ("redirect: {uri: /}, timeout: 1s", "http[0].timeout: nothing is sent on"),
        ("directResponse: {status: 200}, retries: {attempts: 1}", "http[0].retries: nothing is sent on"),
        (f"directResponse: {{status: 200, body: {{string: {'x' * 102401}}}}}", "http[0].directResponse.body: 102401"),
        (
            f"{TO}, corsPolicy: {{allowOrigins: [{{exact: '*'}}], allowCredentials: true}}",
            "http[0].corsPolicy.allowOrigins[0]: every web page",
        ),
        (f"{TO}, match: [{{gateways: [a.b.c]}}]", "http[0].match[0].gateways[0]: Gateway a of namespace b"),
        (
            "route: [{destination: {host: a}, weight: 1}, {destination: {host: b}}]",
            "http[0].route[1]: it gets nothing",
        ),
    ],
)
def test_http_warnings(rule: str, expected: str) -> None:
    expect(http(rule), expected, Level.WARNING)


HTTP = f"http: [{{{TO}}}]"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("hosts: [a]", ": there are no rules"),
        (f"hosts: ['*']\n{HTTP}", "hosts[0]: not possible for sidecars"),
        (f"hosts: ['*']\ngateways: [g, mesh]\n{HTTP}", "hosts[0]: not possible for sidecars"),
        (f"hosts: ['a.*.b']\n{HTTP}", "hosts[0]: is not a host"),
        (f"hosts: [a, A]\n{HTTP}", "hosts[1]: host a is there twice"),
        (f"hosts: [b.a, '*.a']\n{HTTP}", "hosts[0]: is one of *.a"),
        (f"hosts: ['*.a', '*.b.a']\n{HTTP}", "hosts[1]: is one of *.a"),
        (f"hosts: [a]\nexportTo: ['~']\n{HTTP}", "exportTo[0]: nobody"),
        (f"hosts: [a]\nexportTo: [A]\n{HTTP}", "exportTo[0]: is no namespace"),
        (f"hosts: [a]\nexportTo: [a, a]\n{HTTP}", "exportTo[1]: namespace a is there twice"),
        (f"hosts: [a]\nexportTo: ['*', a]\n{HTTP}", "exportTo[0]: * says it all"),
        (f"hosts: [a.b]\ngateways: [a/b/c]\n{HTTP}", "gateways[0]: is no gateway"),
        (f"gateways: [g]\n{HTTP}", "gateways: has no gateways"),
        ("http: [{delegate: {name: b}}]", "http[0].delegate: cannot delegate again"),
        ("tcp: [{route: [{destination: {host: a}}]}]", "tcp: has no tcp"),
        ("hosts: [a]\ntcp: [{}]", 'tcp[0]: "route" is missing'),
        ("hosts: [a]\ntcp: [{match: [{destinationSubnets: [10.0.0.0/33]}], route: [{destination: {host: a}}]}]",
         "tcp[0].match[0].destinationSubnets[0]: no address or network"),
        ("hosts: [a.b]\ntls: [{match: [], route: [{destination: {host: a}}]}]", "tls[0].match: the list is empty"),
        ("hosts: [a.b]\ntls: [{match: [{sniHosts: [a.b]}]}]", 'tls[0]: "route" is missing'),
        ("hosts: [a.b]\ntls: [{match: [{sniHosts: []}], route: [{destination: {host: a}}]}]",
         "tls[0].match[0].sniHosts: the list is empty"),
        ("hosts: [a.b]\ntls: [{match: [{sniHosts: [c.b]}], route: [{destination: {host: a}}]}]",
         "tls[0].match[0].sniHosts[0]: not covered by hosts"),
    ],
)  # fmt: skip
def test_rules_of_the_whole(spec: str, expected: str) -> None:
    expect(vs(spec), expected)


@pytest.mark.parametrize(
    "spec",
    [
        f"hosts: ['*']\ngateways: [g]\n{HTTP}",
        f"hosts: ['*.a.b', 10.0.0.1]\ngateways: [n/g, mesh]\nexportTo: [., a]\n{HTTP}",
        HTTP,
        "hosts: ['*.a.b']\ntls: [{match: [{sniHosts: [c.a.b, '*.d.a.b']}], route: [{destination: {host: a}}]}]",
        "hosts: [a]\ntcp: [{match: [{destinationSubnets: [10.0.0.1, 10.0.0.0/8]}], route: [{destination: {host: a}}]}]",
    ],
)
def test_good_wholes(spec: str) -> None:
    assert vs(spec) == []


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (f"[{{{TO}}}, {{{TO}, match: [{{uri: {{exact: /}}}}]}}]", "http[1]: http[0] takes them all"),
        (
            f"[{{{TO}, match: [{{name: x, uri: {{prefix: /}}}}]}}, {{{TO}}}]",
            "http[1]: http[0] takes them all",
        ),
        (
            f"[{{{TO}, match: [{{uri: {{exact: /}}}}]}}, {{{TO}, match: [{{name: b, uri: {{exact: /}}}}]}}]",
            "http[1]: has the same match",
        ),
    ],
)
def test_rules_that_no_request_reaches(rules: str, expected: str) -> None:
    found = vs(f"hosts: [a]\nhttp: {rules}")
    expect(found, expected, Level.WARNING)
    assert found[0].code == "IST0130"


CLAIM = "match: [{headers: {'@request.auth.claims.x': {exact: a}}%s}]"


def test_claims_count_on_gateways() -> None:
    assert vs(f"hosts: [a.b]\ngateways: [g]\nhttp: [{{{TO}, {CLAIM % ''}}}]") == []
    assert vs(f"hosts: [a.b]\ngateways: [g, mesh]\nhttp: [{{{TO}, {CLAIM % ', gateways: [g]'}}}]") == []
    both = vs(f"hosts: [a.b]\ngateways: [g, mesh]\nhttp: [{{{TO}, {CLAIM % ''}}}]")
    expect(both, 'http[0].match[0].headers["@request.auth.claims.x"]: nothing in sidecars', Level.WARNING)


def test_an_address_is_no_server_name() -> None:
    spec = "hosts: [10.0.0.1]\ntls: [{match: [{sniHosts: [10.0.0.1]}], route: [{destination: {host: a}}]}]"
    expect(vs(spec), "tls[0].match[0].sniHosts[0]: is an address", Level.WARNING)


def match(text: str) -> str:
    return f"{{match: [{text}], {TO}}}"


@pytest.mark.parametrize(
    ("part", "first", "second"),
    [
        ("http", "{uri: {prefix: /a}}", "{uri: {exact: /a/b}}"),
        ("http", "{uri: {prefix: /A}, ignoreUriCase: true}", "{uri: {prefix: /ab}}"),
        ("http", "{headers: {x: {}}}", "{headers: {x: {regex: a.*}, y: {exact: a}}}"),
        ("http", "{withoutHeaders: {x: {exact: a}}}", "{withoutHeaders: {x: {}}}"),
        ("http", "{queryParams: {x: {prefix: a}}, port: 80}", "{queryParams: {x: {exact: ab}}, port: 80, name: z}"),
        ("http", "{gateways: [g, mesh], method: {exact: GET}}", "{gateways: [mesh], method: {exact: GET}}"),
        ("http", "{sourceLabels: {a: b}}", "{sourceLabels: {a: b, c: d}, sourceNamespace: e}"),
        ("tcp", "{destinationSubnets: [10.0.0.0/8]}", "{destinationSubnets: [10.1.0.0/16, 10.2.0.1]}"),
        ("tcp", "{port: 80}", "{port: 80, sourceSubnet: 10.0.0.0/8}"),
        ("tls", "{sniHosts: ['*.c']}", "{sniHosts: [a.c, '*.b.c']}"),
        ("tls", "{sniHosts: [a.c]}", "{sniHosts: [a.c], port: 443}"),
    ],
)
def test_what_a_wider_match_takes(part: str, first: str, second: str) -> None:
    hosts = "hosts: [a]" if part != "tls" else "hosts: ['*.c']"
    found = [each for each in vs(f"{hosts}\n{part}: [{match(first)}, {match(second)}]") if each.code != "IST0002"]
    expect(found, f"{part}[1]: {part}[0] takes all", Level.WARNING)
    assert found[0].code == "IST0130"
    assert [each.code for each in vs(f"{hosts}\n{part}: [{match(second)}, {match(first)}]")] in ([], ["IST0002"])


def test_one_match_of_several_has_no_effect() -> None:
    rules = f"[{match('{uri: {prefix: /a}}')}, {match('{uri: {prefix: /a/b}}, {uri: {exact: /c}}')}]"
    found = vs(f"hosts: [a]\nhttp: {rules}")
    expect(found, "http[1].match[0]: http[0] takes all", Level.WARNING)
    assert found[0].code == "IST0131"


@pytest.mark.parametrize(
    "rules",
    [
        f"[{{delegate: {{name: b}}}}, {{{TO}}}]",
        f"[{match('{uri: {regex: /a.*}}')}, {match('{uri: {exact: /ab}}')}]",
        f"[{match('{uri: {prefix: /a}}')}, {match('{uri: {prefix: /A}, ignoreUriCase: true}')}]",
        f"[{match('{withoutHeaders: {x: {}}}')}, {match('{withoutHeaders: {x: {exact: a}}}')}]",
        f"[{match('{gateways: [g]}')}, {{{TO}}}]",
    ],
)
def test_what_is_not_certain_is_not_said(rules: str) -> None:
    assert vs(f"hosts: [a]\nhttp: {rules}") == []


def test_rules_that_requests_reach() -> None:
    rules = f"[{{{TO}, match: [{{uri: {{prefix: /}}, port: 80}}]}}, {{{TO}, match: [{{uri: {{prefix: /}}}}]}}]"
    assert vs(f"hosts: [a]\nhttp: {rules}") == []


def test_a_short_name_on_a_gateway_is_pointed_out() -> None:
    expect(vs(f"hosts: [a]\ngateways: [g]\n{HTTP}"), "hosts[0]: on a gateway means the service", Level.WARNING)
