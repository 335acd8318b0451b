"""Verbs that wait, look back and go back, and what `status` says."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from lateen.analysis.envoy_words import translated
from lateen.cli.waiting import verdict
from lateen.console.glance import glance
from lateen.lib.errors import LateenError
from tests.unit.cli.conftest import Lateen

Json = dict[str, Any]
RULE = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: a}}
spec: {{hosts: [{host}], http: [{{route: [{{destination: {{host: b}}}}]}}]}}
"""


def test_history_diff_rollback_and_get_at(lateen: Lateen) -> None:
    for host in ("one.example", "two.example"):
        assert lateen("apply", "-f", "-", stdin=RULE.format(host=host)).exit_code == 0
    versions: list[Json] = json.loads(lateen("history", "vs/a", "-o", "json").stdout)
    assert [each["action"] for each in versions] == ["update", "create"]
    second, first = (str(each["revision"]) for each in versions)
    assert [line.split()[0] for line in lateen("history").stdout.splitlines()[:3]] == ["REVISION", second, first]
    shown = lateen("diff", first, second).stdout
    assert "-  - one.example" in shown
    assert "+  - two.example" in shown
    then = json.loads(lateen("get", "vs", "a", "--at", first, "-o", "json").stdout)
    assert then["spec"]["hosts"] == ["one.example"]
    assert "would be restored" in lateen("rollback", "vs/a", "--dry-run").stdout
    done = lateen("rollback", first)
    assert done.stdout.splitlines()[0] == f"VirtualService default/a restored (as of revision {first})"
    assert json.loads(lateen("get", "vs", "a", "-o", "json").stdout)["spec"]["hosts"] == ["one.example"]
    assert "nothing to do" in lateen("rollback", first).stdout
    for arguments in (
        ["rollback", "9999"],
        ["history", "vs/none"],
        ["diff", "x", "1"],
        ["get", "vs", "b", "--at", first],
    ):
        assert isinstance(lateen(*arguments).exception, LateenError), arguments
    for arguments in (["rollback", first, "--to", "1"], ["history", "a"], ["wait", "pod/a"], ["wait", "nonsense/a"]):
        assert lateen(*arguments).exit_code == 2, arguments


def test_wait_ends_in_time_and_says_what_is_not_there(lateen: Lateen) -> None:
    assert lateen("apply", "-f", "-", stdin=RULE.format(host="a.example")).exit_code == 0
    done = lateen("wait", "vs/a", "--timeout", "0.2")
    assert (done.exit_code, done.stderr) == (3, "VirtualService a in default: not live after 0.2 s\n")
    assert lateen("wait", "vs/none").exit_code == 1


@pytest.mark.parametrize(
    ("accepted", "programmed", "generation", "expected"),
    [
        ("True", "True", 2, (0, "live on 2 of 2")),
        ("True", "False", 2, (None, "live on 2 of 2")),
        ("False", "False", 2, (1, "not accepted: no")),
        ("True", "True", 1, (None, "")),
    ],
)
def test_only_conditions_of_the_present_version_count(
    accepted: str, programmed: str, generation: int, expected: tuple[int | None, str]
) -> None:
    conditions = [
        {"type": "Accepted", "status": accepted, "message": "no", "reason": "X", "observedGeneration": generation},
        {"type": "Programmed", "status": programmed, "message": "live on 2 of 2", "observedGeneration": generation},
    ]
    document = {"metadata": {"generation": 2}, "status": {"conditions": conditions}}
    assert verdict(document, "live") == expected


def test_glance() -> None:
    def proxy(name: str, *behind: Json) -> Json:
        return {"name": name, "namespace": "n", "behind": list(behind)}

    late = {"type": "RDS", "name": "80", "forS": 4.0, "words": "", "waiting": True}
    refusal = {**late, "words": "Proto constraint validation failed (X.Y: too long)"}
    condition = {"type": "Conflicted", "status": "True", "reason": "Shadowed", "message": "spec.hosts[0]: other"}
    lost = {
        "kind": "VirtualService",
        "metadata": {"name": "a", "namespace": "n"},
        "status": {"conditions": [condition]},
    }
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    ends = [("root", now + dt.timedelta(days=3)), ("far", now + dt.timedelta(days=30)), ("old", now - dt.timedelta(1))]
    seen = glance([proxy("a"), proxy("b", late), proxy("c", refusal)], [lost], ["a.n", "gone.n"], ends, now)
    assert (seen.proxies, seen.in_sync, seen.healthy) == (3, 1, False)
    assert seen.behind == ("b.n behind for 4 s: RDS 80 (sent, not answered)",)
    assert seen.refusing[0].startswith(
        "c.n refuses RDS 80 for 4 s: a value is outside of what is allowed (X.Y: too long)"
    )
    assert seen.away == ("gone.n runs and is not connected",)
    assert seen.losing == ("VirtualService n/a: spec.hosts[0]: other",)
    assert seen.certificates == ("old ended 2025-12-31 00:00", "root ends 2026-01-04 00:00")


def test_certificates_of_workloads_are_told_when_nobody_renews_them() -> None:
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

    def state(name: str, ends_h: float, renew_h: float, error: str = "") -> Json:
        ends, renew_at = ((now + dt.timedelta(hours=each)).timestamp() for each in (ends_h, renew_h))
        return {"namespace": "n", "name": name, "ends": ends, "renew_at": renew_at, "error": error}

    new = {"namespace": "n", "name": "new", "ends": 0.0, "renew_at": 0.0, "error": "no token"}
    states = [state("good", 20, 8), state("soon", 2, -10), state("failing", 12, 1, "UNAVAILABLE"), new]
    assert glance([], [], [], [], now, states).certificates == (
        "of n/new (none yet) not renewed: no token",
        "of n/soon (good until 2026-01-01 02:00) not renewed: the agent is late",
        "of n/failing (good until 2026-01-01 12:00) not renewed: UNAVAILABLE",
    )


def test_envoys_words() -> None:
    assert translated("Invalid regex 'a(': missing ): a(") == "a regular expression is not valid"
    words = "Only unique values for domains are permitted. Duplicate entry of domain a.example in route 80"
    assert translated(words) == "two hosts claim a.example in one route table"
    assert translated("something new") == "something new"
