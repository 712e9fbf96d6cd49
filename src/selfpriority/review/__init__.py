"""People rate or compare held-out answers blind, and are compared with the judge."""
