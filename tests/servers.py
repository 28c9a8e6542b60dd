"""Real servers on this machine that hold a leaderboard: FTP, SFTP and S3."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import asyncssh
import boto3
from moto.server import ThreadedMotoServer
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.ioloop import IOLoop
from pyftpdlib.servers import FTPServer


@contextlib.contextmanager
def ftp(folder):
    """Serves a folder; `duo` may write, `guest` may read."""
    authorizer = DummyAuthorizer()
    authorizer.add_user("duo", "secret", str(folder), perm="elradfmw")
    authorizer.add_user("guest", "secret", str(folder), perm="elr")
    handler = type("Handler", (FTPHandler,), {"authorizer": authorizer, "passive_ports": None})
    stopped = threading.Event()

    def serve():  # from the first to the last in one thread, with a loop of its own: what pyftpdlib shares is not safe
        while not stopped.is_set():
            running.serve_forever(timeout=0.1, blocking=False)
        running.close_all()

    running = FTPServer(("127.0.0.1", 0), handler, ioloop=IOLoop())
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"ftp://duo:secret@127.0.0.1:{running.address[1]}/board"
    stopped.set()
    thread.join(timeout=10)


class _SSH(asyncssh.SSHServer):
    def password_auth_supported(self):
        return True

    def validate_password(self, username, password):
        return (username, password) == ("duo", "secret")


@contextlib.contextmanager
def sftp(folder):
    """Serves a folder to `duo`."""

    async def listening():
        return await asyncssh.create_server(
            _SSH, "127.0.0.1", 0, server_host_keys=[asyncssh.generate_private_key("ssh-rsa")],
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=str(folder)),
        )  # fmt: skip

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    running = asyncio.run_coroutine_threadsafe(listening(), loop).result(timeout=60)
    yield f"sftp://duo:secret@127.0.0.1:{running.get_port()}/board"
    loop.call_soon_threadsafe(running.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=10)


@contextlib.contextmanager
def s3(monkeypatch):
    """Serves a bucket; the driver finds it by its environment."""
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    for name, value in (("ACCESS_KEY_ID", "duo"), ("SECRET_ACCESS_KEY", "secret"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    boto3.client("s3").create_bucket(Bucket="bucket")
    yield "s3://bucket/board"
    running.stop()
