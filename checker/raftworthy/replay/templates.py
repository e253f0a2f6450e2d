"""The fast path's functions as text, but for what the specification says; `fused` puts that in.

An event's function is made of a beginning, a middle and an end. It changes nothing before it is sure
that the event is an ordinary one, and returns False if it isn't.

    e  an event     i  its server     me  i's variables     m  the message received     x  one sent
"""

BEGIN = """\
def {name}(e, UNSET=UNSET):
    nonlocal {kind}_taken
    i = e.server
    server = servers.get(i)
    sends = e.sends
    if server is None or sends is UNSET: return False
    seq = server.seq + 1
    if e.seq != seq and e.seq is not UNSET: return False
"""
RECEIVE = """\
    m = e.message
    if type(m) is not {message} or m.target != i: return False
    received = hash(m)
    if received not in recent: return False
"""
BEFORE = """\
    me = server.me
    log = me.log
    role = me.role
    current_term = me.current_term
    length = len(log)
    state = e.state
"""
# A message of the current term at a server of the usual role. If not, another function has the event.
USUALLY = """\
    if m.term != current_term or role != {role!r}: return {name}_otherwise(e)
"""
RECEIVED = """\
    recent[received] = i
"""
ENTRIES = """\
    if not e.entries: return False
    log.cut = None
    for entry in e.entries:
        v = entry.value
"""
CHECK_ENTRY = """\
        if log[-1] != entry: replay.refuse_entry(e, entry, me)
"""
# An event may stand for more steps. Their order doesn't matter to what they come to; a guard that
# fails changes nothing, and `follow_up` finds it again. What then still differs is a violation.
COMPARE = """\
    if state is not UNSET:
        n = state.commit_index
        if n is not UNSET and n > me.commit_index: advance_commit_index(S, i, n, None)
        n = state.last_applied
        if n is not UNSET and n > me.last_applied: apply_entries(S, i, n, None)
    if {further}(state is not UNSET and ({differs})):
        replay.follow_up(e, me, last=True)
        replay.compare(e, me)
"""
CHECK_ROLE = """\
    if role == "leader" and me.role != "leader":
        replay.remember_leadership(server, current_term, log.cut, length)
"""
EXPECT_REPLY = """\
    if len(sends) != 1: return False
    x = sends[0]
    if type(x) is not {kind}{unlike}: return False
"""
# A follower may commit later than it could.
EXPECT_COMMIT = """\
    if state is not UNSET and state.commit_index is not UNSET and state.commit_index < {commit}: return False
"""
ONE_REPLY = """\
    key = hash(x)
    if key in recent:
        server.news = ()
    else:
        recent[key] = ""
        server.news = (key,)
        if owed or waiting: replay.arrived(key)
"""
EXPECT_REQUESTS = """\
    if sends != ({requests},): return False
"""
REQUESTS = """\
    server.news = news = []
    for x in sends:
        requests[i, x.term] = x
        key = hash(x)
        if key not in recent:
            recent[key] = ""
            news.append(key)
            if owed or waiting: replay.arrived(key)
"""
LEADERS_MESSAGES = """\
    if sends:
        leaders_messages(e, i, me, server, sends)
    else:
        server.news = ()
"""
END = """\
    server.before = current_term, {voted_for}, length
    server.seq = seq
    {name}_taken += 1
    return True
"""
# Leader i may send each of these now, or has sent it before. Anything else is for `send` to judge.
MESSAGES = """\
def leaders_messages(e, i, me, server, sends):
{before}
    server.news = news = []
    for x in sends:
        key = hash(x)
        if key in recent:
            if x.source != i: break
            continue
        if type(x) is not AppendEntries or x.target not in servers: break
{lines}
        if {unlike}: break
        if x.entries and x.entries != {entries}: break
        recent[key] = ""
        news.append(key)
        if owed or waiting: replay.arrived(key)
    else:
        return
    for key in news: del recent[key]
    replay.send(e, server, ())
"""
BIND = """\
def bind(replay):
    S, servers, recent, kinds = replay.world, replay.state, replay.sent.recent, replay.kinds
    owed, waiting, requests = replay.owed, replay.waiting, replay.requests
    apply_entries = replay.actions["apply_entries"]
    advance_commit_index = replay.actions["advance_commit_index"]
    {counters} = 0
{functions}
    def count():
        nonlocal {names}
{counted}
        {counters} = 0
    return locals()
"""
