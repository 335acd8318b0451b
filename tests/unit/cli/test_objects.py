from __future__ import annotations

import json
from pathlib import Path

import yaml

from lateen.lib.errors import LateenError
from tests.unit.cli.conftest import Lateen

GOOD = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata: {{x: '1'}}\n"


def test_apply_get_delete(lateen: Lateen, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD.format(name="a"))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.yml").write_text(GOOD.format(name="b") + "---\n" + GOOD.format(name="c"))
    done = lateen("apply", "-f", str(tmp_path))
    assert (done.exit_code, done.stdout) == (
        0,
        "ConfigMap a in default created\nConfigMap b in default created\nConfigMap c in default created\n",
    )
    done = lateen("apply", "-f", "-", "-f", str(tmp_path / "a.yaml"), stdin=GOOD.format(name="d"))
    assert done.stdout == "ConfigMap d in default created\nConfigMap a in default unchanged\n"
    assert [line.split()[1] for line in lateen("get", "cm").stdout.splitlines()] == ["NAME", "a", "b", "c", "d"]
    one = json.loads(lateen("get", "configmap", "a", "-o", "json").stdout)
    assert one["data"] == {"x": "1"}
    some = yaml.safe_load(lateen("get", "cm,ns", "-A", "-o", "yaml").stdout)
    assert {each["kind"] for each in some["items"]} == {"ConfigMap", "Namespace"}
    assert lateen("delete", "cm", "a", "b").exit_code == 0
    assert lateen("delete", "-f", str(tmp_path / "sub")).stdout.splitlines()[0] == "ConfigMap b in default not there"
    assert [line.split()[1] for line in lateen("get", "cm").stdout.splitlines()] == ["NAME", "d"]


def test_a_dry_run_changes_nothing(lateen: Lateen) -> None:
    assert lateen("apply", "--dry-run", "-f", "-", stdin=GOOD.format(name="a")).exit_code == 0
    assert "a" not in lateen("get", "cm").stdout.split()


def test_a_typo_is_refused_with_place_and_remedy_and_exit_code_1(lateen: Lateen, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD.format(name="a"))
    (tmp_path / "b.yaml").write_text(GOOD.format(name="b").replace("\ndata", "\ndatta"))
    done = lateen("apply", "-f", str(tmp_path))
    assert done.exit_code == 1
    assert f"{tmp_path}/b.yaml:5:1" in done.stderr
    assert "datta" in done.stderr
    assert 'did you mean "data"?' in done.stderr
    assert "nothing was changed" in done.stderr
    assert "a" not in lateen("get", "cm").stdout.split()
    done = lateen("apply", "-f", str(tmp_path), "-o", "json")
    answer = json.loads(done.stdout)
    assert (done.exit_code, answer["applied"]) == (1, False)
    assert answer["findings"][0]["position"]["line"] == 5


def test_what_the_mesh_says_is_printed_and_is_no_failure(lateen: Lateen) -> None:
    done = lateen("apply", "-f", "-", stdin=GOOD.format(name="lonely"))
    assert done.exit_code == 0
    assert "warning IST0101 standard input:1:1" in done.stderr


def test_usage_errors_have_exit_code_2(lateen: Lateen) -> None:
    for arguments in (
        ["get"],
        ["get", "nonsense"],
        ["delete"],
        ["delete", "cm"],
        ["apply"],
        ["nonsense"],
        ["ps", "-o", "x"],
    ):
        assert lateen(*arguments).exit_code == 2, arguments


def test_what_is_not_there_is_said_in_one_line(lateen: Lateen) -> None:
    for arguments in (["get", "cm", "none"], ["delete", "cm", "none"], ["apply", "-f", "/none.yaml"]):
        done = lateen(*arguments)
        assert done.exit_code == 1
        assert isinstance(done.exception, LateenError)
        assert "none" in str(done.exception)


def test_validate_needs_no_mesh(tmp_path: Path, lateen: Lateen) -> None:
    (tmp_path / "good.yaml").write_text(GOOD.format(name="a"))
    done = lateen("validate", "-f", str(tmp_path / "good.yaml"))
    assert (done.exit_code, done.stdout) == (0, "1 documents, 0 errors, 0 other findings\n")
    (tmp_path / "bad.yaml").write_text(
        "kind: [\n---\n" + GOOD.format(name="a").replace("kind: ConfigMap", "kind: ConfigMop")
    )
    done = lateen("validate", "-f", str(tmp_path))
    assert done.exit_code == 1
    assert "2 documents, 2 errors" in done.stdout
    assert 'did you mean "ConfigMap"?' in done.stderr
    found = json.loads(lateen("validate", "-f", str(tmp_path), "-o", "json").stdout)
    assert {each["position"]["file"] for each in found} == {str(tmp_path / "bad.yaml")}
