"""Whether Pods can run on this machine, found by running one: the whole way from namespaces to a captured network.

Kernels and containers refuse in many places (user namespaces made but without rights, rules, /proc); trying is the
only check that knows them all. It takes about a fifth of a second and leaves nothing.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import tempfile
from pathlib import Path

from lateen.lib.layout import Layout
from lateen.platform.down import down
from lateen.platform.pod import Container, PodSandbox, Redirect
from lateen.platform.sandbox import Platform, PlatformError, PodChanged

TIMEOUT_S = 10


def trial() -> str:
    """What failed, in the kernel's words; empty when a Pod ran. Blocks; may be called where a loop runs."""
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(_trial())).result()


async def _trial() -> str:
    with tempfile.TemporaryDirectory(prefix="lateen-trial-") as name:
        layout = Layout("trial", Path(name) / "state", Path(name) / "run")
        platform = Platform(layout)
        program = Container(name="true", argv=("true",), restart="Never")
        spec = PodSandbox(
            uid="trial",
            namespace="default",
            name="trial",
            containers=(program,),
            log_dir=str(layout.logs),
            redirect=Redirect(),
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await platform.start()
                await platform.create(spec)
                async for event in platform.events():
                    if isinstance(event, PodChanged) and event.state.stopped:
                        last = event.state.containers[0].last
                        return "" if last and last.exit_code == 0 else f"a Pod's program did not start: {last}"
        except PlatformError as error:
            return str(error)
        except TimeoutError:
            return f"a Pod did not run within {TIMEOUT_S} s"
        finally:
            await platform.close()
            await down(layout, grace_s=0)
    raise AssertionError("events do not end")
