# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import needs, package_plan
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.distributions import Damage, Distribution
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils.uv import Change, Unsatisfiable

INSTALLED = {
    name: Distribution(name, version, "")
    for name, version in [
        ("torch", "2.8.0"),
        ("nvidia-cublas-cu12", "12.8.4.1"),
        ("vllm", "0.11.0"),
        ("pillow", "13.0.0"),
    ]
}


class ScriptedUv:
    """Stands in for uv: answers by the constraints it is given, and remembers them."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    stage = None

    def changes(self, requirements, constraints, lock="", no_deps=False):
        self.asked.append({"requirements": requirements, "constraints": constraints, "lock": lock, "no_deps": no_deps})
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def obtainable(self, requirement):
        return "no such version" if "cubin" in requirement else None

    def declared(self, requirements, lock=""):
        return ["torch", "six", "tvm==1b15"]

    def required_by(self, requirements, versions):
        self.traced = {"requirements": requirements, "versions": versions}
        return {"six": ["tabulate"], "flashinfer-python": [], "torch": ["xformers"]}


def make(uv, **request):
    request.setdefault("requirements", ["flashinfer-python==0.3.1"])
    return package_plan.make(uv, package_plan.Request(**request), INSTALLED, request.pop("damaged", []))


ADDED = [Change("flashinfer-python", None, "0.3.1")]
FOREIGN = [*ADDED, Change("cuda-bindings", None, "13.5.0")]


def test_everything_installed_is_a_constraint_under_all():
    uv = ScriptedUv(ADDED)
    plan = make(uv, protect=["all"])
    assert uv.asked[0]["constraints"] == [
        "torch==2.8.0",
        "nvidia-cublas-cu12==12.8.4.1",
        "vllm==0.11.0",
        "pillow==13.0.0",
    ]
    assert plan.pins == ["flashinfer-python==0.3.1"]


@pytest.mark.parametrize(
    ("protect", "names"),
    [
        (["torch"], {"torch", "nvidia-cublas-cu12"}),
        (["Pillow"], {"pillow"}),
        (["nvidia-*", "vllm"], {"nvidia-cublas-cu12", "vllm"}),
        ([], set()),
    ],
)
def test_protect_takes_families_names_and_patterns(protect, names):
    assert set(package_plan.protected(INSTALLED, protect)) == names


def test_a_name_that_protects_nothing_is_refused():
    with pytest.raises(package_plan.Refused, match="found none installed for tourch, cupy-[*]; correct them"):
        make(ScriptedUv(ADDED), protect=["torch", "tourch", "Pillow", "cupy-*"])


def test_what_cannot_be_had_of_the_optional_is_left_out_with_the_reason():
    uv = ScriptedUv(ADDED)
    plan = make(uv, optional=["flashinfer-cubin==0.3.1", "flashinfer-jit-cache==0.3.1"])
    assert uv.asked[0]["requirements"] == ["flashinfer-python==0.3.1", "flashinfer-jit-cache==0.3.1"]
    assert plan.left_out == [{"requirement": "flashinfer-cubin==0.3.1", "reason": "no such version"}]


def test_an_optional_that_does_not_fit_is_left_out_and_the_others_are_kept():
    jit, extra = "flashinfer-jit-cache==0.3.1", "flashinfer-extra==0.3.1"
    uv = ScriptedUv(Unsatisfiable("both"), Unsatisfiable("jit-cache depends on torch>=99"), ADDED, ADDED)
    plan = make(uv, optional=[jit, extra])
    assert plan.left_out == [{"requirement": jit, "reason": "it does not fit: jit-cache depends on torch>=99"}]
    assert uv.asked[-1]["requirements"] == ["flashinfer-python==0.3.1", extra]


def test_without_the_optional_the_error_is_that_of_the_requirements():
    uv = ScriptedUv(*[Unsatisfiable("with it")] * 2, Unsatisfiable("there is no version of flashinfer-python"))
    with pytest.raises(Unsatisfiable, match="there is no version of flashinfer-python"):
        make(uv, optional=["flashinfer-jit-cache==0.3.1"])


def test_a_foreign_cuda_package_is_excluded_and_resolved_around():
    uv = ScriptedUv(FOREIGN, ADDED)
    plan = make(uv, cuda_major=12)
    assert "cuda-bindings>=12,<13" in uv.asked[1]["constraints"]
    assert plan.changes == ADDED
    assert [row["name"] for row in plan.excluded] == ["cuda-bindings"]


def test_no_way_around_a_foreign_cuda_package_is_refused_by_name():
    uv = ScriptedUv(FOREIGN, Unsatisfiable("flashinfer-python depends on cuda-bindings>=13"))
    with pytest.raises(package_plan.Refused, match=r"cuda-bindings 13.5.0 \(CUDA 13\).*depends on") as refusal:
        make(uv, cuda_major=12)
    assert refusal.value.offending[0]["name"] == "cuda-bindings"


def test_the_operator_may_allow_one_by_name():
    assert make(ScriptedUv(FOREIGN), cuda_major=12, allow=["cuda_bindings"]).changes == FOREIGN


def test_a_request_that_wants_another_torch_is_refused_with_each_package_named():
    moved = [Change("xformers", "0.0.32.post1", "0.0.28.post1"), Change("torch", "2.8.0", "2.4.1")]
    uv = ScriptedUv(Unsatisfiable("xformers==0.0.28.post1 depends on torch==2.4.1"), moved)
    with pytest.raises(
        package_plan.Refused, match=r"torch 2.8.0 -> 2.4.1 \(required by xformers\).*depends on"
    ) as refusal:
        make(uv, requirements=["xformers==0.0.28.post1"], protect=["torch"])
    assert refusal.value.offending == [{"name": "torch", "before": "2.8.0", "after": "2.4.1"}]


def test_a_version_that_does_not_exist_is_told_as_such():
    uv = ScriptedUv(Unsatisfiable("conflict"), Unsatisfiable("there is no version of flashinfer-python==9"))
    with pytest.raises(Unsatisfiable, match="no version of flashinfer-python==9"):
        make(uv, protect=["all"])


def test_a_protected_package_that_moves_all_the_same_is_refused():
    # The guard does not rely on the resolver: what it returns is looked at too.
    with pytest.raises(package_plan.Refused, match=r"torch 2.8.0 -> removed"):
        make(ScriptedUv([Change("torch", "2.8.0", None)]), protect=["torch"])


LOCK = "pillow==13.0.0 \\\n    --hash=sha256:aa\nflashinfer-python==0.3.1 \\\n    --hash=sha256:bb\n"


def test_a_lock_is_used_unless_it_contradicts_what_is_installed():
    uv = ScriptedUv(ADDED, ADDED)
    assert make(uv, lock=LOCK).lock_used
    assert not make(uv, lock=LOCK.replace("13.0.0", "12.0.0")).lock_used
    assert [bool(asked["lock"]) for asked in uv.asked] == [True, False]


def test_a_lock_is_installed_exactly():
    uv = ScriptedUv(ADDED)
    plan = make(uv, lock=LOCK, lock_exact=True, protect=["all"], optional=["flashinfer-cubin==0.3.1"])
    asked = uv.asked[0]
    assert asked["requirements"] == ["flashinfer-python==0.3.1"] and "pillow==13.0.0" in asked["constraints"]
    assert not asked["no_deps"] and asked["lock"] == LOCK and plan.lock_used
    assert plan.left_out == [{"requirement": "flashinfer-cubin==0.3.1", "reason": "the lock does not hold it"}]


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        (LOCK.replace("13.0.0", "12.0.0"), "it holds pillow 12.0.0, installed and protected is 13.0.0"),
        (LOCK.replace("0.3.1", "0.6.13"), "asked for is flashinfer-python==0.3.1, it holds flashinfer-python 0.6.13"),
        ("six==1.17.0 --hash=sha256:aa\n", "it holds no flashinfer-python"),
        ("", "it holds no flashinfer-python"),
    ],
)
def test_a_lock_that_does_not_fit_is_refused(lock, said):
    with pytest.raises(package_plan.Refused, match=said):
        make(ScriptedUv(), lock=lock, lock_exact=True, protect=["all"])


def test_a_lock_with_another_cuda_is_refused_unless_allowed():
    lock = LOCK + "cuda-bindings==13.5.0 --hash=sha256:cc\n"
    with pytest.raises(package_plan.Refused, match=r"cuda-bindings 13.5.0 \(CUDA 13\).*the lock holds them"):
        make(ScriptedUv(FOREIGN), lock=lock, lock_exact=True, cuda_major=12)
    assert make(ScriptedUv(FOREIGN), lock=lock, lock_exact=True, cuda_major=12, allow=["cuda-bindings"]).changes


TVM = Unsatisfiable("flashinfer-python==0.3.1 depends on apache-tvm-ffi==0.1.0b15")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (TVM, r"the lock cannot be installed as it is: flashinfer-python==0.3.1 depends on apache-tvm-ffi"),
        ([*ADDED, Change("six", None, "1.17.0")], r"the lock does not hold what its packages depend on: six 1.17.0"),
    ],
)
def test_a_lock_that_lacks_what_its_packages_declare_is_refused(answer, said):
    with pytest.raises(package_plan.Refused, match=said):
        make(ScriptedUv(answer), lock=LOCK, lock_exact=True, protect=["all"])


SURPLUS = "nothing that was asked for depends on: {}. Expected"


def test_a_lock_that_holds_what_nothing_depends_on_is_refused():
    """It is what a host tells of itself, and all its like install it: its hashes are of whatever that host wanted."""
    lock = LOCK + "six==1.17.0 --hash=sha256:cc\nevil==6.6 --hash=sha256:dd\n"
    six = Change("six", None, "1.17.0")
    with pytest.raises(package_plan.Refused, match=SURPLUS.format("evil 6.6")) as refusal:
        make(ScriptedUv([*ADDED, six]), lock=lock, lock_exact=True, protect=["all"])
    assert refusal.value.offending == [{"name": "evil", "before": None, "after": "6.6"}]


def test_a_lock_for_hosts_of_several_kinds_is_refused_as_such():
    lock = LOCK + "colorama==0.4.6 ; sys_platform == 'win32' \\\n    --hash=sha256:cc\n"
    with pytest.raises(package_plan.Refused, match="by environment markers, .*another kind: colorama 0.4.6.*universal"):
        make(ScriptedUv(ADDED), lock=lock, lock_exact=True)


def test_what_a_marker_holds_here_is_installed():
    lock = LOCK + "colorama==0.4.6 ; sys_platform == 'linux' \\\n    --hash=sha256:cc\n"
    changes = [*ADDED, Change("colorama", None, "0.4.6")]
    assert "colorama==0.4.6" in make(ScriptedUv(changes), lock=lock, lock_exact=True).pins


def test_what_is_installed_in_another_version_is_surplus_too():
    """What nothing depends on is not made right by an older one that lies here."""
    lock = LOCK + "vllm==9.9 --hash=sha256:cc\n"
    with pytest.raises(package_plan.Refused, match=SURPLUS.format("vllm 9.9")):
        make(ScriptedUv(ADDED), lock=lock, lock_exact=True)


def test_a_lock_may_hold_what_is_optional_and_what_is_there():
    lock = LOCK + "flashinfer-cubin==0.3.1 --hash=sha256:cc\n"
    uv = ScriptedUv([*ADDED, Change("flashinfer-cubin", None, "0.3.1")])
    plan = make(uv, lock=lock, lock_exact=True, optional=["flashinfer-cubin==0.3.1"])
    assert uv.asked[0]["requirements"] == ["flashinfer-python==0.3.1", "flashinfer-cubin==0.3.1"]
    assert plan.pins == ["flashinfer-python==0.3.1", "flashinfer-cubin==0.3.1"]


def test_a_pin_with_extras_is_a_pin():
    lock = "cuda-tile[tileiras]==1.2.0 --hash=sha256:aa\ntileiras==13.1 --hash=sha256:bb\n"
    assert package_plan.locked_versions(lock) == {"cuda-tile": "1.2.0", "tileiras": "13.1"}


def test_damaged_packages_are_part_of_the_plan():
    request = package_plan.Request(["vllm"])
    plan = package_plan.make(ScriptedUv([]), request, INSTALLED, [Damage("vllm", "0.11.0", ["gone"])])
    assert plan.pins == ["vllm==0.11.0"]


def test_the_plan_says_who_requires_what_comes():
    uv = ScriptedUv([*ADDED, Change("six", None, "1.17.0")])
    assert make(uv).required_by == {"flashinfer-python": [], "six": ["tabulate"]}
    assert uv.traced["versions"]["torch"] == "2.8.0" and uv.traced["versions"]["six"] == "1.17.0"


NEEDS = {"torch": ("2.8.0", needs.SATISFIED), "vllm": ("0.11.0", ""), "six": (None, ""), "tvm": (None, "")}
GONE = Unsatisfiable("there is no version of tvm==1b15")


@pytest.fixture
def declared(monkeypatch):
    """What the environment's Python would say of the named requirements."""

    def declare(*names):
        def read(stage, texts, coming=None):
            found = [needs.Need(name, name, *NEEDS[name]) for name in names]
            for need in found:
                if need.name in (coming or {}):
                    need.installed, need.status = coming[need.name], needs.SATISFIED
            return found

        monkeypatch.setattr(needs, "read", read)

    return declare


def test_declared_needs_are_told_apart_and_what_can_be_had_is_added(declared):
    declared("torch", "vllm", "six", "tvm")
    six = [Change("six", None, "1.17.0")]
    # The package alone; all needs at once, which fails, and why; each by itself; those that can be had.
    uv = ScriptedUv(ADDED, GONE, GONE, six, GONE, GONE, six)
    plan = make(uv, protect=["all"], declared_only=True, accept_unmet=["vllm", "TVM"])
    assert [(need.name, need.status) for need in plan.needs] == [
        ("torch", "satisfied"),
        ("vllm", "conflicting"),
        ("six", "installed"),
        ("tvm", "unavailable"),
    ]
    assert plan.pins == ["flashinfer-python==0.3.1", "six==1.17.0"]
    assert "no version of tvm" in plan.needs[3].reason and "protected" in plan.needs[1].reason
    assert uv.asked[0]["no_deps"] and not uv.asked[1]["no_deps"]
    assert plan.required_by["six"] == ["flashinfer-python", "tabulate"]


def test_an_unmet_need_refuses_though_the_package_imports_without(declared):
    declared("torch", "tvm")
    with pytest.raises(
        package_plan.Refused, match=r"tvm is unavailable \(there is no version of tvm==1b15\)"
    ) as refusal:
        make(ScriptedUv(ADDED, GONE, GONE, GONE, GONE), protect=["all"], declared_only=True, accept_unmet=["six"])
    assert [need.status for need in refusal.value.needs] == ["satisfied", "unavailable"]
    assert [row["name"] for row in refusal.value.offending] == ["tvm"]


def test_a_need_that_would_move_what_is_protected_conflicts(declared):
    declared("six")
    moved = Unsatisfiable("six depends on torch==2.4.1")
    away = [Change("torch", "2.8.0", "2.4.1")]
    uv = ScriptedUv(ADDED, moved, away, moved, away)
    plan = make(uv, protect=["torch"], declared_only=True, accept_unmet=["six"])
    assert plan.needs[0].status == "conflicting" and "torch 2.8.0 -> 2.4.1" in plan.needs[0].reason
    assert plan.pins == ["flashinfer-python==0.3.1"]


WITH_SIX = LOCK + "six==1.17.0 --hash=sha256:cc\n"


def test_declared_needs_are_told_apart_with_a_lock_too(declared):
    declared("torch", "vllm", "six", "tvm")
    six = Change("six", None, "1.17.0")
    uv = ScriptedUv(ADDED, [six])
    plan = make(uv, protect=["all"], lock=WITH_SIX, lock_exact=True, declared_only=True, accept_unmet=["vllm", "tvm"])
    assert [(need.name, need.status, need.reason) for need in plan.needs] == [
        ("torch", "satisfied", "2.8.0 is installed"),
        ("vllm", "conflicting", "0.11.0 is installed and protected"),
        ("six", "installed", "1.17.0 is added"),
        ("tvm", "unavailable", "the lock does not hold it"),
    ]
    assert uv.asked[0]["no_deps"] and uv.asked[1]["requirements"] == ["six"]
    assert plan.pins == ["flashinfer-python==0.3.1", "six==1.17.0"]


def test_a_lock_for_declared_needs_that_holds_more_is_refused(declared):
    declared("torch", "six")
    uv = ScriptedUv(ADDED, [Change("six", None, "1.17.0")])
    lock = WITH_SIX + "evil==6.6 --hash=sha256:dd\n"
    with pytest.raises(package_plan.Refused, match=SURPLUS.format("evil 6.6")):
        make(uv, protect=["all"], lock=lock, lock_exact=True, declared_only=True)


@pytest.mark.parametrize(
    ("lock", "more", "said"),
    [
        (LOCK, [], "six is unavailable .the lock does not hold it"),
        (WITH_SIX, [Change("abc", None, "2")], "the lock does not hold what its packages depend on: abc 2"),
    ],
)
def test_a_lock_without_a_declared_need_is_refused(declared, lock, more, said):
    declared("torch", "six")
    with pytest.raises(package_plan.Refused, match=said):
        make(ScriptedUv(ADDED, more), protect=["all"], lock=lock, lock_exact=True, declared_only=True)
