"""The onboarding bundle: a folder with all that a machine needs to join a mesh.

    cluster.env     who the machine is to be and where the mesh is reached, as shell variables with Istio's names
    mesh.yaml       the mesh's proxy configuration, for people and for Istio's own agent
    istio-token     the token for the first certificate; whoever has it can be a machine of the group
    root-cert.pem   the certificates that the control plane is known by

`lateen vm entry configure` writes it, `lateen agent --bundle` reads it; nothing else is needed on the machine.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import msgspec
from cryptography import x509

from lateen.lib.errors import LateenError

ENVIRONMENT, MESH, TOKEN, ROOTS = "cluster.env", "mesh.yaml", "istio-token", "root-cert.pem"


class BundleError(LateenError):
    """A bundle that cannot be used; the message names the file."""


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """Where a machine belongs. Addresses are `HOST:PORT`; `gateway` is empty where Pods are reached directly."""

    group: str
    namespace: str
    service_account: str
    xds: str
    login: str
    gateway: str = ""
    trust_domain: str = "cluster.local"
    domain: str = "cluster.local"
    network: str = ""
    cluster: str = "Kubernetes"
    directory: Path = Path()

    @property
    def token(self) -> Path:
        return self.directory / TOKEN

    @property
    def roots(self) -> Path:
        return self.directory / ROOTS


_VARIABLES = {
    "ISTIO_META_AUTO_REGISTER_GROUP": "group",
    "POD_NAMESPACE": "namespace",
    "SERVICE_ACCOUNT": "service_account",
    "LATEEN_XDS_ADDRESS": "xds",
    "LATEEN_LOGIN_ADDRESS": "login",
    "LATEEN_GATEWAY_ADDRESS": "gateway",
    "TRUST_DOMAIN": "trust_domain",
    "LATEEN_DOMAIN": "domain",
    "ISTIO_META_NETWORK": "network",
    "ISTIO_META_CLUSTER_ID": "cluster",
}
_REQUIRED = ("group", "namespace", "service_account", "xds", "login")


def variables(bundle: Bundle) -> Mapping[str, str]:
    """What `cluster.env` says."""
    values: dict[str, str] = {name: getattr(bundle, field) for name, field in _VARIABLES.items()}
    fixed = {"ISTIO_META_WORKLOAD_NAME": bundle.group, "ISTIO_META_DNS_CAPTURE": "true", "ISTIO_INBOUND_PORTS": "*"}
    return {**values, **fixed}


def write(bundle: Bundle, *, token: str, roots: str) -> list[Path]:
    """Writes the folder, made if absent; the token is its owner's alone. The files that were written."""
    directory = bundle.directory
    host = bundle.xds
    mesh = f"defaultConfig:\n  discoveryAddress: {host}\n  meshId: {bundle.trust_domain}\n"
    environment = "".join(f"{key}={shlex.quote(value)}\n" for key, value in sorted(variables(bundle).items()) if value)
    contents = {ENVIRONMENT: environment, MESH: f"{mesh}trustDomain: {bundle.trust_domain}\n", ROOTS: roots}
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in contents.items():
            (directory / name).write_text(text)
        replace_token(bundle.token, token)
    except OSError as error:
        raise BundleError(f"cannot write {directory}: {error.strerror}", remedy="choose another directory") from None
    return [directory / name for name in (*contents, TOKEN)]


def replace_token(path: Path, token: str) -> None:
    """Puts a token into its file in one step; only its owner can read it at any time."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(token)
    draft.replace(path)


def read(directory: Path) -> Bundle:
    """The bundle in a folder. BundleError when a file is missing or makes no sense."""
    values: dict[str, str] = {}
    for number, line in enumerate(_text(directory / ENVIRONMENT).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, equals, value = line.partition("=")
        try:
            words = shlex.split(value)
        except ValueError:
            equals, words = "", []
        if not equals or len(words) > 1:
            raise BundleError(f"{directory / ENVIRONMENT}:{number}: not NAME='VALUE'", remedy=_ANEW)
        if key in _VARIABLES:
            values[_VARIABLES[key]] = words[0] if words else ""
    names = {field: name for name, field in _VARIABLES.items()}
    missing = [names[each] for each in _REQUIRED if not values.get(each)]
    if missing:
        raise BundleError(f"{directory / ENVIRONMENT} does not say {', '.join(missing)}", remedy=_ANEW)
    for field in ("xds", "login", "gateway"):
        host, _, port = values.get(field, "").rpartition(":")
        if values.get(field) and not (host and port.isdigit() and 0 < int(port) < 65536):
            raise BundleError(f"{directory / ENVIRONMENT}: {names[field]} is not HOST:PORT", remedy=_ANEW)
    _text(directory / TOKEN)
    try:
        x509.load_pem_x509_certificates(_text(directory / ROOTS).encode())
    except ValueError:
        raise BundleError(f"{directory / ROOTS} holds no PEM certificate", remedy=_ANEW) from None
    return Bundle(directory=directory.absolute(), **values)  # pyright: ignore[reportArgumentType] (all are texts)


_ANEW = "make the bundle anew with `lateen vm entry configure`"


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        raise BundleError(f"{file} is not there: the bundle is not whole", remedy=_ANEW) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"cannot read {file}: {error}", remedy="check the file") from None
