"""The forwarder process of a mesh: host ports to the ingress gateway, and egress.

python -m lateen.daemon.forwarder SETTINGS-FILE SUPERVISOR-PID
"""

from __future__ import annotations

import asyncio
import contextlib
import signal

from lateen.daemon.process import enter
from lateen.daemon.settings import Settings
from lateen.platform.forwarder import Forwarder
from lateen.platform.settings import of_ranges


async def run(settings: Settings) -> None:
    """Relays until SIGTERM."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    listen = [(settings.host, port) for port in (settings.gateway_port, settings.https_port) if port]
    with contextlib.suppress(asyncio.CancelledError):
        host_address = of_ranges(settings.pod_range, settings.vip_range).host_address
        await Forwarder(settings.layout().run, listen, (), host_address).run()


if __name__ == "__main__":
    asyncio.run(run(enter()))
