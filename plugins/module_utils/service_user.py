# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""See an environment as the user of its services does.

Root reads every file and writes into every cache; what serves is mostly another user. A check as root passes where the
service then cannot read a package, open the GPU or keep its compiled kernels.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import pwd
import signal
import tempfile
import traceback
from multiprocessing.connection import Connection
from typing import Any, Callable

from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import commands
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.staging import Stage

_NEW_MOUNT_NAMESPACE = 0x00020000  # CLONE_NEWNS of sched.h
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of linux/prctl.h
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # systemd.exec(5): what a service gets
_FAILED = "could not be asked as the user"


def name() -> str:
    """Of the user at work; the number where no account has it, as in a container."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def chosen(user: str) -> tuple[str, str]:
    """The user to check as, "" for the one at work, and what stands in the way of the one that is asked for."""
    if not user:
        return "", ""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return "", f"expected a user of this host, found no account {user!r}: correct the name"
    if account.pw_uid == os.geteuid():
        return "", ""
    if os.geteuid() != 0:
        return "", f"only root can check as {user}, and this is {name()}: set become, or leave it out"
    return user, ""


def require(user: str, path: str) -> None:
    """Raise PermissionError, which names what is closed, where this process, run as `user`, cannot read `path`."""
    path = os.path.realpath(path)
    places = [path[:end] or "/" for end, letter in enumerate(path) if letter == "/"]
    for place in places:
        if not os.access(place, os.X_OK):
            raise PermissionError(f"{path} cannot be read, as {place} is closed to {user}")
    if not os.access(path, os.R_OK):
        raise PermissionError(f"{path} cannot be read by {user}")


def call(user: str, stage: Stage, work: Callable[[Stage], Any]) -> Any:
    """What `work` returns, as JSON has it, called as `user` with the candidate lying at the environment's own path.

    `work` runs in a process of its own, and gets a stage without a candidate. It can read nothing of root's, so that
    programs it writes (`programs.text`) must have been read before. Raises RuntimeError where it does not return.
    """
    receiver, sender = multiprocessing.get_context("fork").Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_become, args=(user, stage, work, sender))
    process.start()
    sender.close()
    try:
        # As JSON: the other end is no longer root, and to unpickle what it sends would be to obey it.
        answer = json.loads(receiver.recv_bytes())
    except (EOFError, ValueError):
        process.join()
        raise RuntimeError(f"{stage.environment} {_FAILED} {user}: the process ended with {process.exitcode}") from None
    process.join()
    if "error" in answer:
        raise RuntimeError(f"{stage.environment} {_FAILED} {user}: {answer['error']}")
    return answer["returned"]


def _become(user: str, stage: Stage, work: Callable[[Stage], Any], sender: Connection) -> None:
    try:
        if stage.candidate is not None:
            _bind(stage.candidate, stage.environment)
        _drop(pwd.getpwnam(user))
        answer = {"returned": work(Stage(stage.environment))}
    except PermissionError as error:
        answer = {"error": f"{error}; give that user the right to it, or name another (verify_user)"}
    except BaseException:
        answer = {"error": traceback.format_exc()}
    sender.send_bytes(json.dumps(answer).encode())


def _bind(candidate: str, environment: str) -> None:
    """As `staging` does for one command, for this whole process."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNT_NAMESPACE) != 0:
        raise OSError(ctypes.get_errno(), "unshare: " + os.strerror(ctypes.get_errno()))
    for argv in (["mount", "--make-rprivate", "/"], ["mount", "--bind", "--", candidate, environment]):
        result = commands.run(argv, timeout=30)
        if not result.ok:
            raise OSError(result.outcome())


def _drop(account: pwd.struct_passwd) -> None:
    """Be that user for good, with the surroundings that a service of theirs has."""
    os.initgroups(account.pw_name, account.pw_gid)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    # The module may be ended at a time limit: what it began must not go on beside the next run. Changing the user had
    # cleared it.
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    for name in [name for name in os.environ if name.startswith("XDG_") or name in ("TMPDIR", "TEMP", "TMP")]:
        del os.environ[name]
    os.environ.update(HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name, PATH=_PATH)
    tempfile.tempdir = None
    os.chdir("/")
