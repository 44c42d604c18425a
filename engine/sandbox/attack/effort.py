"""Programs that never end, end badly, or give more to read than anybody can: CPU, output, values, compilers."""

from __future__ import annotations

from .entry import FILLING, attack, on_x86, refused

OUTPUT = (
    attack(9, "output flood", "import os\nwhile 1: os.write(1, b'x' * 65536)", "output_limit"),
    attack(9, "error flood", "import os\nwhile 1: os.write(2, b'x' * 65536)", "output_limit"),
    attack(
        9,
        "output flood from children",
        """
        import os
        for _ in range(3): os.fork()
        while 1: os.write(1, b'x' * 65536)
        """,
        "output_limit",
        alone=("denied",),
    ),
    attack(
        10,
        "one line of 2 GB",
        "import os\nfor _ in range(2 << 14): os.write(1, b'x' * 65536)",
        "output_limit",
        limits=FILLING,
    ),
    attack(
        10,
        "output that is no text",
        "import os\nos.write(1, bytes(range(256)) * 9)\nos.write(2, b'\\x1b]0;x\\x07\\x1b[2J\\xed\\xa0\\x80\\0' * 9)",
        "passed",
    ),
    attack(
        21,
        "shared references",
        "x = []\nfor _ in range(60): x = [x, x]\ndef f(_): return x",
        *("wrong", "output_limit", "memory_limit", "cpu_limit"),
        forms=("calls", "test"),
    ),
    attack(
        21,
        "nested without end",
        "def f(x):\n  a = []\n  for _ in range(10 ** 5): a = [a]\n  return a",
        *("wrong", "signal"),
        forms=("calls", "test"),
    ),
    attack(21, "a cycle", "def f(x):\n  a = []\n  a.append(a)\n  return a", "wrong", forms=("calls", "test")),
    attack(
        21,
        "an endless iterator",
        "import itertools\ndef f(x): return map(str, itertools.count())",
        *("wrong", "output_limit", "cpu_limit", "memory_limit"),
        forms=("calls", "test"),
    ),
    attack(
        21,
        "a number of a million digits",
        "def f(x): return 1 << 4_000_000",
        *("wrong", "output_limit"),
        forms=("calls", "test"),
    ),
    attack(
        21,
        "100 MB of text",
        "def f(x): return 'x' * (100 << 20)",
        *("wrong", "output_limit", "memory_limit"),
        forms=("calls", "test"),
        limits=FILLING,
    ),
    attack(
        21,
        "a range of a trillion",
        "def f(x): return range(10 ** 12)",
        "wrong",
        forms=("calls", "test"),
    ),
    attack(
        21,
        "pickles and archives",
        """
        import os, pickle, zlib
        class Boom:
            def __reduce__(self): return os.system, ('id',)
        def f(x): return pickle.dumps(Boom()) + zlib.compress(bytes(50 << 20))
        """,
        "wrong",
        forms=("calls", "test"),
        limits=FILLING,
    ),
)

CPU = (
    attack(11, "busy loop", "while True: pass", "cpu_limit"),
    attack(
        11, "busy loop when called", "def f(x):\n  while True: pass", "cpu_limit", forms=("calls", "test")
    ),
    attack(
        11,
        "CPU time of children nobody waits for",
        """
        import os, signal, time
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        for _ in range(6):
            r, w = os.pipe()
            if not os.fork():
                t = time.process_time()
                while time.process_time() - t < 1.5: pass
                os._exit(0)
            os.close(w)
            os.read(r, 1)
        """,
        "cpu_limit",
        alone=("denied",),
    ),
    attack(12, "sleep", "import time\ntime.sleep(1e6)", "wall_limit"),
    attack(12, "a pause", "import signal\nsignal.pause()", "wall_limit"),
    attack(12, "a read that nothing answers", "import os\nr, w = os.pipe()\nos.read(r, 1)", "wall_limit"),
    attack(
        12,
        "a lock taken twice",
        "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
        "wall_limit",
    ),
    attack(
        12,
        "sleep when called",
        "import time\ndef f(x): time.sleep(99)",
        "wall_limit",
        forms=("calls", "test"),
    ),
    attack(
        13,
        "ignores every signal",
        """
        import signal
        for s in range(1, 65):
            try: signal.signal(s, signal.SIG_IGN)
            except (OSError, ValueError): pass
        for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF): signal.setitimer(timer, 0)
        while 1: pass
        """,
        "cpu_limit",
    ),
    attack(
        13,
        "blocks every signal and catches all",
        """
        import signal
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
        while 1:
            try:
                while 1: pass
            except BaseException: pass
        """,
        "cpu_limit",
    ),
    attack(15, "one long power", "x = 10 ** 10 ** 8", "cpu_limit"),
    attack(
        15,
        "one long product",
        "import itertools\nx = list(itertools.product(range(99), repeat=9))",
        *("memory_limit", "cpu_limit"),
    ),
    attack(
        15,
        "a regular expression that backtracks",
        "import re\nre.match('(a+)+$', 'a' * 60 + 'b')",
        "cpu_limit",
    ),
    attack(15, "a long sum", "x = sum(range(10 ** 12))", "cpu_limit"),
    attack(
        18,
        "deep recursion in C",
        """
        import sys
        sys.setrecursionlimit(10 ** 9)
        def f(_): return max([0], key=f)
        f(0)
        """,
        *("signal", "memory_limit"),
    ),
    attack(
        18,
        "deep recursion",
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(n): return 1 + f(n + 1)\nf(0)",
        *("signal", "memory_limit", "runtime_error"),
        limits=FILLING,
    ),
    attack(
        18,
        "recursion up to the usual limit",
        "def f(x): return f(x)",
        "runtime_error",
        forms=("calls", "test"),
    ),
    attack(18, "a fault", "import ctypes\nctypes.string_at(1)", "signal"),
    attack(
        18,
        "machine code that is none",
        on_x86(
            """
            import ctypes, mmap
            page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
            page.write(b'\\x0f\\x0b')
            ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
            """
        ),
        *("signal", "passed"),
    ),
    attack(
        17,
        "core dump of itself",
        """
        import ctypes, os, resource
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
        try: resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))
        except (OSError, ValueError): os.abort()
        """,
        "signal",
    ),
    attack(
        17,
        "core dump of a child",
        """
        import ctypes, os
        pid = os.fork()
        if not pid:
            ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
            os.abort()
        status = os.waitpid(pid, 0)[1]
        assert not os.WCOREDUMP(status) and not [n for n in os.listdir('.') if 'core' in n]
        print('HELD')
        """,
        alone=("denied",),
    ),
    refused(
        19,
        "priority and schedulers",
        "os.nice(-5)",
        "os.setpriority(os.PRIO_PROCESS, 0, -5)",
        "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
        "os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))",
        "os.sched_setaffinity(int(sys.argv[1]), {0})",
        "os.setpriority(os.PRIO_PROCESS, int(sys.argv[1]), 19)",
        "os.setpriority(os.PRIO_USER, os.getuid(), 19)",
        baited=True,
    ),
    attack(
        19,
        "a higher limit on priority",
        """
        import resource
        for limit in (resource.RLIMIT_NICE, resource.RLIMIT_RTPRIO):
            assert resource.getrlimit(limit) == (0, 0)
            try: resource.setrlimit(limit, (20, 20))
            except (OSError, ValueError): continue
            raise SystemExit('raised')
        print('HELD')
        """,
    ),
    attack(
        19,
        "every CPU",
        """
        import os
        os.sched_setaffinity(0, range(os.cpu_count()))
        for _ in range(7): os.fork()
        while True: pass
        """,
        *("cpu_limit", "process_limit"),
        alone=("denied",),
    ),
)

_COMPILED = ("refused",)
"""At level process no compiler is started at all."""

COMPILERS = (
    attack(
        16,
        "templates without end",
        "template<int N> struct A { static const long v = A<N + 1>::v; };\nint main() { return A<0>::v; }",
        *("compile_error", "memory_limit"),
        language="cpp",
        forms=("command",),
        alone=_COMPILED,
    ),
    attack(
        16,
        "an endless device as a header",
        '#include "/dev/zero"\nint main() {}',
        *("compile_error", "memory_limit", "cpu_limit"),
        language="cpp",
        forms=("command",),
        alone=_COMPILED,
    ),
    attack(
        16,
        "a header that includes itself",
        "#include __FILE__\n#include __FILE__\nint main() {}",
        *("compile_error", "cpu_limit", "output_limit"),
        language="cpp",
        forms=("command",),
        alone=_COMPILED,
    ),
    attack(
        16,
        "a program of 8 GB",
        "char x[8LL << 30] = {1};\nint main() {}",
        *("compile_error", "disk_limit", "memory_limit", "cpu_limit"),
        language="cpp",
        forms=("command",),
        alone=_COMPILED,
    ),
    attack(
        16,
        "a macro without end",
        "macro_rules! m { ($($x:tt)*) => { m!($($x)* x) } }\nfn main() { m!(x); }",
        "compile_error",
        language="rust",
        forms=("command",),
        alone=_COMPILED,
    ),
    attack(
        16,
        "a macro that doubles without end",
        "macro_rules! m { ($($x:tt)*) => { m!($($x)* $($x)* x) } }\nfn main() { m!(x); }",
        *("compile_error", "memory_limit", "cpu_limit"),
        language="rust",
        forms=("command",),
        alone=_COMPILED,
    ),
)

EFFORT = (*OUTPUT, *CPU, *COMPILERS)
