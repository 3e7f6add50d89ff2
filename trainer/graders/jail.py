"""A program: runs one Python grader with no way out. `sandbox.py` starts it; nothing imports it.

A request comes on stdin: a line of JSON with the source and the limits, and behind it the JSON of what is graded. An
answer goes to stdout, another JSON object. Between them the process gives up all that it could harm with, and in the
end lets the kernel refuse every system call beyond a short list (seccomp(2)): it can compute, use its memory, look at
the clock, and write to the pipe and to /dev/null. Files, sockets, other processes and signals are out of reach, for the
grader's Python and for whatever native code it may find. What it imports is loaded before that.

Two marks go before the answer, each a byte: UP once this program runs, RUNNING in the moment before the first line of
the source does. The source can write to the pipe too, but nothing in front of what stands there already: whatever comes
behind RUNNING is the grader's doing, and a fault of the machine is believed before it alone.
"""

from __future__ import annotations

import ast
import ctypes
import importlib
import json
import os
import platform
import random
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NoReturn

# fmt: off
MODULES = frozenset((
    "abc", "array", "ast", "base64", "binascii", "bisect", "calendar", "cmath", "codecs", "collections", "contextlib",
    "copy", "csv", "dataclasses", "datetime", "decimal", "difflib", "enum", "fnmatch", "fractions", "functools",
    "hashlib", "heapq", "html", "io", "itertools", "json", "keyword", "math", "numbers", "operator", "os", "pprint",
    "random", "re", "reprlib", "statistics", "string", "struct", "sys", "textwrap", "time", "token", "tokenize",
    "traceback", "types", "typing", "unicodedata", "urllib", "warnings", "xml", "zlib",
))
# fmt: on
"""What graders can import: parts of the standard library that need no file once they are loaded."""
_ALWAYS = (
    "_strptime",
    "encodings.gb18030",
    "encodings.gbk",
    "encodings.utf_16",
    "encodings.latin_1",
    "encodings.ascii",
)
UP, RUNNING = b"+", b">"
_NOBODY = 65534
_SHOWN = 500

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_FILTER_MODE = 2
_KILL, _REFUSE, _ALLOW = 0x80000000, 0x00050000 | 1, 0x7FFF0000
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4
# The numbers of read, write, close, fstat, lseek, mmap, mprotect, munmap, brk, rt_sigprocmask, rt_sigreturn,
# sched_yield, mremap, madvise, nanosleep, getpid, exit, gettimeofday, getrusage, sigaltstack, gettid, futex,
# clock_gettime, clock_getres, clock_nanosleep, exit_group, getrandom, restart_syscall; on x86-64 time too.
_CALLS: dict[str, tuple[int, str]] = {
    "x86_64": (
        0xC000003E,
        "0 1 3 5 8 9 10 11 12 14 15 24 25 28 35 39 60 96 98 131 186 202 228 229 230 231 318 219 201",
    ),
    "aarch64": (
        0xC00000B7,
        "63 64 57 80 62 222 226 215 214 135 139 124 216 233 101 172 93 169 165 132 178 98 113 114 115 94 278 128",
    ),
}


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction)))


class UnusableSource(Exception):
    """The source cannot be run."""


def main() -> NoReturn:
    """Read the request, shut this process in, grade, answer, and end without looking back."""
    os.write(1, UP)
    request = json.loads(sys.stdin.buffer.readline())
    input_bytes = sys.stdin.buffer.read()
    answer_to = _own_pipe()
    try:
        _confine_process(request)
    except (OSError, ValueError) as error:
        _write_answer(answer_to, {"error": f"this machine cannot shut a grader in: {error}", "kind": "sandbox"})
    os.write(answer_to, RUNNING)
    try:
        answer = _answer_request(request | json.loads(input_bytes))
    except BaseException as error:  # noqa: BLE001 - whatever a grader raises is its answer
        answer = {"error": _describe_error(error), "kind": "runtime"}
    _write_answer(answer_to, answer)


def _answer_request(request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to one call, to many, or to a check."""
    if "sample" in request:
        return {"reward": _call_grade(_load_function(request["source"]), request)}
    if "calls" in request:
        random.seed(0)
        try:
            function = _load_function(request["source"])
        except BaseException as error:  # noqa: BLE001 - each call would raise it
            return {"answers": [{"error": _describe_error(error)} for _ in request["calls"]]}
        return {"answers": [_answer_call(function, call) for call in request["calls"]]}
    return _check_function(request["source"])


def _answer_call(function: Callable[[Any, Any], Any], call: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"reward": _call_grade(function, call)}
    except BaseException as error:  # noqa: BLE001 - whatever a grader raises is its answer
        return {"error": _describe_error(error)}


def _own_pipe() -> int:
    """Return a descriptor for the answer; what graders print goes nowhere."""
    answer_to = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
    return answer_to


def _write_answer(answer_to: int, answer: dict[str, Any]) -> NoReturn:
    data = json.dumps(answer).encode()
    while data:
        data = data[os.write(answer_to, data) :]
    os._exit(0)


def _confine_process(request: dict[str, Any]) -> None:
    """Give up everything, the most important last. Raises OSError."""
    os.environ.clear()
    os.nice(5)
    processor = request["cpu_seconds"]
    limits = {
        resource.RLIMIT_CPU: (processor, processor + 1),  # SIGXCPU at the first, which distinguishes it from other ends
        resource.RLIMIT_AS: (request["memory_bytes"],) * 2,
        **dict.fromkeys((resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NPROC), (0, 0)),
        resource.RLIMIT_NOFILE: (8, 8),
    }
    for kind, (soft, hard) in limits.items():
        highest = resource.getrlimit(kind)[1]
        most = hard if highest == resource.RLIM_INFINITY else min(hard, highest)
        resource.setrlimit(kind, (min(soft, most), most))
    with suppress(Exception):  # a source that breaks the parser or fills its memory is not a fault of the machine
        _load_modules(request["source"])
    if os.geteuid() == 0:
        with suppress(OSError):  # a container may have no such user; the filter below needs none
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    libc = ctypes.CDLL(None, use_errno=True)
    _call_prctl(libc, _PR_SET_PDEATHSIG, 9)  # a change of user has it forgotten, so it comes after
    if os.getppid() != request["parent"]:
        raise OSError("the process that started this one has gone")
    _call_prctl(libc, _PR_SET_DUMPABLE, 0)
    _filter_calls(libc)


def _load_modules(source: str) -> None:
    """Import what a source imports and may, and what the library imports only when it is called."""
    for name in _ALWAYS:
        importlib.import_module(name)
    with suppress(SyntaxError, ValueError, MemoryError, RecursionError):  # reported when it is compiled
        for name in sorted(_find_imported_modules(ast.parse(source))):
            with suppress(ImportError):
                importlib.import_module(name)


def _find_imported_modules(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (name for name in names if name.partition(".")[0] in MODULES)


def _filter_calls(libc: ctypes.CDLL) -> None:
    """Let the kernel answer EPERM to every call that is not in the list, from now on and for ever."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _CALLS:
        raise OSError(f"it needs Linux on {' or '.join(_CALLS)}, and this is {sys.platform} on {machine}")
    architecture, numbers = _CALLS[machine]
    calls = [int(number) for number in numbers.split()]
    steps = [(_LOAD, 0, 0, _ARCHITECTURE_AT), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL)]
    steps.append((_LOAD, 0, 0, _NUMBER_AT))
    steps += [(_EQUAL, len(calls) - place, 0, call) for place, call in enumerate(calls)]
    steps += [(_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    instructions = (_Instruction * len(steps))(*steps)
    program = _Program(len(steps), ctypes.cast(instructions, ctypes.POINTER(_Instruction)))
    _call_prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    _call_prctl(libc, _PR_SET_SECCOMP, _FILTER_MODE, ctypes.byref(program))


def _call_prctl(libc: ctypes.CDLL, option: int, *arguments: Any) -> None:
    padded_arguments = [*arguments, *[0] * (4 - len(arguments))]
    if (
        libc.prctl(
            option,
            *(ctypes.c_ulong(argument) if isinstance(argument, int) else argument for argument in padded_arguments),
        )
        != 0
    ):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def _check_function(source: str) -> dict[str, Any]:
    """Compile the source, and look for the function, without running anything."""
    tree = ast.parse(source, "grader")
    compile(source, "grader", "exec", dont_inherit=True)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "grade":
            return {}
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "grade" for target in targets):
            return {}
    raise UnusableSource("it has no function grade(sample, item)")


def _load_function(source: str) -> Callable[[Any, Any], Any]:
    names: dict[str, Any] = {"__name__": "grader", "__builtins__": __builtins__}
    exec(compile(source, "grader", "exec", dont_inherit=True), names)  # noqa: S102 - what this program is for
    function = names.get("grade")
    if not callable(function):
        raise UnusableSource("it has no function grade(sample, item)")
    return function


def _call_grade(function: Callable[[Any, Any], Any], call: dict[str, Any]) -> float:
    value = function(call["sample"], call["item"])
    if not isinstance(value, (int, float)):
        raise UnusableSource(f"grade returned a {type(value).__name__}: it must return a number")
    try:
        reward = float(value)
    except OverflowError:
        reward = float("inf")
    if reward - reward != 0:
        raise UnusableSource(f"grade returned {reward}: it must return a finite number")
    return reward


def _describe_error(error: BaseException) -> str:
    """Return what was raised, and in which line of the source."""
    try:
        if isinstance(error, UnusableSource):
            return str(error)
        line = error.lineno if isinstance(error, SyntaxError) else _line_of(error)
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        where = "" if line is None else f"line {line}: "
        sentence = f"{where}{type(error).__name__}{': ' if message else ''}{message}"[:_SHOWN]
        if isinstance(error, ModuleNotFoundError):
            sentence += f". These modules can be imported: {', '.join(sorted(MODULES))}"
        return sentence
    except BaseException:  # noqa: BLE001 - the error's own text may raise one
        return "an error whose text cannot be read"


def _line_of(error: BaseException) -> int | None:
    line, step = None, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == "grader":
            line = step.tb_lineno
        step = step.tb_next
    return line


if __name__ == "__main__":
    main()
