"""Options that several verbs share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from lateen.daemon import settings as settings_module
from lateen.daemon.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def mesh(command: F) -> F:
    """`--name` and `--settings`: which mesh; the verb gets `name` and `settings_file`."""
    command = click.option("--name", metavar="MESH", help="The mesh; default: $LATEEN_NAME, else `default`.")(command)
    return click.option(
        "--settings", "settings_file", type=click.Path(path_type=Path), help="A YAML file of settings."
    )(command)


def output(*choices: str) -> Callable[[F], F]:
    """`-o`: table, json, yaml (and what else is given)."""
    return click.option(
        "-o", "--output", "output", type=click.Choice(["table", "json", "yaml", *choices]), default="table"
    )


def settle(name: str | None, settings_file: Path | None, **flags: Any) -> Settings:
    """The settings that the command line, the environment and the file ask for."""
    return settings_module.load(settings_file, os.environ, {"name": name, **flags})


def running(name: str | None, settings_file: Path | None) -> Settings:
    """The settings that the mesh of that name was started with. SettingsError when there is no such mesh."""
    wanted = settle(name, settings_file)
    return settings_module.read(wanted.layout().state / "settings.json")
