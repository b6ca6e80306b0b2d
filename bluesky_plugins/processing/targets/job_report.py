"""Says how attempts stand: one file, the standard library alone, Python 3.6 or later.

Shipped to the target beside the job wrapper. A question comes on standard input, as JSON:
`{"work_dir": ..., "look": [[key, attempt], ...]}` or
`{"work_dir": ..., "logs": [key, attempt], "limit": characters}`; the answer is the line on
standard output that begins with `MARK`, whatever a login script has printed before.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

MARK = "bluesky-plugins-answer "
MAX_QUESTION = 8_000_000  # bytes
MAX_RECORD = 8_000_000  # bytes
MAX_ANSWER = 16_000_000  # bytes of records in one answer; the rest comes with the next
CLOCK = "clock"


def folder_of(work_dir: str, key: str, attempt: int) -> Path:
    """Where an attempt lives below a target's working folder."""
    return Path(work_dir, key[:2], key, str(attempt))


def tail(path: Path, limit: int) -> str:
    """The end of a file, at most `limit` characters; nothing if it is not there."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4 * limit))
            return file.read(4 * limit).decode("utf-8", "replace")[-limit:]
    except FileNotFoundError:
        return ""


def now_there(work_dir: str) -> float:
    """The time by the clock that stamps the files, which need not be this machine's."""
    clock = Path(work_dir, CLOCK)
    try:
        clock.touch()
        return clock.stat().st_mtime
    except OSError:
        return time.time()


def look(work_dir: str, attempts: "list[list[Any]]") -> "list[dict[str, Any]]":
    """What the folders of these attempts say.

    :return: of each: `heartbeat` (its age, s, or None), `record` (text or None), and `later`:
        a record is there, but the answer is long enough.
    :raises OSError: if the working folder cannot be read.
    """
    if not Path(work_dir).is_dir():
        raise FileNotFoundError("the working folder {} is not there".format(work_dir))
    now, budget, answers = now_there(work_dir), MAX_ANSWER, []
    for key, attempt in attempts:
        folder = folder_of(work_dir, key, attempt)
        answer = {"heartbeat": None, "record": None, "later": False}  # type: dict[str, Any]
        try:
            age = now - (folder / "heartbeat").stat().st_mtime
            answer["heartbeat"] = max(0.0, age)
            size = (folder / "result.json").stat().st_size
            if size > MAX_RECORD:
                raise ValueError("{}: longer than {} bytes".format(folder, MAX_RECORD))
            if size <= budget:
                answer["record"] = (folder / "result.json").read_bytes().decode("utf-8", "replace")
                budget -= size
            else:
                answer["later"] = True
        except FileNotFoundError:
            pass  # it has not begun, or has not ended
        answers.append(answer)
    return answers


def logs(work_dir: str, attempt: "list[Any]", limit: int) -> "list[str]":
    """The ends of what the program printed; the scheduler's own words where there is nothing."""
    folder = folder_of(work_dir, *attempt)
    out, err = (tail(folder / name, limit) for name in ("stdout", "stderr"))
    return [out, err or tail(folder / "log", limit)]


def answer(question: "dict[str, Any]") -> "Any":
    """The answer to one question."""
    if "look" in question:
        return look(question["work_dir"], question["look"])
    return logs(question["work_dir"], question["logs"], question["limit"])


def main() -> int:
    """Answer what is asked on standard input."""
    try:
        question = json.loads(sys.stdin.buffer.read(MAX_QUESTION).decode("utf-8"))
        text = json.dumps(answer(question))
    except (OSError, ValueError) as error:
        print("job_report: {}".format(error), file=sys.stderr)
        return 3
    print("\n" + MARK + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
