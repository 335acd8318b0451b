"""docs/guide/kubectl.md on a real mesh with a released kubectl, block by block as it stands; an older one, and helm."""

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


@pytest.fixture(scope="module")
def bare() -> Iterator[Mesh]:
    """A running mesh without the demo."""
    one = Mesh(f"k-{os.getpid()}")
    try:
        one.lateen("up", "--no-demo")
        yield one
    finally:
        one.remove()


@pytest.fixture
def programs() -> str:
    """The directory of kubectl and the others."""
    found = os.environ.get("LATEEN_KUBE_BIN")
    if not found:
        pytest.skip("LATEEN_KUBE_BIN names no directory with kubectl: make test-kube builds it")
    return found


def test_the_guide(bare: Mesh, programs: str, tmp_path: Path) -> None:
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


class Program:
    """A program with the mesh's kubeconfig, in a namespace and a home of its own."""

    def __init__(self, mesh: Mesh, path: str, home: Path, namespace: str) -> None:
        self._command = [path, "-n", namespace]
        kubeconfig = mesh.lateen("kubeconfig").stdout.strip()
        self._environment = {**os.environ, "HOME": str(home), "KUBECONFIG": kubeconfig}

    def __call__(self, *arguments: str, stdin: str | None = None, expect: int = 0) -> str:
        """What it printed; AssertionError when it ends with another exit code."""
        done = subprocess.run(
            [*self._command, *arguments],
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == expect, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def first_line(self, *arguments: str) -> str:
        """The first line that it prints; then it is ended."""
        command = [*self._command, *arguments]
        with subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            process.terminate()
        return line


SLEEPER = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: sleeper}
spec:
  selector: {matchLabels: {app: sleeper}}
  template:
    metadata:
      labels: {app: sleeper}
      annotations: {sidecar.istio.io/inject: "false"}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: sleeper
        command: [sh, -c, "echo awake; while sleep 1; do echo tick; done"]
        resources: {requests: {cpu: 100m}}
"""


def test_the_oldest_kubectl_that_is_supported(bare: Mesh, programs: str, tmp_path: Path) -> None:
    kubectl = Program(bare, f"{programs}/kubectl-older", tmp_path, "older")
    assert "v1.32" in kubectl("version")
    kubectl("create", "namespace", "older")
    assert kubectl("apply", "-f", "-", stdin=SLEEPER) == "deployment.apps/sleeper created\n"
    kubectl("rollout", "status", "deployment/sleeper", "--timeout=60s")
    assert kubectl("diff", "-f", "-", stdin=SLEEPER) == ""
    assert "replicas" in kubectl("diff", "-f", "-", stdin=SLEEPER.replace("spec:", "spec:\n  replicas: 2", 1), expect=1)
    assert kubectl("apply", "--server-side", "-f", "-", stdin=SLEEPER.replace("sleeper", "other")).endswith(
        "serverside-applied\n"
    )
    assert kubectl("exec", "deployment/sleeper", "--", "echo", "hello") == "hello\n"
    assert kubectl("logs", "deployment/sleeper").startswith("awake\n")
    assert kubectl.first_line("attach", "deployment/sleeper") == "tick\n"  # from now on
    assert "FIELD: replicas" in kubectl("explain", "deployment.spec.replicas")
    # it speaks autoscaling/v1
    assert "autoscaled" in kubectl("autoscale", "deployment", "sleeper", "--cpu-percent=50", "--max=2")
    assert "cpu: " in kubectl("get", "hpa", "sleeper")
    kubectl("set", "env", "deployment/sleeper", "A=1")
    kubectl("rollout", "status", "deployment/sleeper", "--timeout=60s")
    assert "rolled back" in kubectl("rollout", "undo", "deployment/sleeper")
    kubectl("rollout", "status", "deployment/sleeper", "--timeout=60s")
    assert "Started" in kubectl("events")
    kubectl("delete", "namespace", "older", "--timeout=60s")


CHART = {
    "Chart.yaml": "apiVersion: v2\nname: small\nversion: 0.1.0\n",
    "values.yaml": "replicas: 1\nword: one\n",
    "templates/words.yaml": """
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}}
data: {word: {{ .Values.word | quote }}}
""",
    "templates/sleeper.yaml": SLEEPER.replace("spec:", "spec:\n  replicas: {{ .Values.replicas }}", 1),
}


def test_helm(bare: Mesh, programs: str, tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    for name, text in CHART.items():
        (chart / name).parent.mkdir(parents=True, exist_ok=True)
        (chart / name).write_text(text)
    helm = Program(bare, f"{programs}/helm", tmp_path, "charts")
    kubectl = Program(bare, f"{programs}/kubectl", tmp_path, "charts")

    def seen() -> tuple[str, str]:
        word = kubectl("get", "configmap", "hello", "-o", "jsonpath={.data.word}")
        return word, kubectl("get", "deployment", "sleeper", "-o", "jsonpath={.status.readyReplicas}")

    wait = ("--wait", "--timeout", "90s")
    assert "STATUS: deployed" in helm("install", "hello", str(chart), "--create-namespace", *wait)
    assert seen() == ("one", "1")
    helm("upgrade", "hello", str(chart), "--set", "word=two,replicas=2", *wait)
    assert seen() == ("two", "2")
    helm("upgrade", "hello", str(chart), "--set", "replicas=-1", *wait, expect=1)  # refused, and said to have failed
    assert "failed" in helm("history", "hello")
    helm("rollback", "hello", "1", *wait)
    assert seen() == ("one", "1")
    helm("uninstall", "hello", *wait)
    assert kubectl("get", "configmap,deployment,replicaset", "-o", "name") == ""
    kubectl("delete", "namespace", "charts", "--timeout=60s")
