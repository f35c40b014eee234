"""`socketserver_threading` on a Python without the GIL: the same code, and threads that compute at the same time.

Unit of concurrency: a thread for each client, as in its twin.
What blocks whom: waiting blocks no client, and neither does computing: each thread runs Python on a core of its own,
for as long as there are cores. Where one lock, the GIL, guarded all that threads share, there are many small ones, and
every request pays for them, also where there is no other client.
What runs out first: the cores; then, as in its twin, threads and their memory, of which one takes more: each thread has
a heap of its own.
"""

from services.models.socketserver_threading import serve as serve_with_threads
from services.serving.listeners import Listener

# Under the GIL this would be its twin by another name: `services.run` does not start it there.
NEEDS_NO_GIL = True


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if conversations were still going when the grace period ended.
    """
    serve_with_threads(listeners)
