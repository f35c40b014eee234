"""What can go wrong on our side of a Docker engine, in words that say what to do."""


class EngineError(Exception):
    """The engine, a plugin of its client or the base image could not be provided.

    Args:
        what: what was wrong, and where.
        fix: what to do about it, as a sentence.
    """

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}: {fix}")
        self.what = what
        self.fix = fix
