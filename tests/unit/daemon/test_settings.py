from __future__ import annotations

from pathlib import Path

import pytest

from lateen.daemon.settings import SettingsError, load, read, write

HOME = {"HOME": "/home/a user"}


def test_flags_beat_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("gateway_port: 1\nhttps_port: 1\nconsole_port: 1\n")
    environment = {**HOME, "LATEEN_HTTPS_PORT": "2", "LATEEN_CONSOLE_PORT": "2"}
    settings = load(file, environment, {"console_port": 3, "xds_port": None})
    assert (settings.gateway_port, settings.https_port, settings.console_port) == (1, 2, 3)
    assert settings.xds_port == 15012


def test_directories_by_default_and_when_given(tmp_path: Path) -> None:
    settings = load(None, HOME, {})
    assert settings.state_dir == "/home/a user/.local/state/lateen/default"
    assert settings.run_dir.startswith("/tmp/lateen-")
    runtime = {**HOME, "XDG_RUNTIME_DIR": str(tmp_path), "XDG_STATE_HOME": "/var/state"}
    settings = load(None, runtime, {"name": "two"})
    assert settings.run_dir == f"{tmp_path}/lateen/two"
    assert settings.state_dir == "/var/state/lateen/two"
    assert load(None, {**HOME, "XDG_RUNTIME_DIR": "/not there"}, {}).run_dir.startswith("/tmp/")


@pytest.mark.parametrize(
    ("file", "environment", "flags", "said"),
    [
        ("gatway_port: 1", {}, {}, "gatway_port"),
        ("gateway_port: many", {}, {}, "gateway_port"),
        ("- 1", {}, {}, "not a mapping"),
        ("a: [", {}, {}, "s.yaml"),
        ("", {"LATEEN_GATEWAY_PORT": "x"}, {}, "LATEEN_GATEWAY_PORT=x"),
        ("", {}, {"name": "Not A Name"}, "Not A Name"),
        ("", {}, {"name": "a" * 21}, "at most 20"),
        ("", {"LATEEN_GATEWAY_PORT": "65536"}, {}, "LATEEN_GATEWAY_PORT=65536"),
        ("https_port: -1", {}, {}, "https_port"),
        ("host: everywhere", {}, {}, "everywhere"),
        ("pod_range: 10.88.0.0", {}, {}, "too few"),
        ("pod_range: 10.88.1.0/16", {}, {}, "pod_range"),
        ("", {"LATEEN_VIP_RANGE": "10.88.8.0/24"}, {}, "overlap"),
    ],
)
def test_what_is_wrong_is_named_with_where_it_came_from(
    tmp_path: Path, file: str, environment: dict[str, str], flags: dict[str, str], said: str
) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(file)
    with pytest.raises(SettingsError, match=said) as error:
        load(path, {**HOME, **environment}, flags)
    assert error.value.remedy


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    settings = load(None, HOME, {"state_dir": str(tmp_path), "gateway_port": 18080})
    assert read(write(settings)) == settings
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(SettingsError):
        read(tmp_path / "settings.json")
    with pytest.raises(SettingsError, match="no mesh"):
        read(tmp_path / "none" / "settings.json")
