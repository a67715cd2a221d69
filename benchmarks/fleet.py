#!/usr/bin/env python3
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a fleet costs the control node: fleet.py [HOSTS …], default 1 2 5 10 20 40. Needs podman; see tests/hosts.

Hosts are containers reached by SSH, with the stand-ins of tests/stand_ins for the stack. For each number of hosts it
measures first apply, no-op and roll-back with this collection, and the same with the plain playbook in reference/. The
package index is served here, counted, and reached through the caching index of the role package_cache, on a host of its
own. CPU seconds are those of ansible-playbook and all its children here, the ssh that keeps a connection open too; the
hosts' own work is not in them. Forks are the processes of Ansible's tasks, skipped ones and includes too. Each playbook
begins without open connections, except where "connected" is said. One ping is the least that Ansible does with a host.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import http.server
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TOOLS = Path(sys.executable).parent
MEGABYTES = 32
RUN = f"bench{os.getpid()}"
CACHE = "bench-cache"
LIGHT: dict[str, Any] = {"__stack_platforms": {"debian-12": {"manager": "apt", "packages": []}}}


@dataclass
class Cost:
    """Of one ansible-playbook."""

    seconds: float
    cpu: float
    memory: float
    tasks: dict[str, int]


class Index(http.server.SimpleHTTPRequestHandler):
    """A package index that counts what it sends."""

    sent = 0

    def copyfile(self, source: Any, outputfile: Any) -> None:
        while block := source.read(65536):
            outputfile.write(block)
            Index.sent += len(block)

    def send_head(self) -> Any:
        """SimpleHTTPRequestHandler knows no ranges, and slices are ranges."""
        wanted = self.headers.get("Range", "")
        path = Path(self.translate_path(self.path))
        if not wanted.startswith("bytes=") or not path.is_file():
            return super().send_head()
        first, _, last = wanted[6:].partition("-")
        size = path.stat().st_size
        begin, end = int(first), min(int(last or size - 1), size - 1)
        self.send_response(206)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Range", f"bytes {begin}-{end}/{size}")
        self.send_header("Content-Length", str(end - begin + 1))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{path.name}"')
        self.end_headers()
        file = path.open("rb")
        file.seek(begin)
        return _Part(file, end - begin + 1)

    def log_message(self, *_: Any) -> None:
        pass


class _Part:
    def __init__(self, file: Any, left: int) -> None:
        self.file, self.left = file, left

    def read(self, size: int) -> bytes:
        block = bytes(self.file.read(min(size, self.left)))
        self.left -= len(block)
        return block

    def close(self) -> None:
        self.file.close()


def podman(*argv: str) -> str:
    env = {**os.environ, "CONTAINERS_CONF": str(ROOT / "tests/hosts/containers.conf")}
    return subprocess.run(["podman", *argv], env=env, check=True, capture_output=True, text=True).stdout


def start_hosts(folder: Path, names: list[str], light: bool) -> None:
    def start(name: str) -> None:
        for argv in [
            [f"{ROOT}/tests/hosts/start", RUN, name, folder],
            [f"{ROOT}/molecule/fleet/light_host", RUN, name],
        ][: 2 if light else 1]:
            subprocess.run([str(word) for word in argv], check=True, capture_output=True)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(start, names))


def adopt_orphans(adopt: bool) -> None:
    """The ssh that keeps a connection open leaves its parents; as a child of this process its CPU seconds are seen."""
    set_child_subreaper = 36
    if ctypes.CDLL(None).prctl(set_child_subreaper, int(adopt), 0, 0, 0):
        raise SystemExit("expected prctl to say who is the parent of orphans, it refuses")


def end_connections(folder: Path) -> None:
    """Close what ansible-playbook has left open, and wait for its end."""
    for socket in (folder / "ssh").iterdir():
        argv = ["ssh", "-O", "exit", "-o", f"ControlPath={socket}", "host"]
        subprocess.run(argv, check=False, capture_output=True)
    with contextlib.suppress(ChildProcessError):  # none is left
        while True:
            os.wait()


def play(
    folder: Path, playbook: str, hosts: list[str], variables: dict[str, Any], keep_connections: bool = False
) -> Cost:
    """Run a playbook on hosts, and measure it."""
    argv = [str(TOOLS / "ansible-playbook"), f"--inventory={folder}/bench.yml", f"--inventory={folder}/hosts"]
    argv += [f"--limit={','.join(hosts)}", f"--forks={len(hosts)}", f"--extra-vars={json.dumps(variables)}", playbook]
    counts = folder / "counts.json"
    counts.unlink(missing_ok=True)
    env = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "benchmarks/callbacks"),
        "ANSIBLE_CALLBACKS_ENABLED": "count_tasks",
        "ANSIBLE_SSH_CONTROL_PATH_DIR": str(folder / "ssh"),
        "OCRFLEET_COUNTS": str(counts),
    }
    adopt_orphans(True)
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with (folder / "bench.log").open("a") as log:
        process = subprocess.Popen(argv, env=env, stdout=log, stderr=log, cwd=folder)
        _pid, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    if status:
        raise SystemExit(f"{playbook} failed; its output is {folder}/bench.log")
    if not keep_connections:
        end_connections(folder)
    adopt_orphans(False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, cpu, used.ru_maxrss / 1024, json.loads(counts.read_text()))


def row(what: str, count: int, cost: Cost) -> str:
    tasks = cost.tasks
    return (
        f"{count:5}  {what:22} {cost.seconds:7.1f} {cost.cpu:8.2f} {cost.cpu / count:9.3f} {cost.memory / count:9.1f} "
        f"{tasks['executed'] / count:9.1f} {tasks['remote'] / count:9.1f} {tasks['forked'] / count:9.1f}"
    )


def main() -> None:
    numbers = [int(word) for word in sys.argv[1:]] or [1, 2, 5, 10, 20, 40]
    with tempfile.TemporaryDirectory(prefix="ocrfleet-bench-") as name:
        folder = Path(name)
        (folder / "ssh").mkdir()
        try:
            measure(folder, numbers)
        except SystemExit:
            print((folder / "bench.log").read_text()[-4000:], file=sys.stderr)
            raise
        finally:
            subprocess.run([f"{ROOT}/tests/hosts/stop", RUN], check=False)


def serve(folder: Path) -> int:
    """The counted index, with the one wheel that the hosts download. Returns its port."""
    wheels = folder / "upstream/wheels"
    subprocess.run([sys.executable, f"{ROOT}/tests/stand_ins/light_stack.py", str(wheels), str(MEGABYTES)], check=True)
    for wheel in wheels.glob("*.whl"):
        page = folder / "upstream/simple" / wheel.name.split("-")[0].replace("_", "-") / "index.html"
        page.parent.mkdir(parents=True)
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        page.write_text(f'<!doctype html><a href="../../wheels/{wheel.name}#sha256={digest}">{wheel.name}</a>\n')
    handler = functools.partial(Index, directory=str(folder / "upstream"))
    server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), handler)  # noqa: S104 - containers have to reach it
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def measure(folder: Path, numbers: list[int]) -> None:
    hosts = [f"bench-{number}" for number in range(1, max(numbers) + 1)]
    print(f"starting {len(hosts)} hosts and the cache", flush=True)
    start_hosts(folder, [CACHE], light=False)
    start_hosts(folder, hosts, light=True)
    gateway = podman("exec", f"ocrfleet-{RUN}-{CACHE}", "sh", "-c", "ip route | awk '/default/ {print $3}'").strip()
    address = podman("inspect", "--format", "{{.NetworkSettings.IPAddress}}", f"ocrfleet-{RUN}-{CACHE}").strip()
    index = f"http://{gateway}:{serve(folder)}/simple"
    inventory = {
        "package_cache": {"hosts": {CACHE: {}}},
        "gpu": {
            "hosts": dict.fromkeys(hosts, {}),
            "vars": {
                "stack_root": "/home/ocr/stack",
                "stack_environment": "/home/ocr/stack/envs/olmocr-optimized",
                "stack_uv": "/usr/local/bin/uv",
                "stack_cache": "/home/ocr/stack/cache",
                "stack_default_index": f"http://{address}:8080/simple",
                "stack_disk_gb": 1,
                "pytorch_lock": "",
                "olmocr_lock": "",
                "olmocr_extras": [],
                "flashinfer_jit_cache_index": "",
                "report_dir": str(folder / "reports"),
                "reference_install_args": f"--default-index http://{address}:8080/simple",
            },
        },
    }
    (folder / "bench.yml").write_text(json.dumps(inventory))
    play(folder, "ocrfleet.gpu_stack.package_cache", [CACHE], {"package_cache_index": index})
    head = ("wall s", "CPU s", "CPU/host", "MiB/host", "tasks", "modules", "forks")
    print(f"{'hosts':>5}  {'what':22} {head[0]:>7} {head[1]:>8} " + " ".join(f"{name:>9}" for name in head[2:]))
    site, back, ping, plain = (
        "ocrfleet.gpu_stack.site",
        "ocrfleet.gpu_stack.rollback",
        f"{ROOT}/benchmarks/reference/ping.yml",
        f"{ROOT}/benchmarks/reference/procedure.yml",
    )
    wheel = (folder / "upstream/wheels").glob("flashinfer*.whl").__next__().stat().st_size
    for count in numbers:
        chosen = hosts[:count]
        podman("exec", f"ocrfleet-{RUN}-{CACHE}", "sh", "-c", "rm -rf /var/cache/ocrfleet-packages/*")
        for host in chosen:
            podman("exec", f"ocrfleet-{RUN}-{host}", "rm", "-rf", "/home/ocr/stack/cache")
        Index.sent = 0
        print(row("apply", count, play(folder, site, chosen, LIGHT)), flush=True)
        sent = Index.sent
        print(row("no-op", count, play(folder, site, chosen, LIGHT, keep_connections=True)), flush=True)
        print(row("no-op, connected", count, play(folder, site, chosen, LIGHT)), flush=True)
        print(row("roll-back", count, play(folder, back, chosen, LIGHT)), flush=True)
        print(row("one ping", count, play(folder, ping, chosen, {}, keep_connections=True)), flush=True)
        print(row("one ping, connected", count, play(folder, ping, chosen, {})), flush=True)
        for what, action in (("apply", "apply"), ("no-op", "apply"), ("roll-back", "rollback")):
            cost = play(folder, plain, chosen, {"reference_action": action})
            print(row(f"reference, {what}", count, cost), flush=True)
        print(f"       from upstream: {sent / 1e6:.1f} MB = {sent / wheel:.3f} copies of the wheel", flush=True)


if __name__ == "__main__":
    main()
