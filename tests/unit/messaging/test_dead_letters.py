import uuid

from bluesky_plugins.messaging import Message, dead_letter, decode, encode
from bluesky_plugins.messaging.dead_letters import VALUE_LIMIT, unsendable

MESSAGE = Message("mad.bluesky.documents", 2, 17, b"run", b"\x92garbage", 1.5)


def test_letter_says_what_where_and_why() -> None:
    topic, key, name, doc = dead_letter(MESSAGE, "not msgpack", "recorder")
    assert (topic, key, name) == ("mad.bluesky.dead_letters", "run", "dead_letter")
    expected = {
        "reason": "not msgpack",
        "service": "recorder",
        "topic": "mad.bluesky.documents",
        "partition": 2,
        "offset": 17,
        "key": b"run",
        "value": b"\x92garbage",
        "size": 8,
    }
    assert doc.items() >= expected.items()


def test_same_message_gives_the_same_uid() -> None:
    first, second = (dead_letter(MESSAGE, why, "recorder")[3]["uid"] for why in ("a", "b"))
    other = Message("mad.bluesky.documents", 2, 18, b"run", b"", 1.5)
    assert first == second != dead_letter(other, "a", "recorder")[3]["uid"]
    assert str(uuid.UUID(first)) == first


def test_null_message_has_a_letter() -> None:
    message = Message("mad.bluesky.documents", 0, 1, None, None, 0.0)
    _, key, name, doc = dead_letter(message, "null", "recorder")
    assert key == "mad.bluesky.documents/0/1"
    assert decode(encode(name, doc))[1]["value"] is None


def test_long_values_keys_and_reasons_are_cut() -> None:
    message = Message("t", 0, 1, b"k" * 10**6, b"v" * 10**6, 0.0)
    _, key, name, doc = dead_letter(message, "r" * 10**6, "recorder")
    assert (len(doc["value"]), doc["size"]) == (VALUE_LIMIT, 10**6)
    assert len(encode(name, doc)) + len(key) < 200_000


def test_key_that_is_no_text_is_a_key() -> None:
    message = Message("t", 0, 1, b"\xff\xfe", b"", 0.0)
    assert dead_letter(message, "r", "recorder")[1].encode()


def test_topic_without_beamline_has_its_letters_beside_it() -> None:
    message = Message("adaptive", 0, 1, b"", b"", 0.0)
    assert dead_letter(message, "r", "recorder")[0] == "dead_letters"


class Rude:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_letter_of_what_cannot_be_described_goes_out() -> None:
    for doc in ({"a": Rude()}, {"a": object()}, {"a": "\ud800"}):
        letter = unsendable("mad.bluesky.documents", "run", "event", doc, "does not travel")
        assert decode(encode(*letter[2:]))[0] == "dead_letter"
