"""`tools.mutants.session` in a process that gevent has patched from its start, for modules that import Locust."""

import sys

from gevent import monkey

monkey.patch_all()

from tools.mutants.session import main  # noqa: E402 - after the patching

if __name__ == "__main__":
    sys.exit(main())
