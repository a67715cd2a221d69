# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `ocrfleet`: arguments in, exit code out."""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, cast

from rich.console import Console
from rich.text import Text

from ocrfleet import compare, errors, hooks, output, planning, report
from ocrfleet import policy as policies
from ocrfleet.ansible import check_playbooks, read_inventory
from ocrfleet.display import Output, Progress
from ocrfleet.errors import FleetError, Refused
from ocrfleet.rollout import Driver
from ocrfleet.state import OVER, OtherFormat, State
from ocrfleet.store import Store, default_folder, left_out
from ocrfleet.survey import Survey, survey
from ocrfleet.temporary import files_below
from ocrfleet.text import one_line, plain

EXIT_CODES = "exit codes:\n" + "\n".join(f"  {code}  {meaning}" for code, meaning in sorted(errors.MEANING.items()))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="ocrfleet",
        description="Roll the GPU stack out over a fleet, wave by wave, and resume after whatever happens.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--state-dir", type=Path, default=default_folder(), help="folder of all rollouts (%(default)s)")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    shape = argparse.ArgumentParser(add_help=False)
    shape.add_argument(
        "-i", "--inventory", action="append", required=True, help="as for ansible-playbook; may be repeated"
    )
    shape.add_argument("-l", "--limit", help="only these hosts, as for ansible-playbook")
    shape.add_argument("-p", "--policy", help="the policy file; without one, its defaults")
    shown = argparse.ArgumentParser(add_help=False)
    shown.add_argument("--query", help="JMESPath on the data, for example \"hosts[?state=='failed'].name\"")
    shown.add_argument("--output", choices=("table", "json"), default="table", help="how to print it (%(default)s)")
    which = argparse.ArgumentParser(add_help=False)
    which.add_argument("rollout", nargs="?", help="the rollout's id, or its beginning; the newest without one")
    waits = argparse.ArgumentParser(add_help=False)
    waits.add_argument("--no-wait", action="store_true", help="end instead of waiting; `ocrfleet resume` goes on")

    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--here", action="store_true", help="run Ansible here, not at the policy's workers")

    def add(name: str, parents: list[argparse.ArgumentParser], text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, parents=parents, help=text, description=text[0].upper() + text[1:] + ".")

    add("plan", [shape, shown], "show the waves, and which hosts differ; nothing is changed")
    add("rollout", [shape, waits], "convert the fleet")
    add("resume", [which, waits, place], "go on with a rollout that was killed, stopped or paused")
    rollback = add("rollback", [which, place], "put back every host that a rollout converted")
    rollback.add_argument(
        "--ignore-limits",
        action="store_true",
        help="also where at_once, that of a group or apart forbids it, with hosts down that do not come back",
    )
    status = add("status", [which, shown], "show a rollout, or all of them")
    status.add_argument("--all", action="store_true", help="list all rollouts")
    add("report", [which, shown], "write the report of a rollout, and show it")
    runs = add("compare", [shown], "show in what two runs differ: what was asked for, what is there, what was measured")
    for name in ("first", "second"):
        runs.add_argument(name, type=Path, help=f"the report's folder of the {name} run, or its evidence.json")
    add("pause", [which], "stop a rollout after the hosts that are under way; resume goes on")
    add("approve", [which], "let the next wave begin")
    add("abort", [which], "end a rollout for good after the hosts that are under way")
    return top


def look(args: argparse.Namespace, console: Console) -> tuple[policies.Policy, planning.Fleet, Survey]:
    """What both `plan` and `rollout` begin with. Wrong inputs are found before a host is asked."""
    policy = policies.load(args.policy)
    fleet = read_inventory(args.inventory, args.limit)
    if not fleet.hosts:
        raise FleetError("expected hosts in the inventory, found none; name another with -i, or widen --limit")
    whole = read_inventory(args.inventory, None) if args.limit else fleet
    known = set(whole.hosts)
    groups = {name for names in whole.groups.values() for name in names}
    strange = [f"group {name}" for name in policy["groups"] if name not in groups]
    strange += [f"host {name}" for members in policy["apart"] for name in members if name not in known]
    if strange:
        raise FleetError(
            f"the policy names what the inventory does not have: {', '.join(strange)}; correct one of them"
        )
    found = hooks.missing(policy["hooks"])
    if found:
        raise FleetError("the policy is not right; nothing was touched.\n- " + "\n- ".join(found))
    named = [policy["playbook"], policy["rollback_playbook"]]
    there = bool(policy["workers"])
    check_playbooks(named, {**policy["variables"], "rollback_baseline": "none"}, there)
    check_playbooks([hook["playbook"] for hook in policy["hooks"].values() if "playbook" in hook], {}, there)
    console.print(Text(f"asking {len(fleet.hosts)} hosts which baseline they have"))
    asked = survey(args.inventory, fleet.hosts, policy, lambda *_: None)
    if not asked.baselines:
        why = Counter(asked.silent.values())
        told = [f"{number} hosts: {text}" for text, number in why.most_common(5)]
        raise FleetError("no host told which baseline it has; nothing was touched.\n- " + "\n- ".join(told))
    refuse_vain(policy, fleet, planning.waves(fleet.hosts, asked.baselines, policy))
    return policy, fleet, asked


def refuse_vain(policy: policies.Policy, fleet: planning.Fleet, waves: list[planning.Wave]) -> None:
    """Raise FleetError where the policy asks for what will never come: it would be waited for, or passed over."""
    late = [number for number in policy["approve_after"] if number >= len(waves)]
    if late:
        raise FleetError(
            f"approve_after: expected numbers of waves that another one follows, found {', '.join(map(str, late))}; "
            f"`ocrfleet plan` shows {len(waves)} waves here"
        )
    shut = planning.never_open(fleet, policy, datetime.now(timezone.utc))
    if shut:
        raise FleetError(
            f"windows: expected a time at which all windows of a host are open, found none within a week for "
            f"{', '.join(shut[:5])}{' …' if len(shut) > 5 else ''}; correct those of its groups"
        )


def plan_data(policy: policies.Policy, fleet: planning.Fleet, found: Survey) -> dict[str, Any]:
    members = planning.cohorts(fleet.hosts, found.baselines)
    return {
        "baselines": [
            {
                "baseline": name,
                "hosts": len(hosts),
                "flashinfer": ", ".join(sorted({found.flashinfer.get(host, "unknown") for host in hosts})),
                "which": hosts if len(hosts) <= 10 else [*hosts[:9], f"and {len(hosts) - 9} more"],
            }
            for name, hosts in members.items()
        ],
        "waves": [
            {"number": wave.number, "baseline": wave.cohort, "canary": wave.canary, "hosts": list(wave.hosts)}
            for wave in planning.waves(fleet.hosts, found.baselines, policy)
        ],
        "silent": found.silent,
    }


def show_plan(data: dict[str, Any], console: Console) -> None:
    for row in data["baselines"]:
        what = f"{row['hosts']} hosts, FlashInfer {row['flashinfer']}: {', '.join(row['which'])}"
        text = f"baseline {row['baseline'][:12]}: {what}"
        console.print(Text(one_line(text, 1000)), soft_wrap=True)
    if len(data["baselines"]) > 1:
        console.print("More than one baseline: each has waves of its own, with a canary of its own.")
    for wave in data["waves"]:
        hosts = wave["hosts"]
        names = ", ".join(hosts[:8]) + (f" and {len(hosts) - 8} more" if len(hosts) > 8 else "")
        mark = " canary" if wave["canary"] else ""
        console.print(
            Text(one_line(f"wave {wave['number']}{mark} ({wave['baseline'][:12]}): {names}", 1000)), soft_wrap=True
        )
    for host, why in data["silent"].items():
        console.print(Text(f"no answer from {one_line(host)}: {one_line(why)}", "red"), soft_wrap=True)


def plan(args: argparse.Namespace, console: Console) -> int:
    with files_below(Store(args.state_dir).folder):
        data = plan_data(*look(args, Console(stderr=True)))
    present(data, args, console, lambda: show_plan(data, console))
    return errors.DONE


def present(data: Any, args: argparse.Namespace, console: Console, show: Any) -> None:
    if args.query is not None:
        data = output.query(data, args.query)
    if args.output == "json":
        output.show_json(data)
    elif args.query is not None:
        output.show_table(data, console)
    else:
        show()


def free(store: Store, state: State, back: bool) -> None:
    """Refuse where another rollout has come between."""
    hosts = [host.name for host in state.hosts() if not back or host.first is not None]
    store.refuse_overlap(hosts, state.id)
    to_do = state.to_put_back() if back else state.to_convert()
    store.refuse_converted_later([host.name for host in to_do], state)


def go_where_it_began(state: State) -> None:
    try:
        os.chdir(state.cwd)
    except OSError as error:
        raise FleetError(
            f"rollout {state.id} was begun in {state.cwd}, and its playbooks, hooks and ansible.cfg are named from "
            f"there: {error}; bring that folder back"
        ) from error


def left_elsewhere(store: Store, state: State) -> dict[str, Any]:
    """What a driver has to know of other rollouts: which hosts they left out of service, and which of these drained."""
    away = store.out_of_service(but=state.id)
    # A group's limit counts those, too, that this rollout has nothing to do with.
    groups = read_inventory(state.inventory, None).groups if away and state.policy["groups"] else {}
    drained = {name for name, found in away.items() if found.drained}
    return {"elsewhere": {name: groups.get(name, []) for name in away}, "drained": drained}


def drive(
    store: Store,
    state: State,
    console: Console,
    wait: bool,
    back: bool = False,
    here: bool = False,
    ignore_limits: bool = False,
) -> int:
    go_where_it_began(state)
    left = left_elsewhere(store, state)
    with Progress(state, console) as progress:
        driver = Driver(state, progress, wait=wait, **left, here=here)
        if isinstance(console.file, Output):
            driver.interrupted = console.file.lost  # nobody follows it any more: as with Ctrl-C
        code = driver.back(ignore_limits) if back else driver.forward()
    output.show_rollout(output.rollout_data(state, False), console, every_host=False)
    if code in (errors.STOPPED, errors.PAUSED) and state.state not in OVER:
        how = f"rollback {state.id} --ignore-limits" if ignore_limits else f"resume {state.id}"
        console.print(Text(f"go on with: ocrfleet {how}"), soft_wrap=True)
    return code


def rollout(args: argparse.Namespace, console: Console) -> int:
    store = Store(args.state_dir)
    with store.driver("rollout") as working_on:
        policy, fleet, found = look(args, console)
        store.refuse_overlap(fleet.hosts)
        for name, why in store.look():
            if isinstance(why, FleetError) and not isinstance(why, OtherFormat):
                said = f"whether rollout {name} has some of these hosts cannot be told: {plain(why)}"
                console.print(Text(said, "red"))
        waves = planning.waves(fleet.hosts, found.baselines, policy)
        inventory = [str(Path(source).absolute()) if Path(source).exists() else source for source in args.inventory]
        state = State.create(store.new(), policy, inventory, fleet, waves)
        working_on(state.id)
        show_plan(plan_data(policy, fleet, found), console)
        console.print(Text(f"rollout {state.id}"))
        return drive(store, state, console, not args.no_wait)


def resume(args: argparse.Namespace, console: Console) -> int:
    store = Store(args.state_dir)
    with store.driver("resume") as working_on:
        state = store.open(args.rollout)
        working_on(state.id)
        if state.backward and state.state in OVER:
            raise FleetError(
                f"rollout {state.id} is {state.state}; there is nothing to resume, "
                f"`ocrfleet rollback {state.id}` takes up what is not back"
            )
        free(store, state, state.backward)
        return drive(store, state, console, not args.no_wait, back=state.backward, here=args.here)


def rollback(args: argparse.Namespace, console: Console) -> int:
    store = Store(args.state_dir)
    with store.driver("rollback") as working_on:
        state = store.open(args.rollout)
        working_on(state.id)
        free(store, state, True)
        return drive(store, state, console, True, back=True, here=args.here, ignore_limits=args.ignore_limits)


def status(args: argparse.Namespace, console: Console) -> int:
    store = Store(args.state_dir)
    if args.all:
        out = left_out(s for _name, s in store.look() if isinstance(s, State))
        rows: list[dict[str, Any]] = [
            {
                "id": s.id,
                "state": s.state,
                "created": output.stamp(s.created),
                "hosts": s.counts(),
                "out_of_service": [name for name, found in out.items() if found.rollout == s.id],
            }
            if isinstance(s, State)
            else {"id": name, "state": str(s), "created": None, "hosts": {}, "out_of_service": []}
            for name, s in store.look()
        ]
        present(rows, args, console, lambda: output.show_table(rows, console))
        return errors.DONE
    state = store.open(args.rollout)
    data = output.rollout_data(state, store.is_driven(state.id))
    present(data, args, console, lambda: output.show_rollout(data, console, every_host=True))
    if args.query is None and args.output == "table" and not data["at_work"] and data["state"] not in OVER:
        console.print(Text(f"no driver is at work on it; go on with: ocrfleet resume {data['id']}"), soft_wrap=True)
    return errors.DONE


def show_report(args: argparse.Namespace, console: Console) -> int:
    state = Store(args.state_dir).open(args.rollout)
    data = report.fleet_data(state, whole=args.query is not None or args.output == "json")
    files = report.write(state, data)
    present(data, args, console, lambda: report.show(data, console))
    for file in files:
        Console(stderr=True).print(Text(f"written: {file}"), soft_wrap=True)
    return errors.DONE


def show_comparison(args: argparse.Namespace, console: Console) -> int:
    data = compare.compare(compare.load(args.first), compare.load(args.second))
    present(data, args, console, lambda: compare.show(data, console))
    return errors.DONE


def ask(args: argparse.Namespace, console: Console) -> int:
    """pause, approve, abort: a driver at work takes the request; without one, it is carried out here."""
    store = Store(args.state_dir)
    state = store.open(args.rollout)
    if state.state in OVER:
        raise FleetError(f"rollout {state.id} is {state.state}; there is nothing to {args.command}")
    if args.command == "approve" and state.state != "waiting":
        raise FleetError(f"rollout {state.id} is {state.state}; expected one that waits for an approval")
    is_driven = store.is_driven(state.id)
    if is_driven or args.command == "approve":
        state.request(args.command)
        console.print(Text(f"{args.command} is noted for rollout {state.id}"))
        if not is_driven:
            console.print(Text(f"go on with: ocrfleet resume {state.id}"), soft_wrap=True)
    else:
        with store.driver(args.command) as working_on:
            working_on(state.id)
            if args.command == "pause":
                state.set_state("paused", "as requested")
            else:
                go_where_it_began(state)
                with Progress(state, console) as progress:
                    Driver(state, progress, **left_elsewhere(store, state)).abort()
        console.print(Text(f"rollout {state.id} is {state.state}"))
    return errors.DONE


COMMANDS = {
    "plan": plan,
    "rollout": rollout,
    "resume": resume,
    "rollback": rollback,
    "status": status,
    "report": show_report,
    "compare": show_comparison,
    "pause": ask,
    "approve": ask,
    "abort": ask,
}


def main(argv: Sequence[str] | None = None) -> int:
    if not sys.stdout:  # closed by whoever started this, and ansible-runner writes to it
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the process lives
    args = parser().parse_args(argv)
    # A driver must not end half way for want of a reader.
    file = cast(IO[str], Output(sys.stdout)) if args.command in ("rollout", "resume", "rollback") else None
    console = Console(file=file, highlight=False, soft_wrap=False, markup=False)
    try:
        return COMMANDS[args.command](args, console)
    except FleetError as error:
        sys.stderr.write(f"ocrfleet: {plain(error, 20000)}\n")
        return Refused.code if isinstance(error, Refused) else error.code
    except (OSError, sqlite3.Error) as error:
        # A full disk, say. What was written before holds; hosts under way are looked at by whoever resumes.
        sys.stderr.write(f"ocrfleet: the state cannot be kept: {plain(error, 20000)}; mend that, then resume\n")
        return errors.STATE
