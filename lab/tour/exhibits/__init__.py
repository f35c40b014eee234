"""The exhibits: a file for each module, `MODULE_exhibit.py`, so that none is named like what it imports.

Each has a docstring with the facts that `lab.tour.registry` reads, `visit()`, which does the module's classic job,
and `failures()`, which names what goes wrong in its use beside a call that makes it go wrong.
"""
