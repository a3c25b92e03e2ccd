"""Finds processors by the names that templates give them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from batchwork_server.errors import ConfigurationError
from batchwork_server.ports import Processor

ENTRY_POINT_GROUP = "batchwork.processors"
"""The group under which a distribution offers processors.

An entry point leads to something that is called once, without arguments, and returns a
``Processor``: a class, or a function that builds one.
"""


class ProcessorLookupError(ConfigurationError, LookupError):
    """This server has no processor of that name, or none that can be loaded.

    At start it is a mistake in the configuration. Later, when a batch comes along whose processor
    has been uninstalled meanwhile, it is one item's failure.
    """


class ProcessorRegistry:
    """Every processor there is, by name.

    A processor from an entry point is imported and built when its name is asked for the first
    time, and is the same instance from then on. One that cannot be loaded is an error for those
    who ask for it and for nobody else.
    """

    def __init__(self, offers: Iterable[EntryPoint] = ()) -> None:
        """Takes note of the processors that distributions offer, without loading any.

        Raises:
            ConfigurationError: a name is offered twice; it names both distributions.
        """
        self._offers = _by_name(offers)
        self._processors: dict[str, Processor] = {}

    @classmethod
    def installed(cls) -> ProcessorRegistry:
        """Returns a registry of what the installed distributions offer."""
        return cls(entry_points(group=ENTRY_POINT_GROUP))

    def register(self, name: str, processor: Processor) -> None:
        """Adds a processor that was built in code.

        Raises:
            ConfigurationError: the name is taken.
        """
        if name in self._offers:
            raise ConfigurationError(
                f"The processor name {name!r} is taken by the distribution "
                f"{_distribution(self._offers[name])!r}; register it under another name."
            )
        if name in self._processors:
            raise ConfigurationError(
                f"A processor {name!r} is registered already; register it under another name."
            )
        self._processors[name] = processor

    def get(self, name: str) -> Processor:
        """Returns the processor of that name, always the same instance.

        Raises:
            ProcessorLookupError: there is none of that name, and the message lists those there
                are; or there is one that cannot be loaded, and the message says whose it is
                and why.
        """
        if name not in self._processors:
            self._processors[name] = _load(self._offer(name))
        return self._processors[name]

    def names(self) -> list[str]:
        """Returns the names that ``get`` knows, sorted, whether they can be loaded or not."""
        return sorted(self._offers.keys() | self._processors.keys())

    def _offer(self, name: str) -> EntryPoint:
        if name not in self._offers:
            raise ProcessorLookupError(
                f"There is no processor {name!r}; there are: {', '.join(self.names()) or 'none'}."
            )
        return self._offers[name]


def _by_name(offers: Iterable[EntryPoint]) -> dict[str, EntryPoint]:
    rivals: dict[str, list[EntryPoint]] = defaultdict(list)
    for offer in offers:
        rivals[offer.name].append(offer)
    clashes = [
        f"The processor name {name!r} is offered by the distributions "
        f"{' and '.join(repr(_distribution(offer)) for offer in several)}; uninstall all but one."
        for name, several in rivals.items()
        if len(several) > 1
    ]
    if clashes:
        raise ConfigurationError(" ".join(clashes))
    return {name: offer for name, [offer] in rivals.items()}


def _load(offer: EntryPoint) -> Processor:
    try:
        processor = offer.load()()
    except Exception as error:  # whatever a stranger's import raises; passed on, not swallowed
        raise ProcessorLookupError(
            f"{_described(offer)} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not _is_processor(processor):
        raise ProcessorLookupError(
            f"{_described(offer)} builds a {type(processor).__name__}, which is no processor: "
            "it needs the methods check and process."
        )
    return processor  # type: ignore[no-any-return]  # the shape was looked at just above


def _is_processor(candidate: object) -> bool:
    return all(callable(getattr(candidate, method, None)) for method in ("check", "process"))


def _described(offer: EntryPoint) -> str:
    return (
        f"The processor {offer.name!r} of the distribution {_distribution(offer)!r} "
        f"(entry point {offer.value})"
    )


def _distribution(offer: EntryPoint) -> str:
    return offer.dist.name if offer.dist else "unknown"
