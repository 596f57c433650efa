"""Hosts for tests: network namespaces with a cable each to this one, and a PostgreSQL server at its end.

Whoever runs in one has a host name, processes and an address of its own; nothing leaves this machine. It needs root,
and ``ip`` and ``unshare``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.ledger.server import NoServer, Server


class Hosts:
    """So many hosts, numbered from 1."""

    def __init__(self, count: int) -> None:
        missing = [tool for tool in ("ip", "unshare") if shutil.which(tool) is None]
        if missing or os.geteuid() != 0:
            raise NoServer(f"network namespaces need root, ip and unshare ({missing or 'not root'})")
        self._count = 0
        try:
            for number in range(1, count + 1):
                self._count = number
                self._lay_cable(number)
        except subprocess.CalledProcessError as error:
            self.close()
            raise NoServer(f"no network namespaces here: {error.stderr.decode()}") from error

    def _lay_cable(self, number: int) -> None:
        space, here, there = self.space(number), self._cable(number), f"{self._cable(number)}x"
        _ip("netns", "add", space)
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", space)
        _ip("addr", "add", f"{self.gateway(number)}/30", "dev", here)
        _ip("link", "set", here, "up")
        _ip("-n", space, "addr", "add", f"{self._address(number, 2)}/30", "dev", there)
        _ip("-n", space, "link", "set", there, "up")

    def space(self, number: int) -> str:
        """The name of a host's namespace."""
        return f"agentbudget-{os.getpid()}-{number}"

    def _cable(self, number: int) -> str:
        return f"ab{os.getpid()}n{number}"

    def gateway(self, number: int) -> str:
        """This end's address, as a host sees it."""
        return self._address(number, 1)

    def _address(self, number: int, end: int) -> str:
        """Of this process alone: two runs of the tests may go on beside each other, or one have been killed."""
        high, low = divmod(os.getpid() % (1 << 14), 1 << 8)
        return f"10.{192 + high}.{low}.{4 * number + end}"

    def cut(self, number: int) -> None:
        """Pull a host's cable out."""
        _ip("link", "set", self._cable(number), "down")

    def mend(self, number: int) -> None:
        """Put it in again."""
        _ip("link", "set", self._cable(number), "up")

    def run(self, number: int, *arguments: str) -> subprocess.Popen[bytes]:
        """Python on a host, with the arguments given. Killing it kills whatever runs there of it."""
        named = 'hostname "$0"; exec "$@"'
        command = ["ip", "netns", "exec", self.space(number), "unshare", "--pid", "--fork", "--uts", "--mount-proc"]
        command += ["--kill-child", "sh", "-c", named, f"host{number}", sys.executable, *arguments]
        return subprocess.Popen(command, cwd=Path(__file__).parents[2])

    def close(self) -> None:
        """Remove them."""
        for number in range(1, self._count + 1):
            subprocess.run(["ip", "link", "del", self._cable(number)], capture_output=True, check=False)
            subprocess.run(["ip", "netns", "del", self.space(number)], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, check=True)


class TcpServer(Server):
    """A server that listens on some addresses, to whoever is near."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses
        super().__init__()

    def start(self) -> None:
        access = self._data / "pg_hba.conf"
        access.write_text(access.read_text() + "host all all samenet trust\n")
        options = f"-c listen_addresses={','.join(self._addresses)} -c unix_socket_directories={self.folder}"
        options += " -c fsync=off -c shared_buffers=16MB"
        self._run("pg_ctl", "-w", "-l", str(self.folder / "log"), "-o", options, "start")
