from __future__ import annotations

import fcntl
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import msgspec

from lateen.cli.main import VERBS
from lateen.daemon.supervisor import ProcessState, SupervisorState
from lateen.lib.errors import LateenError
from tests.unit.cli.conftest import Lateen

HEAVY = ("grpc", "httpx", "rich", "cryptography", "starlette", "uvicorn", "yaml", "google.protobuf", "structlog")


def test_every_verb_is_there_and_its_help_says_what_it_does() -> None:
    for verb in VERBS:
        command = importlib.import_module(f"lateen.cli.verbs.{verb.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        assert command.name == verb
        assert command.help


def test_help_and_version_load_nothing_heavy() -> None:
    for arguments in (["--help"], ["version"]):
        code = (
            f"import sys; sys.argv = ['lateen', *{arguments!r}]\n"
            "from lateen.cli.main import main\n"
            "try: main()\nexcept SystemExit as end: assert not end.code\n"
            f"print([each for each in {HEAVY!r} if each in sys.modules], file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stderr.strip() == "[]", arguments


def test_an_error_is_one_line_with_a_remedy_and_no_traceback(lateen: Lateen) -> None:
    program = [sys.executable, "-m", "lateen.cli.main", "get", "vs", "--name", "no-such-mesh"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, env={"HOME": "/nonexistent"})
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "lateen up" in done.stderr
    assert "Traceback" not in done.stderr


def test_ps_shows_the_processes_when_the_control_plane_is_gone(lateen: Lateen) -> None:
    run = Path(os.environ["LATEEN_RUN_DIR"])
    with (run / "supervisor.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = SupervisorState(1, (ProcessState("controlplane", 0, 4, time.time(), "exit code 1"),))
        (run / "supervisor.json").write_bytes(msgspec.json.encode(state))
        assert lateen("ps").exit_code == 0
        (run / "api.sock").unlink()
        result = lateen("ps")
    assert result.exit_code == 1
    assert [line.split()[:3] for line in result.stdout.splitlines()][1:] == [["controlplane", "restarting", "4"]]
    assert isinstance(result.exception, LateenError)
    assert "lateen logs controlplane" in result.exception.remedy


def test_apply_of_no_object_at_all_is_an_error(lateen: Lateen) -> None:
    for text in ("", "# nothing\n---\n"):
        result = lateen("apply", "-f", "-", stdin=text)
        assert isinstance(result.exception, LateenError)
        assert "no object" in str(result.exception)


def test_an_installation_of_the_agent_alone_says_what_is_missing() -> None:
    program = """
import sys
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "httpx":
            raise ModuleNotFoundError("no", name=name)
sys.meta_path.insert(0, NotInstalled())
from lateen.cli.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program, "ps"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "error: `lateen ps` needs httpx: what is installed here is the agent alone\n  try: pip install 'lateen[mesh]'\n"
    )
