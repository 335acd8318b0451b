"""Settings of one mesh: a file, overruled by the environment, overruled by flags. Nothing else reads either.

`lateen up` writes the settled values to `settings.json` in the mesh's state directory; every process of the mesh is
started with that file and reads nothing else, so all of them agree, also after a restart.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from lateen.lib.errors import LateenError
from lateen.lib.layout import Layout


class SettingsError(LateenError):
    """A setting that is unknown or has an impossible value."""


_SMALLEST_RANGE = 24
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One mesh. Ports are TCP; 0 turns a port off where it says so."""

    name: str = "default"
    """What tells meshes on one machine apart; lower case letters, digits and dashes, at most 20."""

    state_dir: str = ""
    """What outlives the mesh: objects, CA, logs. Default: `$XDG_STATE_HOME/lateen/<name>`."""

    run_dir: str = ""
    """Sockets; short, since the kernel allows them 107 bytes. Default: `$XDG_RUNTIME_DIR/lateen/<name>`, else
    `/tmp/lateen-<uid>/<name>`."""

    host: str = "127.0.0.1"
    """Where host ports listen. Anything but loopback opens the gateway to the network."""

    gateway_port: Port = 8080
    """The ingress gateway's port 8080 on the machine; 0: off."""

    https_port: Port = 8443
    """The ingress gateway's port 8443 on the machine; 0: off."""

    console_port: Port = 20001
    """The control plane's pages, on loopback always; 0: off."""

    debug_port: Port = 15014
    """The control plane's metrics and debug paths, on loopback always; 0: off."""

    api_port: Port = 6443
    """The Kubernetes API with TLS, on loopback always; 0: off (the mesh's own programs use a Unix socket)."""

    console_login: bool = False
    """Whether the pages ask who one is, and show what one's roles in the API allow; always with `oidc_issuer`."""

    oidc_issuer: str = ""
    """The identity provider (its issuer URL) whose users may log in to the pages and use the API; empty: none."""

    oidc_client_id: str = ""
    """What the provider calls this mesh; tokens must be for it."""

    oidc_client_secret_file: str = ""
    """A file with the client's secret; empty for a public client, which PKCE protects."""

    oidc_ca_file: str = ""
    """A CA (PEM) that the provider's certificate may be from."""

    oidc_username_claim: str = "sub"
    """The claim that is the user's name in the API."""

    oidc_username_prefix: str = "oidc:"
    """What is put before it, so that nobody is taken for another sort of user."""

    oidc_groups_claim: str = "groups"
    """The claim that is the user's groups in the API."""

    oidc_groups_prefix: str = "oidc:"
    """What is put before each."""

    xds_port: Port = 15012
    """xDS and CA with TLS, on loopback, and on `vm_host`; 0: off (the mesh's own proxies use a Unix socket)."""

    vm_host: str = ""
    """The address of this machine at which virtual machines reach the mesh; empty: nowhere. It opens three ports to
    the network, each authenticated: `xds_port` (client certificates), `vm_login_port` (tokens), and
    `vm_gateway_port` (mutual TLS of the workloads themselves)."""

    vm_login_port: Port = 15013
    """Where virtual machines get their first certificate for the token of their bundle."""

    vm_gateway_port: Port = 15443
    """Where services of the mesh are reached by virtual machines, through the ingress gateway's port 15443; 0: Pods
    are reached directly, by routes that somebody else has made."""

    plaintext_xds_port: Port = 0
    """xDS without authentication, on loopback, for tools; 0: off."""

    pod_range: str = "10.88.0.0/16"
    """Pods' addresses; private to the mesh, so meshes may share it, but not routed on the machine already."""

    vip_range: str = "10.96.0.0/16"
    """Services' addresses; the same holds."""

    certificate_validity_s: Annotated[int, msgspec.Meta(ge=60, le=90 * 86400)] = 86400
    """How long workloads' certificates last at most; they are renewed at half of it."""

    ready_timeout_s: float = 120
    """How long `lateen up` waits for the mesh before it says what is missing. The first start of Envoy on a
    machine reads 150 MB."""

    def layout(self) -> Layout:
        """The directories of this mesh."""
        return Layout(self.name, Path(self.state_dir), Path(self.run_dir))


def load(file: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any]) -> Settings:
    """Settled settings: defaults < file (YAML) < `LATEEN_*` < flags that are not None.

    SettingsError names the setting, where its value came from and what was expected.
    """
    values: dict[str, Any] = {}
    if file is not None:
        values |= _from_file(file)
    values |= _from_environment(environ)
    values |= {key: value for key, value in flags.items() if value is not None}
    try:
        settings = msgspec.convert(values, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"settings: {error}", remedy="see `lateen up --help` for names and values") from None
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?", settings.name):
        raise SettingsError(
            f"the mesh name {settings.name!r} is not lower case letters, digits and dashes, at most 20",
            remedy="choose another --name",
        )
    _check_addresses(settings)
    _check_provider(settings)
    uid = os.getuid()
    state_home = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME", "/")) / ".local/state")
    runtime = environ.get("XDG_RUNTIME_DIR")
    run_home = f"{runtime}/lateen" if runtime and Path(runtime).is_dir() else f"/tmp/lateen-{uid}"  # noqa: S108
    return msgspec.structs.replace(
        settings,
        state_dir=str(Path(settings.state_dir or f"{state_home}/lateen/{settings.name}").absolute()),
        run_dir=str(Path(settings.run_dir or f"{run_home}/{settings.name}").absolute()),
    )


def _check_addresses(settings: Settings) -> None:
    try:
        ipaddress.ip_address(settings.host)
    except ValueError:
        raise SettingsError(f"host: {settings.host!r} is no address", remedy="an address such as 127.0.0.1") from None
    if settings.vm_host:
        try:
            address = ipaddress.IPv4Address(settings.vm_host)
        except ValueError:
            message = f"vm_host: {settings.vm_host!r} is no address"
            raise SettingsError(message, remedy="an IPv4 address of this machine such as 192.168.1.10") from None
        if address.is_loopback or address.is_unspecified:
            message = f"vm_host: {settings.vm_host} is no address that another machine can call"
            raise SettingsError(message, remedy="the address that other machines use for this one")
        if not settings.xds_port or not settings.vm_login_port:
            raise SettingsError(
                "vm_host: virtual machines need xds_port and vm_login_port", remedy="leave out the 0 for these ports"
            )
    ranges: dict[str, ipaddress.IPv4Network] = {}
    for name in ("pod_range", "vip_range"):
        text: str = getattr(settings, name)
        try:
            ranges[name] = ipaddress.IPv4Network(text)
        except ValueError as error:
            raise SettingsError(f"{name}: {error}", remedy="an IPv4 range such as 10.88.0.0/16") from None
        if ranges[name].prefixlen > _SMALLEST_RANGE:
            raise SettingsError(f"{name}: {text} has too few addresses", remedy=f"/{_SMALLEST_RANGE} or larger")
    if ranges["pod_range"].overlaps(ranges["vip_range"]):
        raise SettingsError("pod_range and vip_range overlap", remedy="choose ranges that have no address in common")


def _check_provider(settings: Settings) -> None:
    issuer = urlsplit(settings.oidc_issuer)
    if not settings.oidc_issuer:
        if settings.oidc_client_id:
            raise SettingsError("oidc_client_id: there is no oidc_issuer", remedy="say both, or neither")
        return
    local = issuer.scheme == "http" and issuer.hostname in ("127.0.0.1", "::1", "localhost")
    if not issuer.hostname or not (issuer.scheme == "https" or local) or issuer.query or issuer.fragment:
        message = f"oidc_issuer: {settings.oidc_issuer!r} is no issuer"
        raise SettingsError(message, remedy="an https:// URL as the provider's tokens have it in `iss`")
    if not settings.oidc_client_id:
        raise SettingsError("oidc_issuer: there is no oidc_client_id", remedy="say what the provider calls this mesh")
    for name in ("oidc_client_secret_file", "oidc_ca_file"):
        file = getattr(settings, name)
        if file and not os.access(file, os.R_OK):
            raise SettingsError(f"{name}: {file} cannot be read", remedy="name a file that can be")


def read(path: Path) -> Settings:
    """The settled settings that `write` left. SettingsError when the file is missing or broken."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Settings)
    except FileNotFoundError:
        raise SettingsError(f"there is no mesh in {path.parent}", remedy="start it with `lateen up`") from None
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(f"{path}: {error}", remedy="`lateen down`, then `lateen up` writes it anew") from None


def write(settings: Settings) -> Path:
    """Leaves settled settings in the state directory for the mesh's processes; returns the file."""
    path = settings.layout().state / "settings.json"
    temporary = path.with_suffix(".new")
    temporary.write_bytes(msgspec.json.format(msgspec.json.encode(settings)))
    temporary.replace(path)
    return path


def _from_file(file: Path) -> dict[str, Any]:
    import yaml  # few have a file, and every call of the command line comes by here

    try:
        content: object = yaml.safe_load(file.read_text())
    except OSError as error:
        raise SettingsError(f"settings file {file}: {error.strerror}", remedy="check the path") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"settings file {file}: {error}", remedy="write it as `name: value` lines") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"settings file {file} is not a mapping", remedy="write it as `name: value` lines")
    return {str(key): value for key, value in content.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    types = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    for key, text in environ.items():
        name = key.removeprefix("LATEEN_").lower()
        if not key.startswith("LATEEN_") or name not in types:
            continue
        try:
            values[name] = msgspec.convert(text, types[name], strict=False)
        except msgspec.ValidationError as error:
            raise SettingsError(f"{key}={text}: {error}", remedy="correct or unset it") from None
    return values
