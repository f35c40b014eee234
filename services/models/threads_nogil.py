"""`socketserver_threading` on a Python without the GIL: the same code, and threads that compute at the same time.

Unit of concurrency: a thread for each client.
What blocks whom: waiting blocks no client, and neither does computing, as long as a core is free for each thread. Many
small locks replace the GIL, and every request pays for them, even if there is only one client.
What runs out first: the cores; then threads and their memory, as in `socketserver_threading`. A thread needs more
memory here, since each has its own heap.
"""

from services.models.socketserver_threading import serve as serve_with_threads
from services.serving.listeners import Listener

# Under the GIL it would be `socketserver_threading` under another name, so `services.run` does not start it there.
NEEDS_NO_GIL = True


def serve(listeners: list[Listener]) -> None:
    """Serve until a stop signal.

    Raises:
        SystemExit: with code 1, if conversations were still going when the grace period ended.
    """
    serve_with_threads(listeners)
