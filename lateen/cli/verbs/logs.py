"""`lateen logs`: what programs print, from the files on this machine."""

from __future__ import annotations

import collections
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

from lateen.cli.options import mesh, running
from lateen.cli.pods import PodNotFoundError, find_pods
from lateen.daemon.supervisor import PROGRAMS
from lateen.lib.errors import LateenError
from lateen.platform.init import PROXY
from lateen.platform.logs import log_files
from lateen.platform.pod import PodSandbox

_POLL_S = 0.1


@click.command("logs")
@click.argument("pod")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("-c", "--container", help="One container; default: the application's.")
@click.option("--proxy", is_flag=True, help="The Envoy's instead of the application's.")
@click.option("-p", "--previous", is_flag=True, help="The run before this one.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is printed from now on.")
@click.option("--tail", type=int, default=-1, help="Only the last lines; default: all.")
@mesh
def command(
    pod: str,
    namespace: str,
    container: str | None,
    proxy: bool,
    previous: bool,
    follow: bool,
    tail: int,
    name: str | None,
    settings_file: Path | None,
) -> None:
    """What POD prints: NAME, NAMESPACE/NAME, deploy/NAME, or one of the mesh's own processes (controlplane, node,
    agent, forwarder, supervisor)."""
    layout = running(name, settings_file).layout()
    if pod in (*PROGRAMS, "supervisor"):
        files = [layout.logs / f"{pod}.log"]
    else:
        try:
            found = find_pods(layout, pod, namespace)[0]
        except PodNotFoundError:
            files = _left(layout.logs / "pods" / f"{namespace}_{pod}", PROXY if proxy else container, previous)
            if not files:
                raise
        else:
            files = log_files(found.log_dir, _container(found, container, proxy), previous=previous)
    lines: Iterator[bytes] = (line for file in files for line in _lines(file))
    if tail >= 0:
        lines = iter(collections.deque(lines, maxlen=tail))
    out = sys.stdout.buffer
    for line in lines:
        out.write(line)
    out.flush()
    if follow and files:
        _follow(files[-1], out)


def _left(directory: Path, container: str | None, previous: bool) -> list[Path]:
    """The log files of a Pod that has ended; none when there never was one of that name."""
    names = sorted(each.name for each in directory.glob("*"))
    wanted = container or next((name for name in names if name != PROXY), None)
    return log_files(str(directory), wanted, previous=previous) if wanted in names else []


def _container(pod: PodSandbox, wanted: str | None, proxy: bool) -> str:
    names = [each.name for each in pod.containers] + ([PROXY] if pod.proxy else [])
    if proxy:
        wanted = PROXY
    if wanted is None:
        return names[0]
    if wanted not in names:
        raise LateenError(
            f"the Pod {pod.namespace}/{pod.name} has no container {wanted}", remedy=f"one of: {', '.join(names)}"
        )
    return wanted


def _lines(file: Path) -> list[bytes]:
    try:
        return file.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []


def _follow(file: Path, out: BinaryIO) -> None:
    """Copies what is appended to the newest run's file until interrupted; a new run's file is taken up."""
    current, stream = file, file.open("rb")
    stream.seek(0, 2)
    try:
        while True:
            data = stream.read()
            if data:
                out.write(data)
                out.flush()
                continue
            newest = max(
                file.parent.glob("*.log"), key=lambda each: (each.stat().st_mtime_ns, each.name), default=current
            )
            if file.name[:1].isdigit() and (newest != current or _replaced(stream, current)):
                stream.close()
                current, stream = newest, newest.open("rb")
                continue
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        return
    finally:
        stream.close()


def _replaced(stream: BinaryIO, path: Path) -> bool:
    try:
        return path.stat().st_ino != Path(f"/proc/self/fd/{stream.fileno()}").stat().st_ino
    except FileNotFoundError:
        return True
