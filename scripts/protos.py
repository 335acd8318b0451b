"""Generates the Python modules of lateen's own .proto files beside them; `--check` only says whether they are fresh.

Needs grpcio-tools (a development dependency). Services are registered by hand (three lines each), so only messages
and their types are generated.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("lateen/security/protos",)


def generate(target: Path) -> list[Path]:
    """Writes all modules below a folder, with the paths they have in the repository."""
    sources = sorted(str(path.relative_to(ROOT)) for folder in FOLDERS for path in (ROOT / folder).glob("*.proto"))
    include = str(files("grpc_tools") / "_proto")
    arguments = ["protoc", f"-I{ROOT}", f"-I{include}", f"--python_out={target}", f"--pyi_out={target}", *sources]
    if protoc.main(arguments) != 0:  # pyright: ignore[reportUnknownMemberType] (has no types)
        raise SystemExit("protoc failed")
    return sorted(path.relative_to(target) for folder in FOLDERS for path in (target / folder).glob("*_pb2.py*"))


def main() -> int:
    """0 when all is written, or with --check when nothing differs."""
    if "--check" not in sys.argv:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        stale = [
            path
            for path in generate(Path(folder))
            if not (ROOT / path).exists() or (ROOT / path).read_bytes() != (Path(folder) / path).read_bytes()
        ]
    for path in stale:
        sys.stderr.write(f"{path} is not what its .proto gives: run {Path(__file__).relative_to(ROOT)}\n")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
