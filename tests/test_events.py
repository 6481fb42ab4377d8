"""Events as a sequence, and as a table."""

import sys
import types

import pytest
from sample_problems import gaussian_data

from flowsim import solve
from flowsim.events import Event, Events


def found() -> Events:
    return solve(*gaussian_data("sign-fa", 2, samples=8, dimension=3, width=4), 5.0, rtol=1e-7).events


def test_events_are_a_sequence_of_events_in_plain_numbers() -> None:
    events = found()
    listed = list(events)
    assert len(listed) == len(events) > 4
    assert {type(value) for event in listed for value in event} == {float, int, str}
    for number, event in enumerate(listed):
        assert event == events[number] == events[number - len(events)]
        assert event.time == events.time[number].item()
        assert (event.trajectory, event.layer, event.sample, event.neuron, event.before, event.after) == tuple(
            int(getattr(events, name)[number]) for name in Event._fields[1:7]
        )
    assert [event.kind for event in listed] == events.kind
    assert len(set(events.kind)) >= 3
    with pytest.raises(IndexError):
        events[len(events)]


def test_a_slice_a_mask_and_a_list_give_events() -> None:
    events = found()
    assert isinstance(events[1:3], Events)
    assert list(events[1:3]) == list(events)[1:3]
    assert list(events[events.trajectory == 1]) == [event for event in events if event.trajectory == 1]
    assert list(events[[2, 0]]) == [events[2], events[0]]
    assert list(events[:0]) == []


def test_events_as_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pandas is optional, and stood in for: DataFrame(columns) is all that is asked of it."""
    events = found()
    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=dict))  # type: ignore[arg-type]
    table = events.to_dataframe()
    assert list(table) == list(Event._fields)
    assert [Event(*row) for row in zip(*table.values(), strict=True)] == list(events)
    monkeypatch.setitem(sys.modules, "pandas", None)  # type: ignore[arg-type]
    with pytest.raises(ImportError, match=r"to_dataframe needs pandas: pip install '\.\[tables\]'"):
        events.to_dataframe()


def test_events_as_a_data_frame() -> None:
    pytest.importorskip("pandas")
    events = found()
    assert [tuple(row) for row in events.to_dataframe().itertuples(index=False)] == list(events)


def test_events_are_told_in_one_line() -> None:
    events = found()
    said = repr(events)
    assert said.startswith(f"Events({len(events)}: ")
    assert f"{events.kind.count('crossing')} crossing" in said
    assert len(said) < 120
    assert repr(events[:0]) == "Events(0)"
