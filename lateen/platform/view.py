"""What each program of a Pod sees and may do, made from the PodSandbox: its root, environment and user.

Applications see the system's programs, lateen's own environment and code, the directories named in `visible` and
their volumes; nothing of the mesh's state. The proxy sees the system's programs, its own binary and its `paths`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping

import lateen
from lateen.platform import syscalls
from lateen.platform.paths import PodPaths, write_file
from lateen.platform.pod import Container, EmptyDir, Files, PodSandbox, Proxy
from lateen.platform.process import Program
from lateen.platform.rootfs import Bind, Root
from lateen.platform.settings import PlatformSettings

NOBODY = 65534
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def prepare(spec: PodSandbox, ip: str, paths: PodPaths, settings: PlatformSettings) -> None:
    """Write the Pod's files: hosts and resolv.conf, and its volumes in memory that goes with the Pod's namespace."""
    os.makedirs(paths.root, mode=0o755, exist_ok=True)
    os.makedirs(paths.volumes, mode=0o755, exist_ok=True)
    syscalls.mount("tmpfs", paths.volumes, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=755")
    hostname = spec.hostname or spec.name
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback", f"{ip}\t{hostname}"]
    lines += [f"{address}\t{' '.join(names)}" for address, names in spec.host_aliases]
    domain = settings.cluster_domain
    search = f"{spec.namespace}.svc.{domain} svc.{domain} {domain}"
    resolv_conf = spec.resolv_conf or f"search {search}\nnameserver {settings.gateway}\noptions ndots:5\n"
    write_file(f"{paths.volumes}/.hosts", "".join(f"{line}\n" for line in lines).encode(), 0o644)
    write_file(f"{paths.volumes}/.resolv.conf", resolv_conf.encode(), 0o644)
    write_file(f"{paths.volumes}/.hostname", f"{hostname}\n".encode(), 0o644)
    for name, volume in spec.volumes.items():
        directory = f"{paths.volumes}/{name}"
        if isinstance(volume, Files):
            os.mkdir(directory, 0o755)
            for relative, data in volume.files.items():
                target = os.path.normpath(f"{directory}/{relative}")
                if not target.startswith(f"{directory}/"):
                    raise ValueError(f"volume {name}: {relative} leads out of the volume")
                os.makedirs(os.path.dirname(target), exist_ok=True)
                write_file(target, data)
                os.chmod(target, volume.mode)
        elif isinstance(volume, EmptyDir):
            os.mkdir(directory)
            if volume.size_bytes is not None:
                flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
                syscalls.mount("tmpfs", directory, "tmpfs", flags, f"size={volume.size_bytes}")
            os.chmod(directory, 0o777)  # noqa: S103 - as Kubernetes does: any user of the Pod may write


def application(
    spec: PodSandbox, container: Container, paths: PodPaths, hidden: tuple[str, ...], *, rootless: bool
) -> Program:
    """How to run an application's container. Its control groups are still to be added."""
    binds = [Bind(path, path) for path in (*environment(), *spec.visible)]
    uid = _user(container, rootless=rootless)
    root = Root(binds=(*binds, *_etc(paths), *_volumes(spec, container, paths)), hidden=hidden)
    return Program(
        argv=container.argv,
        env=_env(spec, container.env),
        cwd=container.cwd,
        uid=uid,
        gid=uid,
        capabilities=(),
        root=root,
        base=paths.root,
        oom_score=500,
    )


def inside(spec: PodSandbox, container: Container, argv: tuple[str, ...], *, rootless: bool) -> Program:
    """How to run a command inside a running container."""
    uid = _user(container, rootless=rootless)
    return Program(
        argv=argv,
        env=_env(spec, container.env),
        cwd=container.cwd,
        uid=uid,
        gid=uid,
        capabilities=(),
        root=Root(binds=(), hidden=()),
        base="",
    )


def proxy(spec: PodSandbox, proxy: Proxy, paths: PodPaths, hidden: tuple[str, ...]) -> Program:
    """How to run the Pod's Envoy: it may set the mark of its own connections, and nothing else."""
    binary = os.path.realpath(shutil.which(proxy.argv[0]) or proxy.argv[0])
    binds = [Bind(os.path.dirname(binary), os.path.dirname(binary)), *_etc(paths)]
    binds += [Bind(path, path, writable=True) for path in proxy.paths]
    return Program(
        argv=(binary, *proxy.argv[1:]),
        env=_env(spec, proxy.env),
        cwd="/",
        uid=0,
        gid=0,
        capabilities=(syscalls.CAP_NET_RAW,),
        root=Root(binds=tuple(binds), hidden=hidden),
        base=paths.root,
        oom_score=200,
    )


def _user(container: Container, *, rootless: bool) -> int:
    """The user to become: a rootless mesh has only one, which its namespace calls 0."""
    if rootless:
        return 0
    return NOBODY if container.run_as is None else container.run_as


def environment() -> tuple[str, ...]:
    """The directories of the running Python and of lateen's code, outermost ones only."""
    code = os.path.dirname(os.path.abspath(lateen.__file__))
    named = [os.path.abspath(path) for path in (sys.prefix, sys.base_prefix, sys.base_exec_prefix, code)]
    found = {*named, *(os.path.realpath(path) for path in named)}
    system = ("/usr", "/opt")
    kept = [path for path in found if not any(_within(path, other) for other in (*system, *(found - {path})))]
    return tuple(sorted(kept))


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")


def _etc(paths: PodPaths) -> list[Bind]:
    return [Bind(f"{paths.volumes}/.{name}", f"/etc/{name}") for name in ("hosts", "resolv.conf", "hostname")]


def _volumes(spec: PodSandbox, container: Container, paths: PodPaths) -> list[Bind]:
    binds: list[Bind] = []
    for mount in container.mounts:
        volume = spec.volumes.get(mount.volume)
        if volume is None:
            raise OSError(f"container {container.name} mounts volume {mount.volume}, which the Pod has not")
        source = f"{paths.volumes}/{mount.volume}" if isinstance(volume, Files | EmptyDir) else volume.path
        source = f"{source}/{mount.sub_path}" if mount.sub_path else source
        binds.append(Bind(source, mount.path, writable=not mount.read_only and not isinstance(volume, Files)))
    return binds


def _env(spec: PodSandbox, env: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": PATH, "HOME": "/tmp", "HOSTNAME": spec.hostname or spec.name, **env}
