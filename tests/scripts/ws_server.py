"""A WebSocket server that echoes messages, with the library websockets: ws_server.py PORT LOG.

Some texts are orders: "ping" has it ping the client and tell that the pong came, "close CODE WHY"
has it close, "abort" has it drop the connection. LOG gets a JSON line at each connection's end.
"""

import asyncio
import hashlib
import json
import sys

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

LOG = open(sys.argv[2], "a", buffering=1)


async def handler(ws):
    hasher, count = hashlib.sha256(), 0
    try:
        async for message in ws:
            hasher.update(message.encode() if isinstance(message, str) else message)
            count += 1
            order = message.split(" ") if isinstance(message, str) else [""]
            if order[0] == "ping":
                await (await ws.ping(b"from the server"))
                await ws.send("ponged")
            elif order[0] == "close":
                await ws.close(int(order[1]), order[2])
            elif order[0] == "abort":
                ws.transport.abort()
            else:
                await ws.send(message)
    except ConnectionClosed:
        pass
    line = {
        "path": ws.request.path,
        "host": ws.request.headers["Host"],
        "subprotocol": ws.subprotocol,
        "extensions": ws.request.headers.get("Sec-WebSocket-Extensions"),
        "messages": count,
        "sha256": hasher.hexdigest(),
        "close": [ws.close_code, ws.close_reason],
    }
    LOG.write(json.dumps(line) + "\n")


def choose(ws, offered):
    return "chat" if "chat" in offered else None


async def main():
    more = {"select_subprotocol": choose, "max_size": None, "ping_interval": None, "close_timeout": 2}
    async with serve(handler, "0.0.0.0", int(sys.argv[1]), **more) as server:
        await server.serve_forever()


asyncio.run(main())
