"""A slow and lossy wire to a host: every frame goes through a thread here, which holds it back or drops it.

What tc's netem does in the kernel, for kernels that were built without it.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import itertools
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

ETHTOOL = 0x8946
# Sums and cutting are left to the card that a frame leaves by, and these frames meet none: sums when receiving and
# sending, cutting of TCP, of anything, and putting together when receiving.
OFFLOADS = (0x15, 0x17, 0x1F, 0x24, 0x2C)
EVERY_PROTOCOL = 0x0003


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def make_plain(device: str) -> None:
    """Have a device of this process's namespace send whole frames with their sums."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for number in OFFLOADS:
            order = ctypes.create_string_buffer(struct.pack("II", number, 0), 8)
            with suppress(OSError):
                fcntl.ioctl(asking, ETHTOOL, struct.pack("16sP16x", device.encode(), ctypes.addressof(order)))


class Wire:
    """The way between a host and the bridge, until it is closed.

    Args:
        hosts: all hosts' addresses; the last one's way is the one.
        bridge: the bridge's name.
        link: the last host's link to it.
        seconds: how long each frame takes, each way.
        loss: the share of frames that are lost, always the same ones.
    """

    def __init__(self, hosts: list[str], bridge: str, link: str, *, seconds: float, loss: float) -> None:
        for host in hosts:
            space = f"--net=/run/netns/temper-{host}"
            subprocess.run(["nsenter", space, sys.executable, __file__, "eth0"], check=True)
        self.bridge, self.link, self.end = bridge, link, f"{link}w"
        ip("link", "add", self.end, "type", "veth", "peer", "name", f"{link}b")
        for device in (self.end, f"{link}b", link):
            make_plain(device)
        ip("link", "set", link, "nomaster")
        ip("link", "set", link, "promisc", "on")
        ip("link", "set", self.end, "up", "promisc", "on")
        ip("link", "set", f"{link}b", "master", bridge, "up")
        self.carried = self.lost = 0
        self._seconds, self._loss, self._random = seconds, loss, random.Random(5)
        self._sides = [self._tap(link), self._tap(self.end)]
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def _tap(self, device: str) -> socket.socket:
        side = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_PROTOCOL))
        side.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 2**20)
        side.bind((device, 0))
        return side

    def _carry(self) -> None:
        order = itertools.count()
        held: list[tuple[float, int, socket.socket, bytes]] = []
        while not self._closing.is_set():
            wait = max(0.0, held[0][0] - time.monotonic()) if held else 0.1
            for side in select.select(self._sides, [], [], min(wait, 0.1))[0]:
                frame, (*_, kind, _, _) = side.recvfrom(2**17)
                if kind == socket.PACKET_OUTGOING:
                    continue
                if self._random.random() < self._loss:
                    self.lost += 1
                    continue
                other = self._sides[1 - self._sides.index(side)]
                heapq.heappush(held, (time.monotonic() + self._seconds, next(order), other, frame))
            while held and held[0][0] <= time.monotonic():
                _, _, other, frame = heapq.heappop(held)
                with suppress(OSError):
                    other.send(frame)
                    self.carried += 1

    def close(self) -> None:
        """Put the link back on the bridge."""
        self._closing.set()
        self._thread.join()
        for side in self._sides:
            side.close()
        ip("link", "del", self.end)
        ip("link", "set", self.link, "promisc", "off", "master", self.bridge)


if __name__ == "__main__":
    make_plain(Path(sys.argv[1]).name)
