"""`python -m lab`, and the command `lab`. A signal ends it quietly while it is still importing what it needs."""

import os
import signal
from types import FrameType
from typing import NoReturn


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    os.write(2, b"lab: interrupted: nothing was done yet\n")
    os._exit(130)


def main() -> NoReturn:
    """Run the command line. `lab.base.interrupts` takes the signals over as soon as it is there."""
    # The default of SIGTERM and SIGHUP is quiet already.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from lab.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
