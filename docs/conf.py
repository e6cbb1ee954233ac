# SPDX-License-Identifier: MIT
"""Sphinx configuration. Everything that states the contract is taken in from the tool itself, so that
the document cannot differ from the code: QSC_CONTRACT_RST and QSC_CONTRACT_DOT name its output."""
import os
import pathlib

from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

project = "Quiesce"
copyright = "the Quiesce authors"
author = "the Quiesce authors"
release = version = os.environ["QSC_VERSION"]

extensions = ["sphinx.ext.graphviz"]
exclude_patterns = ["examples"]
nitpicky = True
highlight_language = "c"

html_theme = "alabaster"
html_theme_options = {"description": "Live migration of VFIO devices", "page_width": "1100px"}
html_show_copyright = False
html_copy_source = False
graphviz_output_format = "svg"


class ContractPart(SphinxDirective):
    """``.. contract:: PART`` puts in one part of ``quiesce contract --rst``."""

    required_arguments = 1

    def run(self):
        path = os.environ["QSC_CONTRACT_RST"]
        self.env.note_dependency(path)
        lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
        name = self.arguments[0]
        begin, end = f".. begin {name}", f".. end {name}"
        if begin not in lines or end not in lines:
            raise self.error(f"the contract has no part '{name}'")
        self.state_machine.insert_input(lines[lines.index(begin) + 1:lines.index(end)], path)
        return []


class ContractGraph(SphinxDirective):
    """``.. contract-graph::`` puts in the graph of states."""

    option_spec = {"alt": directives.unchanged_required}

    def run(self):
        path = os.environ["QSC_CONTRACT_DOT"]
        self.env.note_dependency(path)
        graph = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
        lines = [".. graphviz::", f"   :alt: {self.options['alt']}", "",
                 *(f"   {line}" for line in graph), ""]
        self.state_machine.insert_input(lines, path)
        return []


def setup(app):
    app.add_directive("contract", ContractPart)
    app.add_directive("contract-graph", ContractGraph)
