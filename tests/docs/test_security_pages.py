"""The pages about security policies do what they say, on the real Envoy.

Their expectations are calls: `by` (a SPIFFE path; none: plain traffic), `path`, `method`, `headers`, `token` or
`cookie` (claims of a token), then `status` (0: no answer), `answer` (headers of the answer; null: absent), `seen`
(headers the application got) and `counted` (by how much counters of the proxy that end so grew). With `connect`, a
port, the caller says nothing and `hears` one line. `$ISSUER` and `$KEYS` are those of a provider.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import steps
from tests.docs.test_features import PAGES, SECURITY
from tests.envoy.guarded_pod import APPLICATION_OF_ALL_METHODS, Call, GuardedPod
from tests.envoy.identity_provider import IdentityProvider
from tests.envoy.single_pod import GREETING_APPLICATION
from tests.envoy.test_security_ext_authz import APPLICATION, AUTHORIZERS
from tests.paths import REPOSITORY


@pytest.fixture(scope="module")
def pod() -> Iterator[GuardedPod]:
    with GuardedPod() as made:
        made.application(APPLICATION_OF_ALL_METHODS, 9080)
        made.application(GREETING_APPLICATION, 7000)
        command = [*made.inside(), sys.executable, "-m", "tests.envoy.authorizer"]
        programs = [
            subprocess.Popen([*command, name, "127.0.0.1", str(AUTHORIZERS[name])], cwd=REPOSITORY)
            for name in ("http", "grpc")
        ]
        try:
            made.listening(AUTHORIZERS["http"], AUTHORIZERS["grpc"])
            yield made
        finally:
            for each in programs:
                each.kill()
                each.wait()


@pytest.mark.parametrize("page", [PAGES / f"{each}.md" for each in SECURITY], ids=lambda page: page.stem)
def test_page(page: Path, pod: GuardedPod) -> None:
    provider = IdentityProvider()
    checked = 0
    for step in steps(page):
        if step.kind == "apply":
            text = step.text.replace("$ISSUER", provider.issuer).replace("$KEYS", provider.keys)
            pod.configure(APPLICATION, text)
            continue
        for expected in yaml.safe_load(step.text):
            _check(pod, provider, expected, f"{page.name}:{step.line}: {json.dumps(expected)}")
            checked += 1
    provider.close()
    assert checked


def _check(pod: GuardedPod, provider: IdentityProvider, expected: dict[str, Any], where: str) -> None:
    by = expected.get("by", "")
    if "connect" in expected:
        assert pod.call(by=by, port=expected["connect"], line=True).text == expected["hears"], where
        return
    headers = list(expected.get("headers", {}).items())
    if "token" in expected:
        headers.append(("authorization", f"Bearer {provider.token(**_claims(expected['token']))}"))
    if "cookie" in expected:
        headers.append(("cookie", f"session={provider.token(**_claims(expected['cookie']))}"))
    call = Call(by, path=expected["path"], method=expected.get("method", "GET"), headers=headers)
    before = {name: _counter(pod, name) for name in expected.get("counted", {})}
    (got,) = pod.calls([call])
    assert got.status == expected["status"], where
    for name, grown in expected.get("counted", {}).items():
        assert _counter(pod, name) - before[name] == grown, (where, name)
    for name, value in expected.get("answer", {}).items():
        assert got.headers.get(name) == value, where
    for name, value in expected.get("seen", {}).items():
        assert got.seen_headers.get(name) == value, where


def _counter(pod: GuardedPod, name: str) -> int:
    lines = pod.envoy.admin("/stats", filter=re.escape(name) + "$").splitlines()
    return sum(int(each.rpartition(": ")[2]) for each in lines)


def _claims(said: dict[str, Any]) -> dict[str, Any]:
    return {"subject" if name == "sub" else name: value for name, value in said.items()}
