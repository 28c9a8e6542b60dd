"""Real servers on this machine that hold a leaderboard: FTP, SFTP and S3."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading

import asyncssh
import boto3
from moto.server import ThreadedMotoServer

FTP = """
import sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer

FTPHandler.authorizer = DummyAuthorizer()
FTPHandler.authorizer.add_user("duo", "secret", sys.argv[1], perm="elradfmw")
FTPHandler.authorizer.add_user("guest", "secret", sys.argv[1], perm="elr")
server = FTPServer(("127.0.0.1", 0), FTPHandler)
print(server.address[1], flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def ftp(folder):
    """Serves a folder from a process of its own; `duo` may write, `guest` may read."""
    running = subprocess.Popen(
        [sys.executable, "-c", FTP, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield f"ftp://duo:secret@127.0.0.1:{int(running.stdout.readline())}/board"
    finally:
        running.kill()
        running.communicate()


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
