"""Programs that reach for their neighbours: other processes, whoever collects their files, secrets, homes."""

from __future__ import annotations

from .entry import attack, refused, system_call

OTHERS = (
    refused(31, "environment of the first process", "open('/proc/1/environ').read()"),
    refused(31, "memory of the first process", "open(f'/proc/{os.getppid() or 1}/mem', 'rb').read(1)"),
    refused(
        31,
        "/proc of the supervisor",
        *(
            f"print(open(f'/proc/{{sys.argv[1]}}/{name}', 'rb').read(1 << 16))"
            for name in ("environ", "cmdline", "mem", "maps", "root/etc/passwd", "cwd/README.md")
        ),
        "os.listdir('/proc/' + sys.argv[1])",
        baited=True,
    ),
    refused(
        31,
        "/proc of the kernel",
        *(
            f"open({path!r}, 'r+b')"
            for path in (
                *("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger"),
                *("/proc/sys/kernel/ns_last_pid", "/proc/kcore", "/proc/kmsg", "/proc/sys/vm/drop_caches"),
                *("/proc/sys/fs/binfmt_misc/register", "/sys/kernel/uevent_helper"),
            )
        ),
    ),
    refused(
        31,
        "roots by another way",
        "print(open('/proc/1/root/etc/shadow').read())",
        "print(open('/proc/self/root/etc/shadow').read())",
        "print(os.listdir('/proc/1/cwd'))",
        "print(os.listdir('/proc/1/fd'))",
        "open('/proc/1/oom_score_adj', 'w').write('-1000')",
    ),
    system_call(32, "ptrace", ("ptrace", 16, "(os.getppid() or 1)", 0, 0)),
    system_call(32, "reads other memory", ("process_vm_readv", "(os.getppid() or 1)", 0, 0, 0, 0, 0)),
    system_call(
        32,
        "traces the supervisor",
        ("ptrace", 16, "int(sys.argv[1])", 0, 0),
        ("ptrace", 0x4206, "int(sys.argv[1])", 0, 0),
        ("process_vm_readv", "int(sys.argv[1])", 0, 0, 0, 0, 0),
        ("process_vm_writev", "int(sys.argv[1])", 0, 0, 0, 0, 0),
        ("kcmp", "os.getpid()", "int(sys.argv[1])", 0, 0, 0),
        ("pidfd_getfd", 3, 0, 0),
        baited=True,
    ),
    system_call(
        32,
        "limits of its parent",
        ("prlimit64", "(os.getppid() or 1)", 7, 0, "ctypes.byref(ctypes.c_ulong(0))"),
    ),
    system_call(
        32, "limits of the supervisor", ("prlimit64", "int(sys.argv[1])", 0, "bytes(16)", 0), baited=True
    ),
    refused(33, "kills all", "os.kill(-1, 9); signal.pause()"),
    refused(
        33,
        "kills its parent",
        "os.kill(os.getppid(), 9) if os.getppid() > 1 else os.kill(1, 9); raise OSError",
    ),
    refused(33, "interrupts its parent", "os.kill((os.getppid() or 1), 2); raise OSError"),
    refused(33, "stops its parent", "os.kill((os.getppid() or 1), 19); raise OSError"),
    attack(
        33,
        "kills its own group",
        "import os, signal\nos.kill(0, signal.SIGKILL)\nos.kill(os.getpid(), signal.SIGKILL)",
        "signal",
        alone=("denied",),
    ),
    refused(
        33,
        "every signal for the supervisor",
        "for s in (9, 15, 19, 23): os.kill(int(sys.argv[1]), s)",
        "os.killpg(int(sys.argv[1]), 9)",
        "os.killpg(os.getpgid(int(sys.argv[1])), 9)",
        "signal.pidfd_send_signal(os.pidfd_open(int(sys.argv[1])), 9)",
        baited=True,
    ),
    attack(
        33,
        "signals by way of a descriptor's owner",
        """
        import fcntl, os, socket, struct, sys, time
        a, b = socket.socketpair()
        for owner in (int(sys.argv[1]), (os.getppid() or 1), 1):
            try:
                fcntl.fcntl(a, 10, 9)
                fcntl.fcntl(a, fcntl.F_SETOWN, owner)
                fcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
                b.send(b'x')
            except OSError: pass
            time.sleep(.05)
        print('HELD')
        """,
        baited=True,
    ),
    refused(
        34,
        "types into the terminal",
        "os.open('/dev/tty', os.O_RDWR)",
        "os.open('/dev/console', os.O_RDWR)",
        "os.open('/dev/pts/0', os.O_RDWR)",
        "os.open('/dev/ptmx', os.O_RDWR)",
        *(f"__import__('fcntl').ioctl({fd}, {code}, b'x')" for fd in range(3) for code in (0x5412, 0x541C)),
        "os.tcgetpgrp(0)",
    ),
    attack(
        35,
        "links for whoever collects",
        """
        import os, sys
        os.symlink(sys.argv[4], 'out')
        os.symlink(os.path.dirname(sys.argv[4]), 'folder')
        os.symlink('/etc/passwd', 'in')
        os.mkfifo('pipe')
        os.mkdir('dir')
        try: os.link(sys.argv[4], 'hard')
        except OSError: pass
        """,
        "passed",
        baited=True,
        collect=("out", "folder/secret", "in", "pipe", "dir", "hard"),
    ),
    *(
        attack(36, f"a name that leads out: {name}", "print(1)", "refused", collect=(name,))
        for name in ("../out", "/etc/passwd", "a/../../out", "", "a\0b")
    ),
)

SECRETS = (
    attack(
        37,
        "inherited descriptors",
        """
        import os
        held = []
        for fd in range(5, 1024):
            try: os.fstat(fd)
            except OSError: continue
            held.append(fd)
        for fd in range(3, 1024):
            try: print(os.pread(fd, 1 << 16, 0))
            except OSError: pass
        if held: raise SystemExit(f'open: {held}')
        print('HELD')
        """,
    ),
    attack(
        38,
        "secrets in the environment",
        """
        import os
        print(dict(os.environ))
        for pid in ('self', (os.getppid() or 1), 1):
            try: print(open(f'/proc/{pid}/environ').read())
            except OSError: pass
        names = [n for n in os.environ if n not in ('HOME', 'TMPDIR', 'PATH', 'LANG', 'LC_CTYPE')]
        if names: raise SystemExit(f'inherited: {names}')
        print('HELD')
        """,
    ),
    attack(
        38,
        "secrets left in its memory",
        """
        import re
        try: areas = [l.split() for l in open('/proc/self/maps') if ' rw' in l]
        except OSError: areas = []
        for area in areas:
            start, end = (int(part, 16) for part in area[0].split('-'))
            try:
                with open('/proc/self/mem', 'rb') as memory:
                    memory.seek(start)
                    found = re.search(rb'temper-' rb'secret-[0-9a-f]{16}', memory.read(end - start))
            except (OSError, ValueError, OverflowError): continue
            if found: raise SystemExit(found[0].decode())
        print('HELD')
        """,
    ),
    refused(39, "home", "open(os.path.expanduser('~root/.profile')).read()"),
    refused(39, "passwords", "open('/etc/shadow').read()"),
    attack(
        39,
        "keys, caches, data sets and the harness itself",
        """
        import os, sys
        for path in sys.argv[4:]:
            try: found = os.listdir(path) if os.path.isdir(path) else open(path).read()
            except OSError: continue
            raise SystemExit(f'{path}: {found!r:.99}')
        print('HELD')
        """,
        baited=True,
    ),
    system_call(
        39,
        "watches a folder of others",
        ("inotify_add_watch", "libc.inotify_init1(0)", "os.path.dirname(sys.argv[4]).encode()", 0xFFF),
        ("inotify_add_watch", "libc.inotify_init1(0)", "b'/proc/1'", 0xFFF),
        baited=True,
    ),
    attack(
        39,
        "reads it under another root",
        """
        import os, sys
        for root in ('/proc/self/root', '/proc/1/root', '/..', '/proc/self/cwd/../..', '/tmp/../../../..'):
            try: print(open(root + sys.argv[4]).read())
            except OSError: continue
            raise SystemExit(root)
        print('HELD')
        """,
        baited=True,
    ),
)

NEIGHBOURS = (*OTHERS, *SECRETS)
