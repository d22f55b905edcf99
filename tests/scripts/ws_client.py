"""A client of ws_server.py, with the library websockets: ws_client.py HOST PORT.

Prints a JSON object: what each kind of conversation came to.
"""

import asyncio
import hashlib
import json
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

URL = f"ws://{sys.argv[1]}:{sys.argv[2]}"
# Like no other part of itself, so that pieces in a wrong order show.
LARGE = b"".join(hashlib.sha512(i.to_bytes(4, "big")).digest() for i in range(131072))


def open_at(path, **more):
    return connect(URL + path, max_size=None, ping_interval=None, close_timeout=2, **more)


async def echoes():
    """Messages of all kinds, and what came back."""
    async with open_at("/echo", subprotocols=["chat"]) as ws:
        sent = ["", "text \u2713", b"", b"\x00\xff", "x" * 125, "x" * 126, b"y" * 65535, b"y" * 65536]
        for message in sent:
            await ws.send(message)
        back = [await ws.recv() for _ in sent]
        # Fragmented: one frame for each part.
        await ws.send(part for part in ["frag", "", "men", "ted"])
        fragmented = await ws.recv()
        fields = ["Upgrade", "Connection", "Sec-WebSocket-Extensions"]
        return {
            "same": back == sent,
            "fragmented": fragmented,
            "subprotocol": ws.subprotocol,
            "head": [ws.response.status_code] + [ws.response.headers.get(field) for field in fields],
        }


async def large():
    """8 MiB whole, then in 512 frames, uncompressed."""
    async with open_at("/large", compression=None) as ws:
        await ws.send(LARGE)
        whole = await ws.recv() == LARGE
        await ws.send(LARGE[at : at + 16384] for at in range(0, len(LARGE), 16384))
        return {"whole": whole, "frames": await ws.recv() == LARGE}


async def pings():
    async with open_at("/pings") as ws:
        latency = await asyncio.wait_for(await ws.ping(b"hello"), 5)
        # The library responds to the server's ping while it waits for a message.
        await ws.send("ping")
        return {"client": latency < 5, "server": await asyncio.wait_for(ws.recv(), 5)}


async def server_closes(order):
    async with open_at("/server-closes") as ws:
        await ws.send(order)
        try:
            await asyncio.wait_for(ws.recv(), 5)
        except ConnectionClosed:
            return [ws.close_code, ws.close_reason]


async def client_closes(code, reason):
    async with open_at(f"/client-closes-{code}") as ws:
        await ws.send("hello")
        await ws.recv()
        await ws.close(code, reason)
        return [ws.close_code, ws.close_reason]


async def client_aborts():
    async with open_at("/client-aborts") as ws:
        await ws.send("hello")
        await ws.recv()
        ws.transport.abort()


async def both_ways():
    """50 connections at once, each with 50 messages in flight both ways."""

    async def one(number):
        async with open_at("/both") as ws:
            sent = [f"{number}-{i}" for i in range(50)]
            sender = asyncio.create_task(send(ws, sent))
            back = [await ws.recv() for _ in sent]
            await sender
            return back == sent

    async def send(ws, messages):
        for message in messages:
            await ws.send(message)

    return sum(await asyncio.gather(*(one(i) for i in range(50))))


async def main():
    result = {
        "echoes": await echoes(),
        "large": await large(),
        "pings": await pings(),
        "server_closes": [await server_closes("close 1000 bye"), await server_closes("close 4321 tired")],
        "server_aborts": await server_closes("abort"),
        "client_closes": [await client_closes(1001, "leaving"), await client_closes(4999, "")],
        "both_ways": await both_ways(),
    }
    await client_aborts()
    print(json.dumps(result))


asyncio.run(main())
