"""`lateen ps`: the mesh's processes and Pods, and why one is not ready."""

from __future__ import annotations

import asyncio
import datetime
import time
from pathlib import Path
from typing import Any

import click

from lateen.apiserver.client import Client
from lateen.cli.options import mesh, output, running
from lateen.cli.output import document, table
from lateen.daemon import supervisor
from lateen.lib.errors import LateenError

Json = dict[str, Any]

_PROCESS_COLUMNS = ("PROCESS", "PID", "RESTARTS", "AGE", "LAST ENDED")
_POD_COLUMNS = ("NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "IP", "AGE", "WHY")


@click.command("ps")
@click.option("-n", "--namespace", help="Only Pods of this namespace; default: all.")
@mesh
@output()
def command(namespace: str | None, name: str | None, settings_file: Path | None, output: str) -> None:
    """The mesh's processes and Pods, and why one is not ready."""
    settings = running(name, settings_file)
    state = supervisor.state(settings)
    if state is None:
        raise LateenError(f"the mesh {settings.name} is not running", remedy="lateen up")
    try:
        pods, unknown = asyncio.run(_pods(settings.layout().api_socket, namespace)), None
    except LateenError as error:  # the processes say why the control plane does not answer
        pods, unknown = None, error
    if output != "table":
        document({"processes": state.processes, "pods": pods}, output)
    else:
        _show(state, pods)
    if unknown is not None:
        raise LateenError(f"no Pods to show: {unknown}", remedy="lateen logs controlplane")


def _show(state: supervisor.SupervisorState, pods: list[Json] | None) -> None:
    table(
        _PROCESS_COLUMNS,
        [
            (each.name, each.pid or "restarting", each.restarts, age(time.time() - each.started_at), each.ended or "-")
            for each in state.processes
        ],
    )
    if pods is not None:
        print()
        table(_POD_COLUMNS, [_row(pod) for pod in pods])


async def _pods(socket: Path, namespace: str | None) -> list[Json]:
    client = Client(socket)
    try:
        pods = await client.list("Pod", namespace=namespace)
    finally:
        await client.close()
    return sorted(pods, key=lambda pod: (pod["metadata"].get("namespace", ""), pod["metadata"]["name"]))


def _row(pod: Json) -> tuple[object, ...]:
    metadata: Json = pod["metadata"]
    status: Json = pod.get("status") or {}
    containers: list[Json] = status.get("containerStatuses") or []
    ready = sum(1 for each in containers if each.get("ready"))
    restarts = sum(int(each.get("restartCount", 0)) for each in containers)
    shown, why = _state(pod, status, containers)
    created = metadata.get("creationTimestamp", "")
    since = age(time.time() - datetime.datetime.fromisoformat(created).timestamp()) if created else "-"
    return (
        metadata.get("namespace", ""),
        metadata["name"],
        f"{ready}/{len(containers)}",
        shown,
        restarts,
        status.get("podIP", "-"),
        since,
        why,
    )


def _state(pod: Json, status: Json, containers: list[Json]) -> tuple[str, str]:
    """The word for the STATUS column and the reason: kubectl's rules."""
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating", ""
    for each in containers:
        for kind in ("waiting", "terminated"):
            states: Json = each.get("state") or {}
            state: Json | None = states.get(kind)
            if state and state.get("reason") not in (None, "Completed"):
                why = state.get("message") or f"exit code {state.get('exitCode', '?')}"
                return str(state["reason"]), f"{each.get('name')}: {why}"
    if status.get("phase") == "Succeeded":
        return "Succeeded", ""
    conditions: list[Json] = status.get("conditions") or []
    for condition in conditions:
        if condition.get("status") == "False" and condition.get("message"):
            return str(status.get("phase", "Pending")), str(condition["message"])
    return str(status.get("phase", "Pending")), str(status.get("message", ""))


def age(seconds: float) -> str:
    """A duration as people read it: 5s, 3m, 2h, 4d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"
