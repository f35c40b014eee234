"""Commands in containers whose output a test needs."""

from docker.models.containers import Container

# How often a command is run until it has an output.
_MOST = 20


def execute(container: Container, *command: str, user: str = "") -> tuple[int, bytes]:
    """Run a command, and return its exit code and its output, which is not empty.

    A busy Engine 20.10 sometimes loses the output of a command that ends at once, so the command must be one that can
    be repeated.
    """
    for _ in range(_MOST):
        code, output = container.exec_run(list(command), user=user)
        assert isinstance(output, bytes)
        assert code is not None
        if output:
            return code, output
    raise AssertionError(f"{container.name}: {command} has no output")
