"""The error of this package."""


class EngineError(Exception):
    """The engine, a plugin of its client or the base image could not be provided.

    Args:
        what: what is wrong, and where.
        fix: what to do about it.
    """

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}: {fix}")
        self.what = what
        self.fix = fix
