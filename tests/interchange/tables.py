"""The wire layout of recordings and of the events in them, as tables, and a codec that follows the tables.

Written from the published layout alone: a second opinion on what our programs write and read. Standard library only.
"""

import struct

MAX_RECORD = 65_536
# Go's zero time, which is written and means "unset".
ZERO_TIME = (-62_135_596_800, 0)

# A field: number -> (JSON key, kind, whether the key is left out when empty).
# Kinds: str, bytes (not in JSON), int, bool, time, strs (repeated), map, lists (a map of lists of strings), and
# the name of a message, whose keys stand in the object itself.
MD = {1: ("ei", "int", False), 2: ("event", "str", False), 3: ("uid", "str", True), 4: ("code", "str", True),
      5: ("time", "time", False), 6: ("cluster_name", "str", True)}
SM = {1: ("sid", "str", False), 2: ("with_mfa", "str", True), 3: ("private_key_policy", "str", True)}
UM = {1: ("user", "str", True), 2: ("login", "str", True), 3: ("impersonator", "str", True),
      4: ("aws_role_arn", "str", True), 5: ("access_requests", "strs", True), 6: ("azure_identity", "str", True),
      7: ("gcp_service_account", "str", True), 9: ("required_private_key_policy", "str", True),
      10: ("user_kind", "int", True), 11: ("bot_name", "str", True), 12: ("bot_instance_id", "str", True),
      13: ("user_origin", "int", True), 14: ("user_roles", "strs", True), 15: ("user_traits", "lists", True),
      16: ("user_cluster_name", "str", True)}
SRV = {1: ("namespace", "str", True), 2: ("server_id", "str", False), 3: ("server_hostname", "str", True),
       4: ("server_addr", "str", True), 5: ("server_labels", "map", True), 6: ("forwarded_by", "str", True),
       7: ("server_sub_kind", "str", True), 8: ("server_version", "str", True)}
CM = {1: ("addr.local", "str", True), 2: ("addr.remote", "str", True), 3: ("proto", "str", True)}
KC = {1: ("kubernetes_cluster", "str", True), 2: ("kubernetes_users", "strs", True),
      3: ("kubernetes_groups", "strs", True), 4: ("kubernetes_labels", "map", True)}
KP = {1: ("kubernetes_pod_name", "str", True), 2: ("kubernetes_pod_namespace", "str", True),
      3: ("kubernetes_container_name", "str", True), 4: ("kubernetes_container_image", "str", True),
      5: ("kubernetes_node_name", "str", True)}
CMD = {1: ("command", "str", False), 2: ("exitCode", "str", True), 3: ("exitError", "str", True)}
ST = {1: ("success", "bool", False), 2: ("error", "str", True), 3: ("message", "str", True)}
PARTS = {"MD": MD, "SM": SM, "UM": UM, "SRV": SRV, "CM": CM, "KC": KC, "KP": KP, "CMD": CMD, "ST": ST}


def parts(*numbered):
    return {number: (name, name, False) for number, name in numbered}


# Member of the envelope -> fields.
EVENTS = {
    5: {**parts((1, "MD"), (2, "UM"), (3, "SM"), (4, "SRV"), (5, "CM"), (7, "KC"), (8, "KP")),
        6: ("size", "str", True), 9: ("initial_command", "strs", True), 10: ("session_recording", "str", True),
        12: ("invited", "strs", True), 13: ("reason", "str", True)},
    6: parts((1, "MD"), (2, "UM"), (3, "SM"), (4, "SRV"), (5, "CM"), (6, "KC")),
    7: {**parts((1, "MD")), 2: ("ci", "int", False), 3: ("data", "bytes", False), 4: ("bytes", "int", False),
        5: ("ms", "int", False), 6: ("offset", "int", False)},
    9: {**parts((1, "MD"), (2, "UM"), (3, "SM"), (4, "CM"), (5, "SRV"), (7, "KC"), (8, "KP")),
        6: ("size", "str", True)},
    10: {**parts((1, "MD"), (2, "UM"), (3, "SM"), (4, "CM"), (5, "SRV"), (11, "KC"), (12, "KP")),
         6: ("enhanced_recording", "bool", False), 7: ("interactive", "bool", False),
         8: ("participants", "strs", False), 9: ("session_start", "time", False),
         10: ("session_stop", "time", False), 13: ("initial_command", "strs", True),
         14: ("session_recording", "str", True)},
    14: {**parts((1, "MD"), (2, "UM"), (3, "SM"), (4, "SRV"), (5, "CM")), 6: ("tx", "int", False),
         7: ("rx", "int", False)},
    15: parts((1, "MD"), (2, "UM"), (3, "SM"), (4, "SRV"), (5, "CM")),
    19: parts((1, "MD"), (2, "UM"), (3, "CM"), (4, "SM"), (5, "SRV"), (6, "CMD"), (7, "KC"), (8, "KP")),
    20: {**parts((1, "MD"), (2, "UM"), (3, "CM"), (6, "SRV")), 4: ("name", "str", False),
         5: ("exitError", "str", False)},
    80: {**parts((1, "MD")), 2: ("unknown_event", "str", False), 3: ("unknown_code", "str", True),
         4: ("data", "str", False)},
}
# What is known of every member: it begins with the metadata.
ANY = parts((1, "MD"))


class Damaged(Exception):
    """Bytes that are no recording."""


# --- protobuf ---

def varint(number):
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def delimited(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def take_varint(data, at):
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Damaged("varint")
        number |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return number & (1 << 64) - 1, at
        shift += 7


def signed(number):
    return number - (1 << 64) if number >> 63 else number


def fields(data):
    """Yields (number, value) of a message; values are ints or bytes."""
    at = 0
    while at < len(data):
        key, at = take_varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = take_varint(data, at)
        elif wire in (1, 2, 5):
            size, at = take_varint(data, at) if wire == 2 else ((8, at) if wire == 1 else (4, at))
            value, at = data[at:at + size], at + size
            if at > len(data):
                raise Damaged("field")
        else:
            raise Damaged(f"wire type {wire}")
        yield number, value


# --- events as dictionaries ---

EMPTY = {"str": "", "bytes": b"", "int": 0, "bool": False, "time": ZERO_TIME, "strs": [], "map": {}, "lists": {}}


def decode(table, data, event):
    """Reads a message into the dictionary `event`; fields that the table does not have are passed over."""
    for number, value in fields(data):
        if number not in table:
            continue
        key, kind, _ = table[number]
        if kind in PARTS:
            decode(PARTS[kind], value, event)
        elif kind == "str":
            event[key] = value.decode()
        elif kind == "bytes":
            event[key] = value
        elif kind == "int":
            event[key] = signed(value)
        elif kind == "bool":
            event[key] = value != 0
        elif kind == "time":
            stamp = dict(fields(value))
            event[key] = (signed(stamp.get(1, 0)), stamp.get(2, 0))
        elif kind == "strs":
            event.setdefault(key, []).append(value.decode())
        elif kind == "map":
            pair = dict(fields(value))
            event.setdefault(key, {})[pair.get(1, b"").decode()] = pair.get(2, b"").decode()
        else:
            for _, inner in fields(value):
                pair = dict(fields(inner))
                texts = [item.decode() for _, item in fields(pair.get(2, b""))]
                event.setdefault(key, {})[pair.get(1, b"").decode()] = texts


def encode(table, event):
    """Writes a dictionary as a message; an embedded part is written also where it is empty."""
    out = b""
    for number, (key, kind, _) in sorted(table.items()):
        if kind in PARTS:
            out += delimited(number, encode(PARTS[kind], event))
            continue
        value = event.get(key, EMPTY[kind])
        if kind == "time":
            out += delimited(number, stamp_bytes(value))
        elif value == EMPTY[kind]:
            continue
        elif kind == "str":
            out += delimited(number, value.encode())
        elif kind == "bytes":
            out += delimited(number, value)
        elif kind in ("int", "bool"):
            out += varint(number << 3) + varint(int(value))
        elif kind == "strs":
            out += b"".join(delimited(number, item.encode()) for item in value)
        elif kind == "map":
            out += b"".join(delimited(number, entry(name, text.encode())) for name, text in value.items())
        else:
            lists = {name: b"".join(delimited(1, item.encode()) for item in items) for name, items in value.items()}
            out += delimited(number, b"".join(delimited(1, entry(name, items)) for name, items in lists.items()))
    return out


def entry(name, value):
    return delimited(1, name.encode()) + delimited(2, value)


def stamp_bytes(value):
    seconds, nanos = value
    out = varint(1 << 3) + varint(seconds) if seconds else b""
    return out + (varint(2 << 3) + varint(nanos) if nanos else b"")


def as_json(member, event):
    """The object an export shows: without the data of prints, and without the event's id."""
    out = {}
    show(EVENTS.get(member, ANY), event, out)
    out.pop("uid", None)
    return out


def show(table, event, out):
    for key, kind, optional in table.values():
        if kind in PARTS:
            show(PARTS[kind], event, out)
            continue
        value = event.get(key, EMPTY[kind])
        if kind == "bytes" or optional and value == EMPTY[kind]:
            continue
        out[key] = stamp_text(value) if kind == "time" else value


def stamp_text(value):
    """RFC 3339 with as many digits as there are."""
    seconds, nanos = value
    days, rest = divmod(seconds, 86_400)
    year, month, day = civil(days)
    text = f"{year:04}-{month:02}-{day:02}T{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return text + (f".{nanos:09}".rstrip("0") if nanos else "") + "Z"


def civil(days):
    """Year, month and day of a number of days since 1970 (proleptic Gregorian)."""
    days += 719_468
    era, day_of_era = divmod(days, 146_097)
    year = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year + year // 4 - year // 100)
    month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    return year + era * 400 + (month <= 2), month, day


# --- the container ---

def record(envelope):
    return struct.pack(">I", len(envelope)) + envelope


def part(body, padding=0, version=1):
    header = struct.pack(">QQQ", version, len(body), padding)
    if version == 2:
        header += bytes(8)
    return header + body + bytes(padding)
