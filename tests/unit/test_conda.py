# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import conda_engines
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.commands import Result
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.conda_engines import Engine
from ansible_collections.ocrfleet.gpu_stack.plugins.modules import conda_environment

HOME = "/nonexistent/miniforge3"
OURS = Engine(f"{HOME}/bin/conda", "conda", "26.3.2")
OTHER = Engine("/srv/miniforge3/bin/conda", "conda", "24.1.2")


def answers(version, info):
    def run(argv, timeout):
        said = version if argv[1] == "--version" else info
        return Result(argv, 0 if said else 1, said, "", 0.1)

    return run


@pytest.mark.parametrize(
    ("path", "version", "info", "engine"),
    [
        (
            "/opt/conda/bin/conda",
            "conda 24.11.3\n",
            json.dumps({"root_prefix": "/opt/conda", "envs_dirs": ["/opt/conda/envs"]}),
            Engine("/opt/conda/bin/conda", "conda", "24.11.3", "/opt/conda", ("/opt/conda/envs",)),
        ),
        (
            "/usr/local/bin/micromamba",
            "2.0.5\n",
            json.dumps({"base environment": "/home/o/micromamba", "envs directories": ["/home/o/micromamba/envs"]}),
            Engine(
                "/usr/local/bin/micromamba", "micromamba", "2.0.5", "/home/o/micromamba", ("/home/o/micromamba/envs",)
            ),
        ),
        ("/opt/conda/bin/mamba", "mamba 1.5.8\nconda 24.3.0\n", "", Engine("/opt/conda/bin/mamba", "mamba", "1.5.8")),
        ("/opt/conda/bin/conda", "", "", None),
        ("/opt/conda/bin/conda", "conda: broken\n", "{", None),
        ("/opt/conda/bin/conda", "conda 24.1\n", "{", Engine("/opt/conda/bin/conda", "conda", "24.1")),
    ],
)
def test_an_engine_is_what_it_says(path, version, info, engine):
    assert conda_engines.look(path, answers(version, info)) == engine


@pytest.mark.parametrize(
    ("asked", "found", "begun", "checksum", "method", "executable", "said"),
    [
        ({}, [], False, "sha256:0", "installer", OURS.executable, []),
        ({}, [OTHER], False, "", "existing", OTHER.executable, []),
        ({}, [OURS, OTHER], False, "", "existing", OURS.executable, []),
        ({}, [OURS], True, "sha256:0", "installer", OURS.executable, []),  # it answers, and is not whole
        ({}, [], False, "", "installer", OURS.executable, ["expected conda_installer_checksum"]),
        ({"method": "installer"}, [OTHER], False, "sha256:0", "installer", OURS.executable, []),
        ({"method": "installer"}, [OURS], False, "sha256:0", "existing", OURS.executable, []),
        ({"method": "existing"}, [], False, "", "existing", "", ["expected conda, mamba or micromamba"]),
        ({"executable": OTHER.executable}, [OURS, OTHER], False, "", "existing", OTHER.executable, []),
        ({"executable": "/x/conda"}, [OURS], False, "", "existing", "/x/conda", ["expected /x/conda to answer"]),
    ],
)
def test_which_conda_it_will_be(asked, found, begun, checksum, method, executable, said):
    way = conda_engines.choose(
        **{"method": "auto", "executable": "", **asked}, home=HOME, found=found, begun=begun, checksum=checksum
    )
    assert (way.method, way.executable) == (method, executable)
    assert len(way.problems) == len(said)
    for problem, text in zip(way.problems, said):
        assert text in problem


def test_a_folder_of_somebody_else_is_not_installed_over(tmp_path):
    (tmp_path / "notes").touch()
    way = conda_engines.choose("auto", str(tmp_path), "", [], begun=False, checksum="sha256:0")
    assert "found something that is no conda; move it away" in way.problems[0]
    assert conda_engines.choose("auto", str(tmp_path), "", [], begun=True, checksum="sha256:0").problems == ()


@pytest.mark.parametrize(
    ("channels", "command"),
    [
        ([], ["/c", "create", "--yes", "--prefix", "/e", "python=3.11"]),
        (
            ["https://mirror/conda-forge"],
            ["/c", "create", "--yes", "--prefix", "/e", "--override-channels", "--channel"]
            + ["https://mirror/conda-forge", "python=3.11"],
        ),
    ],
)
def test_the_command_that_makes_an_environment(channels, command):
    params = {"executable": "/c", "prefix": "/e", "python": "3.11", "channels": channels}
    assert conda_environment.create_command(params) == command


def test_the_environments_own_settings_name_its_channels():
    assert conda_environment.condarc(["conda-forge", "https://m/x"]) == (
        'channels:\n  - "conda-forge"\n  - "https://m/x"\n'
    )


def test_environments_in_a_home_that_a_killed_run_left_are_not_removed(tmp_path):
    (tmp_path / "envs/mine").mkdir(parents=True)
    way = conda_engines.choose("auto", str(tmp_path), "", [], True, "sha256:0")
    assert len(way.problems) == 1
    assert "expected no environment in" in way.problems[0]
    assert "found mine;" in way.problems[0]
