"""`lateen vm`: groups of virtual machines, and the bundles they join with."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import cast

import click
import msgspec
import yaml

from lateen.api.istio.workload_group import WorkloadGroup
from lateen.api.struct import Json
from lateen.apiserver.client import Client
from lateen.cli.options import mesh, running
from lateen.daemon.bundles import PATH, BundleParts, BundleRequest
from lateen.daemon.settings import Settings
from lateen.lib.errors import LateenError
from lateen.node import bundle as bundles

_KIND = WorkloadGroup.KIND
_SECONDS = {"s": 1, "m": 60, "h": 3600}


@click.group("vm")
def command() -> None:
    """Let virtual machines, or any host outside of the Pods, into the mesh.

    \b
    1. lateen up --vm-host ADDRESS                        where they reach the mesh
    2. lateen vm group create --name vm > group.yaml      what they have in common; edit, then
       lateen apply -f group.yaml
    3. lateen vm entry configure -f group.yaml -o bundle  what one of them needs
    4. copy the folder to the machine, and there, as root:
       lateen agent --bundle bundle
    """


@command.group("group")
def group() -> None:
    """WorkloadGroups: what machines of one kind have in common."""


@command.group("entry")
def entry() -> None:
    """Single machines, which become WorkloadEntries."""


@group.command("create")
@click.option("--name", required=True, help="The name of the group.")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option(
    "-l", "--labels", multiple=True, metavar="KEY=VALUE", help="Labels of its machines; repeat or use commas."
)
@click.option("-a", "--annotations", multiple=True, metavar="KEY=VALUE", help="Annotations of its machines.")
@click.option("-p", "--ports", multiple=True, metavar="NAME=PORT", help="Where its machines serve a named port.")
@click.option("-s", "--serviceAccount", "account", default="default", show_default=True, help="What they run as.")
def create(
    name: str,
    namespace: str,
    labels: tuple[str, ...],
    annotations: tuple[str, ...],
    ports: tuple[str, ...],
    account: str,
) -> None:
    """Print a WorkloadGroup, to be edited and applied."""
    metadata = {"labels": _pairs(labels, "--labels"), "annotations": _pairs(annotations, "--annotations")}
    numbers = _pairs(ports, "--ports")
    wrong = next((each for each in numbers.values() if not each.isdigit()), None)
    if wrong is not None:
        raise click.BadParameter(f"{wrong} is no number", param_hint="--ports")
    spec = {
        "metadata": {key: value for key, value in metadata.items() if value},
        "template": {
            **({"ports": {key: int(value) for key, value in numbers.items()}} if numbers else {}),
            "serviceAccount": account,
        },
    }
    head = {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup"}
    document = {**head, "metadata": {"name": name, "namespace": namespace}, "spec": spec}
    print(yaml.safe_dump(document, sort_keys=False), end="")


@entry.command("configure")
@mesh
@click.option("-f", "--file", "file", type=click.Path(path_type=Path), help="The file of the WorkloadGroup.")
@click.option("--group", "group_name", help="The name of the WorkloadGroup, instead of its file.")
@click.option("-n", "--namespace", default="default", show_default=True, help="Where the named group is.")
@click.option(
    "-o", "--output", "directory", type=click.Path(path_type=Path), required=True, help="The folder to write."
)
@click.option("--clusterID", "cluster", default="Kubernetes", show_default=True, help="The cluster the machine is of.")
@click.option(
    "--tokenDuration", "duration", default="1h", show_default=True, help="How long the token is good: 90s, 1h."
)
def configure(
    name: str | None,
    settings_file: Path | None,
    file: Path | None,
    group_name: str | None,
    namespace: str,
    directory: Path,
    cluster: str,
    duration: str,
) -> None:
    """Write the bundle that machines of a WorkloadGroup join with.

    The group must be in the mesh. The bundle's token is good for the first certificate of any machine of the group
    until it expires; a machine that has joined renews its certificate by the certificate itself. Keep the folder
    secret, and make a new one for machines that come later.
    """
    if (file is None) is (group_name is None):
        raise click.UsageError("say which group: either --file or --group")
    if file is not None:
        namespace, group_name = _group_of(file, namespace)
    assert group_name is not None
    asked = BundleRequest(namespace, group_name, _seconds(duration))
    parts = asyncio.run(_ask(running(name, settings_file), asked))
    made = bundles.Bundle(
        group=group_name,
        namespace=namespace,
        service_account=parts.service_account,
        xds=parts.xds,
        login=parts.login,
        gateway=parts.gateway,
        trust_domain=parts.trust_domain,
        domain=parts.domain,
        network=parts.network,
        cluster=cluster,
        directory=directory,
    )
    for path in bundles.write(made, token=parts.token, roots=parts.roots):
        print(path)


async def _ask(settings: Settings, asked: BundleRequest) -> BundleParts:
    async with Client(settings.layout().api_socket) as client:
        return msgspec.convert(await client.post(PATH, msgspec.to_builtins(asked)), BundleParts)


def _group_of(file: Path, namespace: str) -> tuple[str, str]:
    """Namespace and name of the one WorkloadGroup of a file."""
    try:
        documents = list(yaml.safe_load_all(file.read_text()))
    except OSError as error:
        raise LateenError(f"cannot read {file}: {error.strerror}", remedy="check the path") from None
    except yaml.YAMLError as error:
        raise LateenError(f"{file} is not YAML: {error}", remedy=f"lateen validate -f {file} says where") from None
    objects = (cast("Json", each) for each in documents if isinstance(each, dict))
    groups = [each for each in objects if each.get("kind") == _KIND]
    if len(groups) != 1:
        raise LateenError(f"{file} holds {len(groups)} WorkloadGroups, not one", remedy="name one with --group")
    metadata: Json = groups[0].get("metadata") or {}
    return str(metadata.get("namespace") or namespace), str(metadata.get("name"))


def _pairs(given: tuple[str, ...], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for each in (part for text in given for part in text.split(",") if part):
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{each} is not KEY=VALUE", param_hint=option)
        pairs[key] = value
    return pairs


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d+)([smh]?)", text)
    if found is None:
        raise click.BadParameter(f"{text} is no duration such as 90s, 30m or 1h", param_hint="--tokenDuration")
    return int(found[1]) * _SECONDS[found[2] or "s"]
