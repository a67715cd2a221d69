#!/usr/bin/env python3
# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prepare the home folder that ansible-test runs with: prepare_home.py HOME PIP_WHEEL

ansible-test fetches the script that installs pip from a host of its own, which not every machine reaches. It takes a
script from its cache instead when one is there; this one installs the wheel that the lock names. And ansible-test
drops pip's variables from the environment, so what pip is set up with goes to a file.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import index_environment

GET_PIP = """\
import runpy, sys
wheel = {wheel!r}
# Options of the script that this one stands in for; pip does not know them.
arguments = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
arguments = [wheel if argument.startswith("pip==") else argument for argument in arguments]
sys.argv = ["pip", "install", *arguments]
sys.path.insert(0, wheel)
runpy.run_module("pip", run_name="__main__")
"""


def main() -> None:
    home, wheel = Path(sys.argv[1]), Path(sys.argv[2]).resolve()
    version = wheel.name.split("-")[1]
    cache = home / ".ansible/test/cache"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / f"get_pip_{version.replace('.', '_')}.py").write_text(GET_PIP.format(wheel=str(wheel)))

    settings = index_environment.pip_settings(index_environment.pip_config())
    if os.environ.get("SSL_CERT_FILE"):
        settings.setdefault("cert", os.environ["SSL_CERT_FILE"])
    settings["quiet"] = "1"
    lines = [f"{name} = {value}\n" for name, value in sorted(settings.items())]
    conf = home / ".config/pip/pip.conf"
    conf.parent.mkdir(parents=True, exist_ok=True)
    conf.write_text("[global]\n" + "".join(lines))
    conf.chmod(0o600)


if __name__ == "__main__":
    main()
