"""gevent replaces the standard library's blocking calls by its own; what was imported earlier could keep the old ones.

Without gevent nothing is replaced: the model itself then says what is missing.
"""

from contextlib import suppress

with suppress(ModuleNotFoundError):
    from gevent import monkey

    monkey.patch_all()
