"""paramiko to a host: one connection to the proxy with an agent, another inside it; or one to a listener on this
machine, with a password.

Arguments: folder with `user`, `user-cert.pub` and `blob`, port of the proxy or the listener, port of the host, login,
socket of the agent (paramiko finds it by itself), and the listener's password.
"""

import hashlib
import sys

import paramiko
from paramiko.agent import AgentRequestHandler

FOLDER, PROXY, HOST, LOGIN = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
PIECE = 1 << 16


def connect(stream, with_certificate=True):
    """A connection that is logged in."""
    key = paramiko.Ed25519Key.from_private_key_file(f"{FOLDER}/user")
    if with_certificate:
        key.load_certificate(f"{FOLDER}/user-cert.pub")
    connection = paramiko.Transport(stream)
    connection.start_client(timeout=30)
    connection.auth_publickey(LOGIN, key)
    return connection


def digest(pieces):
    """The SHA-256 of what comes."""
    whole = hashlib.sha256()
    for piece in pieces:
        whole.update(piece)
    return whole.hexdigest()


def file_pieces(path):
    """A file, piece by piece."""
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            yield piece


def output(connection, command, pieces=()):
    """What a command says to the pieces, and how it ends."""
    channel = connection.open_session()
    channel.exec_command(command)
    for piece in pieces:
        channel.sendall(piece)
    channel.shutdown_write()
    said = iter(lambda: channel.recv(PIECE), b"")
    return said, channel.recv_exit_status


def through_proxy():
    """A connection inside another, which is returned to be kept."""
    try:
        connect(("127.0.0.1", PROXY), with_certificate=False)
        sys.exit("a key without a certificate gets in")
    except paramiko.AuthenticationException:
        pass
    outer = connect(("127.0.0.1", PROXY))
    way = outer.open_session()
    forwarding = AgentRequestHandler(way)
    way.invoke_subsystem(f"proxy:127.0.0.1:{HOST}")
    return connect(way), (outer, forwarding)


def through_listener(password):
    """A connection that asks for no certificate."""
    address = ("127.0.0.1", PROXY)
    # paramiko asks for the authentication service at each try, so each has a connection of its own.
    refused, connection = paramiko.Transport(address), paramiko.Transport(address)
    refused.start_client(timeout=30)
    try:
        refused.auth_none(LOGIN)
        sys.exit("no password gets in")
    except paramiko.AuthenticationException:
        refused.close()
    connection.start_client(timeout=30)
    connection.auth_password(LOGIN, password)
    return connection, None


def check(connection):
    """What the host is good for."""
    said, status = output(connection, "echo here; exit 7")
    assert (b"".join(said), status()) == (b"here\n", 7)

    shell = connection.open_session()
    shell.get_pty("xterm", 100, 30)
    shell.invoke_shell()
    shell.sendall(b"stty size; exit 3\n")
    shown = b"".join(iter(lambda: shell.recv(PIECE), b""))
    assert b"30 100" in shown and shell.recv_exit_status() == 3, shown

    blob = f"{FOLDER}/blob"
    wanted = digest(file_pieces(blob))
    said, status = output(connection, f"cat {blob}")
    assert (digest(said), status()) == (wanted, 0), "download"
    said, status = output(connection, "sha256sum", file_pieces(blob))
    assert b"".join(said).split()[0].decode() == wanted and status() == 0, "upload"

    sftp = paramiko.SFTPClient.from_transport(connection)
    sftp.put(blob, f"{FOLDER}/paramiko-up")
    sftp.get(f"{FOLDER}/paramiko-up", f"{FOLDER}/paramiko-down")
    assert digest(file_pieces(f"{FOLDER}/paramiko-down")) == wanted, "sftp"
    assert "paramiko-up" in sftp.listdir(FOLDER)


PASSWORD = sys.argv[6] if len(sys.argv) > 6 else None
CONNECTION, _KEPT = through_listener(PASSWORD) if PASSWORD else through_proxy()
check(CONNECTION)
CONNECTION.close()
print("done")
