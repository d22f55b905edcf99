"""A client that tells of every connection: new ones at a rate, and some that are kept.

Usage: load.py URL SECONDS NEW_PER_SECOND KEPT. Each line of stdout is a JSON object: kind ("new" or
"kept"), start and end of the exchange (seconds of CLOCK_MONOTONIC), outcome ("ok", or what
happened instead), via ("agent" if the answer has the field x-via, else "direct"). A kept connection
asks for an answer that takes 50 ms, then rests as long; when it ends, another takes its place.
"""

import asyncio
import json
import random
import sys
import time
from urllib.parse import urlsplit

TIMEOUT = 10.0
PAUSE = 0.05

url = urlsplit(sys.argv[1])
seconds, rate, kept = float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
lines = []


def tell(kind, start, outcome, via=""):
    end = time.monotonic()
    lines.append(json.dumps({"kind": kind, "start": start, "end": end, "outcome": outcome, "via": via}))


def name(error):
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return "timeout"
    if isinstance(error, asyncio.IncompleteReadError):
        return "eof"
    return type(error).__name__


async def connect():
    return await asyncio.wait_for(asyncio.open_connection(url.hostname, url.port or 80), TIMEOUT)


async def exchange(reader, writer, path, keep):
    """One request and its answer; the status, who answered, and whether the connection goes on."""
    connection = "keep-alive" if keep else "close"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: {connection}\r\n\r\n".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(head.split("content-length:")[1].split("\r\n")[0])
    await reader.readexactly(length)
    via = "agent" if "\r\nx-via:" in head else "direct"
    return head.split(" ")[1], via, "\r\nconnection: close" not in head


async def new():
    start = time.monotonic()
    writer = None
    try:
        reader, writer = await connect()
        status, via, _ = await asyncio.wait_for(exchange(reader, writer, "/get", False), TIMEOUT)
        tell("new", start, "ok" if status == "200" else status, via)
    except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
        tell("new", start, name(error))
    finally:
        if writer:
            writer.close()


async def keep(until):
    # Not in step with the others: at any time half of them wait for a response.
    await asyncio.sleep(random.uniform(0, 2 * PAUSE))
    while time.monotonic() < until:
        writer = None
        start = time.monotonic()
        try:
            reader, writer = await connect()
            goes_on = True
            while goes_on and time.monotonic() < until:
                start = time.monotonic()
                answer = asyncio.wait_for(exchange(reader, writer, "/delay/0.05", True), TIMEOUT)
                status, via, goes_on = await answer
                tell("kept", start, "ok" if status == "200" else status, via)
                await asyncio.sleep(PAUSE)
                # The server may close an idle connection; a client that sees it opens another.
                if reader.at_eof():
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
            tell("kept", start, name(error))
        finally:
            if writer:
                writer.close()


async def main():
    print("running", file=sys.stderr, flush=True)
    begin = time.monotonic()
    until = begin + seconds
    keepers = [asyncio.create_task(keep(until)) for _ in range(kept)]
    tasks = set()
    count = 0
    while (now := time.monotonic()) < until:
        while count < (now - begin) * rate:
            task = asyncio.create_task(new())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            count += 1
        await asyncio.sleep(0.002)
    await asyncio.gather(*keepers, *tasks)
    print("\n".join(lines))


asyncio.run(main())
