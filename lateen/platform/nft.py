"""Packet rules: libnftables by ctypes, and the two rule sets that a mesh has.

`capture` is a Pod's own table: what leaves goes to Envoy's 15001, what arrives to 15006, the proxy's own
traffic excluded by its mark (a user namespace may have a single uid, so Istio's exclusion by user can't work).
`lock` fills the chain `locked` of that table: where only known hosts may be called, nothing but the proxy opens
connections that leave the Pod, whatever its annotations exclude from capture. An application cannot set the mark.
`fabric` is the one table of the network between the Pods: Service addresses, egress, refusals; `services` is the
difference between two sets of Services. Rules are nft's text (https://wiki.nftables.org), applied as
transactions; nothing of them is in the host's network.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

from lateen.platform.pod import Redirect, ServiceVip
from lateen.platform.settings import PlatformSettings

PROXY_MARK = 0x539
OUTBOUND_PORT = 15001
INBOUND_PORT = 15006
PROXY_PORTS = (15006, 15008, 15020, 15021, 15090)
INBOUND_SOURCE = "127.0.0.6"

BATCH = 50  # Services in one transaction: a rootless netlink buffer refuses much larger ones
BATCH_ENDPOINTS = 1000


class Nft:
    """One handle of libnftables, for the network namespace that the process is in when it is made and used.

    OSError when the library is not installed (Debian: libnftables1).
    """

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libnftables.so.1")
        self._library.nft_ctx_new.restype = ctypes.c_void_p
        self._library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
        self._library.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
        self._context = ctypes.c_void_p(self._library.nft_ctx_new(0))
        self._library.nft_ctx_buffer_error(self._context)
        self._library.nft_ctx_buffer_output(self._context)

    def close(self) -> None:
        """Let go of the handle."""
        self._library.nft_ctx_free(self._context)

    def run(self, commands: str) -> str:
        """Apply commands as one transaction and return what they print. OSError names the refused line."""
        failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
        error: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise OSError(f"nftables refused the rules: {error.decode(errors='replace').strip()}")
        return output.decode(errors="replace")


def _ports(numbers: Iterable[int]) -> str:
    return "{ " + ", ".join(str(number) for number in sorted(set(numbers))) + " }"


def capture(redirect: Redirect, settings: PlatformSettings) -> str:
    """The table of a Pod with a sidecar."""
    excluded: list[str] = []
    if redirect.exclude_outbound_ports:
        excluded.append(f"tcp dport {_ports(redirect.exclude_outbound_ports)} return")
    excluded += [f"ip daddr {network} return" for network in redirect.exclude_outbound_ranges]
    return f"""table ip lateen {{
  chain output {{
    type nat hook output priority -100;
    ip saddr {INBOUND_SOURCE} return
    meta mark {PROXY_MARK:#x} oifname "lo" ip daddr != 127.0.0.0/8 meta l4proto tcp redirect to :{INBOUND_PORT}
    meta mark {PROXY_MARK:#x} return
    ip daddr 127.0.0.0/8 return
    oifname "lo" return
    ip daddr {settings.gateway} tcp dport {{ 53, {settings.proxy_dns_port} }} return
    {"; ".join(excluded)}
    meta l4proto tcp redirect to :{OUTBOUND_PORT}
  }}
  chain prerouting {{
    type nat hook prerouting priority -100;
    tcp dport {_ports((*PROXY_PORTS, *redirect.exclude_inbound_ports))} return
    meta l4proto tcp redirect to :{INBOUND_PORT}
  }}
{LOCKED}}}
"""


LOCKED = """  chain locked {
    type filter hook output priority 0;
  }
"""


def lock(settings: PlatformSettings, *, on: bool, proxied: bool) -> str:
    """The commands that close a Pod's way out past the proxy, or open it again. Open connections go on.

    `proxied`: the Pod has a proxy, so nothing else needs to get out. Without one it still reaches the mesh's own
    addresses, where servers decide whom they let in, and nothing outside.
    """
    if not on:
        return "flush chain ip lateen locked"
    inside = f"ip daddr {{ {settings.pod_range}, {settings.vip_range} }}"
    rules = (
        "ct state established,related return",
        f"meta mark {PROXY_MARK:#x} return",
        "ip daddr 127.0.0.0/8 return",
        "fib daddr type local return",
        f"ip daddr {settings.gateway} meta l4proto {{ tcp, udp }} th dport {{ 53, {settings.proxy_dns_port} }} return",
        f"ip daddr {settings.host_address} meta l4proto tcp reject with tcp reset",
        f"{inside} meta l4proto != tcp return" if proxied else f"{inside} return",
        "meta l4proto tcp reject with tcp reset",
        "reject with icmp type admin-prohibited",
    )
    return "\n".join(["flush chain ip lateen locked", *(f"add rule ip lateen locked {each}" for each in rules)])


def real_names(settings: PlatformSettings) -> str:
    """The table of a Pod without a sidecar: nothing there makes use of the virtual addresses of external hosts, so it
    asks where proxies ask."""
    return f"""table ip lateen {{
  chain output {{
    type nat hook output priority -100;
    ip daddr {settings.gateway} meta l4proto {{ tcp, udp }} th dport 53 dnat to :{settings.proxy_dns_port}
  }}
{LOCKED}}}
"""


def fabric(settings: PlatformSettings) -> str:
    """The table of the network between the Pods, without Services.

    `pre` chooses: a Service, else a Pod, else the egress listener. `refuse` answers at once what has nowhere to
    go, since the kernel's own answer (ICMP) is rate-limited: an unknown Service port or a gone Pod is a reset.
    `self` holds (address, address) of each Pod: a Pod that reaches itself by a Service must see replies come back.
    """
    return f"""table ip lateen {{
  map services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  set self {{ type ipv4_addr . ipv4_addr; }}
  chain pre {{
    type nat hook prerouting priority -100;
    ip daddr . meta l4proto . th dport vmap @services
    ip daddr {settings.host_address} meta l4proto tcp dnat to {settings.gateway}:{settings.egress_port}
    ip daddr {{ {settings.pod_range}, {settings.vip_range} }} return
    meta l4proto tcp dnat to {settings.gateway}:{settings.egress_port}
  }}
  chain refuse {{
    type filter hook prerouting priority 0;
    ip daddr {settings.gateway} ct status dnat accept
    ip daddr {settings.gateway} meta l4proto {{ tcp, udp }} th dport {{ 53, {settings.proxy_dns_port} }} accept
    ip daddr {settings.gateway} meta l4proto icmp accept
    ip daddr {settings.gateway} meta l4proto tcp reject with tcp reset
    ip daddr {settings.gateway} reject with icmp type port-unreachable
    ip daddr {settings.pod_range} fib daddr oif missing meta l4proto tcp reject with tcp reset
    ip daddr {settings.pod_range} accept
    meta l4proto tcp reject with tcp reset
    reject with icmp type port-unreachable
  }}
  chain post {{
    type nat hook postrouting priority 100;
    ip saddr . ip daddr @self snat to {settings.gateway}
  }}
}}
"""


def reached_by_itself(ip: str) -> str:
    """The command that enters a Pod's address into `self`; repeating it is harmless."""
    return f"add element ip lateen self {{ {ip} . {ip} }}"


def services(before: Iterable[ServiceVip], after: Iterable[ServiceVip]) -> list[str]:
    """The transactions that turn one set of Services into another; only what differs is touched.

    A Service without endpoints has no entry, so that `refuse` answers.
    """
    old = {_key(service): service for service in before if service.endpoints}
    new = {_key(service): service for service in after if service.endpoints}
    batches: list[str] = []
    lines: list[str] = []
    weight = 0

    def close_batch() -> None:
        nonlocal weight
        if lines:
            batches.append("\n".join(lines))
        lines.clear()
        weight = 0

    for key in old.keys() - new.keys():
        chain = _chain(old[key])
        lines += [f"delete element ip lateen services {{ {key} }}", f"flush chain ip lateen {chain}"]
        lines.append(f"delete chain ip lateen {chain}")
        weight += 1
        if weight >= BATCH:
            close_batch()
    for key, service in new.items():
        if old.get(key) == service:
            continue
        if weight >= BATCH:
            close_batch()
        chain = _chain(service)
        if key in old:
            lines.append(f"flush chain ip lateen {chain}")
        else:
            lines.append(f"add chain ip lateen {chain}")
        lines.append(f"add rule ip lateen {chain} {_target(service)}")
        if key not in old:
            lines.append(f"add element ip lateen services {{ {key} : goto {chain} }}")
        weight += 1 + len(service.endpoints) * BATCH // BATCH_ENDPOINTS
    close_batch()
    return batches


def _key(service: ServiceVip) -> str:
    return f"{service.vip} . {service.protocol} . {service.port}"


def _chain(service: ServiceVip) -> str:
    return f"s_{service.vip.replace('.', '_')}_{service.protocol}_{service.port}"


def _target(service: ServiceVip) -> str:
    if len(service.endpoints) == 1:
        ip, port = service.endpoints[0]
        return f"meta l4proto {service.protocol} dnat to {ip}:{port}"
    targets = ", ".join(f"{i} : {ip} . {port}" for i, (ip, port) in enumerate(service.endpoints))
    choice = f"numgen random mod {len(service.endpoints)} map {{ {targets} }}"
    return f"meta l4proto {service.protocol} dnat ip to {choice}"
