"""`lateen validate`: files checked without a mesh."""

from __future__ import annotations

import sys

import click

from lateen.api.check import check
from lateen.cli import files
from lateen.cli.options import output
from lateen.cli.output import document
from lateen.lib.findings import Finding, Level
from lateen.lib.yaml import parse


@click.command("validate")
@click.option("-f", "--filename", "names", multiple=True, required=True, help="File, directory or `-`; repeatable.")
@click.option("-n", "--namespace", default="default", show_default=True, help="Of documents that name none.")
@output()
def command(names: tuple[str, ...], namespace: str, output: str) -> None:
    """Check every document by itself: syntax, kinds, fields, values. Exit code 1 when one is wrong."""
    found: list[Finding] = []
    count = 0
    for name, text in files.read(names):
        documents, broken = parse(text, name)
        found += broken
        for each in documents:
            found += check(each, namespace=namespace)
        count += len(documents)
    wrong = sum(each.level is Level.ERROR for each in found)
    if output == "table":
        for finding in found:
            click.echo(str(finding), err=True)
        click.echo(f"{count} documents, {wrong} errors, {len(found) - wrong} other findings")
    else:
        document(found, output)
    sys.exit(1 if wrong else 0)
