"""What parent and worker say to each other, and the flight recorder that outlives the worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import msgspec

from kerneldyno.bench.messages import Channel, Doing, Done, Finished, Message, Recorder
from kerneldyno.bench.records import Measurement


def test_messages_arrive_as_lines():
    reading, writing = os.pipe()
    channel = Channel(writing)
    said = [Doing("a", "build"), Done(Measurement(case="a", status="ok")), Finished({"build": 1.0})]
    for message in said:
        channel.say(message)
    channel._file.close()
    with os.fdopen(reading, "rb") as file:
        heard = [msgspec.json.decode(line, type=Message) for line in file]
    assert heard == said


def test_the_recorder_survives_a_kill(tmp_path):
    path = tmp_path / "recorder"
    with Recorder(path, create=True) as recorder:
        assert recorder.read() == (None, 0)
        script = (
            "import os, signal, sys; from pathlib import Path; from kerneldyno.bench.messages import Recorder\n"
            "r = Recorder(Path(sys.argv[1])); r.mark(3); r.clear(); r.mark(7); os.kill(os.getpid(), signal.SIGKILL)"
        )
        done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
        assert done.returncode == -signal.SIGKILL
        assert recorder.read() == (7, 3)
