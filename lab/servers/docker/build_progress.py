"""Read from the output of a build what it is doing: of BuildKit (plain format), and of the classic builder."""

import re
from collections.abc import Mapping

# BuildKit: `#7 [alpha stage-1 2/3] RUN true`; later lines of step 7 begin with `#7`, and the last one is one of these.
_STEP = re.compile(r"#(?P<number>\d+) (?P<step>\[(?P<service>\S+?)(?: (?P<place>[^]]*))?\] (?P<text>.*))")
_STEP_ENDS = re.compile(r"#(\d+) (?:DONE|CACHED|ERROR|CANCELED)\b")
_EXPORTED = re.compile(r"#\d+ naming to (\S+)(?: [\d.]+s)? done")
# The classic builder: `Step 2/3 : RUN true`.
_CLASSIC_STEP = re.compile(r"Step (\d+/\d+) : (.*)")
_CLASSIC_EXPORTED = re.compile(r"Successfully tagged (\S+)")


class BuildProgress:
    """The state of one `docker compose build`.

    Args:
        images: the services that are built, with their images.
    """

    def __init__(self, images: Mapping[str, str]) -> None:
        self._services = {_plain(image): service for service, image in images.items()}
        self._unfinished = dict.fromkeys(images)
        self._steps: dict[str, tuple[str, str]] = {}  # number -> service ("" if unknown) and text, the latest one last

    @property
    def unfinished(self) -> list[str]:
        return list(self._unfinished)

    def read(self, line: str) -> str | None:
        """Read a line of output; return the service whose image is finished by it, if any."""
        if match := _EXPORTED.fullmatch(line) or _CLASSIC_EXPORTED.fullmatch(line):
            service = self._services.get(_plain(match[1]), "")
            if service in self._unfinished:
                del self._unfinished[service]
                return service
        elif match := _STEP_ENDS.match(line):
            self._steps.pop(match[1], None)
        elif match := _STEP.fullmatch(line):
            self._steps.pop(match["number"], None)
            self._steps[match["number"]] = self._describe(match)
        elif match := _CLASSIC_STEP.fullmatch(line):
            # It does not say of which image.
            only = self.unfinished[0] if len(self._unfinished) == 1 else ""
            self._steps = {"": (only, f"[{match[1]}] {match[2]}")}
        return None

    def _describe(self, match: re.Match[str]) -> tuple[str, str]:
        if match["service"] not in self._services.values():
            return "", match["step"]
        place = f"[{match['place']}] " if match["place"] else ""
        return match["service"], place + match["text"]

    def describe(self, seconds: float) -> str:
        """Return the name of an image, how many are finished, the time since the start, and the current step."""
        service, step = list(self._steps.values())[-1] if self._steps else ("", "")
        total = len(self._services)
        name = service or (next(iter(self._services.values())) if total == 1 else "images")
        done = f" ({total - len(self._unfinished)}/{total})" if total > 1 else ""
        return f"building {name}{done}, {seconds:.0f} s" + (f": {' '.join(step.split())}" if step else "")


def _plain(image: str) -> str:
    """Return the name of an image without Docker's defaults for the registry, the user and the tag."""
    return image.removeprefix("docker.io/").removeprefix("library/").removesuffix(":latest")
