"""asyncssh through the proxy: one connection to it with an agent, another inside it to the host.

Arguments: folder with `user`, `user-cert.pub`, `ca.pub` and `blob`, port of the proxy, port of the host, login, socket
of an agent.
"""

import asyncio
import hashlib
import socket
import sys

import asyncssh

FOLDER, PROXY, HOST, LOGIN, AGENT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
PIECE = 1 << 16


def options(with_certificate=True):
    """Both connections: our certificate for them, certificates of the cluster's authority for us."""
    key = asyncssh.read_private_key(f"{FOLDER}/user")
    certificate = asyncssh.read_certificate(f"{FOLDER}/user-cert.pub")
    authority = asyncssh.read_public_key(f"{FOLDER}/ca.pub")
    keys = [(key, certificate)] if with_certificate else [(key, None)]
    return {
        "client_keys": keys,
        "known_hosts": ([], [authority], []),
        "username": LOGIN,
        "config": None,
    }


async def move(source, sink):
    """Passes bytes on until one side ends."""
    try:
        while piece := await source.read(PIECE):
            sink.write(piece)
            await sink.drain()
    except (OSError, asyncssh.Error):
        pass
    sink.close()


async def check(connection):
    """What the host is good for."""
    done = await connection.run("echo here; exit 7")
    assert (done.stdout, done.exit_status) == ("here\n", 7), done
    shell = await connection.run(term_type="xterm", term_size=(100, 30), input="stty size; exit 3\n")
    assert "30 100" in shell.stdout and shell.exit_status == 3, shell

    blob = f"{FOLDER}/blob"
    with open(blob, "rb") as file:
        content = file.read()
    wanted = hashlib.sha256(content).hexdigest()
    done = await connection.run(f"cat {blob}", encoding=None)
    assert hashlib.sha256(done.stdout).hexdigest() == wanted, "download"
    done = await connection.run("sha256sum", input=content, encoding=None)
    assert done.stdout.split()[0].decode() == wanted, "upload"

    async with connection.start_sftp_client() as sftp:
        await sftp.put(blob, f"{FOLDER}/asyncssh-up")
        await sftp.get(f"{FOLDER}/asyncssh-up", f"{FOLDER}/asyncssh-down")
        assert "asyncssh-up" in await sftp.listdir(FOLDER)
    with open(f"{FOLDER}/asyncssh-down", "rb") as file:
        assert hashlib.sha256(file.read()).hexdigest() == wanted, "sftp"


async def main():
    try:
        await asyncssh.connect("127.0.0.1", PROXY, agent_path=None, **options(with_certificate=False))
        sys.exit("a key without a certificate gets in")
    except asyncssh.PermissionDenied:
        pass
    forwarding = {"agent_forwarding": True, "agent_path": AGENT}
    async with asyncssh.connect("127.0.0.1", PROXY, **forwarding, **options()) as outer:
        subsystem = f"proxy:127.0.0.1:{HOST}"
        to_host, from_host, _ = await outer.open_session(subsystem=subsystem, encoding=None)
        near, far = socket.socketpair()
        from_near, to_near = await asyncio.open_connection(sock=far)
        moves = [move(from_host, to_near), move(from_near, to_host)]
        moves = [asyncio.create_task(one) for one in moves]
        async with asyncssh.connect("127.0.0.1", HOST, sock=near, agent_path=None, **options()) as inner:
            await check(inner)
        for one in moves:
            one.cancel()
    print("done")


asyncio.run(main())
