# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.filter.evidence import evidence

CHECKS = [
    {"name": "torch", "title": "PyTorch", "status": "passed", "seen": {"version": "2.8.0+cu128"}, "seconds": 4.0},
    {"name": "cuda", "title": "CUDA", "status": "not_run", "seen": None, "seconds": None},
]
METHOD = {
    "plan": {"added": [{"name": "flashinfer-python", "version": "0.3.1"}], "changed": []},
    "left_out": [{"requirement": "flashinfer-cubin==0.3.1", "reason": "there is no version of it"}],
    "excluded": [{"name": "cuda-bindings", "version": "13.5.0", "cuda_major": 13}],
    "seconds": 7.5,
}


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        ({"checks": CHECKS}, "verified"),
        ({"checks": CHECKS, "check_mode": True}, "planned"),
        ({"checks": CHECKS, "failure": "it broke"}, "failed"),
        ({"check_mode": True, "failure": "it broke"}, "failed"),
    ],
)
def test_the_result_follows_failure_and_mode(results, verdict):
    assert evidence(results)["result"] == verdict


def test_what_was_left_out_and_kept_out_is_noted_with_the_reason():
    assert evidence({"method_result": METHOD})["notes"] == [
        "flashinfer-cubin==0.3.1 left out: there is no version of it",
        "cuda-bindings 13.5.0 kept out: it is for CUDA 13",
    ]


@pytest.mark.parametrize(
    ("index", "told"),
    [("https://user:secret@h/whl?token=1", "https://h/whl"), ("", "the package index"), (None, "the package index")],
)
def test_the_index_of_flashinfer_jit_cache_is_told_where_that_came(index, told):
    added = {"plan": {"added": [{"name": "flashinfer-jit-cache", "version": "0.5.3+cu128"}]}}
    results = {"method_result": added, "jit_cache_index": index}
    assert evidence(results)["spec"]["flashinfer-jit-cache from"] == told
    assert "flashinfer-jit-cache from" not in evidence({**results, "method_result": METHOD})["spec"]


REMOVED = {"plan": {"removed": [{"name": "tabulate", "version": "0.9"}]}}
REMOVED["lost"] = [{"name": "x", "before": "1", "after": None}]


@pytest.mark.parametrize(
    ("results", "is_", "is_not"),
    [
        ({}, "is", "is not"),
        ({"check_mode": True}, "would be", "would not be"),
        ({"failure": "x"}, "would be", "would not be"),
    ],
)
def test_what_a_start_from_the_baseline_takes_out_was_taken_out_only_where_the_run_succeeded(results, is_, is_not):
    assert evidence({"moves": REMOVED, **results})["notes"] == [
        f"tabulate 0.9 {is_not} in the result",
        f"x, changed since FlashInfer came, was 1 and {is_} not there in the result",
    ]


def test_what_an_earlier_run_left_is_noted():
    found = {"changed": True, "recovered": {"found": "transaction a at open", "done": "the work was dropped"}}
    (note,) = evidence({"earlier": found})["notes"]
    assert note == "an earlier run did not end. Found: transaction a at open. Done: the work was dropped"
    assert evidence({"earlier": {"changed": False, "recovered": {"found": "nothing"}}})["notes"] == []
    assert evidence({"earlier": {"changed": True, "plan": ["end it"]}})["notes"] == []


def test_a_repair_of_the_baseline_is_noted():
    repaired = [{"name": "torch", "version": "2.8.0", "problems": ["torch/a.py: no such file", "torch/b.py: empty"]}]
    steps = {"PyTorch": {"plan": {"repaired": repaired}}, "OlmOCR": {}, "FlashInfer": METHOD}
    (note,) = evidence({"steps": steps})["notes"]
    assert note == (
        "torch 2.8.0 was damaged (torch/a.py: no such file; and 1 more) and was installed anew in the environment "
        "itself, with the step PyTorch"
    )
    (note,) = evidence({"steps": steps, "check_mode": True})["notes"]
    assert "would be installed anew" in note


def test_what_is_known_of_the_release_and_vllm_is_noted():
    assert evidence({"version": {"version": "0.6.13", "remark": "the sampler only"}})["notes"] == ["the sampler only"]


def test_what_each_method_and_need_came_to_is_noted():
    needs = [
        {"requirement": "torch", "status": "satisfied", "reason": "2.8.0 is installed"},
        {"requirement": "tvm==1", "status": "unavailable", "reason": "there is no version of tvm"},
    ]
    attempts = [{"method": "pypi", "verified": False, "task": "Resolve", "said": "refused"}]
    attempts.append({"method": "constrained", "verified": True})
    made = evidence({"method_result": {"needs": needs}, "attempts": attempts})
    assert made["needs"] == needs and made["attempts"] == attempts
    assert made["notes"] == [
        "pypi did not lead to a verified FlashInfer: Resolve: refused",
        "tvm==1, declared by FlashInfer, is unavailable: there is no version of tvm",
    ]


def test_times_are_those_of_the_steps_and_of_the_whole():
    made = evidence({"steps": {"FlashInfer": METHOD, "PyTorch": {}}, "checks": CHECKS, "started": 100.0, "now": 160.0})
    assert made["timings"] == {"FlashInfer": 7.5, "verify": 4.0, "all together": 60.0}
    assert made["finished"] == "1970-01-01T00:02:40Z"


def test_the_last_word_on_the_transaction_counts():
    made = evidence(
        {
            "begun": {"transaction": {"id": "a", "state": "open"}},
            "restored": {"transaction": {"id": "a", "state": "restored"}},
            "proof": {"proof": {"equal": True, "checked_files": 9, "damaged": [], "differences": [], "seconds": 1}},
        }
    )
    assert made["transaction"]["state"] == "restored"
    assert made["transaction"]["proof"] == {"equal": True, "checked_files": 9, "damaged": [], "differences": []}


@pytest.mark.parametrize(
    "last",
    [
        {"id": None, "state": "none", "baseline_id": None, "exports": []},
        {"id": "of-an-earlier-run", "state": "promoted", "strategy": "staged", "baseline_id": "of-an-earlier-run"},
    ],
)
def test_a_run_that_began_nothing_has_no_transaction_whatever_the_journal_says(last):
    refused = {"failure": "no index", "begun": {}, "restored": {"changed": False, "transaction": last}}
    made = evidence(refused)
    assert made["transaction"] == {}
    assert made["outside_transaction"] == []
    undone = evidence({**refused, "restored": {"changed": True, "transaction": last}})
    assert undone["outside_transaction"] == ["what was begun, and undone"]


def test_a_method_that_failed_before_it_began_leaves_the_transaction_of_the_one_before():
    failed = {"method": "pypi", "verified": False, "task": "Smoke", "said": "wrong"}
    restored = {"changed": False, "transaction": {"id": "first", "state": "restored", "baseline_id": "first"}}
    made = evidence({"begun": {}, "attempts": [{**failed, "baseline": "first"}], "restored": restored})
    assert made["transaction"] == {"id": "first", "state": "restored", "baseline_id": "first"}


def test_a_run_without_a_transaction_names_the_kept_baselines():
    known = {"transaction": {"baselines": [{"id": "a", "created": "2026-01-01T00:00:00+00:00", "path": "/x"}]}}
    assert evidence({"earlier": known})["kept_baselines"] == {"a": "2026-01-01T00:00:00+00:00"}
    assert evidence({"earlier": known, "begun": {"transaction": {"id": "b"}}})["kept_baselines"] == {}


def test_a_run_that_failed_at_once_still_gives_evidence():
    made = evidence({"failure": "no", "version": None, "method_result": {}})
    assert (made["versions"], made["plan"], made["fingerprint"]) == ({}, [], "")


def test_the_start_of_olmocr_is_told():
    start = {"sampler": "off", "kernels": "nowhere", "why": "no nvcc", "variables": {"A": "0"}, "diff": []}
    told = evidence({"activation": start, "remarks": ["GPU 0: MIG is on"]})
    assert told["activation"] == {name: start[name] for name in ("sampler", "kernels", "why", "variables")}
    assert told["notes"] == [
        "GPU 0: MIG is on",
        "vllm's FlashInfer sampler is switched off, so that OlmOCR starts. The reason: no nvcc",
    ]
    assert evidence({"activation": {**start, "sampler": "on"}})["notes"] == []


def test_the_kernel_pack_is_told():
    kernels = [{"name": "flashinfer_decode", "origin": "cache", "first_call_seconds": 0.5}]
    pack = {
        "wanted": {"name": "flashinfer-0.6.13.tar.xz", "why_not": ""},
        "compiled": {"compiled": ["page", "sampling"], "compile_seconds": 71.3},
        "smoke": {"kernels": kernels},
        "placed": {"manifest": {"modules": {"sampling": {}, "page": {}}}, "signed_by": "SHA256:x"},
    }
    assert evidence({"kernel_pack": pack})["kernel_pack"] == {
        "name": "flashinfer-0.6.13.tar.xz",
        "modules": "page, sampling",
        "signed_by": "SHA256:x",
        "compiled here": "2 modules in 71.3 s",
        "flashinfer_decode proven": "cache, first call 0.5 s",
    }
    assert evidence({})["kernel_pack"] == {}


def test_a_build_that_nothing_held_back_is_noted():
    assert evidence({"wheel": {"provenance": {"shielded": True}}})["notes"] == []
    (note,) = evidence({"wheel": {"provenance": {"shielded": False}}})["notes"]
    assert "could have written into the environment" in note
    assert evidence({"method_result": {"shielded": True}})["notes"] == []
    (note,) = evidence({"method_result": {"shielded": False}})["notes"]
    assert "could have written into the environment" in note


def test_what_was_measured_before_stays_with_the_packages_that_it_was_measured_on():
    earlier = {"documents": {"fingerprint": "now", "status": "measured"}, "server": {"fingerprint": "then"}}
    level = {"fingerprint": "now", "status": "failed"}
    results = {"now_installed": {"fingerprint": "now"}, "earlier_benchmark": earlier}
    assert evidence(results)["benchmark"] == {"documents": earlier["documents"]}
    assert evidence({**results, "benchmark": {"documents": level}})["benchmark"] == {"documents": level}
    idle = {"fingerprint": "now", "status": "not_run"}
    assert evidence({**results, "benchmark": {"documents": idle}})["benchmark"] == {"documents": earlier["documents"]}
    assert evidence({**results, "now_installed": {"fingerprint": "then"}})["benchmark"] == {"server": earlier["server"]}


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ({}, []),
        ({"steps": {"PyTorch": {"changed": False}, "OlmOCR": {}, "FlashInfer": {"changed": True}}}, []),
        ({"steps": {"PyTorch": {"changed": True}, "OlmOCR": {"changed": True}}}, ["PyTorch", "OlmOCR"]),
        ({"steps": {"PyTorch": {"failed": True, "reason": "refused"}}}, []),
        ({"steps": {"PyTorch": {"failed": True, "reason": "failed"}}}, ["PyTorch"]),
        ({"steps": {"OlmOCR": {"failed": True}}}, ["OlmOCR"]),  # it was given up, and may go on there
        ({"earlier": {"changed": True}}, ["what an earlier run left"]),
        ({"returned": {"changed": True}}, ["return to a kept baseline"]),
        ({"version": {"files_fingerprint": "a"}, "now_installed": {"files_fingerprint": "a"}}, []),
        ({"version": {"files_fingerprint": "a"}, "now_installed": {"files_fingerprint": ""}}, []),
        (
            {"version": {"files_fingerprint": "a"}, "now_installed": {"files_fingerprint": "b"}},
            ["files, by something else"],
        ),
    ],
)
def test_what_was_changed_without_a_transaction_is_told(results, expected):
    assert evidence(results)["outside_transaction"] == expected


def test_a_candidate_that_became_the_environment_is_no_change_without_a_transaction():
    files = {"version": {"files_fingerprint": "a"}, "now_installed": {"files_fingerprint": "b"}}
    assert evidence({**files, "begun": {"transaction": {"id": "t"}}})["outside_transaction"] == []


def test_what_a_run_would_change_is_not_told_as_changed():
    assert evidence({"check_mode": True, "steps": {"PyTorch": {"changed": True}}})["outside_transaction"] == []


MISSED = {"min_speedup": 2.0, "max_slowdown": 1.0, "problems": ["too slow"], "fingerprint": "now"}
MISSED = {**MISSED, "level": "documents", "finished": "2026-11-25T01:02:03Z"}


@pytest.mark.parametrize(
    ("asked", "fingerprint", "expected"),
    [
        ({}, "now", MISSED),
        ({}, "another", {}),
        ({**MISSED, "problems": []}, "now", {**MISSED, "problems": []}),
        # What is refused is of the candidate's packages, and the run ends with those of the baseline.
        ({**MISSED, "fingerprint": "candidate"}, "now", {**MISSED, "fingerprint": "candidate"}),
    ],
)
def test_a_gate_stays_with_the_packages_that_it_was_judged_on(asked, fingerprint, expected):
    """A run without a gate had wiped one that was missed, after which `document` wrote of a success."""
    results = {"now_installed": {"fingerprint": fingerprint}, "earlier_gate": MISSED, "gate": asked}
    assert evidence(results)["gate"] == expected
