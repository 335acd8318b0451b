"""What `-f` names: files, directories (their *.yaml, *.yml and *.json, sorted) and `-` for standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click

from lateen.apiserver.results import ApplyResult
from lateen.lib.errors import LateenError
from lateen.lib.findings import Finding, Level


def read(names: Iterable[str]) -> list[tuple[str, str]]:
    """(name, text) of each file. LateenError names what cannot be read."""
    found: list[tuple[str, str]] = []
    for name in names:
        if name == "-":
            found.append(("standard input", sys.stdin.read()))
            continue
        path = Path(name)
        try:
            if path.is_dir():
                inside = sorted(each for each in path.rglob("*") if each.suffix in (".yaml", ".yml", ".json"))
                if not inside:
                    raise LateenError(f"{name} holds no YAML or JSON file", remedy="name another directory")
                found += [(str(each), each.read_text()) for each in inside]
            else:
                found.append((name, path.read_text()))
        except OSError as error:
            raise LateenError(f"{name}: {error.strerror}", remedy="check the path") from None
        except UnicodeDecodeError as error:
            raise LateenError(f"{name} is not UTF-8 text (byte {error.start})", remedy="save it as UTF-8") from None
    return found


def show(result: ApplyResult) -> None:
    """Prints what became of each object on standard output and the findings on standard error."""
    for each in result.objects:
        where = f" in {each.namespace}" if each.namespace else ""
        click.echo(f"{each.kind} {each.name}{where} {each.action}")
    for finding in result.findings:
        click.echo(str(finding), err=True)
    if not result.applied:
        click.echo("nothing was changed", err=True)


def failed(result: ApplyResult) -> bool:
    """True when the exit code is to say so: refused, or applied with an error."""
    return not result.applied or _errors(result.findings)


def _errors(findings: Iterable[Finding]) -> bool:
    return any(each.level is Level.ERROR for each in findings)
