"""The end of a run when its run time is over, in the web UI and without it.

Locust ends a run by its run time only where no `LoadTestShape` drives it, and the lab's profile drives every run of the
models. So the time is kept here: from the start of the test, or from the form that edits a run.
"""

from typing import TYPE_CHECKING, Any, cast

import gevent
from flask import Response, g, request
from locust.runners import STATE_RUNNING, STATE_SPAWNING, locust_exception_handler

if TYPE_CHECKING:
    from locust.env import Environment


class RunTime:
    """Ends each run of a runner without a master when its time is over.

    Args:
        environment: Locust's, when its runner exists.
    """

    def __init__(self, environment: "Environment") -> None:
        self._environment = environment
        self._options = cast(Any, environment.parsed_options)
        self._waiting: gevent.Greenlet[[], None] | None = None
        # Locust's main greenlet started this run: it waits for the end of the shape, and ends the run itself.
        self._is_mains = bool(self._options.headless or self._options.autostart)
        events = cast(Any, environment.events)  # not annotated by Locust
        events.test_start.add_listener(self._arm)
        events.test_stop.add_listener(self._stopped)
        if environment.web_ui is not None:
            app: Any = environment.web_ui.app
            app.before_request(self._read_form)
            app.after_request(self._arm_again)

    def _arm(self, **_: Any) -> None:
        self._cancel()
        # A run without a shape is one of users that are not ours: Locust ends it.
        if self._options.run_time and self._environment.shape_class is not None:
            self._waiting = gevent.spawn_later(float(self._options.run_time), self._end)
            self._waiting.link_exception(locust_exception_handler(self._environment))

    def _cancel(self) -> None:
        # The one that ends the run must not end itself in the middle of it.
        if self._waiting is not None and self._waiting is not gevent.getcurrent():
            self._waiting.kill(block=False)
        self._waiting = None

    def _end(self) -> None:
        runner = cast(Any, self._environment.runner)
        if self._is_mains:
            runner.shape_greenlet.kill()
        else:
            runner.stop()

    def _stopped(self, **_: Any) -> None:
        self._cancel()
        if self._is_mains and not self._options.headless:
            # Or Locust's main greenlet would wait for it once more, and stop whatever runs then.
            self._options.run_time = None
        self._is_mains = False

    def _read_form(self) -> None:
        """An empty field means no run time, and not that of the run before, which is what Locust would keep."""
        if request.endpoint == "locust.swarm":
            g.is_edit = cast(Any, self._environment.runner).state in (STATE_SPAWNING, STATE_RUNNING)
            self._options.run_time = None

    def _arm_again(self, response: Response) -> Response:
        if request.endpoint == "locust.swarm" and response.is_json and g.get("is_edit"):
            self._arm()
        return response
