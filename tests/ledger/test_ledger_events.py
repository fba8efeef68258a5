"""Events round-trip through bytes, and corruption is detected."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olfl_ray.errors import StudyError
from olfl_ray.ledger import (
    Began,
    Committed,
    DriverStarted,
    DriverStopped,
    Ended,
    Event,
    Proposed,
    Stopped,
    StudyCreated,
    TrialId,
)
from olfl_ray.ledger.codec import Corrupt, Unknown, decode, encode, seal

EVENTS: list[Event] = [
    StudyCreated(spec={"a": {"b": [1, None, "ü"]}}, digest="d", name="n", versions={"torch": "2.13.0"}, time=1.5),
    DriverStarted(epoch=1, host="h", pid=7),
    Proposed(trial="online/0", params={"learner.optimizer.lr": 0.1, "loss.hidden": [40, 40]}, seeds=[0, 1, 2]),
    Began(trial="online/0", attempt=1),
    Committed(trial="online/0", attempt=1, commit="k", step=100, value=0.1 + 0.2, values={"m": 5e-324}),
    Ended(trial="online/0", state="finished", step=1, value=None, metrics={"m": [0.1, -0.0]}, cause=None),
    Stopped(trial="online/0"),
    DriverStopped(epoch=1, reason="done"),
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_event_round_trips(event: Event) -> None:
    assert decode(encode(3, "w", event), 3) == event


@settings(max_examples=50, deadline=None)
@given(params=st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_any_plain_values_round_trip(params: dict[str, Any]) -> None:
    event = Proposed(trial="a/0", params=params, seeds=[0])
    assert decode(encode(1, "w", event), 1) == event


def test_nan_and_infinity_round_trip_in_strict_json() -> None:
    event = Ended(
        trial="a/0",
        state="diverged",
        step=1,
        value=math.nan,
        metrics={"m": [math.inf, -math.inf]},
        cause=None,
    )
    line = encode(1, "w", event)
    back = decode(line, 1)
    assert isinstance(back, Ended)
    assert back.value is not None
    assert math.isnan(back.value)
    assert back.metrics == {"m": [math.inf, -math.inf]}
    assert b"NaN" not in line
    assert b"Infinity" not in line


@pytest.mark.parametrize("value", [object(), {1, 2}, {3: "number as key"}, {"$float": "1"}, b"bytes"])
def test_value_that_json_cannot_express_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        encode(1, "w", Proposed(trial="a/0", params={"x": value}, seeds=[0]))


def test_every_flipped_bit_and_every_truncation_is_detected() -> None:
    line = encode(12, "w", EVENTS[4])
    for position in range(len(line)):
        for bit in range(8):
            flipped = bytearray(line)
            flipped[position] ^= 1 << bit
            with pytest.raises(Corrupt):
                decode(bytes(flipped), 12)
        with pytest.raises(Corrupt):
            decode(line[:position], 12)
    with pytest.raises(Corrupt):
        decode(line + b"\n", 12)


def test_event_in_another_ones_position_is_detected() -> None:
    with pytest.raises(Corrupt, match="holds event 2, not event 3"):
        decode(encode(2, "w", EVENTS[1]), 3)


@pytest.mark.parametrize(
    "body",
    [
        b'{"number":1,"event":{"kind":"Merged"}}',
        b'{"number":1,"event":{"kind":"Began","lap":1}}',
        b'{"number":1}',
    ],
)
def test_format_of_a_later_version_is_distinguished_from_corruption(body: bytes) -> None:
    with pytest.raises(Unknown, match="unknown"):
        decode(seal(body), 1)


def test_time_is_recorded_automatically() -> None:
    assert 1.7e9 < Began(trial="a/0", attempt=1).time < 1e10


@pytest.mark.parametrize(
    ("text", "arm", "ordinal", "confirming"),
    [("online/3", "online", 3, False), ("my arm/c12", "my arm", 12, True)],
)
def test_trial_id_round_trips(text: str, arm: str, ordinal: int, confirming: bool) -> None:
    trial = TrialId.parse(text)
    assert (trial.arm, trial.ordinal, trial.confirming, str(trial)) == (arm, ordinal, confirming, text)


@pytest.mark.parametrize(
    "text", ["", "online", "/3", "online/", "online/x3", "online/03", "a/b/3", "online/-1", "online/٣"]
)
def test_malformed_trial_id_is_refused(text: str) -> None:
    with pytest.raises(StudyError, match="ARM/ORDINAL"):
        TrialId.parse(text)
