"""A wire to a PostgreSQL server that can be cut at the worst moment, or lead to another session from then on."""

from __future__ import annotations

import select
import socket
import tempfile
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

NAME: Final = ".s.PGSQL.5432"


class Wire:
    """Passes on what clients and server say, from a socket in a folder of its own, until it is told to cut."""

    def __init__(self, server: Path) -> None:
        self._server = server
        self._folder = tempfile.TemporaryDirectory(prefix="agentbudget-wire-")
        self.folder = Path(self._folder.name)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / NAME))
        self._listener.listen()
        self._lock = threading.Lock()
        self._word: bytes | None = None
        self._arrives = self._for_good = self._broken = self._hands_over = False
        self.cuts = 0

    def cut_at(self, word: bytes, *, arrives: bool = False, for_good: bool = False) -> None:
        """Cut when a client next says `word`: the server still hears it if it ``arrives``, and answers to nobody.
        ``for_good``: whoever connects again is cut off too, until `mend`."""
        self._word, self._arrives, self._for_good, self._hands_over = word, arrives, for_good, False

    def cut_at_commit(self, *, arrives: bool, for_good: bool = False) -> None:
        """Cut at the next commit."""
        self.cut_at(b"COMMIT\0", arrives=arrives, for_good=for_good)

    def hand_over_at(self, word: bytes) -> None:
        """Lead a client to another session of the server when it next says `word`, as a pooler does that pools by
        transaction."""
        self._word, self._hands_over = word, True

    def mend(self) -> None:
        """Let clients through again."""
        self._broken = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self._folder.cleanup()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, ExitStack() as sessions, suppress(OSError):
            if self._broken:
                return
            first = client.recv(65536)
            server = sessions.enter_context(self._session(first))
            deaf = False
            while True:
                for side in select.select([client, server], [], [])[0]:
                    said = side.recv(65536)
                    if side is client and self._is_time(said):
                        if self._hands_over:
                            server = sessions.enter_context(self._session(first))
                            while not server.recv(65536).endswith(b"Z\0\0\0\5I"):
                                pass  # its welcome
                        elif not self._arrives:
                            return
                        else:
                            deaf = True  # until the server answers, which it does when all of it has arrived
                    if not said or (side is server and deaf):
                        return
                    (server if side is client else client).sendall(said)

    def _session(self, first: bytes) -> socket.socket:
        """A connection to the server, by what a client says first."""
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(self._server / NAME))
        server.sendall(first)
        return server

    def _is_time(self, said: bytes) -> bool:
        with self._lock:
            if self._word is None or self._word not in said:
                return False
            self._word = None
            self.cuts += 1
            self._broken = self._for_good and not self._hands_over
            return True
