"""The exhibits: a file for each module, named `MODULE_exhibit.py`, so no file shadows the module that it imports.

Each has a docstring with the facts that `lab.tour.registry` reads, a function `visit()` that does the module's classic
task, and a function `failures()` that yields the name of each typical error with a call that raises it.
"""
