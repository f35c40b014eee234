"""Generators of the pages in docs/ that are made from the catalogue, the code and recorded figures.

A page is written by hand, with generated blocks in it. A block stands between `<!-- generated: KIND ARGUMENTS -->` and
`<!-- end -->`; `make docs` rewrites it, and tests/repo fails while one is out of date.
"""
