"""httpx as an HTTP/2 client that does not ask first: h2_httpx.py HOST PORT TAG COUNT.

COUNT requests, 50 at once, bodies both ways. Prints a JSON object: how many were right, and what
they came with.
"""

import asyncio
import collections
import hashlib
import json
import sys

import httpx

host, port, tag, count = sys.argv[1:]


async def one(client, gate, number):
    body = hashlib.sha512(str(number).encode()).digest() * (number % 300)
    async with gate:
        url = f"http://{host}:{port}/echo?id={tag}-{number}"
        answer = await client.post(url, content=body, headers={"x-number": str(number)})
    seen = answer.json()
    right = seen["sha256"] == hashlib.sha256(body).hexdigest() and seen["target"].endswith(f"{tag}-{number}")
    return right, answer.http_version, str(answer.status_code)


async def main():
    gate = asyncio.Semaphore(50)
    async with httpx.AsyncClient(http1=False, http2=True, timeout=20, trust_env=False) as client:
        done = await asyncio.gather(*(one(client, gate, i) for i in range(int(count))))
    versions = collections.Counter(version for _, version, _ in done)
    statuses = collections.Counter(status for _, _, status in done)
    print(json.dumps({"right": sum(right for right, _, _ in done), "versions": versions, "statuses": statuses}))


asyncio.run(main())
