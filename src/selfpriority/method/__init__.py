"""The paper, and nothing else: one file per step, records in, `Sifted(kept, dropped)` out."""
