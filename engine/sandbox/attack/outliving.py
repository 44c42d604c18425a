"""Programs that mean to be there after their verdict, for the next program or for good."""

from __future__ import annotations

from .entry import attack, refused, system_call

OUTLIVING = (
    attack(
        22,
        "daemon that outlives",
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 9)
                time.sleep(1000)
            os._exit(0)
        """,
        "passed",
        alone=("denied",),
    ),
    attack(
        22,
        "daemons beside an answer",
        """
        import os, time
        for _ in range(5):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0: time.sleep(1000)
                os._exit(0)
        def f(x): return x
        """,
        "wrong",
        alone=("denied",),
        forms=("calls", "test"),
    ),
    attack(
        22,
        "a stopped child",
        "import os, signal\nif os.fork() == 0: os.kill(os.getpid(), signal.SIGSTOP)",
        "passed",
        alone=("denied",),
    ),
    attack(
        22,
        "a child that waits for its own end",
        """
        import os, signal
        if os.fork() == 0:
            signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
            while True: os.fork() or os._exit(0)
        """,
        *("passed", "process_limit", "cpu_limit"),
        alone=("denied",),
    ),
    attack(
        23,
        "a thread that writes on",
        """
        import os, threading
        def on():
            while True:
                try: os.write(3, b'\\0\\0\\0\\1VT')
                except OSError: pass
        threading.Thread(target=on, daemon=True).start()
        def f(x): return x
        """,
        *("wrong", "output_limit"),
        forms=("calls", "test"),
    ),
    attack(
        23,
        "a child that writes on",
        """
        import os
        if os.fork() == 0:
            os.setsid()
            while True:
                try: os.write(3, b'\\0\\0\\0\\1VT')
                except OSError: os._exit(0)
        def f(x): return x
        """,
        *("wrong", "output_limit"),
        alone=("denied",),
        forms=("calls", "test"),
    ),
    attack(
        23,
        "a thread that prints on",
        """
        import threading
        def on():
            while True: print('passed', flush=True)
        threading.Thread(target=on, daemon=True).start()
        def f(x): return x
        """,
        *("wrong", "output_limit"),
        forms=("calls", "test"),
    ),
    attack(
        24,
        "atexit and del",
        """
        import atexit, os
        atexit.register(os._exit, 0)
        class D:
            def __del__(s): os._exit(0)
        d = D()
        def f(x): return 0
        """,
        "wrong",
        forms=("calls", "test"),
    ),
    attack(
        24,
        "an exit hook that leaves with 0",
        "import atexit, os\natexit.register(os._exit, 0)\nraise ValueError('wrong')",
        *("runtime_error", "incomplete"),
    ),
    attack(
        24,
        "an exit hook without end",
        "import atexit\ndef on():\n  while 1: pass\natexit.register(on)",
        "cpu_limit",
    ),
    attack(
        24,
        "a thread that keeps the interpreter",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()",
        "wall_limit",
    ),
    attack(
        24,
        "an except hook that leaves with 0",
        "import os, sys\nsys.excepthook = lambda *a: os._exit(0)\nraise ValueError('wrong')",
        *("runtime_error", "incomplete"),
    ),
    attack(
        25,
        "holds the output open",
        "import os, time\nif os.fork() == 0:\n  os.setsid()\n  time.sleep(1000)",
        "passed",
        alone=("denied",),
    ),
    attack(
        25,
        "holds the channel open beside an answer",
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            time.sleep(1000)
        def f(x): return x
        """,
        "wrong",
        alone=("denied",),
        forms=("calls", "test"),
    ),
    attack(
        25,
        "leaves and lets a child hold everything",
        "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\ntime.sleep(1000)",
        "incomplete",
        alone=("denied",),
        forms=("script", "calls", "test"),
    ),
    system_call(26, "shared memory of System V", ("shmget", 4242, 4096, 0o1666)),
    system_call(26, "semaphores of System V", ("semget", 4242, 1, 0o1666)),
    system_call(26, "messages of System V", ("msgget", 4242, 0o1666)),
    system_call(26, "message queue", ("mq_open", "b'temper-attack'", 0o102, 0o666, 0)),
    attack(
        26,
        "POSIX shared memory and semaphores",
        """
        import _multiprocessing
        from multiprocessing import shared_memory
        shared_memory.SharedMemory('temper-attack', create=True, size=4096)
        _multiprocessing.SemLock(0, 1, 1, '/temper-attack', False)
        """,
        "passed",
        alone=("denied",),
    ),
    attack(
        27,
        "an abstract socket with a daemon",
        """
        import os, socket, time
        s = socket.socket(socket.AF_UNIX)
        s.bind('\\0temper-attack')
        s.listen()
        if os.fork() == 0:
            os.setsid()
            time.sleep(1000)
        """,
        "passed",
        alone=("denied",),
    ),
    attack(
        27,
        "a port with a daemon",
        """
        import os, socket, time
        s = socket.socket()
        s.bind(('127.0.0.1', 5555))
        s.listen()
        c = socket.create_connection(('127.0.0.1', 5555))
        if os.fork() == 0:
            os.setsid()
            time.sleep(1000)
        """,
        "passed",
        alone=("denied",),
    ),
    attack(
        28,
        "files left behind",
        """
        import os
        for name in ('temper-attack', '/tmp/temper-attack', '/var/tmp/temper-attack', '/dev/shm/temper-attack'):
            open(name, 'w').write('x')
        """,
        "passed",
        alone=("denied",),
    ),
    attack(
        28,
        "a cache left behind",
        """
        import os
        cache = os.path.expanduser('~/.cache/temper-attack')
        os.makedirs(cache)
        open(cache + '/x', 'w').write('x')
        """,
        "passed",
    ),
    attack(
        28,
        "folder closed behind",
        "import os\nos.mkdir('d')\nopen('d/x', 'w').close()\nos.chmod('d', 0)",
        "passed",
        alone=("denied",),
    ),
    attack(
        28,
        "signs on the folder itself",
        """
        import contextlib, os
        if any(map(os.listxattr, ('/tmp', '.'))): raise SystemExit('a sign was left')
        for place in ('/tmp', '.'):
            with contextlib.suppress(OSError): os.setxattr(place, 'user.x', b'hello')
            with contextlib.suppress(OSError): os.utime(place, (1, 1))
        """,
        "passed",
        "denied",
    ),
    attack(28, "scratch itself closed", "import os\nos.chmod('.', 0)", "passed", "denied"),
    attack(
        28,
        "names that are no text",
        """
        import os
        for name in (b'\\xff\\xfe', b'a\\nb', b'-rf', b'x' * 255, b'\\x1b[2J'): open(name, 'w').close()
        os.symlink('/', 'root')
        os.symlink('loop', 'loop')
        os.mkfifo('pipe')
        """,
        "passed",
    ),
    attack(
        29,
        "shadow modules",
        """
        for name in ('random', 'math', 'os', 'sitecustomize', 'usercustomize', 'solution', 'engine'):
            open(name + '.py', 'w').write('raise SystemExit')
        """,
        "passed",
    ),
    attack(
        29,
        "modules in Python's own folders",
        """
        import os, sys
        places = [*sys.path, os.path.dirname(os.__file__), os.path.dirname(os.__file__) + '/site-packages']
        places += [os.path.dirname(os.__file__) + '/__pycache__', os.path.expanduser('~root')]
        for place in filter(os.path.isdir, places):
            if os.path.realpath(place) == os.path.realpath('.'): continue
            for name in ('temper-attack.pth', 'temper-attack.pyc'):
                try: open(os.path.join(place, name), 'w')
                except OSError: continue
                raise SystemExit(f'written into {place}')
        print('HELD')
        """,
    ),
    refused(
        29, "system files", "open(os.__file__, 'a')", "os.truncate(os.__file__, 0)", "os.unlink(os.__file__)"
    ),
    attack(
        29,
        "modules changed in memory",
        """
        import builtins, math, random, sys
        math.floor = random.random = lambda *a: 0
        builtins.temper_attack = 1
        sys.modules['re'] = None
        """,
        "passed",
    ),
    refused(
        30,
        "cron, at and systemd",
        *(
            f"open({path!r}, 'w')"
            for path in (
                "/etc/cron.d/temper-attack",
                "/var/spool/cron/crontabs/temper-attack",
                "/var/spool/at/temper-attack",
                "/etc/systemd/system/temper-attack.service",
                "/run/systemd/temper-attack",
                "/etc/profile.d/temper-attack.sh",
                "/etc/ld.so.preload",
            )
        ),
        *(
            f"os.execv({path!r}, ['x'])"
            for path in ("/usr/bin/crontab", "/usr/bin/at", "/usr/bin/systemd-run", "/bin/systemctl")
        ),
    ),
    refused(
        30,
        "D-Bus and systemd's sockets",
        *(
            f"socket.socket(socket.AF_UNIX).connect({path!r})"
            for path in (
                "/run/dbus/system_bus_socket",
                "/run/systemd/private",
                "/run/systemd/notify",
                "/run/systemd/journal/stdout",
            )
        ),
    ),
)
