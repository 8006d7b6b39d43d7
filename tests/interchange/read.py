"""Reads recordings of ours: prints, for each file, what an export shows and the output.

usage: read.py FILE...
Prints one JSON object per line: {"events": [...], "output": "base64", "parts": n, "skipped": n}.
"""

import base64
import gzip
import io
import json
import struct
import sys

from tables import ANY, EVENTS, MAX_RECORD, Damaged, as_json, decode, fields


def bodies(data):
    """The bodies of the parts; the file must end where a part ends."""
    at = 0
    while at < len(data):
        if at + 24 > len(data):
            raise Damaged("header is cut off")
        version, size, padding = struct.unpack_from(">QQQ", data, at)
        if version not in (1, 2):
            raise Damaged(f"unsupported protocol version {version}")
        at += 24
        if version == 2:
            if data[at] != 0:
                raise Damaged("encrypted")
            at += 8
        if at + size + padding > len(data):
            raise Damaged("part is cut off")
        yield data[at:at + size]
        at += size + padding


def records(body):
    """The records of a body, read as any reader of gzip does: member after member, zeros behind them ignored."""
    content = gzip.GzipFile(fileobj=io.BytesIO(body)).read() if body else b""
    at = 0
    while at < len(content):
        (size,) = struct.unpack_from(">I", content, at)
        if not 0 < size <= MAX_RECORD:
            raise Damaged(f"unexpected message size {size}")
        if at + 4 + size > len(content):
            raise Damaged("record is cut off")
        yield content[at + 4:at + 4 + size]
        at += 4 + size


def read(data):
    events, output, number, skipped, last = [], [], 0, 0, -1
    for body in bodies(data):
        number += 1
        for envelope in records(body):
            members = [(member, inner) for member, inner in fields(envelope) if isinstance(inner, bytes)]
            if len(members) != 1:
                raise Damaged("an envelope holds one event")
            member, inner = members[0]
            event = {}
            decode(EVENTS.get(member, ANY), inner, event)
            if event.get("ei", 0) <= last:
                skipped += 1
                continue
            last = event.get("ei", 0)
            events.append(as_json(member, event))
            if member == 7:
                output.append(event.get("data", b""))
    text = base64.b64encode(b"".join(output)).decode()
    return {"events": events, "output": text, "parts": number, "skipped": skipped}


def main():
    for name in sys.argv[1:]:
        with open(name, "rb") as file:
            print(json.dumps(read(file.read())))


if __name__ == "__main__":
    main()
