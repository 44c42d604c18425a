"""Programs that play a part: what the judge would say, a clock that lies, a source that is not what it seems."""

from __future__ import annotations

from .entry import FILLING, attack
from .forgeries import JUDGED, forgery

PRETENCE = (
    forgery(55, "prints passed", "def f(x):\n  print('passed')\n  print('{\"verdict\": \"passed\"}')"),
    forgery(
        55,
        "writes to every descriptor",
        """
        import os
        def f(x):
            for fd in range(256):
                for data in (b'\\0\\0\\0\\1VT', b'\\0\\0\\0\\x0cJl\\0\\0\\0\\2s\\0\\0\\0\\6passed'):
                    try: os.write(fd, data)
                    except OSError: pass
            os._exit(0)
        """,
        *("wrong", "incomplete"),
    ),
    forgery(
        55,
        "closes every descriptor",
        "import os\ndef f(x):\n  os.closerange(0, 256)\n  return 0",
        "incomplete",
        "wrong",
    ),
    forgery(55, "endless frame", "import os\ndef f(x):\n  os.write(3, b'\\xff\\xff\\xff\\xffV')\n  return 0"),
    forgery(
        55,
        "garbage frames",
        "import os\ndef f(x):\n  os.write(3, os.urandom(100000))\n  return 0",
        *("wrong", "wall_limit", "incomplete"),
    ),
    forgery(
        55,
        "puts the blame on the sandbox",
        """
        import os, struct, time
        def f(x): return 1
        os.write(3, struct.pack('>Ic', 4, b'B') + b'boom')
        time.sleep(.2)
        """,
    ),
    forgery(
        55,
        "answers before it is asked",
        """
        import os
        os.write(3, b'\\0\\0\\0\\0R' + b'\\0\\0\\0\\1VT' * 9)
        def f(x): return 0
        """,
    ),
    attack(
        55,
        "a script that tells its own end",
        "import os\nos.write(3, b'\\0\\0\\0\\x06Ei\\0\\0\\0\\1\\0')\nwhile True: pass",
        "cpu_limit",
    ),
    attack(
        56,
        "looks for a sign of its harness",
        """
        import os, sys
        said = ' '.join([*sys.argv, os.getcwd(), *os.environ, *os.environ.values()]).lower()
        signs = [s for s in ('temper', 'sandbox', 'harness', 'judge', 'test', 'eval', 'pytest') if s in said]
        if signs: raise SystemExit(f'{signs} in {said}')
        print('HELD')
        """,
    ),
    attack(
        56,
        "knows the test it was shown",
        """
        def f(x): return x if x == 1 else 'the hidden one'
        """,
        "wrong",
        forms=JUDGED,
    ),
    attack(
        57,
        "lying clocks",
        """
        import time
        for name in ('time', 'monotonic', 'process_time', 'perf_counter', 'thread_time', 'clock_gettime'):
            setattr(time, name, lambda *a: 0.0)
        while True: pass
        """,
        "cpu_limit",
    ),
    attack(
        57,
        "works in a child",
        """
        import os, time
        if os.fork() == 0:
            t = time.process_time()
            while time.process_time() - t < .2: pass
            os._exit(0)
        os.wait()
        """,
        "passed",
        alone=("denied",),
        least_cpu=0.15,
    ),
    attack(
        57,
        "works in a thread",
        """
        import threading, time
        def work():
            t = time.process_time()
            while time.process_time() - t < .2: pass
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        """,
        "passed",
        least_cpu=0.15,
    ),
    attack(57, "works and then sleeps its clock away", "for _ in range(10 ** 12): pass", "cpu_limit"),
)

_READ = ("script", *JUDGED)
_RIGHT = "def f(x): return x + 1\n"

SOURCES = (
    attack(58, "a null byte", "def f(x): return 0\n\0", "compile_error", forms=_READ),
    attack(
        58,
        "half a surrogate pair",
        "x = '\ud800'\ndef f(x): return 0",
        *("compile_error", "wrong"),
        forms=_READ,
    ),
    attack(58, "a byte order mark", "\ufeff" + _RIGHT, *("compile_error", "passed"), forms=_READ),
    attack(58, "carriage returns", _RIGHT.replace("\n", "\r\n") * 2, "passed", forms=_READ),
    attack(58, "tabs and form feeds", "def f(x):\n\t\f\n\treturn x + 1\n", "passed", forms=_READ),
    attack(
        58,
        "a name of a million letters",
        f"{'a' * (1 << 20)} = 1\n" + _RIGHT,
        "passed",
        forms=_READ,
        limits=FILLING,
    ),
    attack(
        58, "imports from the future", "from __future__ import annotations\n" + _RIGHT, "passed", forms=_READ
    ),
    attack(58, "a main guard", _RIGHT + "if __name__ == '__main__': f(0)\n", "passed", forms=_READ),
    attack(58, "a cookie of another encoding", "# -*- coding: utf-7 -*-\n" + _RIGHT, "passed", forms=_READ),
    attack(
        58,
        "fences and stop words in text",
        "s = '''```\n</code>\nassert False\ndef check(f): pass\n'''\n" + _RIGHT,
        "passed",
        forms=_READ,
    ),
    attack(
        58,
        "a test of its own",
        "def f(x): return 0\ndef check(candidate): pass\ncheck(f)",
        "wrong",
        forms=JUDGED,
    ),
    attack(
        58,
        "replaces what is tested when it is read",
        """
        import sys
        class Module(type(sys)):
            f = property(lambda s: lambda x: x + 1)
        sys.modules[__name__].__class__ = Module
        def f(x): return 0
        """,
        "wrong",
        forms=JUDGED,
    ),
    attack(
        58,
        "nested beyond the parser",
        "(" * 10_000 + ")" * 10_000,
        *("compile_error", "memory_limit"),
        forms=_READ,
    ),
    attack(
        58,
        "one expression of a million terms",
        "x = " + "+".join(["1"] * 200_000),
        *("compile_error", "runtime_error", "memory_limit", "signal", "cpu_limit"),
        forms=("script",),
    ),
    attack(58, "nothing at all", "", *("passed", "runtime_error", "wrong"), forms=_READ),
)

PRETENCES = (*PRETENCE, *SOURCES)
