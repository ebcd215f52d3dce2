#!/usr/bin/env python3
"""Runs schemathesis over a server's own OpenAPI documents: no answer may be a 5xx, and nothing may panic.

    scripts/fuzz-openapi.py target/x86_64-unknown-linux-gnu/debug/krust [--seconds 10] [--only apps/v1]
    scripts/fuzz-openapi.py target/x86_64-unknown-linux-gnu/debug/krust --together 150
    scripts/fuzz-openapi.py --install

It installs a pinned schemathesis into target/tools, starts a server without a runtime in a directory of its own,
and spends the given seconds on every document, or on all of them together: then the operations of the documents come
in a mixed order, which is always the same, and what the time is too short for is left out. Left out are the paths that need a kubelet, which this server has
not. A 504 is what a resourceVersion of the future gets, as upstream, and counts as an answer.
"""

import argparse
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

VERSION = "4.32.5"
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOOL = os.path.join(ROOT, "target", "tools", f"schemathesis-{VERSION}")
WITHOUT_KUBELET = r"/proxy|/exec$|/attach$|/portforward$|/log$"
CHECK = """
import schemathesis

@schemathesis.check
def no_server_error(ctx, response, case):
    if response.status_code >= 500 and response.status_code != 504:
        request = response.request
        with open("server-errors.txt", "a") as file:
            file.write(f"{request.method} {request.url} {request.headers.get('Content-Type')}\\n")
            file.write(f"  {str(request.body)[:1000]}\\n  {response.status_code} {response.text[:1000]}\\n")
        raise AssertionError(f"{response.status_code}: {response.text[:500]}")
"""


def install():
    command = os.path.join(TOOL, "bin", "schemathesis")
    if not os.path.exists(command):
        subprocess.run([sys.executable, "-m", "venv", TOOL], check=True)
        pip = os.path.join(TOOL, "bin", "pip")
        subprocess.run([pip, "install", "--quiet", f"schemathesis=={VERSION}"], check=True)
    return command


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    def __init__(self, binary, directory):
        self.base = f"http://127.0.0.1:{free_port()}"
        self.log_path = os.path.join(directory, "krust.log")
        self.log = open(self.log_path, "w")
        listen = self.base.removeprefix("http://")
        arguments = ["server", "--runtime", "none", "--listen", listen, "--data-dir", os.path.join(directory, "data")]
        self.process = subprocess.Popen([binary, *arguments], stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 60
        while not self.answers():
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.stop()
                sys.exit(f"the server does not start: {open(self.log_path).read()}")
            time.sleep(0.1)

    def answers(self):
        try:
            return self.get("/readyz") == b"ok"
        except OSError:
            return False

    def get(self, path):
        with urllib.request.urlopen(self.base + path, timeout=30) as answer:
            return answer.read()

    def panics(self):
        return [line for line in open(self.log_path) if "panicked" in line]

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


def prepare(document):
    """Watches end after a second: the parameter says so."""
    short = {"type": "integer", "minimum": 1, "maximum": 1}

    def walk(value):
        if isinstance(value, dict):
            if value.get("name") == "timeoutSeconds" and value.get("in") == "query":
                value["schema"], value["required"] = short, True
            value = list(value.values())
        if isinstance(value, list):
            for item in value:
                walk(item)

    walk(document)
    return document


def merged(documents):
    """One document of the paths of all, mixed; the same name is the same schema in each."""
    whole, paths = None, []
    for document in documents:
        if whole is None:
            whole = document
        for kind, parts in document.get("components", {}).items():
            whole["components"].setdefault(kind, {}).update(parts)
        paths += document["paths"].items()
    random.Random(1).shuffle(paths)
    whole["paths"] = dict(paths)
    return whole


def run(command, server, key, document, seconds, directory):
    path = os.path.join(directory, key.replace("/", "_") + ".json")
    with open(path, "w") as file:
        json.dump(prepare(document), file)
    # An error of the tool's own does not count, but it has to have sent something.
    sent = 0
    for phase in ("coverage", "fuzzing"):
        sent += run_phase(command, server, path, phase, seconds / 2, directory)
    return sent


def run_phase(command, server, path, phase, seconds, directory):
    arguments = [
        "run", path, "--url", server.base, "--checks", "no_server_error", "--phases", phase,
        "--max-time", str(int(seconds) or 1), "--max-examples", "20", "--request-timeout", "20", "--no-shrink",
        "--continue-on-failure", "--suppress-health-check", "all", "--warnings", "off", "--seed", "1", "--workers", "2",
        "--exclude-path-regex", WITHOUT_KUBELET,
    ]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "krust_check", "PYTHONPATH": directory}
    done = subprocess.run([command, *arguments], env=environment, cwd=directory, capture_output=True, text=True)
    generated = re.search(r"(\d+) generated", done.stdout)
    return int(generated.group(1)) if generated else 0


def documents(server, options):
    """What to run, by name."""
    keys = sorted(json.loads(server.get("/openapi/v3"))["paths"])
    keys = [key for key in keys if not options.only or key.removeprefix("apis/") in options.only]
    found = ((key, json.loads(server.get(f"/openapi/v3/{key}"))) for key in keys)
    return [(f"{len(keys)} documents", merged(document for _, document in found))] if options.together else found


def take(path):
    """The text of a file, which is gone afterwards; empty if there is none."""
    try:
        with open(path) as file:
            text = file.read()
        os.remove(path)
        return text
    except FileNotFoundError:
        return ""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary", nargs="?")
    parser.add_argument("--install", action="store_true", help="only install schemathesis")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--together", type=int, help="seconds for all documents as one")
    parser.add_argument("--only", action="append", help="a document, as api/v1 or apps/v1")
    options = parser.parse_args()
    command = install()
    if options.install:
        return
    if not options.binary:
        parser.error("which krust?")
    directory = tempfile.mkdtemp(prefix="krust-fuzz-")
    with open(os.path.join(directory, "krust_check.py"), "w") as file:
        file.write(CHECK)
    server = Server(os.path.abspath(options.binary), directory)
    failed = []
    try:
        for key, document in documents(server, options):
            name = key.removeprefix("apis/")
            sent = run(command, server, key, document, options.together or options.seconds, directory)
            errors = take(os.path.join(directory, "server-errors.txt"))
            good = sent > 0 and not errors
            print(f"{'ok    ' if good else 'FAILED'} {name}: {sent} requests", flush=True)
            print(errors, end="")
            if not good:
                failed.append(name)
    finally:
        panics = server.panics()
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)
    print("".join(panics), end="")
    if failed or panics:
        sys.exit(f"{len(failed)} documents failed, {len(panics)} requests panicked")
    print("no server errors")


main()
