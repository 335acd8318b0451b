"""Root runs all of this folder's tests a second time as an ordinary user, whose mesh is rootless."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.platform.harness import ROOT
from tests.paths import REPOSITORY

pytestmark = pytest.mark.skipif(not ROOT, reason="this is the second run")


@pytest.fixture
def user() -> Iterator[str]:
    """A user of its own with a home whose name has a space, gone afterwards."""
    if shutil.which("useradd", path="/usr/sbin") is None or shutil.which("runuser", path="/usr/sbin") is None:
        pytest.skip("useradd and runuser are not here")
    name = f"lateen-test-{os.getpid()}"
    subprocess.run(("/usr/sbin/useradd", "-m", "-d", f"/tmp/{name} home", name), check=True)
    yield name
    subprocess.run(("/usr/sbin/userdel", "-r", name), check=True, capture_output=True)


def readable_python(home: Path) -> Path:
    """An interpreter that other users can run, with this environment's packages and this code."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    system = shutil.which(f"python{version}", path="/usr/bin:/usr/local/bin")
    base = Path(sys.base_prefix) / "bin" / f"python{version}"
    chosen = system or str(base)
    probe = subprocess.run(("/usr/sbin/runuser", "-u", "nobody", "--", chosen, "-c", ""), capture_output=True)
    if probe.returncode:
        pytest.skip(f"no Python {version} that other users can run")
    subprocess.run((chosen, "-m", "venv", "--without-pip", str(home / "venv")), check=True)
    packages = home / "venv" / "lib" / f"python{version}" / "site-packages"
    (packages / "lateen.pth").write_text("\n".join([*site.getsitepackages(), str(REPOSITORY)]))
    return home / "venv" / "bin" / "python"


def test_everything_as_an_ordinary_user(user: str) -> None:
    home = Path(f"/tmp/{user} home")
    home.chmod(0o755)
    python = readable_python(home)
    folder = Path(__file__).parent
    seen = subprocess.run(
        ("/usr/sbin/runuser", "-u", user, "--", "cat", str(folder / "harness.py")), capture_output=True
    )
    if seen.returncode:
        pytest.skip("the repository is not readable for other users")
    options = (
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-c",
        str(REPOSITORY / "pyproject.toml"),
        "--rootdir",
        str(REPOSITORY),
    )
    command = ("/usr/sbin/runuser", "-u", user, "--", str(python), "-m", "pytest", *options, str(folder))
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
