"""A client that notes which version of a route each of its requests met.

Usage: observe.py HOST PORT SECONDS KEPT NEW_PER_SECOND. So many connections are kept and have a request in
progress all the time; new ones come at a rate. Each line of stdout is one exchange: start and end (seconds of
CLOCK_MONOTONIC), kind (new or kept), outcome (a status, or the name of an error), and the value of X-State in the
response.
"""

import asyncio
import json
import sys
import time

HOST, PORT = sys.argv[1], int(sys.argv[2])
SECONDS, KEPT, RATE = float(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
TIMEOUT = 5.0
lines = []


async def exchange(kind, connection, close):
    start, outcome, state = time.monotonic(), "", ""
    reader, writer = connection
    try:
        end = "close" if close else "keep-alive"
        writer.write(f"GET /get HTTP/1.1\r\nHost: {HOST}\r\nConnection: {end}\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)
        fields = head.decode("latin-1").lower().split("\r\n")
        named = dict(field.split(": ", 1) for field in fields[1:] if field)
        await asyncio.wait_for(reader.readexactly(int(named["content-length"])), TIMEOUT)
        outcome, state = fields[0].split(" ")[1], named.get("x-state", "")
    except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
        outcome = type(error).__name__
    lines.append([start, time.monotonic(), kind, outcome, state])
    return outcome == "200"


async def connect():
    return await asyncio.wait_for(asyncio.open_connection(HOST, PORT), TIMEOUT)


async def keep(until):
    while time.monotonic() < until:
        connection = await connect()
        while time.monotonic() < until and await exchange("kept", connection, False):
            pass
        connection[1].close()


async def new():
    start = time.monotonic()
    try:
        connection = await connect()
    except (OSError, asyncio.TimeoutError) as error:
        lines.append([start, time.monotonic(), "new", type(error).__name__, ""])
        return
    await exchange("new", connection, True)
    connection[1].close()


async def main():
    begin = time.monotonic()
    until = begin + SECONDS
    tasks = [asyncio.create_task(keep(until)) for _ in range(KEPT)]
    print("running", file=sys.stderr, flush=True)
    at = 0
    while time.monotonic() < until:
        tasks.append(asyncio.create_task(new()))
        at += 1
        await asyncio.sleep(max(0, begin + at / RATE - time.monotonic()))
    await asyncio.gather(*tasks)
    print("\n".join(json.dumps(line) for line in lines))


asyncio.run(main())
