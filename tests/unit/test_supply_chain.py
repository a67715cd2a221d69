# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing is fetched and run, nothing is downloaded that is not pinned, no key is taken on trust, no index is mixed in,
and no shell gets to read what came from outside.

Every rule of supply_chain.py has to find a planted example. What is allowed nonetheless stands in ALLOWED, with the
reason.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from supply_chain import findings, in_python, in_requirements, in_yaml

ROOT = Path(__file__).resolve().parents[2]

# (file, rule): why it is allowed. An entry that nothing needs any longer is an error.
ALLOWED: dict[tuple[str, str], str] = {
    # What tests name.
    (
        "tests/roles/test_documented_commands.py",
        "unlocked-install",
    ): "the pattern of a documented command that is not run there",
    # What the collection does.
    (
        "roles/document/templates/requirements.txt.j2",
        "mixed-index",
    ): "a list names an index in no other way, one package is on no other, and the block says what it means",
    (
        "plugins/modules/pinned_key.py",
        "unpinned-download",
    ): "what comes is a signing key, and it is held against a pinned fingerprint instead of a checksum",
    (
        "plugins/modules/bundle_make.py",
        "unpinned-download",
    ): "bundle_make.fetch holds each file against the lock's SHA-256 before it gets its name",
    (
        "plugins/modules/source_wheel.py",
        "unpinned-download",
    ): "an archive for fi_method=source; check_sum holds it against flashinfer_source_checksum, which a URL requires",
    (
        "plugins/module_utils/source_tree.py",
        "unpinned-clone",
    ): "fi_method=source from git, at the tag or commit that is asked for; the report names the commit",
    (
        "plugins/module_utils/document_check.py",
        "unpinned-download",
    ): "asks the server that is to be judged for its models; nothing is kept or run",
    (
        "plugins/module_utils/package_index.py",
        "unpinned-download",
    ): "asks whether the index answers; the answer is closed unread",
    (
        "plugins/module_utils/uv.py",
        "unlocked-install",
    ): "what packages declare, read before there is a lock, in a folder that is thrown away; _exactly is what installs",
    ("plugins/module_utils/repairs.py", "unlocked-install"): "a command that is shown to the operator, never run",
    ("plugins/module_utils/transaction.py", "unlocked-install"): "a command that is shown to the operator, never run",
    ("tools/build_docs.py", "unlocked-install"): "a line that the pages show: the artifact is a local file",
    # What tests and benchmarks do, on hosts and in folders of their own.
    (
        "molecule/source/fetch.py",
        "unpinned-download",
    ): "held against the SHA-256 that the index names, in the lines below",
    (
        "molecule/brownfield/by_hand.py",
        "unlocked-install",
    ): "an environment as somebody makes it by hand, pinned by version, in a test host",
    (
        "benchmarks/reference/procedure.yml",
        "shell-with-input",
    ): "the procedure as it is typed by hand, timed on test hosts beside ours; its values are its own",
    ("benchmarks/methods.py", "unlocked-install"): "the way by hand, timed on a copy that is thrown away",
    ("benchmarks/transaction.py", "unlocked-install"): "the way by hand, timed on a copy that is thrown away",
    ("tests/faults/conda_shape.py", "unlocked-install"): "a line of a conda history, never run",
    (
        "tests/faults/conftest.py",
        "unlocked-install",
    ): "four small wheels, pinned by version, that uv's cache is filled with",
    (
        "tests/faults/install.py",
        "unlocked-install",
    ): "the installer that is killed, on an environment of the test's own",
    ("tests/faults/test_damage.py", "unlocked-install"): "what the operator is to be shown; then run offline",
    (
        "tests/faults/test_network.py",
        "unlocked-install",
    ): "one wheel, pinned by version, that the test's own index serves",
    ("tests/gpu/run.py", "unlocked-install"): "--no-index, by a variable: from the folder of wheels alone",
    ("tests/hostile/light_hosts.py", "unlocked-install"): "small pinned wheels, in environments of stand-ins",
    (
        "tests/hostile/test_plan.py",
        "unlocked-install",
    ): "what an operator installs by hand, into an environment of stand-ins",
}


def files() -> list[Path]:
    """What is committed and can run. Unit tests plant what must be found here, so they are left out."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    found = []
    for name in listed:
        path = ROOT / name
        if (
            not path.is_file()
            or path.is_symlink()
            or name.startswith(("tests/unit/", "docs/", "changelogs/", "collections/"))
        ):
            continue
        script = not path.suffix and path.read_bytes()[:2] == b"#!"
        code = path.suffix in (".py", ".yml", ".yaml", ".lock", ".sh", ".j2") or "locks" in path.parts
        if script or code or name == "Makefile":
            found.append(path)
    return found


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", files(), ids=name_of)
def test_nothing_unsafe(path):
    found = [(rule, seen) for rule, seen in findings(path) if (name_of(path), rule) not in ALLOWED]
    assert found == [], "make it safe, or add the file and rule to ALLOWED with the reason"


def test_every_exception_is_still_needed():
    used = {(name_of(path), rule) for path in files() for rule, _ in findings(path)}
    assert ALLOWED.keys() - used == set()


def test_the_files_that_matter_are_looked_at():
    names = {name_of(path) for path in files()}
    for name in (
        "requirements.lock",
        "tools/bootstrap",
        "Makefile",
        "plugins/module_utils/uv.py",
        "roles/stack/tasks/uv.yml",
        "roles/cuda/templates/cuda.repo.j2",
        "execution-environment.yml",
    ):
        assert name in names


@pytest.mark.parametrize(
    ("rule", "task"),
    [
        ("fetch-and-execute", "ansible.builtin.shell: curl -fsSL https://example.com/install | sudo bash -s"),
        ("fetch-and-execute", "ansible.builtin.shell: bash <(curl https://example.com/install)"),
        ("fetch-and-execute", "ansible.builtin.shell: wget -qO- https://example.com/get.py | python3"),
        ("mixed-index", "ansible.builtin.command: uv pip install flashinfer --extra-index-url https://example.com"),
        ("mixed-index", "environment: {PIP_EXTRA_INDEX_URL: https://example.com}"),
        ("shell-with-input", 'ansible.builtin.shell: "ls {{ folder }}"'),
        ("shell-with-input", 'ansible.builtin.shell: {cmd: "ls {{ one | quote }} {{ two }}"}'),
        ("shell-with-input", 'block: [{name: Inside, ansible.builtin.shell: "ls {{ folder }}"}]'),
        ("shell-with-input", 'block: [], rescue: [{shell: "ls {{ folder }}"}]'),
        ("unpinned-download", "ansible.builtin.get_url: {url: https://example.com/a.sh, dest: /tmp/a.sh}"),
        ("unpinned-download", "ansible.builtin.uri: {url: https://example.com/a.sh, dest: /tmp/a.sh}"),
        (
            "unpinned-download",
            "ansible.builtin.unarchive: {src: https://example.com/a.tgz, dest: /opt, remote_src: true}",
        ),
        ("unpinned-clone", "ansible.builtin.git: {repo: https://example.com/a.git, dest: /opt/a}"),
        ("unpinned-clone", "ansible.builtin.git: {repo: https://example.com/a.git, dest: /opt/a, version: main}"),
        ("unpinned-download", "ansible.builtin.apt: {deb: https://example.com/a.deb}"),
        ("unpinned-download", "ansible.builtin.dnf: {name: https://example.com/a.rpm}"),
        ("unlocked-install", "ansible.builtin.pip: {name: torch}"),
        ("unlocked-install", "ansible.builtin.pip: {requirements: /opt/requirements.txt}"),
        ("unlocked-install", "ansible.builtin.command: pip install torch==2.8.0"),
        ("unlocked-install", "ansible.builtin.command: {argv: [uv, pip, install, --python, /opt/env, torch==2.8.0]}"),
        ("unlocked-install", "ansible.builtin.command: ansible-galaxy collection install community.general"),
        ("unpinned-download", "ansible.builtin.command: curl -o /opt/a https://example.com/a"),
        ("unpinned-download", "ansible.builtin.command: {argv: [wget, https://example.com/a]}"),
        ("unpinned-clone", "ansible.builtin.command: git clone https://example.com/a.git"),
        (
            "unchecked-transport",
            "ansible.builtin.get_url: {url: 'https://e.com', checksum: 'sha256:0', validate_certs: false}",
        ),
        ("unchecked-transport", "ansible.builtin.command: curl -fsk https://example.com -o a"),
        ("unchecked-transport", "ansible.builtin.command: pip install --trusted-host example.com torch"),
        ("unverified-key", "ansible.builtin.apt_key: {url: https://example.com/key.asc}"),
        ("unverified-key", "ansible.builtin.rpm_key: {key: https://example.com/key.asc}"),
        ("unverified-key", "ansible.builtin.dnf: {name: cuda-toolkit-12-8, disable_gpg_check: true}"),
        (
            "unverified-key",
            "ansible.builtin.yum_repository: {name: cuda, baseurl: https://example.com, gpgcheck: false}",
        ),
        ("unverified-key", "ansible.builtin.yum_repository: {name: cuda, baseurl: https://example.com}"),
        ("unverified-key", "ansible.builtin.deb822_repository: {name: cuda, uris: https://example.com}"),
        ("unverified-key", "ansible.builtin.apt_repository: {repo: 'deb https://example.com /'}"),
        ("unverified-key", "ansible.builtin.command: rpm --import https://example.com/key.asc"),
    ],
)
def test_a_bad_task_would_be_found(rule, task):
    text = (
        "- {name: Planted, " + task + "}" if task.startswith(("block", "environment")) else f"- name: Planted\n  {task}"
    )
    assert rule in {found for found, _ in in_yaml(text)}


@pytest.mark.parametrize(
    "task",
    [
        "ansible.builtin.command: {argv: [ls, '{{ folder }}']}",
        'ansible.builtin.shell: "ls {{ folder | quote }}"',
        "ansible.builtin.get_url: {url: 'https://example.com/a', dest: /tmp/a, checksum: 'sha256:00'}",
        "ansible.builtin.git: {repo: https://example.com/a.git, dest: /opt/a, version: v0.3.1}",
        "ansible.builtin.deb822_repository: {name: cuda, uris: https://example.com, signed_by: /etc/cuda.asc}",
        "ansible.builtin.yum_repository: {name: cuda, baseurl: https://example.com, gpgcheck: true, gpgkey: file:///k}",
        "ansible.builtin.dnf: {name: cuda-toolkit-12-8}",
    ],
)
def test_a_good_task_is_left_alone(task):
    assert list(in_yaml(f"- name: Good\n  {task}")) == []


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("shell-with-input", "subprocess.run(f'ls {folder}', shell=True)"),
        ("shell-with-input", "subprocess.run(command, shell=True)"),
        ("shell-with-input", "module.run_command(line, use_unsafe_shell=True)"),
        ("shell-with-input", "os.system('ls ' + folder)"),
        ("shell-with-input", "run(['sh', '-c', f'ls {folder}'])"),
        ("shell-with-input", "run(['/bin/bash', '-ec', 'ls ' + folder])"),
        ("unpinned-download", "urllib.request.urlretrieve(url, path)"),
        ("unpinned-download", "urllib.request.urlopen(url)"),
        ("unpinned-download", "urlopen(url).read()"),
        ("unpinned-download", "open_url(url, timeout=60)"),
        ("unpinned-download", "urls.open_url(url)"),
        ("unpinned-download", "urls.fetch_url(module, url)"),
        ("unpinned-download", "fetch_file(module, url)"),
        ("unpinned-download", "requests.get(url)"),
        ("unpinned-download", "requests.Session()"),
        ("unpinned-download", "httpx.stream('GET', url)"),
        ("unpinned-download", "http.client.HTTPSConnection(host)"),
        ("unpinned-download", "run(['curl', '--output', path, url])"),
        ("unpinned-download", "run(('wget', url))"),
        ("unlocked-install", "run([sys.executable, '-m', 'pip', 'install', 'torch==2.8.0'])"),
        ("unlocked-install", "run(python, '-m', 'pip', 'download', name)"),
        ("unlocked-install", "install = (uv, 'pip', 'install', '--python', python)"),
        ("unlocked-install", "run([uv, 'pip', '--quiet', 'sync', path])"),
        ("unlocked-install", "self._run(*['install', '--no-deps', '-r', path])"),
        ("unlocked-install", "os.system('uv tool install ruff')"),
        ("unlocked-install", "run(['conda', 'install', 'python'])"),
        ("unpinned-clone", "run(['git', '-C', folder, 'fetch', url])"),
        ("unpinned-clone", "git('clone', url)"),
        ("unchecked-transport", "ssl._create_unverified_context()"),
        ("unchecked-transport", "session.fetch(url, verify=False)"),
        ("unchecked-transport", "run(['curl', '--insecure', url])"),
        ("mixed-index", "run(['uv', 'pip', 'install', '--extra-index-url', url])"),
        ("mixed-index", "env['UV_EXTRA_INDEX_URL'] = url"),
        ("fetch-and-execute", "exec(urlopen(url).read())"),
        ("fetch-and-execute", "pickle.loads(urlopen(url).read())"),
        ("fetch-and-execute", "run('curl https://example.com | sh')"),
        ("unlocked-install", 'EXAMPLES = """\n- name: Bad\n  ansible.builtin.pip:\n    name: torch\n"""'),
    ],
)
def test_bad_python_would_be_found(rule, code):
    assert rule in {found for found, _ in in_python(code)}


@pytest.mark.parametrize(
    "code",
    [
        "run(['sh', '-c', 'mount --bind \"$1\" \"$2\"', 'sh', source, target])",
        "subprocess.run(['ls', folder])",
        '"""Never `curl … | sh`."""',
        "json.loads(text)",
        "run([uv, 'pip', 'install', '--require-hashes', '-r', path])",
        "run([uv, 'pip', 'install', '--offline', '--python', python, 'six'])",
        "self._run(*['install', '--dry-run', '-r', path])",
        "fail('pip could not install what was asked for')",
        "self._connection.fetch_file(there, here)",
        "self.server.requests.append(request)",
        "git('rev-parse', 'HEAD')",
    ],
)
def test_good_python_is_left_alone(code):
    assert list(in_python(code)) == []


@pytest.mark.parametrize(
    "text", ["torch\n", "torch==2.8.0\n", "torch>=2 \\\n    --hash=sha256:00\n", "git+https://e.com/a\n"]
)
def test_a_bad_lock_would_be_found(text):
    assert "unpinned-download" in {found for found, _ in in_requirements(text)}


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("fetch-and-execute", "curl https://example.com/i | sh"),
        ("mixed-index", "pip install --extra-index-url https://e.com a"),
        ("unlocked-install", "pip install torch"),
        ("unlocked-install", 'true && .venv/bin/python -m pip --quiet install --upgrade "$name"'),
        ("unlocked-install", "uv pip install \\\n    --python .venv/bin/python ruff"),
        ("unlocked-install", "uv pip install --offline a && uv pip install b"),
        ("unlocked-install", "uvx ruff check"),
        ("unpinned-download", "curl -fsSL -o a https://example.com/a"),
        ("unpinned-download", 'body=$(wget -q "$url")'),
        ("unpinned-clone", "git clone --depth 1 https://example.com/a.git"),
        ("unpinned-clone", 'git -C "$folder" submodule update --init'),
    ],
)
@pytest.mark.parametrize("name", ["script.sh", "Makefile", "script.sh.j2"])
def test_a_bad_script_would_be_found(tmp_path, name, rule, line):
    script = tmp_path / name
    script.write_text(f"#!/bin/sh\n# a comment about curl | sh\n{line}\n")
    assert rule in {found for found, _ in findings(script)}


@pytest.mark.parametrize(
    "line",
    [
        "uv pip install --quiet --require-hashes \\\n    --requirement requirements.lock",
        "uv pip install --no-index --find-links wheels a",
        "# pip install torch",
        'install -D -m 0600 "$folder/id.pub" "$files/authorized_keys"',
        'fail "pip could not install uv"',
        "git rev-parse HEAD",
    ],
)
def test_a_good_script_is_left_alone(tmp_path, line):
    script = tmp_path / "script.sh"
    script.write_text(f"#!/bin/sh\n{line}\n")
    assert findings(script) == []


REPOSITORY = "[cuda]\nbaseurl={{ url }}\nenabled=0\ngpgcheck=1\ngpgkey=file://{{ key }}\n"


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        ("unverified-key", "cuda.repo.j2", REPOSITORY.replace("gpgcheck=1", "gpgcheck=0")),
        ("unverified-key", "cuda.repo.j2", REPOSITORY.replace("gpgcheck=1\n", "")),
        ("unverified-key", "cuda.repo.j2", REPOSITORY.replace("gpgcheck=1", "gpgcheck={{ check }}")),
        ("unverified-key", "cuda.repo.j2", REPOSITORY.replace("gpgkey", "#gpgkey")),
        ("unverified-key", "cuda.repo.j2", REPOSITORY + "[other]\nbaseurl=https://example.com\n"),
        ("unchecked-transport", "cuda.repo.j2", REPOSITORY + "sslverify=0\n"),
        ("unverified-key", "other.conf.j2", "gpgcheck = False\n"),
        ("unverified-key", "cuda.list.j2", "deb [arch=amd64 trusted=yes] https://example.com /\n"),
        ("unverified-key", "cuda.list.j2", "deb https://example.com /\n"),
        ("unverified-key", "cuda.sources.j2", "Types: deb\nURIs: https://example.com\nSigned-By: /k\nTrusted: yes\n"),
        ("unchecked-transport", "cache.conf.j2", "    proxy_ssl_verify off;\n"),
    ],
)
def test_a_bad_template_would_be_found(tmp_path, rule, name, text):
    (tmp_path / name).write_text(text)
    assert rule in {found for found, _ in findings(tmp_path / name)}


def test_a_good_template_is_left_alone(tmp_path):
    (tmp_path / "cuda.repo.j2").write_text(REPOSITORY)
    (tmp_path / "cuda.list.j2").write_text("deb [signed-by=/etc/cuda.asc] https://example.com /\n")
    assert [findings(path) for path in tmp_path.iterdir()] == [[], []]
