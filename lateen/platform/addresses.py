"""Which address the next Pod gets."""

from __future__ import annotations

import ipaddress

from lateen.platform.settings import PlatformSettings


class Addresses:
    """Addresses for Pods. One that was given back is the last to be given again: whoever still has it from the Pod
    before finds nobody there."""

    def __init__(self, settings: PlatformSettings) -> None:
        network = ipaddress.IPv4Network(settings.pod_range)
        self._first, self._size = int(network.network_address), network.num_addresses
        self._taken = {settings.gateway, settings.host_address, str(network[0]), str(network[-1])}
        self._last = int(ipaddress.IPv4Address(settings.gateway))

    def take(self, address: str) -> bool:
        """Take this very address, if it is in the range and free."""
        if not address or address in self._taken:
            return False
        number = int(ipaddress.IPv4Address(address))
        if not 0 < number - self._first < self._size - 1:
            return False
        self._taken.add(address)
        self._last = max(self._last, number)
        return True

    def next(self) -> str:
        """A free address. LookupError when there is none."""
        for step in range(1, self._size):
            address = str(ipaddress.IPv4Address(self._first + (self._last - self._first + step) % self._size))
            if address not in self._taken:
                self._taken.add(address)
                self._last = int(ipaddress.IPv4Address(address))
                return address
        raise LookupError("all addresses of the Pods' range are taken")

    def release(self, address: str) -> None:
        """Give an address back."""
        self._taken.discard(address)
