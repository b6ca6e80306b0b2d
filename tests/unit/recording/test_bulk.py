from bluesky_plugins.messaging import Message, encode
from bluesky_plugins.recording import Refused, make_bulk, records_of
from bluesky_plugins.recording.bulk import refusals
from bluesky_plugins.testing.runs import composed_event


def message(value: bytes | None, offset: int, topic: str = "documents") -> Message:
    return Message(topic, 0, offset, b"k", value, 0.0)


def test_a_bad_message_gives_a_letter_and_leaves_the_others_alone() -> None:
    good = encode("event", composed_event())
    values = [
        good,
        b"garbage",
        None,
        b"",
        encode("event", {"uid": "u"}),
        encode("nonsense", {}),
        good,
    ]
    bulk = make_bulk([message(value, i) for i, value in enumerate(values)])
    assert [letter.message.offset for letter in bulk.letters] == [1, 2, 3, 4, 5]
    assert all(letter.reason for letter in bulk.letters)
    assert [record.source for record in bulk.records["documents"]] == [0, 6]


def test_the_offsets_are_the_next_ones_of_each_partition() -> None:
    good = encode("event", composed_event())
    bulk = make_bulk([message(good, 4), message(b"", 5), message(good, 9, "analysis")])
    assert bulk.offsets == {("documents", 0): 6, ("analysis", 0): 10}


def test_many_refused_rows_of_one_message_are_one_letter() -> None:
    bulk = make_bulk([message(encode("event", composed_event()), 0)])
    (record,) = records_of("event", composed_event())
    (letter,) = refusals(bulk, [Refused(record, f"reason {i}") for i in range(9)])
    assert letter.message is bulk.messages[0]
    assert letter.reason == "reason 0; reason 1; reason 2; and 6 more"
