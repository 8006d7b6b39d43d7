"""redis-py to two ports of the same server, as `default` and as `alice`: pipelines, transactions, subscriptions, MONITOR,
blocking commands, scripts, version 3 of the protocol, large and binary values."""

import os
import sys
import threading

import redis

default, alice = (int(port) for port in sys.argv[1:3])


def connect(name, port=default, protocol=2, **more):
    more |= {"client_name": name, "protocol": protocol, "single_connection_client": True, "socket_timeout": 30}
    return redis.Redis("127.0.0.1", port, **more)


with connect("pipeline") as client:
    with client.pipeline(transaction=False) as pipeline:
        for number in range(10_000):
            pipeline.set(f"p:{number}", number)
        assert all(pipeline.execute())
    with client.pipeline() as pipeline:
        pipeline.watch("w")
        pipeline.multi()
        pipeline.incr("w")
        pipeline.incr("w")
        assert pipeline.execute() == [1, 2]

with connect("values") as client:
    for size in [0, 1, 65_535, 65_536, 20_000_000]:
        value = os.urandom(size)
        assert client.set(b"bin\x00\r\n\xff", value)
        assert client.get(b"bin\x00\r\n\xff") == value
    client.mset({f"m:{number}": "x" * 100 for number in range(20_000)})
    assert sum(1 for _ in client.scan_iter("m:*", count=1000)) == 20_000
    script = client.register_script("return {KEYS[1], ARGV[1], redis.status_reply('FINE')}")
    assert script(keys=["a"], args=["b"]) == [b"a", b"b", b"FINE"]
    try:
        client.lpush("bin\x00", "x")
        client.incr("bin\x00")
        raise AssertionError("a list is no number")
    except redis.ResponseError as error:
        assert "WRONGTYPE" in str(error) or "wrong kind" in str(error), error

for protocol in [2, 3]:
    with connect("sub", protocol=protocol) as client, connect("pub") as publisher:
        with client.pubsub() as pubsub:
            pubsub.subscribe("one", "two")
            pubsub.psubscribe("p*")
            kinds = [pubsub.get_message(timeout=10)["type"] for _ in range(3)]
            assert kinds == ["subscribe", "subscribe", "psubscribe"], kinds
            for number in range(1000):
                publisher.publish("one", number)
            data = [pubsub.get_message(timeout=10)["data"] for _ in range(1000)]
            assert data == [str(number).encode() for number in range(1000)]
            pubsub.unsubscribe()
            pubsub.punsubscribe()
            kinds = sorted(pubsub.get_message(timeout=10)["type"] for _ in range(3))
            assert kinds == ["punsubscribe", "unsubscribe", "unsubscribe"], kinds

with connect("monitor") as client, connect("seen") as other:
    with client.monitor() as monitor:
        other.set("monitored", "yes")
        while "monitored" not in monitor.next_command()["command"]:
            pass

with connect("blocking") as client, connect("pusher") as pusher:
    threading.Timer(0.5, lambda: pusher.rpush("list", "pushed")).start()
    assert client.blpop("list", 10) == (b"list", b"pushed")
    assert client.blpop("list", 1) is None

with connect("third", alice, protocol=3, username="alice", password="alice-secret-71") as client:
    assert client.acl_whoami() in ("alice", b"alice")
    client.hset("h", mapping={"a": 1, "b": 2})
    assert client.hgetall("h") == {b"a": b"1", b"b": b"2"}

with connect("second", alice, protocol=2, username="alice", password="alice-secret-71") as client:
    assert client.acl_whoami() in ("alice", b"alice")

try:
    with connect("wrong", alice, username="alice", password="wrong") as client:
        client.ping()
        raise AssertionError("a wrong password is none")
except redis.AuthenticationError:
    pass

print("done")
