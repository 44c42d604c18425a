"""Programs that try the borders of the box: mounts, namespaces, rights, devices, system calls, the network."""

from __future__ import annotations

from .entry import FILLING, attack, on_x86, refused, system_call

_NEW_SPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)

RIGHTS = (
    system_call(40, "mount", ("mount", "b'temper-attack'", "b'/tmp'", "b'tmpfs'", 0, 0)),
    system_call(
        40,
        "mounts of every kind",
        ("mount", "b'/'", "b'/tmp'", 0, 4096, 0),
        ("mount", 0, "b'/'", 0, 32, 0),
        ("umount2", "b'/proc'", 2),
        ("umount2", "b'/tmp'", 2),
        ("pivot_root", "b'.'", "b'.'"),
        ("open_tree", -100, "b'/'", 1),
        ("move_mount", 3, "b''", -100, "b'/tmp'", 4),
        ("fsopen", "b'tmpfs'", 0),
        ("fspick", -100, "b'/'", 0),
        ("mount_setattr", -100, "b'/'", 0, 0, 0),
    ),
    refused(40, "chroot", "os.chroot('/tmp')"),
    attack(
        40,
        "chroot and up",
        """
        import os
        os.mkdir('d')
        here = os.open('.', os.O_RDONLY)
        try: os.chroot('d')
        except OSError: print('HELD')
        else:
            os.fchdir(here)
            for _ in range(50): os.chdir('..')
            raise SystemExit(str(os.listdir('.')))
        """,
    ),
    system_call(41, "new user namespace", ("unshare", 0x10000000)),
    system_call(41, "new namespaces of every kind", *(("unshare", flag) for flag in _NEW_SPACES)),
    system_call(41, "new namespace by clone", *(("clone", flag | 17, 0, 0, 0, 0) for flag in _NEW_SPACES)),
    system_call(41, "clone3", ("clone3", 0, 0)),
    system_call(
        41,
        "another's namespaces",
        ("setns", "os.open('/proc/1/ns/mnt', 0)", 0),
        ("setns", "os.open('/proc/self/ns/user', 0)", 0),
        ("setns", "os.pidfd_open(os.getppid() or 1)", 0x20000000),
    ),
    attack(
        42,
        "setuid programs",
        """
        import ctypes, os
        for folder in ('/bin', '/usr/bin', '/usr/sbin', '/usr/lib/openssh', '/usr/lib/dbus-1.0'):
            for name in ('su', 'sudo', 'passwd', 'mount', 'fusermount', 'fusermount3', 'pkexec', 'ssh-keysign'):
                path = f'{folder}/{name}'
                if not os.path.exists(path): continue
                if not os.statvfs(path).f_flag & os.ST_NOSUID:
                    try: os.execv(path, [name])
                    except OSError: pass
        if ctypes.CDLL(None).prctl(39, 0, 0, 0, 0) != 1: raise SystemExit('rights may be gained by exec')
        print('HELD')
        """,
    ),
    refused(42, "becomes root", "os.setuid(0) if os.getuid() else os.setuid(12345)"),
    attack(
        42,
        "capabilities",
        """
        import ctypes, os
        libc = ctypes.CDLL(None)
        head, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        libc.capget(head, sets)
        if any(sets): raise SystemExit(f'held: {list(sets)}')
        if libc.prctl(47, 2, 21, 0, 0) == 0: raise SystemExit('raised')
        print('HELD')
        """,
    ),
    refused(43, "devices", "open('/dev/kmsg')", "open('/dev/vda')", "open('/dev/mem')"),
    refused(
        43,
        "devices of every kind",
        *(
            f"os.open({path!r}, os.O_RDWR)"
            for path in (
                *("/dev/kvm", "/dev/loop-control", "/dev/loop0", "/dev/fuse", "/dev/net/tun", "/dev/sda"),
                *(
                    "/dev/port",
                    "/dev/vhost-net",
                    "/dev/uinput",
                    "/dev/rtc0",
                    "/dev/cpu/0/msr",
                    "/dev/dri/card0",
                ),
            )
        ),
        "os.listdir('/sys/class')",
    ),
    refused(
        43,
        "devices made",
        "os.mknod('d', 0o20666, os.makedev(1, 1))",
        "os.mknod('d', 0o60666, os.makedev(8, 0))",
        "os.mknod('/dev/temper-attack', 0o20666, os.makedev(1, 1))",
    ),
    attack(
        44,
        "GPUs",
        """
        import ctypes, os
        for name in ('nvidia0', 'nvidiactl', 'nvidia-uvm', 'nvidia-modeset', 'kfd', 'dri/renderD128'):
            try: os.open('/dev/' + name, os.O_RDWR)
            except OSError: continue
            raise SystemExit(f'opened {name}')
        for library in ('libcuda.so.1', 'libcuda.so'):
            try: code = ctypes.CDLL(library).cuInit(0)
            except OSError: continue
            if code == 0: raise SystemExit('CUDA starts')
        print('HELD')
        """,
    ),
    refused(
        45,
        "control groups",
        *(
            f"open({path!r}, 'w')"
            for path in (
                *("/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
                *("/sys/fs/cgroup/release_agent", "/sys/fs/cgroup/memory/release_agent"),
                *("/sys/fs/cgroup/unified/cgroup.procs", "/sys/fs/cgroup/pids/tasks"),
            )
        ),
        "os.mkdir('/sys/fs/cgroup/temper-attack')",
        "os.mkdir('/sys/fs/cgroup/memory/temper-attack')",
    ),
)

_FORBIDDEN = (
    *("io_uring_setup", "io_uring_enter", "io_uring_register", "bpf", "perf_event_open", "userfaultfd"),
    *("add_key", "request_key", "keyctl", "kexec_load", "kexec_file_load", "init_module", "finit_module"),
    *(
        "delete_module",
        "fanotify_init",
        "fanotify_mark",
        "open_by_handle_at",
        "name_to_handle_at",
        "quotactl",
    ),
    *(
        "quotactl_fd",
        "clock_settime",
        "settimeofday",
        "clock_adjtime",
        "adjtimex",
        "swapon",
        "swapoff",
        "reboot",
    ),
    *("acct", "syslog", "vhangup", "memfd_secret", "process_madvise", "process_mrelease", "iopl", "ioperm"),
    *("migrate_pages", "move_pages", "mbind", "set_mempolicy", "setdomainname", "nfsservctl", "uselib"),
)

KERNEL = (
    attack(
        46,
        "fork bomb by raw calls",
        """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        while True:
            if libc.fork() < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        """,
        "process_limit",
        alone=("denied",),
    ),
    attack(
        46,
        "fork bomb by vfork and posix_spawn",
        """
        import os, sys
        while True: os.posix_spawn(sys.executable, [sys.executable, '-c', 'import time; time.sleep(9)'], {})
        """,
        *("process_limit", "cpu_limit"),  # each of them starts an interpreter
        alone=("denied",),
        limits=FILLING,
    ),
    attack(
        46,
        "starts a shell past every patched name",
        """
        import ctypes, os, posix, subprocess
        for start in (lambda: ctypes.CDLL(None).system(b'exit 7') >> 8, lambda: posix.system('exit 7') >> 8,
                      lambda: subprocess.run(['/bin/sh', '-c', 'exit 7']).returncode,
                      lambda: os.popen('exit 7').close() >> 8):
            try: code = start()
            except OSError: continue
            if code == 7: raise SystemExit('a shell was started')
        print('HELD')
        """,
    ),
    attack(
        46,
        "a file opened by a raw call",
        """
        import ctypes, sys
        libc = ctypes.CDLL(None)
        for path in (sys.argv[4], '/etc/shadow', '/proc/1/environ'):
            fd = libc.open(path.encode(), 0)
            if fd >= 0: raise SystemExit(path)
        print('HELD')
        """,
        baited=True,
    ),
    *(
        system_call(47, name, (name, *words))
        for name, *words in (
            ("bpf", 0, 0, 0),
            ("io_uring_setup", 1, 0),
            ("keyctl", 0, -3, 1),
            ("perf_event_open", 0, 0, -1, -1, 0),
            ("userfaultfd", 0),
        )
    ),
    system_call(47, "every call of that kind", *((name, 0, 0, 0, 0, 0) for name in _FORBIDDEN)),
    refused(47, "host name", "socket.sethostname('temper-attack')"),
    refused(47, "a clock", "time.clock_settime(time.CLOCK_REALTIME, 0)"),
    system_call(
        47, "calls that are newer than the list", *((number, 0, 0, 0, 0, 0) for number in (460, 511, 1023))
    ),
    system_call(48, "32-bit numbers", (0x40000000 | 39,), (0x40000000 | 59, 0, 0, 0)),
    system_call(48, "personality", ("personality", 0x0040000), ("personality", 0x0400000)),
    attack(
        48,
        "segments of its own",
        on_x86("import ctypes\nif ctypes.CDLL(None).syscall(154, 1, bytes(16), 16) < 0: print('HELD')"),
    ),
    attack(
        48,
        "calls of another machine",
        on_x86(
            """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(b'\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3')
number = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
if number > 0: raise SystemExit(f'getpid of i386 gave {number}')
print('HELD')
"""
        ),
        *(
            "signal",
            "passed",
        ),  # the filter ends a process for it; a kernel without that table says so, or faults
    ),
)

_ELSEWHERE = ("192.0.2.1", "10.0.0.1", "192.168.0.1", "169.254.169.254", "8.8.8.8", "255.255.255.255")

NETWORK = (
    refused(49, "network", "socket.create_connection(('192.0.2.1', 80), timeout=1)"),
    refused(
        49,
        "networks of every kind",
        *(f"socket.create_connection(({host!r}, 80), timeout=.1)" for host in _ELSEWHERE),
        *(
            f"socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ({host!r}, 53))"
            for host in _ELSEWHERE
        ),
        "socket.create_connection(('2001:db8::1', 80), timeout=.1)",
        "socket.create_connection(('fe80::1', 80), timeout=.1)",
    ),
    refused(
        49,
        "a service of this machine",
        "socket.create_connection(('127.0.0.1', int(sys.argv[2])), timeout=.2)",
        "socket.create_connection(('localhost', int(sys.argv[2])), timeout=.2)",
        "socket.create_connection(('0.0.0.0', int(sys.argv[2])), timeout=.2)",
        "socket.create_connection(('::ffff:127.0.0.1', int(sys.argv[2])), timeout=.2)",
        baited=True,
    ),
    refused(49, "names on the network", "socket.getaddrinfo('example.org', 80)"),
    refused(49, "raw sockets", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)"),
    refused(49, "netlink", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)"),
    refused(
        49,
        "sockets of every family",
        *(
            f"socket.socket({family}, {kind})"
            for family in range(3, 46)
            if family != 10
            for kind in (1, 2, 3, 5)
        ),
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
        *(f"socket.socketpair({family}, 1)" for family in (16, 17, 38, 40)),
    ),
    refused(
        50,
        "a socket file of this machine",
        "socket.socket(socket.AF_UNIX).connect(sys.argv[3])",
        "socket.socket(socket.AF_UNIX).connect('/proc/1/root' + sys.argv[3])",
        baited=True,
    ),
    refused(
        50,
        "an abstract socket of this machine",
        "socket.socket(socket.AF_UNIX).connect('\\0' + sys.argv[3])",
        baited=True,
    ),
    refused(
        50,
        "sockets of Docker, X11, Ray and others",
        *(
            f"socket.socket(socket.AF_UNIX).connect({path!r})"
            for path in (
                *("/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/crio/crio.sock"),
                *("/tmp/.X11-unix/X0", "/tmp/ray/session_latest/sockets/raylet", "/run/user/0/bus"),
                *("/run/munge/munge.socket.2", "/tmp/nvidia-mps/control", "\\0/tmp/.X11-unix/X0"),
            )
        ),
    ),
)

BORDERS = (*RIGHTS, *KERNEL, *NETWORK)
