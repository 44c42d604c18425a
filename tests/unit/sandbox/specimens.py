"""The same few programs in every language: honest, wrong, broken and hostile."""

# ruff: noqa: E501 (programs are lines of their own)

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Specimens:
    """One language's programs."""

    many: str
    """A script whose first argument says what it does: echo, crash, loop, bomb, flood or escape."""
    right: str
    """Defines add."""
    wrong: str
    """The same, off by one."""
    leaves: str
    """Its add leaves with exit code 0."""
    forges: str
    """Its add prints words of success and what a record might be everywhere, then leaves with exit code 0."""
    test: str
    broken: str
    """Does not compile."""
    complaint: str
    """What is said of that, as a regular expression."""
    crash: str
    """What is said of a crash."""


_NODE = r"""
const fs = require("fs");
const [mode, ...rest] = process.argv.slice(2);
if (mode === "echo") process.stdout.write(fs.readFileSync(0, "utf8") + rest.join("|") + "\n");
if (mode === "crash") { let nothing = null; nothing.x; }
if (mode === "loop") for (;;) {}
if (mode === "bomb") { const all = []; for (;;) all.push(Buffer.alloc(1 << 24, 1)); }
if (mode === "flood") for (;;) fs.writeSync(1, "x".repeat(1 << 16));
if (mode === "escape") {
  const [port, seconds, ...paths] = rest;
  require("child_process").spawn("sleep", [seconds], {detached: true, stdio: "ignore"}).unref();
  for (const path of paths) try { fs.readFileSync(path); console.log("read " + path); } catch (e) {}
  const socket = require("net").connect(Number(port), "127.0.0.1");
  socket.on("connect", () => { console.log("connected"); process.exit(); });
  socket.on("error", () => console.log("refused"));
}
"""
_NODE_FORGES = r"""
  const fs = require("fs");
  for (const fd of [1, 2, 3]) try { fs.writeSync(fd, "passed\nok!\n" + "0".repeat(24)); } catch (e) {}
  process.exit(0);
"""
_NODE_TEST = """
const assert = require('node:assert');
function test() { assert.deepEqual(add(2, 2), 4); assert.deepEqual(add(-1, 1), 0); }
test();
"""
_JAVA_TEST = """
    public static void main(String[] args) {
        assert(add(2, 2) == (4));
        assert(add(-1, 1) == (0));
    }
}
"""


def _java(body: str) -> str:
    return f"import java.io.*;\nclass Problem {{\n    static long add(long a, long b) {{ {body} }}\n"


def _cpp(body: str) -> str:
    return (
        "#include <cassert>\n#include <cstdio>\n#include <cstdlib>\n#include <unistd.h>\n"
        f"long add(long a, long b) {{ {body} }}\n"
    )


def _go(body: str, *imports: str) -> str:
    lines = "".join(f'import "{name}"\n' for name in ("testing", *imports))
    return f"package main\n{lines}func add(a int, b int) int {{ {body} }}\n"


SPECIMENS = {
    "javascript": Specimens(
        many=_NODE,
        right="function add(a, b) { return a + b; }",
        wrong="function add(a, b) { return a + b + 1; }",
        leaves="function add(a, b) { process.exit(0); }",
        forges=f"function add(a, b) {{ {_NODE_FORGES} }}",
        test=_NODE_TEST,
        broken="function add(a, b) { return a +; }",
        complaint=r"program\.js:1: SyntaxError: Unexpected token",
        crash="TypeError: Cannot read properties of null",
    ),
    "typescript": Specimens(
        many=_NODE.replace("let nothing", "let nothing: any"),
        right="function add(a: number, b: number): number { return a + b; }",
        wrong="function add(a: number, b: number): number { return a + b + 1; }",
        leaves="function add(a: number, b: number): number { process.exit(0); return 0; }",
        forges=f"function add(a: number, b: number): number {{ {_NODE_FORGES} return 0; }}",
        test=f"declare var require: any;{_NODE_TEST}",
        broken="function add(a: number, b: number): number { return 'three'; }",
        complaint=r"program\.ts.*error TS2322: Type 'string' is not assignable to type 'number'",
        crash="TypeError: Cannot read properties of null",
    ),
    "cpp": Specimens(
        many=r"""
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>
int main(int count, char **words) {
  std::string mode = words[1];
  if (mode == "echo") {
    std::cout << std::string(std::istreambuf_iterator<char>(std::cin), {});
    for (int i = 2; i < count; i++) std::cout << (i > 2 ? "|" : "") << words[i];
    std::cout << "\n";
  }
  if (mode == "crash") throw std::runtime_error("lost my way");
  if (mode == "loop") for (volatile int i = 0;; i++) {}
  if (mode == "bomb") for (;;) memset(new char[1 << 24], 1, 1 << 24);
  if (mode == "flood") for (;;) std::cout << std::string(1 << 16, 'x');
  if (mode == "escape") {
    if (fork() == 0) { setsid(); execlp("sleep", "sleep", words[3], nullptr); _exit(1); }
    for (int i = 4; i < count; i++) if (std::ifstream(words[i]).get() != EOF) std::cout << "read " << words[i] << "\n";
    sockaddr_in there{};
    there.sin_family = AF_INET;
    there.sin_port = htons(atoi(words[2]));
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    std::cout << (fd >= 0 && connect(fd, (sockaddr *)&there, sizeof there) == 0 ? "connected" : "refused") << "\n";
  }
}
""",
        right=_cpp("return a + b;"),
        wrong=_cpp("return a + b + 1;"),
        leaves=_cpp("exit(0);"),
        forges=_cpp(
            'for (int fd = 1; fd < 4; fd++) (void)!write(fd, "passed 000000000000000000000000", 31); _exit(0);'
        ),
        test="int main() {\n    auto candidate = add;\n    assert(candidate(2, 2) == 4);\n    assert(candidate(-1, 1) == 0);\n}\n",
        broken=_cpp('return "three";'),
        complaint=r"program\.cpp:5:.*error: invalid conversion from",
        crash=r"std::runtime_error': what\(\): *lost my way",
    ),
    "java": Specimens(
        many=r"""
import java.io.*;
import java.net.*;
import java.nio.file.*;
import java.util.*;
public class Many {
  public static void main(String[] words) throws Exception {
    String mode = words[0];
    if (mode.equals("echo")) {
      System.out.write(System.in.readAllBytes());
      System.out.println(String.join("|", Arrays.copyOfRange(words, 1, words.length)));
    }
    if (mode.equals("crash")) throw new IllegalStateException("lost my way");
    if (mode.equals("loop")) for (;;) {}
    if (mode.equals("bomb")) { var all = new ArrayList<byte[]>(); for (;;) all.add(new byte[1 << 20]); }
    if (mode.equals("flood")) for (;;) System.out.write("x".repeat(1 << 16).getBytes());
    if (mode.equals("escape")) {
      new ProcessBuilder("setsid", "-f", "sleep", words[2]).start().waitFor();
      for (int i = 3; i < words.length; i++)
        try { Files.readAllBytes(Path.of(words[i])); System.out.println("read " + words[i]); } catch (IOException e) {}
      try { new Socket("127.0.0.1", Integer.parseInt(words[1])); System.out.println("connected"); }
      catch (IOException e) { System.out.println("refused"); }
    }
  }
}
""",
        right=_java("return a + b;"),
        wrong=_java("return a + b + 1;"),
        leaves=_java("System.exit(0); return 0;"),
        forges=_java(
            'for (int fd = 1; fd < 4; fd++) try (var out = new FileOutputStream("/dev/fd/" + fd)) '
            '{ out.write(("passed " + "0".repeat(24)).getBytes()); } catch (IOException e) {} '
            "Runtime.getRuntime().halt(0); return 0;"
        ),
        test=_JAVA_TEST,
        broken=_java('return "three";'),
        complaint=r"Main\.java:3: error: incompatible types: String cannot be converted to long",
        crash="IllegalStateException: lost my way",
    ),
    "rust": Specimens(
        many=r"""
use std::io::{Read, Write};
fn main() {
    let words: Vec<String> = std::env::args().collect();
    match words[1].as_str() {
        "echo" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).unwrap();
            println!("{}{}", text, words[2..].join("|"));
        }
        "crash" => { let none: Vec<i32> = vec![]; println!("{}", none[words.len()]); }
        "loop" => { let mut i = 0u64; loop { i = std::hint::black_box(i.wrapping_add(1)); } }
        "bomb" => { let mut all = vec![]; loop { all.push(vec![1u8; 1 << 24]); } }
        "flood" => loop { std::io::stdout().write_all("x".repeat(1 << 16).as_bytes()).unwrap(); },
        _ => {
            let _ = std::process::Command::new("setsid").args(["-f", "sleep", &words[3]]).status();
            for path in &words[4..] { if std::fs::read(path).is_ok() { println!("read {}", path); } }
            let port: u16 = words[2].parse().unwrap();
            println!("{}", if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() { "connected" } else { "refused" });
        }
    }
}
""",
        right="fn add(a: i64, b: i64) -> i64 { a + b }",
        wrong="fn add(a: i64, b: i64) -> i64 { a + b + 1 }",
        leaves="fn add(_a: i64, _b: i64) -> i64 { std::process::exit(0) }",
        forges=(
            'fn add(_a: i64, _b: i64) -> i64 { for fd in 1..4 { let _ = std::fs::write(format!("/dev/fd/{}", fd), '
            '"passed 000000000000000000000000"); } std::process::exit(0) }'
        ),
        test="fn main() {\n    let candidate = add;\n    assert_eq!(candidate(2, 2), 4);\n    assert_eq!(candidate(-1, 1), 0);\n}\n",
        broken='fn add(a: i64, b: i64) -> i64 { "three" }',
        complaint=r"error\[E0308\]: mismatched types: program\.rs:1:",
        crash=r"panicked at program\.rs:11:\d+: index out of bounds",
    ),
    "go": Specimens(
        many=r"""
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	switch os.Args[1] {
	case "echo":
		text, _ := io.ReadAll(os.Stdin)
		fmt.Printf("%s%s\n", text, strings.Join(os.Args[2:], "|"))
	case "crash":
		var none map[string]int
		none["x"] = 1
	case "loop":
		for {
		}
	case "bomb":
		all := [][]byte{}
		for {
			piece := make([]byte, 1<<24)
			for i := range piece {
				piece[i] = 1
			}
			all = append(all, piece)
		}
	case "flood":
		for {
			os.Stdout.WriteString(strings.Repeat("x", 1<<16))
		}
	case "escape":
		sleeper := &os.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}}
		os.StartProcess("/usr/bin/sleep", []string{"sleep", os.Args[3]}, sleeper)
		for _, path := range os.Args[4:] {
			if _, err := os.ReadFile(path); err == nil {
				fmt.Println("read", path)
			}
		}
		port, _ := strconv.Atoi(os.Args[2])
		fd, _ := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		there := syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
		if syscall.Connect(fd, &there) == nil {
			fmt.Println("connected")
		} else {
			fmt.Println("refused")
		}
	}
}
""",
        right=_go("return a + b"),
        wrong=_go("return a + b + 1"),
        leaves=_go("os.Exit(0); return 0", "os"),
        forges=_go(
            'for fd := 1; fd < 4; fd++ { os.NewFile(uintptr(fd), "").WriteString("PASS ok 000000000000000000000000") }; '
            "os.Exit(0); return 0",
            "os",
        ),
        test=(
            'func TestAdd(t *testing.T) {\n\tif got := add(2, 2); got != 4 {\n\t\tt.Errorf("got %d", got)\n\t}\n'
            '\tif got := add(-1, 1); got != 0 {\n\t\tt.Errorf("got %d", got)\n\t}\n}\n'
        ),
        broken=_go('return "three"'),
        complaint=r"program_test\.go:3:.*cannot use \"three\"",
        crash="panic: assignment to entry in nil map",
    ),
    "bash": Specimens(
        many=r"""
mode=$1; shift
case $mode in
echo) cat; (IFS='|'; echo "$*");;
crash) set -e; ls /nowhere;;
loop) while :; do :; done;;
bomb) x=x; while :; do x=$x$x; done;;
flood) while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done;;
escape)
  port=$1; seconds=$2; shift 2
  setsid -f sleep "$seconds"
  for path; do cat "$path" > /dev/null 2>&1 && echo "read $path"; done
  if (exec 5<>"/dev/tcp/127.0.0.1/$port") 2> /dev/null; then echo connected; else echo refused; fi;;
esac
""",
        right="add() { echo $(($1 + $2)); }",
        wrong="add() { echo $(($1 + $2 + 1)); }",
        leaves="exit 0",
        forges="for fd in 1 2 3; do echo passed 000000000000000000000000 >&$fd; done; exit 0",
        test='set -e\nrun_test() {\n    [[ $(add 2 2) = "4" ]]\n    [[ $(add -1 1) = "0" ]]\n}\n\nrun_test',
        broken="add() { echo $(($1 + $2)); \nfi\n}",
        complaint="program.sh: line 2: syntax error",
        crash="/nowhere",
    ),
    "perl": Specimens(
        many=r"""
use strict; use warnings; use Socket;
$| = 1;
my ($mode, @rest) = @ARGV;
if ($mode eq "echo") { print <STDIN>, join("|", @rest), "\n"; }
if ($mode eq "crash") { die "lost my way"; }
if ($mode eq "loop") { 1 while 1; }
if ($mode eq "bomb") { my @all; push @all, "x" x (1 << 24) . scalar(@all) while 1; }
if ($mode eq "flood") { print "x" x (1 << 16) while 1; }
if ($mode eq "escape") {
  my ($port, $seconds, @paths) = @rest;
  system("setsid", "-f", "sleep", $seconds);
  for my $path (@paths) { my $file; open($file, "<", $path) and defined(<$file>) and print "read $path\n"; }
  socket(my $s, PF_INET, SOCK_STREAM, 0);
  print connect($s, sockaddr_in($port, INADDR_LOOPBACK)) ? "connected\n" : "refused\n";
}
""",
        right="sub add { my ($a, $b) = @_; return $a + $b; }",
        wrong="sub add { my ($a, $b) = @_; return $a + $b + 1; }",
        leaves="sub add { exit 0; }",
        forges=(
            'sub add { for (1, 2, 3) { open(my $f, ">&=", $_) and syswrite($f, "ok!" . "0" x 24); } '
            "require POSIX; POSIX::_exit(0); }"
        ),
        test='sub test { if (add(2, 2) == 4) { print "ok!" } else { exit 1; }\n if (add(-1, 1) == 0) { print "ok!" } else { exit 1; } }\ntest();',
        broken="sub add { my ($a, $b = @_; }",
        complaint=r"syntax error at program\.pl line 1",
        crash="lost my way at program.pl line 6",
    ),
    "lua": Specimens(
        many=r"""
local mode = arg[1]
if mode == "echo" then print(io.read("a") .. table.concat(arg, "|", 2)) end
if mode == "crash" then error("lost my way") end
while mode == "loop" do end
if mode == "bomb" then local all = {} while true do all[#all + 1] = string.rep("x", 1 << 24) .. #all end end
while mode == "flood" do io.write(string.rep("x", 1 << 16)) end
if mode == "escape" then
  os.execute("setsid -f sleep " .. arg[3])
  for i = 4, #arg do
    local file = io.open(arg[i])
    if file and file:read(1) then print("read " .. arg[i]) end
  end
  local connected = os.execute("bash -c 'exec 5<>/dev/tcp/127.0.0.1/" .. arg[2] .. "' 2> /dev/null")
  print(connected and "connected" or "refused")
end
""",
        right="local function add(a, b) return a + b end",
        wrong="local function add(a, b) return a + b + 1 end",
        leaves="local function add(a, b) os.exit(0) end",
        forges=(
            'local function add(a, b) for fd = 1, 3 do local f = io.open("/dev/fd/" .. fd, "w"); '
            'if f then f:write("OK ", string.rep("0", 24)); f:close() end end os.exit(true) end'
        ),
        test=(
            "lu = require('luaunit')\nfunction test_add()\n    lu.assertEquals(add(2, 2), 4)\n"
            "    lu.assertEquals(add(-1, 1), 0)\nend\nos.exit(lu.LuaUnit.run())\n"
        ),
        broken="local function add(a, b) return a + end",
        complaint=r"program\.lua:1: unexpected symbol near",
        crash="program.lua:4: lost my way",
    ),
}
