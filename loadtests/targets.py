"""The addresses of the models, as the load generator sees them."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Self

from lab.base.environ import ENV_TARGETS
from services.protocol import Address, AddressError, Transport

# The family of servers that are not models in the output of `lab ls --json`.
_GALLERY = "gallery"


class TargetError(Exception):
    """The list of targets is invalid, or has no such address."""


class Targets:
    """Addresses by model, service and transport.

    Args:
        found: address by (model, service, transport).
        pages: of external servers of HTTP, the path to ask, and whether the bodies of replies may differ.
    """

    def __init__(
        self,
        found: Mapping[tuple[str, str, Transport], Address],
        pages: Mapping[tuple[str, str, Transport], tuple[str, bool]] = MappingProxyType({}),
    ) -> None:
        self._found = dict(found)
        self._pages = dict(pages)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Parse `LAB_TARGETS`, the output of `lab ls --json`; without it, use the catalogue.

        Raises:
            TargetError: the variable is invalid.
        """
        text = environ.get(ENV_TARGETS)
        return cls.from_catalogue() if text is None else cls.from_json(text)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse the output of `lab ls --json`, and keep the models.

        Raises:
            TargetError: the text is invalid.
        """
        found, pages = {}, {}
        try:
            for row in json.loads(text):
                if row.get("family") == _GALLERY:
                    continue
                for listener in row["listeners"]:
                    address = Address.parse(listener["address"])
                    if address.transport.is_unix or address.port is not None:
                        key = row["model"], listener["service"], address.transport
                        found[key] = address
                        if path := listener.get("path"):
                            pages[key] = path, listener["body"] == "any"
        except (ValueError, KeyError, TypeError, AttributeError, AddressError) as error:
            raise TargetError(f"LAB_TARGETS is not the output of `lab ls --json`: {error!r}") from None
        if not found:
            raise TargetError("LAB_TARGETS names no model with an address")
        return cls(found, pages)

    @classmethod
    def from_catalogue(cls) -> Self:
        """Return all models of the catalogue outside of profiles, by their names on the lab's network."""
        from lab.servers.catalogue import Catalogue  # only here: a generator with LAB_TARGETS needs no catalogue

        catalogue = Catalogue.load()
        rows = [
            {
                "model": model.name,
                "listeners": [
                    {"service": item.service, "address": str(item.address)}
                    for item in catalogue.listeners_of(model.name)
                ],
            }
            for model in catalogue.select()
        ]
        return cls.from_json(json.dumps(rows))

    @property
    def models(self) -> list[str]:
        """Return the models with an address, in the given order."""
        return list(dict.fromkeys(model for model, _, _ in self._found))

    def find(self, model: str, service: str, transport: Transport) -> Address:
        """Return the address of a model's service over a transport.

        Raises:
            TargetError: there is none.
        """
        try:
            return self._found[model, service, transport]
        except KeyError:
            raise TargetError(f"no address for {service} of {model} over {transport}") from None

    def find_page(self, model: str, service: str, transport: Transport) -> tuple[str, bool] | None:
        """Return the path to ask instead of the lab's routes, and whether bodies may differ; None if there is none."""
        return self._pages.get((model, service, transport))
