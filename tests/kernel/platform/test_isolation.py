"""What an application tries against its Pod, its proxy and the mesh; every attempt has to fail."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import msgspec
import pytest

from lateen.platform.pod import Container, EmptyDir, Files, HostPath, Mount
from tests.kernel.platform.harness import ROOT, SETTINGS, Mesh, idle, layout, program, running, sidecar, web

ATTACKS = """
import contextlib, ctypes, os, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
state, run, pod, home, code = sys.argv[1:6]

def attempt(name, call):
    try:
        result = call()
    except OSError as error:
        print(name, "refused", os.strerror(error.errno) if error.errno else error)
    else:
        print(name, "ALLOWED", result)

def c(function, *arguments):
    if getattr(libc, function)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "")

def mark():
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, 36, 0x539)

def rules(*command):
    found = subprocess.run(("/usr/sbin/nft", *command), capture_output=True, text=True)
    if found.returncode:
        raise OSError(1, "")
    return found.stdout

def admin():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(pod + "/admin.sock")

def write(path, text="x"):
    with open(path, "w") as file:
        file.write(text)

def new_user():
    uid = os.getuid()
    c("unshare", 0x10000000)  # all capabilities there, also without the map that a rootless application is refused
    with contextlib.suppress(OSError):
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"0 {uid} 1")

def attacks():
    for path in (state, run, pod):
        attempt(f"list {path}", lambda: os.listdir(path))
    attempt("read home", lambda: open(home).read())
    attempt("read state", lambda: open(state + "/secret").read())
    attempt("read token", lambda: open(pod + "/token").read())
    attempt("admin", admin)
    attempt("mark", mark)
    attempt("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
    attempt("packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
    if os.path.exists("/usr/sbin/nft"):
        attempt("nft list", lambda: rules("list", "ruleset"))
        attempt("nft flush", lambda: rules("flush", "ruleset"))
    attempt("umount", lambda: c("umount2", b"/tmp", 2))
    attempt("mount", lambda: c("mount", b"none", b"/tmp", b"tmpfs", 0, None))
    attempt("remount", lambda: c("mount", b"none", b"/usr", None, 32 | 4096, None))
    attempt("chroot", lambda: os.chroot("/usr"))
    attempt("write code", lambda: write(code + "/planted.py"))
    attempt("write /etc", lambda: write("/etc/planted"))
    attempt("write resolv.conf", lambda: write("/etc/resolv.conf"))
    attempt("write sysctl", lambda: write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "1024"))
    attempt("kill init", lambda: os.kill(2, 9))
    attempt("setuid", lambda: os.setuid(1000))
    attempt("hostname", lambda: socket.sethostname("other"))
    attempt("setns", lambda: c("setns", os.open("/proc/1/ns/net", os.O_RDONLY), 0x40000000))

attacks()
print("pids", sorted(int(p) for p in os.listdir("/proc") if p.isdigit() and int(p) not in (os.getpid(), os.getppid())))
try:
    new_user()
except OSError as error:
    print("no user namespace", error.strerror)
else:
    print("in a user namespace")
    attempt("mount namespace", lambda: c("unshare", 0x00020000))
    for path in (state, run, pod):
        attempt(f"list {path}", lambda: os.listdir(path))
    attempt("nested read home", lambda: open(home).read())
    attempt("nested mark", mark)
    attempt("nested raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
    if os.path.exists("/usr/sbin/nft"):
        attempt("nested nft flush", lambda: rules("flush", "ruleset"))
    attempt("nested remount", lambda: c("mount", b"none", b"/usr", None, 32 | 4096, None))
    attempt("nested remount root", lambda: c("mount", b"none", b"/", None, 32 | 4096, None))
    attempt("nested umount /etc/hosts", lambda: c("umount2", b"/etc/hosts", 2))
    attempt("nested umount /proc/sys", lambda: c("umount2", b"/proc/sys", 2))
    attempt("nested write sysctl", lambda: write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "1024"))
    attempt("nested write code", lambda: write(code + "/planted.py"))
"""

HARMLESS = {"mount namespace"}  # a namespace of one's own is nobody's loss


async def test_every_attack_is_refused(mesh: Mesh) -> None:
    code = str(Path(sys.prefix))
    (mesh.layout.state / "secret").write_text("the CA's key")
    proxy = sidecar(mesh, "victim")
    directory = mesh.layout.pod("u-victim")
    (directory / "token").write_text("token")
    pod = await mesh.pod("victim", idle(), **proxy)
    home = next((path for path in Path.home().glob(".*") if path.is_file()), Path("/etc/shadow"))
    arguments = (str(mesh.layout.state), str(mesh.layout.run), str(directory), str(home), code)
    job = Container(name="attack", argv=program(ATTACKS, *arguments), restart="Never")
    attacker = await mesh.platform.create(mesh.sandbox("attack", job, **sidecar(mesh, "attack")))
    state = await mesh.until(attacker.uid, lambda s: s.containers[0].phase == "terminated")
    output = mesh.log("attack", "attack")
    assert state.containers[0].reason == "Completed", output
    lines = [line for line in output.splitlines() if " refused " in line or " ALLOWED " in line]
    assert len(lines) >= 35, output
    allowed = [line for line in lines if " ALLOWED " in line and line.split(" ALLOWED")[0] not in HARMLESS]
    assert allowed == [], output
    assert "pids []" in output or "pids [1]" in output, output
    inside = await mesh.run(pod.uid, *program(ATTACKS, *arguments))
    assert inside, "the same inside the victim's own container"
    assert (await mesh.fetch(pod.uid, "http://127.0.0.1:1/"))[0].startswith("URLError")
    assert mesh.platform.pods()[pod.uid].ready


async def test_the_proxy_has_its_one_capability_and_no_more(mesh: Mesh) -> None:
    server = await mesh.pod("server", web(), **sidecar(mesh, "server"))
    assert server.proxy is not None
    status = Path(f"/proc/{server.proxy.pid}/status").read_text()
    values = dict(line.split(":\t", 1) for line in status.splitlines() if line.startswith(("Cap", "NoNewPrivs")))
    assert {name: int(value, 16) for name, value in values.items()} == {
        "CapInh": 1 << 13,
        "CapPrm": 1 << 13,
        "CapEff": 1 << 13,
        "CapBnd": 1 << 13,
        "CapAmb": 1 << 13,
        "NoNewPrivs": 1,
    }
    root = Path(f"/proc/{server.proxy.pid}/root")
    assert not (root / "root").exists() or not any((root / "root").iterdir())
    if ROOT:  # an ordinary user may not look through that door
        run = root / str(mesh.layout.run).lstrip("/")
        assert [path.name for path in run.iterdir()] == ["pods"]
        assert [path.name for path in (run / "pods").iterdir()] == [server.uid]
        assert {path.name for path in (run / "pods" / server.uid).iterdir()} == {"envoy.json", "admin.sock"}
        assert not (root / str(mesh.layout.state).lstrip("/")).exists()


async def test_abstract_sockets_and_loopback_of_the_host_are_out_of_reach(mesh: Mesh) -> None:
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as abstract:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        abstract.bind("\0" + mesh.layout.name)
        abstract.listen()
        pod = await mesh.pod("pod", idle())
        port = tcp.getsockname()[1]
        probe = """
            import socket, sys
            for family, address in ((socket.AF_INET, ("127.0.0.1", int(sys.argv[1]))),
                                    (socket.AF_INET, (sys.argv[3], int(sys.argv[1]))),
                                    (socket.AF_UNIX, chr(0) + sys.argv[2])):
                with socket.socket(family) as s:
                    s.settimeout(3)
                    print(s.connect_ex(address))
        """
        output = await mesh.run(pod.uid, *program(probe, str(port), mesh.layout.name, SETTINGS.gateway))
        assert output.split() == ["111", "111", "111"]


async def test_volumes_appear_where_they_are_mounted_and_nowhere_on_the_machine(mesh: Mesh, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "data").mkdir(mode=0o755)
    (tmp_path / "data" / "file").write_text("of the machine")
    (tmp_path / "data").chmod(0o755)
    spec = """
        import os
        print(open("/etc/config/a/b.txt").read(), open("/etc/passwd").read() != "", open("/srv/x").read())
        print(open("/data/file").read())
        open("/cache/mine", "w").write("1")
        for path in ("/etc/config/a/b.txt", "/data/file", "/etc/hosts", "/usr/x", "/x"):
            try:
                open(path, "w")
                print("WROTE", path)
            except OSError as error:
                pass
        print(sorted(os.listdir("/cache")))
    """
    volumes = {
        "config": Files({"a/b.txt": b"bytes", "x": b"one"}),
        "data": HostPath(str(tmp_path / "data")),
        "cache": EmptyDir(size_bytes=1 << 20),
    }
    mounts = (
        Mount(volume="config", path="/etc/config"),
        Mount(volume="config", path="/srv/x", sub_path="x"),
        Mount(volume="data", path="/data", read_only=True),
        Mount(volume="cache", path="/cache"),
    )
    first = msgspec.structs.replace(idle(), mounts=mounts)
    pod = await mesh.pod("pod", first, volumes=volumes)
    expected = ["bytes True one", "of the machine", "['mine']"]
    assert (await mesh.run(pod.uid, *program(spec))).splitlines() == expected
    assert not Path("/etc/config").exists()
    assert not Path("/srv/x").exists()


@pytest.mark.skipif(not ROOT, reason="an ordinary user has one uid")
async def test_run_as(mesh: Mesh) -> None:
    pod = await mesh.pod("pod", msgspec.structs.replace(idle(), run_as=1234))
    assert (await mesh.run(pod.uid, "id", "-u")) == "1234"


async def test_two_meshes_with_the_same_addresses_side_by_side(mesh: Mesh) -> None:
    async with running(layout()) as other:
        ours = await mesh.pod("server", web())
        theirs = await other.pod("other-server", web())
        assert ours.ip == theirs.ip
        client = await mesh.pod("client", idle())
        assert await mesh.fetch(client.uid, f"http://{ours.ip}:8080/") == [f"200 server {client.ip}"]
    assert await mesh.fetch(client.uid, f"http://{ours.ip}:8080/") == [f"200 server {client.ip}"]
