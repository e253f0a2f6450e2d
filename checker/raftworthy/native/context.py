"""What Python and the compiled functions share: a block of words for each thread, and what is where in it."""

from __future__ import annotations

from enum import IntEnum, auto

# How many successors wait for their places in the table to be fetched.
BATCH = 32
# Each shard's fingerprints lie in so many tables, which grow one after the other.
SLICES = 16
# How a step is written down: the parameters' or the message's number, the action's, and the state before,
# by its number times the number of shards plus its shard's: in 40 bits, a million million states in all.
ORDINAL_BITS, ACTION_BITS = 16, 8
MOST_SHARDS = 1 << 12
PARENT_SHIFT = ORDINAL_BITS + ACTION_BITS
NO_PARENT = (1 << 64) - 1
# Bytes that may be read or written behind a row, as words are.
SLACK = 16
RECORD = 16  # bytes before a row that goes to another process, and of a step that is written down


class Stop(IntEnum):
    """Why a function came back."""

    DONE = 0  # every row was expanded, or received
    ROOM = auto()  # memory for rows or steps is needed before it can go on
    FULL = auto()  # a table has to grow
    PAUSE = auto()  # enough rows for once
    VIOLATED = auto()
    MISFIT = auto()  # a step made a value that has no place
    CROWDED = auto()  # a state has more messages than there is place for


class At(IntEnum):
    """Where in the context what stands."""

    ROWS = 0  # the piece of the level that is expanded: address, bytes, and how far it has come
    ROWS_END = auto()
    ROWS_AT = auto()
    NEXT = auto()  # the next level: address, how many bytes there are, how many are used
    NEXT_ROOM = auto()
    NEXT_USED = auto()
    TRAIL = auto()  # for each new state its fingerprint and how it was reached: address, room, used
    TRAIL_ROOM = auto()
    TRAIL_USED = auto()
    OUT = auto()  # for each shard elsewhere what goes to it: address of address, bytes, used
    TABLES = auto()  # of all shards: address of address, places, how many may be taken, how many were
    SHARD = auto()  # which shard this is, of how many
    SHARDS = auto()
    FIRST_HERE = auto()  # the shards of this process, whose tables it shares: the first, and how many
    HERE = auto()
    FULL = auto()  # whether a table has to grow
    FROM = auto()  # the state that is expanded: whose it is, and its number there
    PARENT = auto()
    DEAD = auto()  # 0, or where a byte for each row says whether it was known after all
    ROW = auto()  # the number of the row in its level
    STEPS = auto()  # successors made
    DISTINCT = auto()  # states that were new
    SENT = auto()  # states that went to shards elsewhere
    STAYED = auto()  # whether a step that changes nothing was checked in this state
    BATCH = auto()  # how many successors wait to be looked up
    BUDGET = auto()  # how many rows may still be expanded
    STATES_LIMIT = auto()  # stop for a pause when there are this many states
    NEED = auto()  # bytes that the next row may need
    MOVE = auto()  # the violating or misfit step
    PROPERTY = auto()  # the number of the property that it violates, from 1
    MESSAGES = auto()  # how many messages the state has that is expanded
    STATES = auto()  # whole states, in exact mode: address, bytes, used
    STATES_ROOM = auto()
    STATES_USED = auto()
    SCRATCH = auto()


class In(IntEnum):
    """Where in a successor what stands, before its server's words, history's, and the messages it sends."""

    KEY = 0  # its fingerprint
    TABLE = auto()  # which table it belongs to
    PLACE = auto()  # where in it to look first
    MOVE = auto()
    SERVER = auto()  # who took the step
    CHANGED = auto()  # whether variables changed
    FRESH = auto()  # how many messages are new
    WORDS = auto()


class Table(IntEnum):
    """Where in a table's description what stands. Each thread has descriptions of its own."""

    ADDRESS = 0
    SIZE = auto()
    LIMIT = auto()
    USED = auto()
    WORDS = auto()


class Out(IntEnum):
    """Where in the description of what goes to a thread what stands; no two in a line of the cache."""

    ADDRESS = 0
    ROOM = auto()
    USED = auto()
    WORDS = 16
