"""Why replicas need an order: the lecture's bank, without agreement on it and with Raft.

python -m raftd.bank_example
"""

from __future__ import annotations

import asyncio

from raftd.bank import AddInterest, Bank, Deposit, encode_command
from raftd.cluster import Cluster

START = Deposit("a", 100_000)
DEPOSIT = Deposit("a", 100_000)
INTEREST = AddInterest("a", 10)


def without_agreement() -> list[str]:
    """Three replicas' balances. Each gets both commands, and one gets them the other way round."""
    balances = []
    for commands in ((DEPOSIT, INTEREST), (INTEREST, DEPOSIT), (DEPOSIT, INTEREST)):
        bank = Bank()
        for command in (START, *commands):
            bank.apply(encode_command(command))
        balances.append((bank.read("a") or b"").decode())
    return balances


async def _with_raft(cluster: Cluster) -> list[str]:
    async with cluster.client() as client:
        first, second = await client.open_session(), await client.open_session()
        await first.execute(encode_command(START))
        await asyncio.gather(first.execute(encode_command(DEPOSIT)), second.execute(encode_command(INTEREST)))
        last = (await client.status(cluster.leader())).last_applied
        balances = []
        for server in cluster.servers:
            while (await client.status(server)).last_applied < last:
                await asyncio.sleep(0.01)
            balances.append((await client.get_stale("a", server) or b"").decode())
        return balances


def main() -> None:
    print("without agreement on their order:", *without_agreement())
    with Cluster(3, trace=False, options=("--with", "sessions", "--machine", "bank")) as cluster:
        cluster.leader()
        print("with Raft:", *asyncio.run(_with_raft(cluster)))


if __name__ == "__main__":
    main()
