# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""uv, as this collection uses it: plan, lock, install.

Requests are handed over as a `pyproject.toml`, because that is where uv takes a named index for one package only
(`explicit = true`). uv asks the first index that has a package and no other, so an extra index can add no other torch.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands, digests, distributions
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage

# How uv 0.13.9 says that a version, or a package, is not there.
_NO_VERSION = re.compile(
    r"there (?:is|are) no versions? of \S+|\S+ was not found in the (?:package registry|provided package locations)"
)

_OTHER_FILE = (
    "Expected the file that the lock names, found another of the same name. Find out which of the two is its maker's "
    "before anything else; then correct the source that has the other, or make the lock anew."
)


class Unsatisfiable(Exception):
    """No set of versions satisfies the request; the text is uv's explanation."""

    @property
    def brief(self) -> str:
        """That a version or a package is not there, where this is the reason; else the whole explanation."""
        found = _NO_VERSION.search(str(self))
        return found[0] if found else str(self)


class Failed(Exception):
    """uv could not do its work: an index out of reach, a hash that differs, a build that failed."""


@dataclass(frozen=True)
class Sources:
    """Where packages come from. Everything empty: uv's own defaults and the user's configuration."""

    default_index: str = ""
    indexes: tuple[dict, ...] = ()  # name, url, packages: an index asked for just these; `flat`: a folder or page
    find_links: tuple[str, ...] = ()
    offline: bool = False
    ca_bundle: str = ""

    @classmethod
    def of(cls, settings: dict) -> Sources:
        """From a module's option `sources`; what is missing or null there is left to uv."""
        given = {key: value for key, value in settings.items() if value}
        for key in ("indexes", "find_links"):
            given[key] = tuple(given.get(key, ()))
        return cls(**given)

    def folders(self, name: str) -> tuple[str, ...]:
        """Where files of a package may lie that uv writes no hash for: where it has an index of its own, only there."""
        own = [index for index in self.indexes if name in map(distributions.canonical, index["packages"])]
        return tuple(index["url"] for index in own if index.get("flat")) if own else self.find_links

    def environment(self) -> dict[str, str]:
        env = {"UV_PYTHON_DOWNLOADS": "never"}
        if self.default_index:
            env["UV_DEFAULT_INDEX"] = self.default_index
        if self.find_links:
            env["UV_FIND_LINKS"] = ",".join(self.find_links)
        if self.offline:
            env["UV_OFFLINE"] = "1"
        if self.ca_bundle:
            env["SSL_CERT_FILE"] = self.ca_bundle
        return env


@dataclass
class Change:
    """One distribution that differs between now and the plan; `before` or `after` is None when added or removed."""

    name: str
    before: str | None
    after: str | None


@dataclass
class Uv:
    """uv for one environment. `folder` holds the request files and is the caller's to remove."""

    binary: str
    stage: Stage
    sources: Sources
    folder: str
    timeout: float
    python: str = ""  # the interpreter to resolve for, where it is not the environment's own
    cache: str = ""
    no_build_isolation: tuple[str, ...] = ()
    pass_fds: tuple[int, ...] = ()
    looking: Stage | None = None  # for what changes nothing: planning builds source distributions too
    progress: str = ""  # a file that uv's messages are added to while it installs

    def _write(self, name: str, text: str) -> str:
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def _request(self, requirements: list[str]) -> str:
        # Strings are written as JSON, which TOML's basic strings accept.
        lines = ["[project]", 'name = "request"', 'version = "0"', f"dependencies = {json.dumps(requirements)}"]
        named = {distributions.canonical(re.split(r"[^\w.-]", text, maxsplit=1)[0]) for text in requirements}
        for index in self.sources.indexes:
            packages = [name for name in map(distributions.canonical, index["packages"]) if name in named]
            for name in packages:
                lines += ["[tool.uv.sources." + json.dumps(name) + "]", f"index = {json.dumps(index['name'])}"]
        for index in self.sources.indexes:
            lines += ["[[tool.uv.index]]", f"name = {json.dumps(index['name'])}"]
            lines += [f"url = {json.dumps(index['url'])}", "explicit = true"]
            lines += ['format = "flat"'] if index.get("flat") else []
        return self._write("pyproject.toml", "\n".join(lines) + "\n")

    def _run(self, *arguments: str, retries: int = 3, log: str = "", installs: bool = False) -> commands.Result:
        env = {**self.sources.environment(), "UV_HTTP_RETRIES": str(retries)}
        if self.cache:
            env["UV_CACHE_DIR"] = self.cache
        if self.stage.candidate:
            env["UV_LINK_MODE"] = "copy"  # hardlinks do not cross the bind mount; said, uv does not warn
        command = [self.binary, "pip", *arguments, "--python", self.python or self.stage.python, "--color", "never"]
        stage = self.stage if installs else self.looking or self.stage
        result = stage.run(
            command, timeout=self.timeout, env=env, cwd=self.folder, pass_fds=self.pass_fds, stderr_log=log
        )
        if result.ok:
            return result
        # uv ends with 1 when the resolver finds no solution, and with 2 for everything else.
        if result.rc == 1 and "No solution found" in result.stderr:
            raise Unsatisfiable(_explanation(result.stderr))
        advice = f"\n{_OTHER_FILE}" if "Hash mismatch" in result.stderr else ""
        raise Failed(result.outcome() + advice)

    def _build_flags(self) -> list[str]:
        return [flag for name in self.no_build_isolation for flag in ("--no-build-isolation-package", name)]

    def _constraint_flags(self, constraints: list[str]) -> list[str]:
        """Constraints for what is installed, and for what a build in isolation would fetch: uv keeps the two apart."""
        if not constraints:
            return []
        path = self._write("constraints.txt", "\n".join(constraints) + "\n")
        return ["--constraints", path, "--build-constraints", path]

    def changes(
        self, requirements: list[str], constraints: list[str], lock: str = "", no_deps: bool = False
    ) -> list[Change]:
        """What installing `requirements` would change. With `lock` (a hashed requirements text) only what it holds.

        With `no_deps` nothing that they depend on is looked at.
        """
        if not no_deps and self._has(requirements, constraints):
            return []
        arguments = ["install", "--dry-run", "--output-format", "json", *self._build_flags()]
        arguments += ["--no-deps"] if no_deps else []
        arguments += ["-r", self._request(requirements), *self._constraint_flags(constraints)]
        if lock:
            arguments += ["-c", self._write("lock.txt", lock)]
        output = self._run(*arguments).stdout
        # Nothing to do prints no JSON at all in this version.
        listed = json.loads(output)["changes"] if output.strip() else []
        return merge_changes(listed)

    def _has(self, requirements: list[str], constraints: list[str]) -> bool:
        """Whether all that is asked for is installed, with all that it depends on; no index is needed for that answer.

        From a `pyproject.toml` uv would resolve, and fail where no index answers (0.13.9).
        """
        path = self._write("wanted.txt", "".join(f"{text}\n" for text in requirements))
        arguments = ["install", "--dry-run", "--output-format", "json", "--offline", "--no-index", "-r", path]
        try:
            output = self._run(*arguments, *self._constraint_flags(constraints)).stdout
        except (Unsatisfiable, Failed):
            return False
        return not (output.strip() and json.loads(output)["changes"])

    def declared(self, requirements: list[str], lock: str = "") -> list[str]:
        """What the named packages themselves declare that they need, markers and all.

        A source distribution tells that only by being built, so it is: into a folder that is thrown away. The wheel
        stays in uv's cache for the installation. With `lock` each file is held against its hashes.
        """
        target = os.path.join(self.folder, "declared")
        arguments = ["install", "--no-deps", "--target", target, "--link-mode", "copy", *self._build_flags()]
        if lock:
            arguments += ["--require-hashes", "-c", self._write("lock.txt", lock)]
        self._run(*arguments, "-r", self._request(requirements))
        return [text for found in distributions.in_folder(target).values() for text in found.requires]

    def required_by(self, requirements: list[str], versions: dict[str, str]) -> dict[str, list[str]]:
        """Which packages require each of those that `requirements` bring, at these versions; [] for a requirement."""
        arguments = ["compile", "--no-header", "--annotation-style", "line", *self._build_flags()]
        arguments += [*self._constraint_flags([f"{name}=={version}" for name, version in versions.items()])]
        return parse_annotations(self._run(*arguments, self._request(requirements)).stdout)

    def lock(self, pins: list[str]) -> str:
        """A hashed requirements text for exactly these `name==version` pins."""
        if not pins:
            return ""
        arguments = ["compile", "--no-deps", "--generate-hashes", "--no-header", "--no-annotate"]
        arguments += [*self._build_flags(), self._request(pins)]
        return add_local_hashes(self._run(*arguments).stdout, self.sources.folders)

    def obtainable(self, requirement: str) -> str | None:
        """Why `requirement` cannot be had from the sources, or None when it can."""
        try:
            # Optional things are not worth a long wait for an index that does not answer.
            arguments = ["compile", "--no-deps", "--generate-hashes", "--no-header", "--no-annotate"]
            found = self._run(*arguments, self._request([requirement]), retries=0).stdout
        except Unsatisfiable as reason:
            return reason.brief
        except Failed as reason:
            causes = [line.strip() for line in str(reason).splitlines()]
            return f"the index could not be asked ({causes[-1].removeprefix('cause: ')})"
        try:
            add_local_hashes(found, self.sources.folders)
        except Failed as reason:
            return str(reason)
        return None

    def install(self, pins: list[str], lock: str, reinstall: list[str], constraints: list[str]) -> None:
        """Install exactly `pins`, each file held against the hashes in `lock`, and no dependency of theirs.

        `constraints` are for what a build would fetch for itself. What is built against the environment is built
        before, where its build can write nothing into it, and taken from uv's cache then.
        """
        built = {distributions.canonical(name) for name in self.no_build_isolation}
        own = [pin for pin in pins if distributions.canonical(pin.partition("==")[0]) in built]
        if own and self.looking:
            target = ["--target", os.path.join(self.folder, "built"), "--link-mode", "copy"]
            self._run(*self._exactly(own, lock, constraints), *target, log=self.progress)
        again = [flag for name in reinstall for flag in ("--reinstall-package", name)]
        self._run(*self._exactly(pins, lock, constraints), *again, log=self.progress, installs=True)

    def _exactly(self, pins: list[str], lock: str, constraints: list[str]) -> list[str]:
        arguments = ["install", "--no-deps", "--require-hashes", *self._build_flags()]
        arguments += ["-r", self._request(pins), "-c", self._write("lock.txt", lock)]
        if constraints:
            arguments += ["--build-constraints", self._write("constraints.txt", "\n".join(constraints) + "\n")]
        return arguments


def _local_files(folders: tuple[str, ...], pin: str) -> list[str]:
    """The wheels and source archives of a pin (`name==version`) in local folders."""
    name, _equals, version = pin.partition("==")
    found = []
    for folder in folders:
        for path in sorted(glob.glob(os.path.join(glob.escape(folder.removeprefix("file://")), "*"))):
            stem = re.sub(r"(\.whl|\.tar\.gz|\.zip)$", "", os.path.basename(path))
            parts = stem.split("-")
            if stem != os.path.basename(path) and distributions.canonical(parts[0]) == distributions.canonical(name):
                found += [path] if parts[1:2] == [version] else []
    return found


def add_local_hashes(lock: str, folders: Callable[[str], tuple[str, ...]]) -> str:
    """Give the pins that lie in local folders their hashes, which uv (0.13.9) writes for an index only.

    `folders` tells those of a package. Raises Failed for a pin that no hash can be had for: nothing is installed
    without one.
    """
    lines = []
    for line in lock.splitlines():
        lines.append(line)
        if "==" not in line or line.startswith((" ", "#")) or line.endswith("\\"):
            continue
        pin = line.split(";")[0].strip()
        hashes = []
        for path in _local_files(folders(distributions.canonical(pin.partition("==")[0])), pin):
            hashes.append(f"    --hash=sha256:{digests.sha256(path)}")
        if not hashes:
            raise Failed(
                f"{pin}: its source gives no hash to hold the download against, and it lies in no local folder; "
                "take it from an index that gives hashes, or put the file into a folder of stack_find_links"
            )
        lines[-1] = " \\\n".join([line, *hashes])
    return "\n".join(lines) + "\n"


def parse_annotations(text: str) -> dict[str, list[str]]:
    """`torch==2.8.0    # via request (pyproject.toml), vllm` is {"torch": ["vllm"]}."""
    found = {}
    for line in text.splitlines():
        match = re.match(r"([A-Za-z0-9][\w.-]*)==\S+[^#]*(?:# via (.*))?$", line)
        if match:
            parents = [parent.strip() for parent in (match[2] or "").split(",")]
            # What the request or a constraints file names is not required by a package.
            found[distributions.canonical(match[1])] = [p for p in parents if re.fullmatch(r"[\w.-]+", p)]
    return found


def merge_changes(listed: list[dict]) -> list[Change]:
    """uv lists an upgrade as one entry that goes and one that comes; join them."""
    merged: dict[str, Change] = {}
    for entry in listed:
        change = merged.setdefault(entry["name"], Change(entry["name"], None, None))
        if entry["action"] == "uninstalled":
            change.before = entry["version"]
        else:
            change.after = entry["version"]
    return [change for change in merged.values() if change.before != change.after]


def _explanation(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    text = " ".join(
        line for line in lines if not line.startswith(("Using Python", "error: No solution", "hint:", "warning:"))
    )
    return re.sub(r"^cause: ", "", text).replace("request depends on ", "the request asks for ")
