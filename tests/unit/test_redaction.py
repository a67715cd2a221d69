# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.ocrfleet.gpu_stack.plugins.module_utils import redaction


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://mirror.example/simple", "https://mirror.example/simple"),
        ("https://ocr:hunter2@mirror.example/simple", "https://mirror.example/simple"),
        ("https://ocr:p@ss@w@mirror.example:8443/x", "https://mirror.example:8443/x"),
        ("https://token@mirror.example", "https://mirror.example"),
        ("https://mirror.example/x.tar.gz?private_token=abc", "https://mirror.example/x.tar.gz"),
        (
            "from 'http://a:b@c/d?e=f#g' and https://u:v@w/y, mail me@home",
            "from 'http://c/d#g' and https://w/y, mail me@home",
        ),
        ("ssh://git@host/x.git or git@host:x.git", "ssh://host/x.git or git@host:x.git"),
    ],
)
def test_urls_are_told_without_their_secrets(text, told):
    assert redaction.without_secrets(text) == told


def test_what_a_module_returns_is_searched_for_the_secrets_of_its_urls():
    module = SimpleNamespace(no_log_values=set())
    sources = {
        "default_index": "https://ocr:p@ss@mirror.example/simple",
        "indexes": [{"url": "https://mirror.example/whl?token=abc"}],
        "find_links": ["/wheels"],
    }
    redaction.hide(module, redaction.of_sources(sources))
    assert module.no_log_values == {"ocr:p@ss@", "token=abc"}
    assert redaction.of_sources({}) == [""]


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://ocr:p%40ss@h:8/x.git", ("https://h:8/x.git", "ocr", "p@ss")),
        ("https://ocr:p@ss@h/x.git", ("https://h/x.git", "ocr", "p@ss")),
        ("https://token@h/x.git", ("https://h/x.git", "token", "")),
        ("https://h/x.git", ("https://h/x.git", "", "")),
        ("ssh://git@h/x.git", ("ssh://git@h/x.git", "", "")),
    ],
)
def test_a_user_and_a_password_are_told_apart_from_the_url(url, parts):
    assert redaction.plain(url) == parts
