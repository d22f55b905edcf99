"""An ASGI application under hypercorn, for HTTP/1.1, HTTP/2 and WebSockets over either.

asgi_server.py PORT LOG: requests are answered with what arrived, messages are echoed; "close" has
it close with 4000. LOG gets a JSON line for each request or WebSocket when it is over.
"""

import asyncio
import hashlib
import json
import sys

from hypercorn.asyncio import serve
from hypercorn.config import Config

LOG = open(sys.argv[2], "a", buffering=1)


def tell(scope, hasher, **more):
    fields = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
    line = {
        "type": scope["type"],
        "version": scope["http_version"],
        "target": scope["path"] + "?" + scope["query_string"].decode(),
        "host": fields.get("host", fields.get(":authority")),
        "sha256": hasher.hexdigest(),
    }
    LOG.write(json.dumps({**line, **more}) + "\n")
    return line


async def http(scope, receive, send):
    hasher, more = hashlib.sha256(), True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            tell(scope, hasher, complete=False)
            return
        hasher.update(event.get("body", b""))
        more = event.get("more_body", False)
    body = json.dumps(tell(scope, hasher, complete=True)).encode()
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def websocket(scope, receive, send):
    hasher, count = hashlib.sha256(), 0
    while True:
        event = await receive()
        if event["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif event["type"] == "websocket.disconnect":
            tell(scope, hasher, messages=count, code=event.get("code"))
            return
        else:
            text, data = event.get("text"), event.get("bytes")
            hasher.update(data if text is None else text.encode())
            count += 1
            if text == "close":
                await send({"type": "websocket.close", "code": 4000, "reason": "as asked"})
            else:
                await send({"type": "websocket.send", "text": text, "bytes": data})


async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    await (http if scope["type"] == "http" else websocket)(scope, receive, send)


config = Config()
config.bind = [f"0.0.0.0:{sys.argv[1]}"]
config.errorlog = None
config.websocket_max_message_size = 64 << 20
asyncio.run(serve(application, config))
