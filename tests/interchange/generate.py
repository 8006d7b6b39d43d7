"""Writes recordings as other programs write them, and what they hold.

usage: generate.py FOLDER
For each case: CASE.tar, CASE.json (what an export shows) and CASE.out (the output). Files named refused-*.tar are no
recordings; refused-*.why is part of what a reader says of them.
"""

import gzip
import json
import os
import random
import struct
import sys
import zlib

from tables import ANY, EVENTS, MAX_RECORD, ZERO_TIME, as_json, delimited, encode, part, record, varint

SID = "8d1d7e1c-93a5-4b0a-9d1e-0f7c4a5b6c7d"
START = 1_700_000_000
WHO = {"user": "ann", "login": "root", "sid": SID, "server_id": "node-1", "server_hostname": "db-7",
       "namespace": "default", "cluster_name": "other.test"}


class Session:
    """Makes the events of one session, each with the next index."""

    def __init__(self):
        self.index = self.chunk = self.offset = 0

    def meta(self, kind, code="", step=1):
        index, self.index = self.index, self.index + step
        event = {"ei": index, "event": kind, "time": (START + index % 3600, 123_000_000)}
        return {**event, "uid": f"id-{index}", "code": code} if code else event

    def start(self):
        return 5, {**WHO, **self.meta("session.start", "T2000I"), "size": "80:25", "session_recording": "node",
                   "addr.remote": "192.0.2.1:4711", "proto": "ssh", "initial_command": ["top", "-b"],
                   "user_roles": ["dev", "ops"], "user_traits": {"logins": ["root", "ann"]}, "user_kind": 1,
                   "server_labels": {"env": "prod"}}

    def print(self, data, step=1):
        event = {**self.meta("print", step=step), "ci": self.chunk, "data": data, "bytes": len(data),
                 "ms": self.chunk * 10, "offset": self.offset}
        self.chunk, self.offset = self.chunk + 1, self.offset + len(data)
        return 7, event

    def resize(self, size):
        return 9, {**WHO, **self.meta("resize", "T2002I"), "size": size}

    def end(self):
        event = {**WHO, **self.meta("session.end", "T2004I"), "interactive": True, "participants": ["ann"],
                 "session_start": (START, 0), "session_stop": (START + 60, 5)}
        return 10, event


def envelope(item):
    member, event = item
    return delimited(member, encode(EVENTS[member], event))


def pack(items, level=1):
    """A body as Go's writer makes it: one member, no time, operating system 255."""
    return member_of(b"".join(record(envelope(item)) for item in items), level)


def member_of(content, level=1):
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    deflated = packer.compress(content) + packer.flush()
    head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00" + (b"\x04" if level == 1 else b"\x00") + b"\xff"
    return head + deflated + struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF)


def whole(lines=20):
    session = Session()
    items = [session.start(), session.resize("132:43")]
    items += [session.print(f"line {number}\r\n".encode()) for number in range(lines)]
    return items + [session.end()]


def halves(items, count=3):
    size = -(-len(items) // count)
    return [items[at:at + size] for at in range(0, len(items), size)]


def case_plain():
    items = whole()
    return part(pack(items)), items


def case_version_2():
    items = whole()
    return b"".join(part(pack(some), 77, version=2) for some in halves(items)), items


def case_versions_mixed():
    items = whole()
    packed = [part(pack(some), version=1 + number % 2) for number, some in enumerate(halves(items, 5))]
    return b"".join(packed), items


def case_padding():
    items = whole()
    paddings = [1, 24, 4096, 5 * 1024 * 1024, 0]
    return b"".join(part(pack(some), size) for some, size in zip(halves(items, 5), paddings)), items


def case_minimum_part_size():
    items = whole()
    out = b""
    for some in halves(items, 2):
        body = pack(some)
        out += part(body, 5 * 1024 * 1024 - 24 - len(body))
    return out, items


def case_empty_parts():
    items = whole()
    filler = [part(b""), part(b"", 100), part(b"", 5 * 1024 * 1024, version=2), part(b"", 1)]
    out = filler[0]
    for number, some in enumerate(halves(items, 4)):
        out += part(pack(some), number) + filler[number] * 2
    return out, items


def case_parts_of_no_records():
    items = whole()
    return part(member_of(b"")) + part(pack(items)) + part(member_of(b""), 9), items


def case_only_filler():
    return part(b"", 24) * 3, []


def case_many_parts():
    items = whole(5000)
    return b"".join(part(pack([item])) for item in items), items


def case_largest_records():
    session = Session()
    items = [session.start()]
    noise = random.Random(7)
    for number in range(12):
        size = MAX_RECORD - 200
        # Until the envelope has exactly the length that is allowed.
        while True:
            data = noise.randbytes(size) if number % 2 else b"x" * size
            before = session.index, session.chunk, session.offset
            item = session.print(data)
            missing = MAX_RECORD - len(envelope(item))
            if missing == 0:
                break
            session.index, session.chunk, session.offset = before
            size += missing
        items.append(item)
    items.append(session.end())
    return b"".join(part(pack(some)) for some in halves(items, 4)), items


def case_one_large_part():
    session = Session()
    line = bytes(range(32, 127)) * 600 + b"\r\n"
    items = [session.start()] + [session.print(line) for _ in range(200)] + [session.end()]
    return part(pack(items)), items


def case_resumed_upload():
    # What was sent after the last acknowledgement is sent again, in parts cut elsewhere.
    items = whole(30)
    return part(pack(items[:20])) + part(pack(items[10:25]), 3) + part(pack(items[5:])), items


def case_all_twice():
    items = whole()
    return part(pack(items)) * 2, items


def case_missing_indexes():
    session = Session()
    items = [session.start()]
    items += [session.print(f"{step} ".encode(), step) for step in (1, 2, 17, 1_000_000, 1 << 40)]
    items.append(session.end())
    return part(pack(items[:3])) + part(pack(items[3:])), items


def unknown(member, index, extra):
    meta = {"ei": index, "event": "some.thing", "code": "T9999I", "uid": "u", "time": (START, 0)}
    inner = encode(ANY, meta) + extra
    return delimited(member, inner), as_json(member, meta)


def case_unknown_members():
    items = whole()
    content, shown = b"", []
    extra = delimited(2, b"opaque") + varint(300 << 3) + varint(5) + varint(9 << 3 | 5) + b"abcd"
    for at, (member, event) in enumerate(items):
        # Room between the indexes for the others.
        event["ei"] = at * 4
        content += record(envelope((member, event)))
        shown.append(as_json(member, event))
        for number, new in enumerate((216, 271, 4711)):
            inner, seen = unknown(new, at * 4 + 1 + number, extra)
            content += record(inner)
            shown.append(seen)
    return part(member_of(content)), items, shown


def case_unknown_fields():
    items = whole()
    noise = (varint(2000 << 3) + varint(1 << 63) + varint(2001 << 3 | 1) + bytes(8) + delimited(2002, b"new")
             + varint(2003 << 3 | 5) + bytes(4))
    content = b""
    for member, event in items:
        inner = encode(EVENTS[member], event)
        # Also inside the metadata: a field that is there twice is merged.
        inner += noise + delimited(1, noise)
        content += record(varint(3000 << 3) + varint(7) + delimited(member, inner))
    return part(member_of(content)), items


def case_padding_inside_the_body():
    items = whole()
    return b"".join(part(pack(some) + bytes(300), 10) for some in halves(items)), items


def case_headers_of_other_writers():
    items = whole()
    out = b""
    for number, some in enumerate(halves(items, 4)):
        content = b"".join(record(envelope(item)) for item in some)
        if number == 0:
            body = gzip.compress(content, 9)
        elif number == 1:
            body = member_of(content, 0)
        else:
            # Extra field, name, comment and header checksum (RFC 1952).
            head = b"\x1f\x8b\x08\x1e" + struct.pack("<I", START) + b"\x02\x03"
            head += struct.pack("<H", 8) + b"AB" + struct.pack("<H", 4) + b"data" + b"name\0" + b"a comment\0"
            head += struct.pack("<H", zlib.crc32(head) & 0xFFFF)
            body = head + member_of(content)[10:]
        out += part(body)
    return out, items


def case_unset_times():
    items = whole()
    for _, event in items:
        event["time"] = ZERO_TIME
    items[-1][1]["session_start"] = items[-1][1]["session_stop"] = ZERO_TIME
    return part(pack(items)), items


def case_odd_chunks():
    # Output over 64 KiB is cut unevenly by other writers; a character may be cut in two.
    session = Session()
    text = ("grün 漢字 \U0001f980 " * 4500).encode()
    cuts = [0, 1, len(text) - 65_000, len(text) - 64_999, len(text)]
    items = [session.start()] + [session.print(text[a:b]) for a, b in zip(cuts, cuts[1:])]
    items.append(session.print(b""))
    items.append(session.end())
    return part(pack(items)), items


def refused():
    good = part(pack(whole()))
    yield "nothing", b"", "the recording is empty"
    body = pack(whole())
    yield "version-3", part(body, version=3), "unsupported protocol version 3"
    yield "version-0", part(body, version=0), "unsupported protocol version 0"
    yield "encrypted", struct.pack(">QQQ", 2, 4, 0) + b"\x01" + bytes(7) + b"age!", "without decrypter"
    yield "cut-in-version", good + good[:5], "cut off within a part header"
    yield "cut-in-header", good + good[:20], "cut off within a part header"
    yield "cut-in-body", good[:-9], "recording is cut off"
    yield "cut-in-padding", part(body, 100)[:-1], "data truncated, expected to read 100 bytes, but got 99"
    yield "size-0", part(member_of(bytes(4))), "unexpected message size 0"
    yield "size-65537", part(member_of(struct.pack(">I", MAX_RECORD + 1) + bytes(MAX_RECORD + 1))), \
        "unexpected message size 65537"


def main():
    folder = sys.argv[1]

    def write(name, data):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(data)

    for name, case in list(globals().items()):
        if not name.startswith("case_"):
            continue
        data, items, *shown = case()
        shown = shown[0] if shown else [as_json(member, event) for member, event in items]
        name = name.removeprefix("case_").replace("_", "-")
        write(f"{name}.tar", data)
        write(f"{name}.json", json.dumps(shown).encode())
        write(f"{name}.out", b"".join(event["data"] for member, event in items if member == 7))
    for name, data, why in refused():
        write(f"refused-{name}.tar", data)
        write(f"refused-{name}.why", why.encode())


if __name__ == "__main__":
    main()
