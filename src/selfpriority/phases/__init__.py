"""What one process does: open backends and judges, call the steps, write the run directory."""
