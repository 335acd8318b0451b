"""What can be set about the local network and its Pods. The defaults suit one mesh and any number side by side:
no address here is ever put into the host's own network."""

from __future__ import annotations

import ipaddress

import msgspec


class PlatformSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses and times of the local platform."""

    pod_range: str = "10.88.0.0/16"
    """Addresses of Pods (IPv4, prefix 8-28)."""

    vip_range: str = "10.96.0.0/16"
    """Addresses of Services (IPv4), apart from pod_range."""

    gateway: str = "10.88.0.1"
    """The fabric's own address, in pod_range: name server and router of every Pod."""

    proxy_dns_port: int = 15053
    """Port of the gateway address where proxies ask: there an external host has its real address, not the virtual
    one that applications get."""

    cluster_domain: str = "cluster.local"
    """Suffix of Service names, for the search list of /etc/resolv.conf."""

    egress_port: int = 15999
    """Port of the gateway address where connections that leave the mesh are collected."""

    host_address: str = "10.88.255.254"
    """An address that stands for the host's loopback (in pod_range); which ports answer is the forwarder's list,
    empty by default."""

    backoff_first_s: float = 1
    """Wait before the second restart of a container (the first is immediate); it doubles from there."""

    backoff_max_s: float = 300
    """Longest wait between restarts of a container."""

    backoff_reset_s: float = 600
    """A container that ran this long starts over without waiting."""

    proxy_backoff_max_s: float = 5
    """Longest wait between restarts of a proxy; its first restart is immediate, the second after 0.1 s."""

    log_bytes: int = 10_000_000
    """Size at which a container's log file is turned over; one older file is kept."""


def of_ranges(pod_range: str, vip_range: str) -> PlatformSettings:
    """Settings for these ranges: the first address of the Pods' is the gateway, the last but one the machine."""
    network = ipaddress.IPv4Network(pod_range)
    return PlatformSettings(
        pod_range=pod_range, vip_range=vip_range, gateway=str(network[1]), host_address=str(network[-2])
    )
