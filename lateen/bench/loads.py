"""Load by h2load: requests of HTTP/1.1, HTTP/2 or gRPC, as many as go or so many a second.

    measured = send(cable.client, Call("http2", "http://10.96.0.1:8081/"), seconds=3, rate=1000)

Every request's time comes from h2load's log, so percentiles are of all of them.

Source: https://nghttp2.org/documentation/h2load.1.html
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from lateen.bench.host import BenchError

Protocol = Literal["http1", "http2", "grpc", "tcp"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("http1", "http2", "grpc", "tcp")
MESSAGE: Final = b"\x00\x00\x00\x00\x05hello"
"""A gRPC message of five bytes behind its head."""
CONNECTIONS: Final = 8
STREAMS: Final = 4
"""Requests at a time on one HTTP/2 connection."""


class Measured(msgspec.Struct, frozen=True):
    """What came back, and how fast. Failed are those without an answer or with a status from 400 on."""

    requests: int
    failed: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        """Answered requests a second."""
        return (self.requests - self.failed) / self.seconds if self.seconds else 0


def send(host: Sequence[str], protocol: Protocol, url: str, seconds: float, rate: int = 0) -> Measured:
    """Sends from a host (words before the command) for some seconds; rate 0 is as much as goes. `tcp` is HTTP/1.1 to a
    port whose protocol no proxy knows. BenchError when h2load fails."""
    if shutil.which("h2load") is None:
        raise BenchError("the program h2load is missing", remedy="apt-get install -y nghttp2-client")
    with tempfile.TemporaryDirectory(prefix="ltn-") as directory:
        log, message = Path(directory) / "log", Path(directory) / "message"
        command = [*host, "h2load", "-D", f"{round(seconds * 1000)}ms", "-c", str(CONNECTIONS), f"--log-file={log}"]
        if rate:
            command.append(f"--rps={rate / CONNECTIONS:g}")
        if protocol in ("http1", "tcp"):
            command.append("--h1")
        else:
            command += ["-m", str(STREAMS)]
        if protocol == "grpc":
            message.write_bytes(MESSAGE)
            command += ["-d", str(message), "-H", "content-type: application/grpc", "-H", "te: trailers"]
        done = subprocess.run([*command, url], capture_output=True, text=True, timeout=seconds + 30, check=False)
        if done.returncode or not log.exists():
            raise BenchError(f"h2load failed: {(done.stderr or done.stdout).strip()[-500:]}", remedy=" ".join(command))
        rows = [each.split("\t") for each in log.read_text().splitlines()]
    return measured([(int(status), int(took)) for _, status, took, *_ in rows], seconds)


def measured(rows: Sequence[tuple[int, int]], seconds: float) -> Measured:
    """Of (status, microseconds), nearest-rank percentiles of those that were answered."""
    times = sorted(took for status, took in rows if 0 < status < 400)
    failed = len(rows) - len(times)

    def rank(share: float) -> float:
        return times[min(len(times) - 1, int(share * len(times)))] / 1000 if times else 0.0

    return Measured(len(rows), failed, seconds, rank(0.5), rank(0.99))
