# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand in for NVIDIA's download server: stand_in.py FOLDER, or stand_in.py FOLDER newer

Real, signed apt and dnf repositories with the names, paths and file layout of NVIDIA's, and a runfile. What is in the
packages is tiny: an nvcc that answers --version and empty headers. `newer` adds a later build of CUDA 12.8, as NVIDIA
does from time to time. Prints the fingerprint of the key. Needs gpg, apt-ftparchive, createrepo_c and rpmbuild.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

HEADERS = {"libcurand": "curand.h", "libcublas": "cublasLt.h"}
FULL = "12.8"
NVCC = """#!/bin/sh
# A stand-in: answers --version as NVIDIA's does, compiles nothing.
echo "Cuda compilation tools, release {release}, V{version}"
"""
RUNFILE = """#!/bin/sh
# A stand-in for NVIDIA's: takes its options, installs a tiny toolkit, and turns /usr/local/cuda.
set -eu
for option; do
    case $option in
    --toolkitpath=*) home=${option#*=} ;;
    --silent | --toolkit | --override | --no-man-page | --no-drm | --tmpdir=*) ;;
    *) echo "unknown option: $option" >&2 && exit 1 ;;
    esac
done
mkdir -p "$home/bin" "$home/include"
printf '#!/bin/sh\\necho "Cuda compilation tools, release 12.8, V12.8.93"\\n' >"$home/bin/nvcc"
chmod 755 "$home/bin/nvcc"
touch "$home/include/curand.h" "$home/include/cublasLt.h"
# Everything that is looked at is there already when the test kills this.
[ ! -e /var/tmp/be-slow ] || sleep 600
touch "$home/last-file"
ln -sfn "$home" /usr/local/cuda
"""
SMI = """#!/bin/sh
# A stand-in: one L4 with a driver of the 570 branch.
case "$*" in
*query-gpu*) echo "0, NVIDIA L4, GPU-00000000-0000-0000-0000-000000000000, 8.9, 570.124.06, 23034, 1, [N/A]" ;;
esac
"""


def run(*command: str, **more: object) -> str:
    return subprocess.run(command, check=True, text=True, capture_output=True, **more).stdout  # type: ignore[call-overload]


def make_key(home: Path, name: str) -> str:
    """A signing key without a passphrase; its fingerprint."""
    home.mkdir(mode=0o700)
    gpg = ("gpg", "--homedir", str(home), "--batch", "--quiet")
    run(*gpg, "--passphrase", "", "--quick-generate-key", f"{name} <{name}@example.com>", "rsa2048", "sign", "never")
    colons = run(*gpg, "--list-keys", "--with-colons")
    (home / "key.gpg").write_bytes(subprocess.run([*gpg, "--export"], check=True, capture_output=True).stdout)
    (home / "key.asc").write_text(run(*gpg, "--export", "--armor"))
    return next(line.split(":")[9] for line in colons.splitlines() if line.startswith("fpr:"))


def deb(repository: Path, name: str, version: str, files: dict[str, str], depends: str = "", **scripts: str) -> None:
    tree = repository / "tree"
    for path, text in files.items():
        file = tree / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755 if text.startswith("#!") else 0o644)
    control = tree / "DEBIAN"
    control.mkdir(parents=True)
    (control / "control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: stand-in <stand-in@example.com>\n"
        + (f"Depends: {depends}\n" if depends else "")
        + "Description: stand-in for NVIDIA's package of this name\n"
    )
    for script, text in scripts.items():
        (control / script).write_text(f"#!/bin/sh\nset -e\n{text}\n")
        (control / script).chmod(0o755)
    run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(repository / f"{name}_{version}_amd64.deb"))
    shutil.rmtree(tree)


def names(release: str, development: str) -> list[str]:
    """The packages of a toolkit besides nvcc, as Debian (`dev`) and EL (`devel`) call them."""
    suffix = release.replace(".", "-")
    libraries = [f"lib{name}-{development}-{suffix}" for name in ("cublas", "curand", "cusolver", "cusparse")]
    others = [f"cuda-{name}-{development}-{suffix}" for name in ("cudart", "nvrtc")]
    return [*others, f"cuda-profiler-api-{suffix}", *libraries]


def contents(package: str, release: str) -> dict[str, str]:
    header = next((file for start, file in HEADERS.items() if package.startswith(start)), f"{package}.h")
    return {f"/usr/local/cuda-{release}/include/{header}": "/* a stand-in */\n"}


def toolkit(repository: Path, release: str, version: str) -> None:
    """The packages of one build of CUDA."""
    home, suffix = f"/usr/local/cuda-{release}", release.replace(".", "-")
    nvcc = {f"{home}/bin/nvcc": NVCC.format(release=release, version=version)}
    major, minor = release.split(".")
    # NVIDIA's package of this name turns the link, the newest release with the highest priority.
    turn = f"update-alternatives --install /usr/local/cuda cuda {home} {int(major) * 10 + int(minor)}"
    common = f"cuda-toolkit-{suffix}-config-common"
    leave = f'[ "$1" = upgrade ] || update-alternatives --remove cuda {home}'
    deb(repository, common, f"{version}-1", {}, postinst=turn, prerm=leave)
    deb(repository, f"cuda-nvcc-{suffix}", f"{version}-1", nvcc, depends=common)
    for name in names(release, "dev"):
        deb(repository, name, f"{version}-1", contents(name, release))
    every = [f"cuda-nvcc-{suffix}", *names(release, "dev")]
    deb(repository, f"cuda-toolkit-{suffix}", f"{version}-1", {}, depends=", ".join(every))


def sign(repository: Path, key: Path) -> None:
    """Packages, Release and its signatures, as a flat repository has them."""
    (repository / "Packages").write_text(run("apt-ftparchive", "packages", ".", cwd=repository))
    for old in ("Release", "InRelease", "Release.gpg"):
        (repository / old).unlink(missing_ok=True)
    origin = ["-o", "APT::FTPArchive::Release::Origin=NVIDIA", "-o", "APT::FTPArchive::Release::Label=NVIDIA CUDA"]
    (repository / "Release").write_text(run("apt-ftparchive", *origin, "release", ".", cwd=repository))
    gpg = ("gpg", "--homedir", str(key), "--batch", "--yes", "--quiet")
    run(*gpg, "--clearsign", "--output", str(repository / "InRelease"), str(repository / "Release"))
    run(*gpg, "--armor", "--detach-sign", "--output", str(repository / "Release.gpg"), str(repository / "Release"))


def keyring(repository: Path, key: Path) -> None:
    """cuda-keyring: the key in binary, and the source that names it."""
    tree = repository / "keyring"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/share/keyrings").mkdir(parents=True)
    shutil.copy(key / "key.gpg", tree / "usr/share/keyrings/cuda-archive-keyring.gpg")
    (tree / "DEBIAN/control").write_text(
        "Package: cuda-keyring\nVersion: 1.1-1\nArchitecture: all\nMaintainer: stand-in <stand-in@example.com>\n"
        "Description: stand-in for NVIDIA's package of this name\n"
    )
    run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(tree), str(repository / "cuda-keyring_1.1-1_all.deb"))
    shutil.rmtree(tree)


def rpms(repository: Path, key: Path, fingerprint: str, release: str, version: str) -> None:
    """The same packages for dnf, each signed, with their metadata."""
    home, suffix = f"/usr/local/cuda-{release}", release.replace(".", "-")
    packages = {name: contents(name, release) for name in names(release, "devel")}
    packages[f"cuda-nvcc-{suffix}"] = {f"{home}/bin/nvcc": NVCC.format(release=release, version=version)}
    # Debian's rpm knows no compiler of EL's; the role asks for it by name.
    packages["gcc-c++"] = {"/usr/share/doc/gcc-c++/stand-in": "a stand-in\n"}
    work = repository.parent / "rpmbuild"
    for name, files in packages.items():
        install = "\n".join(
            f"mkdir -p %{{buildroot}}{Path(path).parent}\ncat >%{{buildroot}}{path} <<'EOF'\n{text}EOF\n"
            f"chmod {'755' if text.startswith('#!') else '644'} %{{buildroot}}{path}"
            for path, text in files.items()
        )
        spec = (
            textwrap.dedent(f"""\
            Name: {name}
            Version: {version}
            Release: 1
            Summary: stand-in for NVIDIA's package of this name
            License: none
            AutoReqProv: no
            BuildArch: x86_64
            %description
            A stand-in.
            %install
            """)
            + install
            + "\n%files\n"
            + "\n".join(files)
            + "\n"
        )
        work.mkdir(exist_ok=True)
        (work / "one.spec").write_text(spec)
        define = (
            "--define",
            f"_topdir {work}",
            "--define",
            f"_rpmdir {repository}",
            "--define",
            "debug_package %{nil}",
        )
        run("rpmbuild", "-bb", *define, "--define", "__brp_strip true", str(work / "one.spec"))
    shutil.rmtree(work)
    found = [str(path) for path in repository.rglob("*.rpm")]
    run(
        "rpmsign",
        "--define",
        f"_gpg_name {fingerprint}",
        "--define",
        f"_gpg_path {key}",
        "--define",
        "__gpg /usr/bin/gpg",
        "--addsign",
        *found,
    )
    shutil.copy(key / "key.asc", repository / "D42D0685.pub")
    run("createrepo_c", "--quiet", str(repository))


def main() -> None:
    folder = Path(sys.argv[1])
    key, strange = folder / "key", folder / "strange-key"
    web = folder / "www"
    debian, rhel = web / "compute/cuda/repos/debian12/x86_64", web / "compute/cuda/repos/rhel9/x86_64"
    if sys.argv[2:] == ["newer"]:
        toolkit(debian, FULL, "12.8.93")
        sign(debian, key)
        return
    folder.mkdir(exist_ok=True)
    fingerprint = make_key(key, "cudatools")
    make_key(strange, "somebody")
    debian.mkdir(parents=True)
    toolkit(debian, "12.4", "12.4.131")
    toolkit(debian, FULL, "12.8.61")
    deb(debian, "nvidia-open", "570.124.06-1", {"/usr/bin/nvidia-smi": SMI})
    # The distribution's, and not to be had for the kernel of the machine that the containers run on.
    deb(debian, f"linux-headers-{platform.release()}", "1", {"/usr/src/linux-headers/stand-in": "no headers\n"})
    sign(debian, key)
    keyring(debian, key)
    # Signed by somebody else, with that key in the package; and the same with the right key in the package.
    for name, shown in (("strange", strange), ("missigned", key)):
        copy = web / name / "debian12/x86_64"
        shutil.copytree(debian, copy)
        (copy / "cuda-keyring_1.1-1_all.deb").unlink()
        sign(copy, strange)
        keyring(copy, shown)
    rhel.mkdir(parents=True)
    rpms(rhel, key, fingerprint, FULL, "12.8.61")
    installers = web / "compute/cuda/12.8.1/local_installers"
    installers.mkdir(parents=True)
    (installers / "cuda_12.8.1_570.124.06_linux.run").write_text(RUNFILE)
    print(fingerprint)


main()
