"""Type stubs of the xDS messages, for the type checker and the editor.

The xds-protos wheel carries generated modules but neither stubs nor `.proto` files. Every generated module
holds the descriptor of its file, though, so the set of descriptors is collected from the modules and given
to protoc, which writes one `.pyi` a file into `typings/` (ignored by git; `stubPath` of the type checker).

    python scripts/stubs.py [OUTPUT_DIRECTORY]
"""

from __future__ import annotations

import importlib
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor

WHEEL = "xds-protos"
BUNDLED = "google/protobuf/"  # typed by types-protobuf


def modules() -> list[str]:
    """The names of the generated modules in the wheel that can be imported: its `test` package cannot, the
    standard library has one of the same name."""
    files = [file for file in importlib.metadata.distribution(WHEEL).files or () if file.name.endswith("_pb2.py")]
    return sorted(file.as_posix().removesuffix(".py").replace("/", ".") for file in files if file.parts[0] != "test")


def descriptors(names: list[str]) -> descriptor_pb2.FileDescriptorSet:
    """The files behind those modules with everything they import, imports first."""
    files: dict[str, FileDescriptor] = {}

    def visit(file: FileDescriptor) -> None:
        if file.name not in files:
            for each in file.dependencies:
                visit(each)
            files[file.name] = file

    for name in names:
        visit(importlib.import_module(name).DESCRIPTOR)
    found = descriptor_pb2.FileDescriptorSet()
    for file in files.values():
        file.CopyToProto(found.file.add())
    return found


def main(output: Path) -> int:
    """Replaces the directory by fresh stubs; returns protoc's exit code."""
    found = descriptors(modules())
    names = [file.name for file in found.file if not file.name.startswith(BUNDLED)]
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    with tempfile.NamedTemporaryFile(suffix=".pb") as file:
        file.write(found.SerializeToString())
        file.flush()
        protoc = [sys.executable, "-m", "grpc_tools.protoc", f"--descriptor_set_in={file.name}", f"--pyi_out={output}"]
        return subprocess.run([*protoc, *names], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "typings"))
