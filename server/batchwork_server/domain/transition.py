"""Which verb fits which state of a batch. The only place that knows."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from batchwork_server.domain.batch import BatchState


class Verb(StrEnum):
    """What a caller, or the engine, can ask of a batch."""

    SEAL = "sealed"
    PAUSE = "paused"
    RESUME = "resumed"
    CANCEL = "cancelled"
    EXPIRE = "expired"
    RETRY = "retried"
    DELETE = "deleted"


class Effect(StrEnum):
    """What comes of a verb in a state."""

    APPLIES = "APPLIES"  # the state changes
    ALREADY = "ALREADY"  # it is what was asked for; nothing changes
    REFUSED = "REFUSED"  # impossible


_S = BatchState

APPLIES: Mapping[Verb, frozenset[BatchState]] = {
    Verb.SEAL: frozenset({_S.DRAFT}),
    Verb.PAUSE: frozenset({_S.PENDING, _S.RUNNING}),
    Verb.RESUME: frozenset({_S.PAUSED}),
    Verb.CANCEL: frozenset({_S.DRAFT, _S.PENDING, _S.RUNNING, _S.PAUSED}),
    Verb.EXPIRE: frozenset({_S.DRAFT, _S.PENDING, _S.RUNNING, _S.PAUSED}),
    Verb.RETRY: frozenset({_S.PARTIALLY_SUCCEEDED, _S.FAILED, _S.CANCELLED, _S.EXPIRED}),
    Verb.DELETE: frozenset(
        {_S.SUCCEEDED, _S.PARTIALLY_SUCCEEDED, _S.FAILED, _S.CANCELLED, _S.EXPIRED}
    ),
}
"""The states in which a verb changes something."""

_ALREADY: Mapping[Verb, frozenset[BatchState]] = {
    Verb.PAUSE: frozenset({_S.PAUSED}),
    Verb.RESUME: frozenset({_S.PENDING, _S.RUNNING}),
    Verb.CANCEL: frozenset({_S.CANCELLING, _S.CANCELLED}),
    Verb.EXPIRE: frozenset({_S.EXPIRED}),
}


def effect_of(verb: Verb, state: BatchState) -> Effect:
    """Returns what comes of ``verb`` for a batch in ``state``."""
    if state in APPLIES[verb]:
        return Effect.APPLIES
    if state in _ALREADY.get(verb, frozenset()):
        return Effect.ALREADY
    return Effect.REFUSED
