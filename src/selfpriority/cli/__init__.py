"""The command line: the only place that prints.

Each verb parses, calls one function and shows what it returned. Imports stay inside the verbs, so `--help` is instant.
"""

from selfpriority.cli.entry import main

__all__ = ["main"]
