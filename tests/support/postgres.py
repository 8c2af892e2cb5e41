"""A PostgreSQL server of the tests' own: found or installed, started in a temporary folder, and stopped."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path
from urllib.parse import quote

from debian import need

USER = "guardrail"
PASSWORD = "pass word/@:%"  # what a URL must escape
START_SECONDS = 60


def binaries():
    """The folder of PostgreSQL's programs; the Debian package is installed if it is missing and we are root.

    :raises PackageMissing: if there is none.
    """
    missing = "initdb is not on the PATH nor under /usr/lib/postgresql: install PostgreSQL"
    return need("postgresql", _find_binaries, missing)


def _find_binaries():
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda f: int(f.parent.name), reverse=True)
    if shutil.which("initdb"):
        folders.append(Path(shutil.which("initdb")).resolve().parent)
    if shutil.which("pg_config"):
        answer = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True)
        folders.append(Path(answer.stdout.strip()))
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


class PostgresServer:
    """A server on a loopback port and a socket. It keeps what it commits through a crash, unless `fsync` is off.

    Args:
        fsync: the server's setting of that name.
    """

    def __init__(self, *, fsync="on"):
        self._binaries = binaries()
        # Short, and for the user that the server runs as: the path of a socket may have 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self.data = self.folder / "data"
        self._as_user = []
        if os.geteuid() == 0:  # which PostgreSQL refuses
            self._as_user = ["runuser", "-u", "postgres", "--"]
            shutil.chown(self.folder, "postgres", "postgres")
        password = self.folder / "password"
        password.write_text(PASSWORD + "\n")
        password.chmod(0o644)
        self._run(
            *("initdb", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", f"--username={USER}"),
            *("--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={password}", f"--pgdata={self.data}"),
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "fsync": fsync,
            "max_connections": 80,
            "shared_buffers": "32MB",
            "max_wal_size": "256MB",
            "log_min_messages": "warning",
        }
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        self.start()

    def start(self):
        """Start it, and wait until it answers."""
        log = f"--log={self.folder / 'log'}"
        self._run("pg_ctl", "start", "--wait", f"--timeout={START_SECONDS}", log, f"--pgdata={self.data}")

    def stop(self, mode="fast"):
        """Stop it: `fast` ends every connection and then writes a checkpoint, `immediate` is a crash."""
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}", f"--pgdata={self.data}")

    def pause(self):
        """Let it hang: its processes stop where they are and keep their connections."""
        for process in self.processes():
            os.kill(process, signal.SIGSTOP)

    def resume(self):
        """Let it go on."""
        for process in self.processes():
            os.kill(process, signal.SIGCONT)

    def processes(self):
        """Ids of its processes, the first of them first."""
        main = int((self.data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        return [main, *map(int, children)]

    def url(self, database):
        """The URL of a database, over TCP and with its password."""
        return f"postgresql://{USER}:{quote(PASSWORD, safe='')}@127.0.0.1:{self.port}/{database}"

    def socket_url(self, database):
        """The URL of a database, over the socket and without a password."""
        return f"postgresql://{USER}@/{database}?host={self.folder}&port={self.port}"

    def create_database(self):
        """A new empty database; gives its name."""
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0 STRATEGY wal_log")
        return name

    def drop_database(self, name):
        """Drop a database, whoever is connected to it."""
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement, *parameters, database="postgres"):
        """Run one statement outside a transaction; gives the rows, if it has any."""
        import psycopg

        with psycopg.connect(self.socket_url(database), autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def close(self):
        """Stop it and remove its folder."""
        try:
            self.stop("immediate")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program, *arguments):
        command = [*self._as_user, str(self._binaries / program), *map(str, arguments)]
        # Output goes to a file: a pipe would stay open in the server that pg_ctl leaves behind.
        with tempfile.TemporaryFile("w+") as output:
            result = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env={**os.environ, "LC_ALL": "C.UTF-8", "HOME": "/tmp", "USER": getpass.getuser()},
            )
            output.seek(0)
            assert result.returncode == 0, f"{' '.join(command)}: {output.read()}"
