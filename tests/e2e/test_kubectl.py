"""docs/guide/kubectl.md on a real mesh with a released kubectl, block by block as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.e2e.mesh import Mesh

pytestmark = pytest.mark.kube

GUIDE = Path(__file__).parents[2] / "docs/guide/kubectl.md"
BLOCK = re.compile(r"^```(sh|text|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TIMEOUT_S = 600


class Step(msgspec.Struct, frozen=True):
    """A block of commands, and what it should print: lines, where `...` stands for anything, alone for any lines."""

    commands: str
    expected: str


def steps(directory: Path) -> Iterator[Step]:
    """The blocks in order; files are written when their turn comes."""
    commands = ""
    for kind, text in BLOCK.findall(GUIDE.read_text()):
        if kind == "yaml":
            (directory / text.split("\n")[0].removeprefix("# ")).write_text(text)
        elif kind == "sh":
            assert not commands, f"nothing is said of what this prints:\n{commands}"
            commands = text
        else:
            yield Step(commands, text)
            commands = ""
    assert not commands


def fits(expected: str, printed: str) -> bool:
    """Whether a text is what was expected."""
    pattern = "".join(
        r"(?:.*\n)*?" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + r"\n"
        for line in map(_narrow, expected.splitlines())
    )
    return re.fullmatch(pattern, "".join(f"{_narrow(line)}\n" for line in printed.splitlines())) is not None


def _narrow(line: str) -> str:
    """Columns of a table are as wide as their widest cell, which is not always the same one."""
    return " ".join(line.split())


@pytest.fixture
def bare() -> Iterator[Mesh]:
    """A running mesh without the demo."""
    one = Mesh(f"k-{os.getpid()}")
    try:
        one.lateen("up", "--no-demo")
        yield one
    finally:
        one.remove()


def test_the_guide(bare: Mesh, tmp_path: Path) -> None:
    programs = os.environ.get("LATEEN_KUBE_BIN")
    if not programs:
        pytest.skip("LATEEN_KUBE_BIN names no directory with kubectl: make test-kube builds it")
    lateen = tmp_path / "bin/lateen"
    lateen.parent.mkdir()
    lateen.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lateen.cli.main "$@"\n')
    lateen.chmod(0o755)
    environment = {f"LATEEN_{key.upper()}": str(value) for key, value in bare.flags.items()}
    path = f"{lateen.parent}:{programs}:{os.environ['PATH']}"
    shell = subprocess.Popen(
        ["bash", "-eu", "-o", "pipefail"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=tmp_path,
        env={**os.environ, **environment, "PATH": path, "HOME": str(tmp_path)},
        text=True,
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    try:
        for step in steps(tmp_path):
            shell.stdin.write(f"{step.commands}\necho '---done'\n")
            shell.stdin.flush()
            printed = ""
            for line in shell.stdout:
                if line == "---done\n":
                    break
                printed += line
            else:
                raise AssertionError(f"the shell ended in\n{step.commands}\nafter\n{printed}")
            assert fits(step.expected, printed), f"{step.commands}\nprinted\n{printed}\nand not\n{step.expected}"
    finally:
        shell.stdin.close()
        shell.wait(TIMEOUT_S)
        shell.stdout.close()
