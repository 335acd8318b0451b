"""A mesh without Pods for the command line: settings on the disk, and the control plane's API in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lateen.api.check import check
from lateen.apiserver.http import application, identified, owner
from lateen.apiserver.serving import serve, unix_listener
from lateen.apiserver.store import Store
from lateen.cli.main import cli
from lateen.daemon import settings as settings_module
from lateen.lib.errors import LateenError
from lateen.lib.findings import Finding, Level
from lateen.lib.ids import Ref

Lateen = Callable[..., Result]


async def _analyse(refs: Sequence[Ref]) -> Sequence[Finding]:
    names = [each for each in refs if each.name == "lonely"]
    return [Finding(code="IST0101", level=Level.WARNING, message="nobody is there", ref=each) for each in names]


def _serve(directory: Path, socket: Path, ready: threading.Event, stop: threading.Event) -> None:
    async def run() -> None:
        store = await Store.open(directory / "store.db")
        app = identified(application(store, check=check, analyse=_analyse, ready=lambda: True), owner)
        server = asyncio.create_task(serve(app, unix_listener(socket)))
        ready.set()
        await asyncio.to_thread(stop.wait)
        server.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await server
        await store.close()

    asyncio.run(run())


@pytest.fixture
def lateen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lateen]:
    """Runs `lateen ARGS...` in this process, against a mesh of its own."""
    with tempfile.TemporaryDirectory(prefix="lateen-") as name:
        directory = Path(name)
        flags = {"name": "t", "state_dir": f"{name}/my state", "run_dir": f"{name}/r"}
        settings = settings_module.load(None, {"HOME": name}, flags)
        layout = settings.layout()
        layout.state.mkdir()
        layout.run.mkdir()
        settings_module.write(settings)
        for key, value in flags.items():
            monkeypatch.setenv(f"LATEEN_{key.upper()}", value)
        ready, stop = threading.Event(), threading.Event()
        thread = threading.Thread(target=_serve, args=(directory, layout.api_socket, ready, stop))
        thread.start()
        ready.wait()

        def run(*arguments: str, stdin: str | None = None) -> Result:
            result = CliRunner().invoke(cli, list(arguments), input=stdin)
            if result.exception is not None and not isinstance(result.exception, SystemExit | LateenError):
                raise result.exception
            return result

        yield run
        stop.set()
        thread.join()
