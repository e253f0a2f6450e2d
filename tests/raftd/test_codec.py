"""Frames come out as they went in, and nothing else comes out."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftd import codec
from raftd.addresses import Address, format_addresses, parse_addresses
from raftd.codec import CodecError, Frames
from raftd.core import Config
from raftd.messages import (
    MAX_NUMBER,
    AppendEntries,
    AppendEntriesReply,
    Entry,
    Message,
    RequestVote,
    RequestVoteReply,
)

names = st.sampled_from(["n1", "n2", "n3"])
numbers = st.integers(0, MAX_NUMBER)
entries = st.builds(Entry, numbers, st.binary(max_size=20))
messages = st.one_of(
    st.builds(RequestVote, names, names, numbers, numbers, numbers),
    st.builds(RequestVoteReply, names, names, numbers, st.booleans()),
    st.builds(
        AppendEntries,
        names,
        names,
        numbers,
        numbers,
        numbers,
        st.lists(entries, max_size=3).map(tuple),
        numbers,
    ),
    st.builds(AppendEntriesReply, names, names, numbers, st.booleans(), numbers, numbers),
)
requests = st.one_of(
    st.builds(codec.PutRequest, numbers, st.text(max_size=9), st.binary(max_size=9)),
    st.builds(codec.GetRequest, numbers, st.text(max_size=9)),
    st.builds(codec.DeleteRequest, numbers, st.text(max_size=9)),
    st.builds(codec.StatusRequest, numbers),
    st.builds(
        codec.FaultRequest,
        numbers,
        st.builds(codec.Faults, st.lists(names, max_size=3).map(tuple), disk_full=st.booleans()),
    ),
)
replies = st.one_of(
    st.builds(codec.Done, numbers, st.none() | st.binary(max_size=9)),
    st.builds(
        codec.Redirect, numbers, st.none() | names, st.none() | st.tuples(names, st.integers(1, 65535))
    ),
    st.builds(codec.Refused, numbers, st.text(max_size=9)),
    st.builds(codec.UnknownOutcome, numbers, st.text(max_size=9)),
)


@given(sent=st.lists(messages, max_size=4), cuts=st.lists(st.integers(1, 9), min_size=1))
def test_messages_arrive_whole_and_in_order_however_the_stream_is_cut(
    sent: list[Message], cuts: list[int]
) -> None:
    stream = b"".join(map(codec.encode, sent))
    frames = Frames(codec.MESSAGE.limit)
    received = []
    turn = 0
    while stream:
        size = cuts[turn % len(cuts)]
        turn += 1
        frames.feed(stream[:size])
        stream = stream[size:]
        while (body := frames.next()) is not None:
            received.append(codec.MESSAGE.decode(body))
    assert received == sent


@given(requests)
def test_requests_arrive_as_they_were(request: codec.Request) -> None:
    assert codec.REQUEST.decode(codec.encode(request)[codec.LENGTH_BYTES :]) == request


@given(replies)
def test_replies_arrive_as_they_were(reply: codec.Reply) -> None:
    assert codec.REPLY.decode(codec.encode(reply)[codec.LENGTH_BYTES :]) == reply


@given(st.binary(max_size=200))
def test_random_bytes_are_a_codec_error_or_nothing(data: bytes) -> None:
    for reader in (codec.HELLO, codec.MESSAGE, codec.REQUEST, codec.REPLY):
        with contextlib.suppress(CodecError):
            reader.decode(data)
        frames = Frames(reader.limit)
        frames.feed(data)
        with contextlib.suppress(CodecError):
            while (body := frames.next()) is not None:
                reader.decode(body)


@given(messages, st.data())
def test_a_changed_message_is_a_message_or_a_codec_error(message: Message, data: st.DataObject) -> None:
    body = bytearray(codec.encode(message)[codec.LENGTH_BYTES :])
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(CodecError):
        codec.MESSAGE.decode(bytes(body))


@pytest.mark.parametrize("number", [-1, MAX_NUMBER + 1, 2**64 - 1])
def test_terms_and_indexes_out_of_range_are_refused(number: int) -> None:
    """SQLite holds 63 bits, and a log has no entry -1: better to stop such a message at the door."""
    bad: list[Message] = [
        RequestVote("n2", "n1", number, 0, 0),
        RequestVote("n2", "n1", 1, number, 0),
        RequestVote("n2", "n1", 1, 0, number),
        RequestVoteReply("n2", "n1", number, granted=True),
        AppendEntries("n2", "n1", number, 0, 0, (), 0),
        AppendEntries("n2", "n1", 1, number, 0, (), 0),
        AppendEntries("n2", "n1", 1, 0, number, (), 0),
        AppendEntries("n2", "n1", 1, 0, 0, (), number),
        AppendEntries("n2", "n1", 1, 0, 0, (Entry(number, b""),), 0),
        AppendEntriesReply("n2", "n1", 1, success=True, match_index=number),
        AppendEntriesReply("n2", "n1", 1, success=False, match_index=0, hint=number),
    ]
    for message in bad:
        with pytest.raises(CodecError, match="bad frame: Expected `int`"):
            codec.MESSAGE.decode(codec.encode(message)[codec.LENGTH_BYTES :])


def test_a_frame_of_the_limit_passes_and_one_byte_more_is_refused_before_it_arrives() -> None:
    frames = Frames(limit=10)
    frames.feed((10).to_bytes(4, "big") + bytes(10))
    assert frames.next() == bytes(10)
    frames.feed((11).to_bytes(4, "big"))
    with pytest.raises(CodecError, match="a frame of 11 bytes, where 10 are allowed"):
        frames.next()


def test_the_largest_append_entries_fits_a_frame() -> None:
    config = Config()
    entry = Entry(MAX_NUMBER, bytes(codec.MAX_COMMAND))
    message = AppendEntries("n" * 99, "n" * 99, 1, 1, 1, (entry,) * config.max_entries, 1)
    assert len(codec.encode(message)) <= codec.MESSAGE.limit


def test_a_message_is_no_request_and_a_request_no_hello() -> None:
    vote = msgspec.msgpack.encode(RequestVote("n2", "n1", 1, 0, 0))
    get = msgspec.msgpack.encode(codec.GetRequest(1, "key"))
    with pytest.raises(CodecError):
        codec.REQUEST.decode(vote)
    with pytest.raises(CodecError):
        codec.MESSAGE.decode(get)
    with pytest.raises(CodecError):
        codec.HELLO.decode(get)


def test_addresses_are_read_and_written() -> None:
    text = "n1=127.0.0.1:7001,n2=example.org:7002,n3=[::1]:7003"
    addresses = parse_addresses(text)
    assert addresses["n3"] == Address("::1", 7003)
    assert format_addresses(addresses) == text
    assert parse_addresses("n1=7001, n2=7002")["n2"] == Address("127.0.0.1", 7002)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "is no address"),
        ("n1", "is no address"),
        ("n1=", "is no address"),
        ("=1.2.3.4:5", "is no address"),
        ("n1=host:", "is no address"),
        ("n1=:7001", "is no address"),
        ("n1=host:http", "is no address"),
        ("n1=host:0", "outside 1 to 65535"),
        ("n1=host:65536", "outside 1 to 65535"),
        ("n1=host:1,n1=host:2", "two addresses"),
        ("n1=host:1,n2=host:1", "the same address"),
    ],
)
def test_bad_addresses_are_named(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        parse_addresses(text)
