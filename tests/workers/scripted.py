"""A worker that does what its request says: ``python -m tests.workers.scripted``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import core.errors
from core.errors import GenerationError, PaddockError
from core.workers.child import Channel, one_line, run_request


def work(request: dict[str, Any], channel: Channel) -> None:
    print(request.get("log", ""), file=sys.stderr)
    channel.say(event="begun", pid=os.getpid(), environment=dict(os.environ))
    match request["do"]:
        case "print":
            print("a library prints")
        case "count":
            for number in range(request["to"]):
                channel.say(event="progress", number=number)
        case "answer":
            while True:
                command = channel.receive()
                channel.say(event="done", double=2 * command["number"])
        case "kill":
            os.kill(os.getpid(), getattr(signal, request["signal"]))
        case "exit":
            os._exit(3)
        case "half":
            channel._stream.write(json.dumps({"event": "progress"})[:9])
            channel._stream.flush()
            os._exit(0)
        case "sleep":
            time.sleep(300)
        case "children":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
            channel.say(event="child", pid=child.pid)
            time.sleep(300)
        case "take":
            block = bytearray(request["bytes"])
            channel.say(event="taken", bytes=len(block))
            time.sleep(300)
        case "fail":
            kind = getattr(core.errors, request["type"], None) or RuntimeError
            raise kind(request["message"])


def describe(error: Exception, _request: dict[str, Any]) -> PaddockError:
    return error if isinstance(error, PaddockError) else GenerationError(one_line(error))


if __name__ == "__main__":
    run_request(work, describe)
