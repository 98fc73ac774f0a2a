"""Many slow streams: `serve PORT` is a provider that sends a token every few seconds; `ask URL COUNT BODY STATUS`
holds so many of them open at once through a gateway and tells its memory from /proc/PID/status."""

import asyncio
import json
import sys
from urllib.parse import urlsplit

TOKENS = 6
SECONDS_A_TOKEN = 12
# Streams that are opened at once; more would overflow the queue of a listening socket.
OPENING_AT_ONCE = 200
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def event(delta, reason=None):
    chunk = {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "slow",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }
    return f"data: {json.dumps(chunk)}\n\n".encode()


async def read_head(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            await reader.readexactly(int(line.split(b":")[1]))
    return head


async def answer(reader, writer):
    try:
        await read_head(reader)
        writer.write(HEAD + event({"role": "assistant", "content": ""}))
        for number in range(TOKENS):
            writer.write(event({"content": f"token {number} "}))
            await writer.drain()
            await asyncio.sleep(SECONDS_A_TOKEN)
        usage = {"id": "chatcmpl-1", "choices": [], "usage": {
            "prompt_tokens": 92, "completion_tokens": TOKENS, "total_tokens": 92 + TOKENS}}
        writer.write(event({}, "stop") + f"data: {json.dumps(usage)}\n\ndata: [DONE]\n\n".encode())
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    writer.close()


async def serve(port):
    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=4096)
    async with server:
        await server.serve_forever()


def rss_mib(status):
    with open(status, encoding="utf-8") as lines:
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


async def ask(url, count, body, status):
    to = urlsplit(url)
    request = json.loads(body) | {"model": "slow", "stream": True}
    body = json.dumps(request).encode()
    head = f"POST {to.path} HTTP/1.1\r\nhost: {to.netloc}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    opening = asyncio.Semaphore(OPENING_AT_ONCE)
    begun = whole = failed = 0

    async def one():
        nonlocal begun, whole, failed
        try:
            async with opening:
                reader, writer = await asyncio.open_connection(to.hostname, to.port, limit=16 << 10)
                writer.write(head.encode() + body)
                await reader.readuntil(b"token 0")
                begun += 1
            await reader.readuntil(b"[DONE]")
            whole += 1
            writer.close()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            failed += 1

    streams = asyncio.gather(*(one() for _ in range(count)))
    most = most_open = 0
    while not streams.done():
        await asyncio.sleep(0.5)
        most_open = max(most_open, begun - whole)
        most = max(most, rss_mib(status))
    print(f"{count} slow streams: {whole} whole, {failed} failed, at most {most_open} open at once; "
          f"memory at most {most:.0f} MiB")


if sys.argv[1] == "serve":
    asyncio.run(serve(int(sys.argv[2])))
else:
    with open(sys.argv[4], encoding="utf-8") as file:
        text = file.read()
    asyncio.run(ask(sys.argv[2], int(sys.argv[3]), text, sys.argv[5]))
