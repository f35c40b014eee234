"""End a run when its run time is over, in the web UI and without it.

Locust ignores the run time if a `LoadTestShape` controls the run, and the lab's profile controls every run of the
models. So it is handled here: from the start of the test, or from the form that edits a run.
"""

from argparse import Namespace
from typing import TYPE_CHECKING, Any, cast

import gevent
from flask import Response, g, request
from locust.runners import STATE_RUNNING, STATE_SPAWNING, Runner, locust_exception_handler

if TYPE_CHECKING:
    from locust.env import Environment


class RunTime:
    """Ends each run when its time is over; not for a worker.

    Args:
        environment: Locust's; its runner has to exist.
    """

    def __init__(self, environment: "Environment") -> None:
        self._environment = environment
        self._options = cast(Namespace, environment.parsed_options)
        self._waiting: gevent.Greenlet[[], None] | None = None
        # Locust's main greenlet started this run: it waits for the end of the shape, and ends the run itself.
        self._is_of_main = bool(self._options.headless or self._options.autostart)
        events = cast(Any, environment.events)  # not annotated by Locust
        events.test_start.add_listener(self._start_timer)
        events.test_stop.add_listener(self._stopped)
        if environment.web_ui is not None:
            app: Any = environment.web_ui.app
            app.before_request(self._read_form)
            app.after_request(self._restart_timer_after_edit)

    def _start_timer(self, **_: object) -> None:
        self._cancel()
        # A run without a shape has other users than the lab's: Locust ends it.
        if self._options.run_time and self._environment.shape_class is not None:
            self._waiting = gevent.spawn_later(float(self._options.run_time), self._end)
            self._waiting.link_exception(locust_exception_handler(self._environment))

    def _cancel(self) -> None:
        # The greenlet that ends the run must not kill itself.
        if self._waiting is not None and self._waiting is not gevent.getcurrent():
            self._waiting.kill(block=False)
        self._waiting = None

    def _end(self) -> None:
        runner = cast(Any, self._environment.runner)
        if self._is_of_main:
            runner.shape_greenlet.kill()
        else:
            runner.stop()

    def _stopped(self, **_: object) -> None:
        self._cancel()
        if self._is_of_main and not self._options.headless:
            # Otherwise Locust's main greenlet would wait for the run time again, and stop a later run.
            self._options.run_time = None
        self._is_of_main = False

    def _read_form(self) -> None:
        """Clear the run time: for an empty field, Locust would keep that of the run before."""
        if request.endpoint == "locust.swarm":
            g.is_edit = cast(Runner, self._environment.runner).state in (STATE_SPAWNING, STATE_RUNNING)
            self._options.run_time = None

    def _restart_timer_after_edit(self, response: Response) -> Response:
        if request.endpoint == "locust.swarm" and response.is_json and g.get("is_edit"):
            self._start_timer()
        return response
