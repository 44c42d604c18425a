"""Programs that fill what there is room for: processes, memory, disk, descriptors."""

from __future__ import annotations

from dataclasses import replace

from .entry import FILLING, attack

_SHORT_OF_PROCESSES = ("process_limit", "cpu_limit", "wall_limit")
_FULL = ("disk_limit", "memory_limit")

_THREE_CHILDREN = """
import ctypes, mmap, os, time
pids = []
for _ in range(3):
    pid = os.fork()
    if not pid:
        {}
        time.sleep(1.5)
        os._exit(0)
    pids.append(pid)
if not any([os.waitpid(pid, 0)[1] for pid in pids]):
    raise SystemExit('all of it was had')
print('HELD')
"""

PROCESSES = (
    attack(1, "fork bomb", "import os\nwhile True: os.fork()", "process_limit", alone=("denied",)),
    attack(
        1,
        "fork bomb that shrugs",
        """
        import os
        while True:
            try: os.fork()
            except OSError: pass
        """,
        *_SHORT_OF_PROCESSES,
    ),
    attack(
        1,
        "fork bomb whose parents leave",
        """
        import os
        while True:
            try:
                if os.fork(): os._exit(0)
            except OSError: pass
        """,
        *("incomplete", "process_limit", "cpu_limit"),
        alone=("cpu_limit",),
    ),
    attack(
        14,
        "thread bomb",
        """
        from threading import Thread
        def start():
            while True: Thread(target=start).start()
        start()
        """,
        *("process_limit", "cpu_limit", "memory_limit", "wall_limit"),
    ),
    attack(
        14,
        "many threads that sleep",
        """
        import threading, time
        for _ in range(500): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
        time.sleep(9)
        """,
        "process_limit",
    ),
)

MEMORY = (
    attack(
        2,
        "memory bomb",
        "x = [bytearray(1 << 20) for _ in range(1 << 20)]",
        "memory_limit",
        limits=FILLING,
    ),
    attack(2, "one allocation of 64 GB", "x = bytearray(64 << 30)", "memory_limit"),
    attack(2, "a list that doubles", "x = [0]\nwhile True: x += x", "memory_limit", limits=FILLING),
    attack(
        3,
        "memory in many children",
        """
        import os, time
        for _ in range(8):
            if os.fork() == 0:
                x = bytearray(os.urandom(1 << 20)) * 100
                time.sleep(9)
        time.sleep(9)
        """,
        "memory_limit",
        alone=("denied",),
        limits=replace(FILLING, wall_seconds=2.0),
    ),
    attack(
        3,
        "memory behind a name that is no text",
        _THREE_CHILDREN.format("ctypes.CDLL(None).prctl(15, b'\\xff\\xfe'); x = bytearray(150 << 20)"),
        *("memory_limit", "passed"),  # passed: the greedy children were killed
        alone=("denied",),
        limits=FILLING,
    ),
    attack(
        3,
        "memory of children that hide",
        _THREE_CHILDREN.format("ctypes.CDLL(None).prctl(4, 0); x = bytearray(150 << 20)"),
        *("memory_limit", "passed"),  # passed: the greedy children were killed
        alone=("denied",),
        limits=FILLING,
    ),
    attack(
        3,
        "memory of children that may not be read",
        _THREE_CHILDREN.format(
            "me = f'x{os.getpid()}'; open(me, 'wb').write(open('/proc/self/exe', 'rb').read()); os.chmod(me, 0o111); "
            "os.execv('./' + me, ['x', '-c', 'x = bytearray(150 << 20); import time; time.sleep(1.5)'])"
        ),
        *("memory_limit", "passed", "disk_limit"),  # passed: they were killed, or could not start
        alone=("denied",),
        limits=FILLING,
    ),
    attack(
        3,
        "memory that is shared",
        _THREE_CHILDREN.format("m = mmap.mmap(-1, 150 << 20); m[:] = bytes(150 << 20)"),
        *("memory_limit", "passed"),  # passed: the greedy children were killed
        alone=("denied",),
        limits=FILLING,
    ),
    attack(
        4,
        "memory files",
        """
        import os
        for i in range(64):
            file = os.memfd_create(str(i))
            for _ in range(15): os.write(file, bytes(1 << 20))
        os._exit(1)
        """,
        *("memory_limit", "denied"),  # denied: without a group to count them there are none
        limits=FILLING,
    ),
    attack(
        4,
        "shared memory fill",
        "while 1: open('/dev/shm/temper-attack', 'ab').write(bytes(1 << 20))",
        "disk_limit",
        alone=("denied",),
        limits=FILLING,
    ),
    attack(
        4,
        "a mapped file that outgrows the disk",
        """
        import mmap
        maps = []
        for i in range(4):
            file = open(str(i), 'w+b')
            file.truncate(15 << 20)
            maps.append(mmap.mmap(file.fileno(), 15 << 20))
            maps[-1][:] = bytes(15 << 20)
        raise SystemExit('it held 60 MB')
        """,
        *("signal", *_FULL),  # the kernel's word for a page that has no room is SIGBUS
        alone=("memory_limit", "incomplete", "runtime_error"),
        limits=FILLING,
    ),
    attack(
        4,
        "mappings of everything",
        """
        import mmap
        kept = []
        while True:
            kept.append(mmap.mmap(-1, 16 << 20))
            kept[-1][:] = bytes(16 << 20)
        """,
        "memory_limit",
        limits=FILLING,
    ),
)

DISK = (
    attack(
        5,
        "disk fill",
        """
        i = 0
        while 1:
            open(str(i), 'wb').write(bytes(4 << 20))
            i += 1
        """,
        "disk_limit",
        limits=FILLING,
    ),
    attack(
        5,
        "disk fill by files without a name",
        """
        import os
        kept = []
        while 1:
            kept.append(open('x', 'wb', 0))
            os.unlink('x')
            kept[-1].write(bytes(4 << 20))
        """,
        "disk_limit",
        limits=FILLING,
    ),
    attack(6, "sparse file", "open('x', 'wb').truncate(1 << 40)", "disk_limit"),
    attack(
        6,
        "sparse file by a far write",
        "import os\nfile = os.open('x', os.O_RDWR | os.O_CREAT)\nos.pwrite(file, b'x', 1 << 40)",
        "disk_limit",
    ),
    attack(
        7,
        "inode fill",
        """
        i = 0
        while 1:
            open(str(i), 'w').close()
            i += 1
        """,
        *("disk_limit", "cpu_limit"),
    ),
    attack(
        7,
        "deep folders",
        """
        import os
        for _ in range(3000):
            os.mkdir('d')
            os.chdir('d')
        """,
        *("passed", "disk_limit", "cpu_limit"),
    ),
    attack(
        8,
        "descriptors without end",
        "import os\nkept = []\nwhile True: kept.append(os.open('/dev/null', os.O_RDONLY))",
        "runtime_error",
    ),
    attack(
        8,
        "a higher limit on descriptors",
        """
        import resource
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        try: resource.setrlimit(resource.RLIMIT_NOFILE, (most * 4, most * 4))
        except (OSError, ValueError): print('HELD')
        """,
    ),
    attack(
        20,
        "watches, timers and events",
        """
        import ctypes, os, select
        libc = ctypes.CDLL(None, use_errno=True)
        def made(fd):
            if fd < 0: raise OSError(ctypes.get_errno(), 'refused')
            return fd
        makers = (lambda: os.eventfd(0), lambda: made(libc.inotify_init1(0)), lambda: made(libc.timerfd_create(1, 0)),
                  lambda: os.dup(select.epoll().fileno()), lambda: made(libc.signalfd(-1, bytes(128), 0)))
        for make in makers:
            kept = []
            try:
                while len(kept) < 5000: kept.append(make())
                raise SystemExit('5000 were had')
            except OSError: pass
            for fd in kept: os.close(fd)
        print('HELD')
        """,
        limits=FILLING,
    ),
    attack(
        20,
        "timers without end",
        """
        import ctypes
        libc, made = ctypes.CDLL(None), 0
        while made < 10 ** 6 and libc.timer_create(1, None, ctypes.byref(ctypes.c_long())) == 0: made += 1
        print('HELD')
        """,
        *("passed", "cpu_limit"),
    ),
)

SPACE = (*PROCESSES, *MEMORY, *DISK)
