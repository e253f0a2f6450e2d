"""Commands for whoever runs a cluster of raftd: who is in it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from raftworthy.cli.common import CONFORMS, Json, app, fail, print_json
from raftworthy.cli.serving import OPEN, Access, Cluster, Timeout, _ask

if TYPE_CHECKING:
    from raftd.client import Client
    from raftd.codec import Members

members = App(name="members", help="See and change who is in a cluster.", help_format="plaintext")
app.command(members)

POLL = 0.05  # seconds


@members.command(name="list")
def list_(*, cluster: Cluster, timeout: Timeout = 5.0, access: Access = OPEN, json: Json = False) -> int:
    """Say who votes and who learns, as the leader sees it.

    Exit code: 0 a leader answered, 2 none did.

    Example:
        raftworthy members list --cluster n1=7001,n2=7002,n3=7003
    """
    _show(_ask(cluster, timeout, access, json, _in_force), json)
    return CONFORMS


@members.command
def add(
    member: str,
    /,
    *,
    cluster: Cluster,
    learner: Annotated[bool, Parameter(help="let it learn and not vote", negative="")] = False,
    timeout: Timeout = 30.0,
    access: Access = OPEN,
    json: Json = False,
) -> int:
    """Add a server, NAME=HOST:PORT, which has been started with --join. It votes when it has caught up.

    Exit code: 0 it votes (or learns, with --learner), 2 it doesn't, or nobody knows: the message says which.

    Example:
        raftworthy members add n4=7004 --cluster n1=7001,n2=7002,n3=7003
    """
    from raftd.addresses import parse_addresses

    try:
        ((server, address),) = parse_addresses(member).items()
    except ValueError as error:
        return fail(str(error), json)

    async def join(client: Client) -> Members:
        await client.change_members("add", server, address=str(address), promoted=not learner)
        if not learner:
            return await _until(client, lambda now: server in now.voters and now.committed)
        return await _in_force(client)

    _show(_ask(cluster, timeout, access, json, join), json)
    return CONFORMS


@members.command
def promote(
    server: str, /, *, cluster: Cluster, timeout: Timeout = 5.0, access: Access = OPEN, json: Json = False
) -> int:
    """Let a learner vote that has caught up.

    Exit code: 0 it votes, 2 it doesn't, or nobody knows: the message says which.

    Example:
        raftworthy members promote n4 --cluster n1=7001,n2=7002,n3=7003
    """
    return _changed(cluster, timeout, access, json, lambda client: client.change_members("promote", server))


@members.command
def remove(
    server: str, /, *, cluster: Cluster, timeout: Timeout = 5.0, access: Access = OPEN, json: Json = False
) -> int:
    """Remove a server, voter or learner. A leader may remove itself: it leads until that is committed.

    Exit code: 0 it is out, 2 it is not, or nobody knows: the message says which.

    Example:
        raftworthy members remove n3 --cluster n1=7001,n2=7002,n3=7003
    """
    return _changed(cluster, timeout, access, json, lambda client: client.change_members("remove", server))


@members.command(name="set")
def set_(
    voters: str, /, *, cluster: Cluster, timeout: Timeout = 10.0, access: Access = OPEN, json: Json = False
) -> int:
    """Let these servers vote and no others, by way of a joint configuration. They are members already.

    Exit code: 0 they do, 2 they don't, or nobody knows: the message says which.

    Example:
        raftworthy members set n1,n4,n5 --cluster n1=7001,n2=7002,n3=7003
    """
    wanted = tuple(sorted({part.strip() for part in voters.split(",")}))

    async def go(client: Client) -> Members:
        await client.change_members("set", voters=wanted)
        return await _until(client, lambda now: now.voters == wanted and not now.outgoing and now.committed)

    _show(_ask(cluster, timeout, access, json, go), json)
    return CONFORMS


def _changed(cluster: str, timeout: float, access: Access, json: bool, change: Any) -> int:
    async def go(client: Client) -> Members:
        await change(client)
        return await _in_force(client)

    _show(_ask(cluster, timeout, access, json, go), json)
    return CONFORMS


async def _in_force(client: Client) -> Members:
    """The configuration that the leader goes by."""
    return await _until(client, lambda now: True)


async def _until(client: Client, reached: Any) -> Members:
    """The configuration in force at a leader, as soon as it is one that is waited for.

    Raises:
        RequestTimeoutError: time is up.
    """
    import asyncio

    from raftd.addresses import parse_addresses
    from raftd.client import RequestTimeoutError, status

    last = "no leader answers"
    try:
        async with asyncio.timeout(client.timeout):
            while True:
                for answer in (await status(client)).values():
                    if answer and answer.members:  # the leader may have joined later
                        for server, address in answer.members.addresses.items():
                            client.addresses |= parse_addresses(f"{server}={address}")
                    if answer is None or answer.role != "leader":
                        continue
                    if answer.members is None:
                        last = f"{answer.server} was started without --with membership"
                    elif reached(answer.members):
                        return answer.members
                    else:
                        last = f"the voters are {', '.join(answer.members.voters)} so far"
                await asyncio.sleep(POLL)
    except TimeoutError as error:
        raise RequestTimeoutError(
            f"not within {client.timeout:g} s: {last}", may_have_executed=True
        ) from error


def _show(now: Members, json: bool) -> None:
    if json:
        print_json({"verdict": "done", "members": now})
        return
    print(f"voters: {', '.join(now.voters)}")
    if now.outgoing:
        print(f"until the joint configuration is left, also: {', '.join(now.outgoing)}")
    if now.learners:
        print(f"learners: {', '.join(now.learners)}")
    if not now.committed:
        print("this is not committed yet", file=sys.stderr)
