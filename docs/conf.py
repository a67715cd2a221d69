# Copyright (c) 2026 The ocrfleet.gpu_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sphinx's settings. tools/build_docs.py lays the pages and the generated reference together and calls Sphinx."""

from __future__ import annotations

project = "ocrfleet.gpu_stack"
author = "The ocrfleet.gpu_stack contributors"
copyright = author
extensions = ["myst_parser", "sphinx_antsibull_ext", "sphinxarg.ext"]
exclude_patterns = ["reference/environment_variables.rst", "reference/index.rst"]
default_role = "any"  # antsibull-docs writes for Ansible's own site, which has it

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]
# antsibull-docs refers to pages of Ansible's site, which are not fetched: the build needs no network.
# References to what is ours are held.
nitpicky = True
nitpick_ignore_regex = [("std:ref", r"(?!ansible_collections\.ocrfleet\.).*")]
suppress_warnings = ["myst.header"]

html_theme = "furo"
html_title = "ocrfleet.gpu_stack"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
