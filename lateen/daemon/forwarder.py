"""The forwarder process of a mesh: host ports to the ingress gateway, and egress.

python -m lateen.daemon.forwarder SETTINGS-FILE SUPERVISOR-PID
"""

from __future__ import annotations

from lateen.daemon.process import main
from lateen.daemon.settings import Settings
from lateen.platform.forwarder import Forwarder
from lateen.platform.settings import of_ranges


async def serve(settings: Settings) -> None:
    """Relays until cancelled."""
    listen = [(settings.host, port) for port in (settings.gateway_port, settings.https_port) if port]
    if settings.vm_host and settings.vm_gateway_port:
        listen.append((settings.vm_host, settings.vm_gateway_port))
    host_address = of_ranges(settings.pod_range, settings.vip_range).host_address
    await Forwarder(settings.layout().run, listen, (), host_address).run()


if __name__ == "__main__":
    main(serve)
