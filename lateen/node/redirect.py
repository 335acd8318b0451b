"""Redirection on a machine: what its applications send goes to Envoy, names are asked of the agent, and what arrives
goes to Envoy first.

Envoy runs as a user of its own and the agent with a group of its own, and the rules let both pass by these. Rules
outlive the agent: while it restarts, an application's traffic is refused rather than sent in the clear; an agent that
ends in good order takes them away. Remote shells (port 22) are never touched, nor connections that were open before:
only the first packet of a connection is looked at (to a fresh table, every other is news as well).

Source: https://wiki.nftables.org
"""

from __future__ import annotations

import asyncio

from lateen.lib.errors import LateenError

PROXY_ID = 1337
"""User and group of Envoy, and the group of the agent; as in Istio."""
OUTBOUND_PORT = 15001
INBOUND_PORT = 15006
DNS_PORT = 15053
PROXY_DNS_PORT = 15054
INBOUND_SOURCE = "127.0.0.6"
"""The address from which Envoy hands over what arrived."""
TABLE = "ip lateen_vm"
_SYN = "tcp flags & (syn | ack) == syn"
_OPEN = (22, INBOUND_PORT, 15008, 15020, 15021, 15090)


class RedirectError(LateenError):
    """The rules could not be set."""


def rules() -> str:
    """The table, in place of an earlier one."""
    return f"""table {TABLE}
delete table {TABLE}
table {TABLE} {{
  chain output {{
    type nat hook output priority -100;
    ip saddr {INBOUND_SOURCE} return
    meta skuid {PROXY_ID} oifname "lo" ip daddr != 127.0.0.0/8 meta l4proto tcp redirect to :{INBOUND_PORT}
    meta skgid {PROXY_ID} return
    meta l4proto {{ tcp, udp }} th dport 53 redirect to :{DNS_PORT}
    ip daddr 127.0.0.0/8 return
    oifname "lo" return
    {_SYN} redirect to :{OUTBOUND_PORT}
  }}
  chain prerouting {{
    type nat hook prerouting priority -100;
    tcp dport {{ {", ".join(map(str, _OPEN))} }} return
    {_SYN} redirect to :{INBOUND_PORT}
  }}
}}
"""


async def start() -> None:
    """Sets the rules in the network that this process is in. RedirectError with nft's words when it refuses."""
    await _nft(rules())


async def stop() -> None:
    """Takes the rules away."""
    await _nft(f"table {TABLE}\ndelete table {TABLE}\n")


async def _nft(commands: str) -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            "nft", "-f", "-", stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError:
        raise RedirectError("the program nft is missing", remedy="apt-get install -y nftables") from None
    _, said = await process.communicate(commands.encode())
    if process.returncode:
        raise RedirectError(f"nft refused the rules: {said.decode(errors='replace').strip()}", remedy="run as root")
