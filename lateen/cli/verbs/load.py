"""`lateen load`: the packaged load generator."""

from __future__ import annotations

import asyncio
import sys

import click

from lateen.bench import load
from lateen.cli.options import output
from lateen.cli.output import document


@click.command("load")
@click.argument("url")
@click.option("-c", "--connections", type=int, default=8, show_default=True)
@click.option("-n", "--requests", type=int, help="Stop after this many.")
@click.option("-d", "--duration", "duration_s", type=float, help="Stop after this many seconds; default 10.")
@click.option("-r", "--rate", type=float, help="Requests per second; default: as fast as answers come.")
@click.option("-H", "--header", "headers", multiple=True, help="NAME: VALUE; repeatable.")
@click.option("-m", "--method", default="GET", show_default=True)
@click.option("--expect", type=int, multiple=True, help="Status that counts as success; default 200-399; repeatable.")
@click.option("--group-by", default="", help="Count answers by header:NAME, json:FIELD.0.FIELD or text:PATTERN.")
@click.option("--insecure", is_flag=True, help="Do not verify an https server.")
@output()
def command(
    url: str,
    connections: int,
    requests: int | None,
    duration_s: float | None,
    rate: float | None,
    headers: tuple[str, ...],
    method: str,
    expect: tuple[int, ...],
    group_by: str,
    insecure: bool,
    output: str,
) -> None:
    """Send requests to URL and count the answers; exit code 1 when one failed."""
    pairs: list[tuple[str, str]] = []
    for header in headers:
        key, colon, value = header.partition(":")
        if not colon:
            raise click.UsageError(f"{header!r} is not NAME: VALUE")
        pairs.append((key.strip(), value.strip()))
    wanted = load.Load(
        url=url,
        connections=connections,
        requests=requests,
        duration_s=duration_s if duration_s or requests else 10,
        rate=rate,
        method=method,
        headers=tuple(pairs),
        expect=expect,
        group_by=group_by,
        insecure=insecure,
    )
    try:
        report = asyncio.run(load.run(wanted))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if output == "table":
        for line in report.lines():
            print(line)
    else:
        document(report, output)
    sys.exit(1 if report.failed else 0)
