"""Where the models are, as the load generator sees them."""

import json
from collections.abc import Mapping
from typing import Self

from services.protocol import Address, AddressError, Transport

# What `lab ls --json` says in place of a family of servers that are no models.
_GALLERY = "gallery"


class TargetError(Exception):
    """The list of targets cannot be used, or does not hold what was asked for."""


class Targets:
    """Addresses by model, service and transport.

    Args:
        found: address by (model, service, transport).
    """

    def __init__(self, found: Mapping[tuple[str, str, Transport], Address]) -> None:
        self._found = dict(found)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read `LAB_TARGETS`, in the form that `lab ls --json` prints; without it, the catalogue's own network.

        Raises:
            TargetError: what is wrong with it.
        """
        text = environ.get("LAB_TARGETS")
        return cls.from_catalogue() if text is None else cls.from_json(text)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `lab ls --json` prints; of that, the models.

        Raises:
            TargetError: what is wrong with it.
        """
        found = {}
        try:
            for row in json.loads(text):
                if row.get("family") == _GALLERY:
                    continue
                for listener in row["listeners"]:
                    address = Address.parse(listener["address"])
                    if address.transport.is_unix or address.port is not None:
                        found[row["model"], listener["service"], address.transport] = address
        except (ValueError, KeyError, TypeError, AttributeError, AddressError) as error:
            raise TargetError(f"LAB_TARGETS is not what `lab ls --json` prints: {error!r}") from None
        if not found:
            raise TargetError("LAB_TARGETS names no model with an address")
        return cls(found)

    @classmethod
    def from_catalogue(cls) -> Self:
        """Every model of the catalogue that belongs to no profile, by its name on the lab's network."""
        from lab.servers.catalogue import (
            Catalogue,  # only here: a generator that is told its targets needs no catalogue
        )

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
        """Every model that has an address, in the order in which they were given."""
        return list(dict.fromkeys(model for model, _, _ in self._found))

    def find(self, model: str, service: str, transport: Transport) -> Address:
        """Where a model speaks a service over a transport.

        Raises:
            TargetError: nowhere.
        """
        try:
            return self._found[model, service, transport]
        except KeyError:
            raise TargetError(f"no address for {service} of {model} over {transport}") from None
