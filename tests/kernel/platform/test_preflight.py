"""What is in the way of a mesh is named; what isn't is not."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from lateen.lib.layout import Layout
from lateen.platform.preflight import obstacles
from lateen.platform.trial import trial
from tests.kernel.platform.harness import PYTHON


def test_a_pod_runs_here_and_leaves_nothing() -> None:
    before = set(Path("/tmp").glob("lateen-trial-*"))
    assert trial() == ""
    assert set(Path("/tmp").glob("lateen-trial-*")) == before


def test_nothing_in_the_way(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        layout = Layout("a", tmp_path, Path("/tmp/lateen-a-none"))
        assert obstacles(layout, [("127.0.0.1", 0, "--port")], [("198.18.0.0/16", "range")]) == []
        found = obstacles(layout, [("127.0.0.1", port, "--port")], [])
        assert [each.what for each in found] == [f"port {port} on 127.0.0.1: Address already in use"]
        assert found[0].remedy == "free it, or choose another with --port"


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs util-linux")
def test_no_user_namespaces() -> None:
    """In a user namespace that forbids further ones, Pods can't run, and it says so."""
    code = "from lateen.platform.trial import trial; print(trial())"
    script = f"echo 0 > /proc/sys/user/max_user_namespaces; exec '{PYTHON}' -c '{code}'"
    done = subprocess.run(("unshare", "-Ur", "sh", "-c", script), capture_output=True, text=True, check=True, cwd="/")
    assert "unshare(0x10000000): No space left on device" in done.stdout
