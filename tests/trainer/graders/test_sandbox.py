"""The Python grader's process, attacked: nothing of the service is reached, and every end is told in words."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.processes import wait_until
from tests.trainer.graders.scenes import graded
from trainer.graders import Failure, Tools
from trainer.graders.jail import MODULES
from trainer.graders.sandbox import CALLS_A_PROCESS, SandboxLimits, check_python, run_python, run_python_on_all

pytestmark = pytest.mark.integration

SAMPLE = {"output_text": "答案是巴黎", "output_json": {"a": [1, 2]}, "output_tools": [], "choices": []}
PATIENT = SandboxLimits(wall_seconds=60.0)
ITEM = {"answer": "巴黎", "deep": {"list": [1, None, True]}}


def run(source: str, **limits: Any) -> float:
    return run_python(source, SAMPLE, ITEM, limits=SandboxLimits(**{"wall_seconds": 60.0, **limits}))


def told(body: str, *, flag: str = "python_grader_runtime_error", before: str = "", **limits: Any) -> str:
    """Return how a grader with this body fails."""
    with pytest.raises(Failure) as raised:
        run(f"{before}\ndef grade(sample, item):\n    {body}", **limits)
    assert raised.value.flag == flag, raised.value.message
    return raised.value.message


def test_it_returns_what_the_function_returns() -> None:
    source = "def grade(sample, item):\n    return float(item['answer'] in sample['output_text']) / 4"
    assert run(source) == 0.25
    assert run("grade = lambda sample, item: sample['output_json']['a'][1] - len(item['deep']['list'])") == -1.0
    assert run("def grade(sample, item):\n    print('巴黎' * 10**6)\n    return True") == 1.0


def test_the_modules_can_be_imported() -> None:
    body = "".join(f"    import {name}\n    assert {name}.__name__\n" for name in sorted(MODULES))
    assert run(f"def grade(sample, item):\n{body}    return 1") == 1.0


def test_what_the_library_loads_late_works_too() -> None:
    source = """
import random, re, statistics
from collections import Counter
from datetime import datetime
from decimal import Decimal
from urllib.parse import urlsplit
from xml.etree import ElementTree
import collections.abc as kinds

def grade(sample, item):
    assert datetime.strptime("28 Nov 2026", "%d %b %Y").year == 2026
    assert ElementTree.fromstring("<a>巴黎</a>").text == "巴黎" == "巴黎".encode("gbk").decode("gbk")
    assert 0 <= random.random() < 1 and isinstance(item, kinds.Mapping)
    assert re.search(r"巴.", sample["output_text"]) and urlsplit("https://a/b").path == "/b"
    return statistics.mean([1, 2]) + float(Decimal("0.5")) + Counter("aab")["a"]
"""
    assert run(source) == 4.0


@pytest.mark.parametrize("name", ["numpy", "socket", "subprocess", "multiprocessing", "asyncio", "pydantic", "trainer"])
def test_other_modules_cannot(name: str) -> None:
    message = told("return 1", before=f"import {name}")
    assert f"No module named '{name}'" in message
    assert "These modules can be imported: abc, array" in message


def test_the_services_files_cannot_be_read(tmp_path: Path) -> None:
    secret = tmp_path / "burnish.db"
    secret.write_text("secret")
    for path in (secret, "/etc/passwd", "/proc/self/environ", f"/proc/{os.getpid()}/environ", __file__):
        assert "PermissionError" in told(f"return len(open({str(path)!r}).read())")
    assert "PermissionError" in told("return len(os.listdir('.'))", before="import os")
    assert "PermissionError" in told("return os.stat('/').st_size", before="import os")
    left = tmp_path / "left"
    assert "PermissionError" in told(f"return len(open({str(left)!r}, 'w').write('x'))")
    assert not left.exists()


def test_the_services_environment_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURNISH_SECRET_KEY", "s" * 32)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    assert run("import os\ndef grade(sample, item):\n    return len(os.environ)") == 0.0


def test_the_network_cannot_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        before = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)"
        # ctypes is loaded already, so that a grader can make system calls of its own: the kernel refuses them.
        body = "return 100 * libc.socket(2, 1, 0) - ctypes.get_errno()"
        assert run(f"{before}\ndef grade(sample, item):\n    {body}") == -101.0
        with pytest.raises(TimeoutError):
            server.accept()


def test_native_code_is_refused_by_the_kernel() -> None:
    """Also io_uring_setup (425), pidfd_getfd (438), and a socket by the numbers of the x32 ABI."""
    calls = (
        "fork()",
        "vfork()",
        "setsid()",
        "kill(1, 0)",
        "unshare(0)",
        "ptrace(0, 0, 0, 0)",
        "dup(1)",
        "execv(b'/bin/true', 0)",
        "openat(-100, b'/', 0)",
        "chdir(b'/tmp')",
        "prctl(38, 1, 0, 0, 0)",
        "setuid(0)",
        "memfd_create(b'x', 0)",
        "syscall(425, 1, 0)",
        "syscall(438, 0, 0, 0)",
        "syscall(0x40000000 + 41, 2, 1, 0)",
    )
    checks = "".join(f"    assert libc.{call} == -1 and ctypes.get_errno() == 1, {call!r}\n" for call in calls)
    before = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)"
    assert run(f"{before}\ndef grade(sample, item):\n{checks}    return 1") == 1.0


def test_no_process_is_started_and_none_is_hurt() -> None:
    with subprocess.Popen(["sleep", "1000"]) as bystander:
        assert "PermissionError" in told(f"os.kill({bystander.pid}, 9)", before="import os")
        assert bystander.poll() is None
        bystander.kill()
    assert "PermissionError" in told("while True: os.fork()", before="import os")
    assert "PermissionError" in told("os.posix_spawn('/bin/true', ['true'], {})", before="import os")
    assert "can't start new thread" in told("import _thread; _thread.start_new_thread(print, ())")


def test_an_endless_loop_ends() -> None:
    message = told("while True: pass", flag="unresponsive_reward_error", cpu_seconds=1)
    assert message == "it used more than 1 seconds of a processor"
    message = told("time.sleep(1000)", before="import time", flag="unresponsive_reward_error", wall_seconds=3.0)
    assert message == "it was not done after 3 seconds"
    body = "signal.signal(signal.SIGXCPU, signal.SIG_IGN)"
    assert "No module named 'signal'" in told(body, before="import signal")


def test_memory_is_bounded() -> None:
    assert "MemoryError" in told("return len(bytearray(1 << 30))")
    assert "MemoryError" in told("x = []\n    while True: x.append('y' * 10**6)", memory_bytes=256 << 20)


def test_output_is_bounded() -> None:
    body = "while True: os.write(3, b'x' * 100000)"
    message = told(
        f"for fd in range(3, 9):\n        try:\n            {body}\n        except OSError: pass", before="import os"
    )
    assert "wrote more than 65536 bytes" in message


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("float('nan')", "grade returned nan"),
        ("float('inf')", "grade returned inf"),
        ("10**400", "grade returned inf"),
        ("'1.0'", "grade returned a str: it must return a number"),
        ("None", "grade returned a NoneType"),
        ("[1.0]", "grade returned a list"),
        ("1j", "grade returned a complex"),
        ("1 / 0", "line 3: ZeroDivisionError: division by zero"),
        ("item['missing']", "line 3: KeyError: 'missing'"),
        ("grade(sample, item)", "RecursionError"),
        ("exit()", "NameError"),
        ("(_ for _ in ()).throw(SystemExit(0))", "SystemExit: 0"),
        ("type('E', (Exception,), {'__str__': lambda self: 1 / 0})().x", "AttributeError"),
    ],
)
def test_an_answer_that_is_not_a_number_is_reported(value: str, why: str) -> None:
    assert why in told(f"return {value}")


def test_an_error_without_words_and_a_number_that_lies() -> None:
    lie = "class Lie(float):\n    def __float__(self): raise ValueError('no')"
    assert "ValueError: no" in told("return Lie(1)", before=lie)
    mute = "class Mute(Exception):\n    def __str__(self): raise KeyError(1)"
    assert told("raise Mute", before=mute) == "an error whose text cannot be read"
    assert len(told("raise ValueError('长' * 10**6)")) == 500


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("__import__('os')._exit(0)", "ended without an answer (status 0)"),
        ("__import__('ctypes').string_at(0)", "ended without an answer (status -11)"),
        ("[__import__('os').write(f, b'[1]') for f in (3,)] and __import__('os')._exit(0)", "ended without an answer"),
        ("__import__('os').write(3, b'{\"reward\": NaN}') and __import__('os')._exit(0)", "it gave no number"),
        ("__import__('os').write(3, b'{\"reward\": \"1\"}') and __import__('os')._exit(0)", "it gave no number"),
    ],
)
def test_a_process_that_ends_or_lies_is_reported(body: str, why: str) -> None:
    assert why in told(body)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("def grade(sample, item) return 1", "line 1: SyntaxError"),
        ("def other(sample, item):\n    return 1", "it has no function grade(sample, item)"),
        ("grade = 3", None),
        ("def grade(sample, item):\n    return 巴黎 +", "line 2: SyntaxError"),
        ("x = " + "-" * 100_000 + "1\ndef grade(s, i): return 1", "Error"),
        ("x = " + "(" * 5000 + ")" * 5000, "line 1: SyntaxError"),
        ("def grade(s, i):\n    \0", "null bytes"),
    ],
)
def test_a_source_is_checked_without_running_it(source: str, why: str | None) -> None:
    if why is None:
        check_python(source)
        return
    with pytest.raises(Failure) as raised:
        check_python(source)
    assert why in raised.value.message


def test_a_check_runs_nothing() -> None:
    check_python("while True: pass\ndef grade(sample, item):\n    return 1")


def test_a_graders_process_dies_with_the_one_that_started_it(tmp_path: Path) -> None:
    sleeper = "import time\ndef grade(sample, item):\n    time.sleep(1000)"
    program = (
        "from trainer.graders.sandbox import *\n"
        f"run_python({sleeper!r}, {{}}, {{}}, limits=SandboxLimits(wall_seconds=1000))"
    )
    starter = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[3])

    def child() -> int | None:
        found = Path(f"/proc/{starter.pid}/task/{starter.pid}/children").read_text().split()
        return int(found[0]) if found else None

    wait_until(lambda: child() is not None, what="the grader's process")
    pid = child()
    assert pid is not None
    wait_until(lambda: "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text(), what="its filter")
    status = Path(f"/proc/{pid}/status").read_text()
    if os.geteuid() == 0:
        assert "Uid:\t65534\t65534\t65534\t65534" in status
        assert "Groups:\t \n" in status
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or _state(pid) == "Z", what="its end")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_a_python_grader_grades_and_reports_errors() -> None:
    grader = {"type": "python", "name": "p", "source": "def grade(sample, item):\n    return item['x']"}
    tools = Tools(run_python=run_python)
    assert graded(grader, item={"x": 0.5}, tools=tools).reward == 0.5
    failed = graded(grader, item={"y": 1}, tools=tools)
    assert (failed.reward, failed.errors.python_grader_runtime_error) == (0.0, True)
    assert failed.errors.python_grader_runtime_error_details == "line 2: KeyError: 'x'"


def test_many_answers_are_graded_in_few_processes() -> None:
    source = (
        "import os, random\nseen = []\n"
        "def grade(sample, item):\n"
        "    seen.append(1)\n"
        "    if sample['n'] == 3:\n        raise SystemExit('三')\n"
        "    return sample['n'] + item['k'] + len(seen) * 1000\n"
    )
    calls = [({"n": number}, {"k": 0.5}) for number in range(CALLS_A_PROCESS + 2)]
    found = run_python_on_all(source, calls, limits=PATIENT)
    failed = found[3]
    assert isinstance(failed, Failure)
    assert "三" in failed.message
    rest = [number for number in range(len(calls)) if number != 3]
    assert [found[number] for number in rest] == [
        number + 0.5 + (number % CALLS_A_PROCESS + 1) * 1000 for number in rest
    ]


def test_the_same_answers_get_the_same_rewards_again() -> None:
    source = (
        "import random\n"
        "def grade(sample, item):\n"
        "    return random.random() + list({'一', '二', 'three', 'four'}).index('二')\n"
    )
    calls = [({}, {})] * 5
    first = run_python_on_all(source, calls, limits=PATIENT)
    assert first == run_python_on_all(source, calls, limits=PATIENT)
    assert len(set(map(float, first))) == 5  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "said"),
    [("1/0", "ZeroDivisionError"), ("x = 1", "no function grade"), ("def grade(s, i):\n    return 'x'", "a number")],
)
def test_what_is_wrong_with_a_source_is_wrong_with_each_answer(source: str, said: str) -> None:
    for failure in run_python_on_all(source, [({}, {})] * 3, limits=PATIENT):
        assert isinstance(failure, Failure)
        assert said in failure.message


def test_an_answer_that_takes_too_long_costs_no_other_its_reward() -> None:
    source = "def grade(sample, item):\n    while sample['n'] == 1:\n        pass\n    return sample['n']"
    calls = [({"n": number}, {}) for number in range(3)]
    limits = SandboxLimits(cpu_seconds=1, wall_seconds=60.0)
    first, second, third = run_python_on_all(source, calls, limits=limits)
    assert (first, third) == (0.0, 2.0)
    assert isinstance(second, Failure)
    assert second.flag == "unresponsive_reward_error"
