"""One self-contained page about a run, made from the run directory alone."""
