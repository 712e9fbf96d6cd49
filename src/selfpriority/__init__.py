"""Self-priority alignment: a language model improves itself on objectives in strict order of priority.

The public names stand in `__init__.pyi`, each loaded when it is first used: importing the package imports none of its
files and no torch. The steps of the method work on a user's own records, without a run directory.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
