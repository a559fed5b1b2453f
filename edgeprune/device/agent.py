# SPDX-License-Identifier: Apache-2.0
"""Asking the agent on a device: it and the files go there, one line of JSON comes back."""

import contextlib
import itertools
import json
import re
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeGuard

from edgeprune.device.place import Here, Place, There
from edgeprune.device.shell import Done, Shell, Tell
from edgeprune.errors import DeviceError, InputError
from edgeprune.progress import Bar, Progress, Silent

__all__ = ["CODE", "FOLDER", "SCHEMA", "Agent", "Option"]

SCHEMA = 1
CODE = Path(__file__).parents[2]
"""Where this very code is; on this machine the agent starts there."""
FOLDER = "~/.cache/edgeprune"
"""Where the agent and its files go on a device, unless its settings name another."""

Option = str | int | float | bool | Path | None
"""``True`` is an option without a value; ``False`` and ``None`` are left out; a ``Path`` is a file
here, which is brought to the device."""

_TIME_LIMIT = 300.0
"""The agent's own where none is given, in seconds."""
_SLACK = 60.0
"""Seconds beyond the agent's time limit, after which it counts as hung."""
_QUICK = 120.0
_ENDED = re.compile(r"progress (\d+) (\d+) ?(.*)")
_MISSING, _NOT_ALLOWED = 127, 126


class Agent:
    """The agent on one device.

    Args:
        shell: The device.
        python: The words that start Python there.
        folder: Where the agent and its files go there, absolute or from the home folder on
            (``~/...``); ``None``: nothing goes anywhere, because ``shell`` is on this machine and
            starts in ``CODE``.
        keep: Whether the files stay on the device at the end, for the next time. The agent itself,
            some 100 kB, always does.
    """

    def __init__(
        self,
        shell: Shell,
        python: Sequence[str] = ("python3",),
        folder: str | None = FOLDER,
        *,
        keep: bool = False,
    ) -> None:
        self.shell = shell
        self._python = tuple(python)
        self._place: Place = Here() if folder is None else There(shell, folder, keep)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The device, for messages."""
        return self.shell.name

    def close(self) -> None:
        """Remove from the device what is to be removed, and end the connection."""
        # where the connection broke there is nothing more to do, and a cause is under way
        with contextlib.suppress(DeviceError):
            self._place.clean()
        self.shell.close()

    def ask(
        self,
        task: str,
        files: Sequence[Path | str] = (),
        options: Mapping[str, Option] | None = None,
        *,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Have a task done on files of this machine, or of the device.

        Args:
            task: ``probe``, ``memory``, ``latency`` ...
            files: Artifacts, in the order of the answer's; a ``str`` is a path on the device.
            options: ``{"threads": 4, "time_limit": 60, "inputs": Path("x.npz")}``.
            progress: Where to show the progress.
            timeout: Seconds; ``None``: a minute more than the agent's own time limit.

        Returns:
            The whole answer: ``device``, ``result`` ...; the paths in it are those of this machine.

        Raises:
            InputError: A file or an option can't be used, or Python, numpy or a runtime is missing
                on the device.
            DeviceError: The device can't be reached, or the task failed there.
        """
        given = dict(options or {})
        limit = given.get("time_limit")
        if timeout is None:
            timeout = (limit if isinstance(limit, int | float) else _TIME_LIMIT) + _SLACK
        if progress is not None and task != "probe":
            given["progress"] = True
        places = self._put((*files, *filter(_is_path, given.values())), progress)
        words = [
            *self._python,
            *self._place.program(progress),
            task,
            *_words(given, places),
            *(["--", *(places[path] for path in files)] if files else []),
        ]
        with _told(progress, f"{task} on {self.name}") as tell:
            done = self.shell.run(words, timeout=timeout, tell=tell)
        names = {place: path for path, place in places.items()}
        return _with_paths(self._answer(task, done, names), names)

    def probe(self) -> dict[str, Any]:
        """What the device is and has.

        Raises:
            InputError: There is no Python, or too old a one.
            DeviceError: It can't be reached.
        """
        result: dict[str, Any] = self.ask("probe", timeout=_QUICK)["result"]
        return result

    def run(
        self,
        path: Path | str,
        inputs: Path,
        outputs: Path,
        *,
        threads: int = 1,
        progress: Progress | None = None,
    ) -> dict[str, Any]:
        """Run an artifact there on the ``.npz`` ``inputs`` and bring the outputs to ``outputs``.

        ``path`` is brought there, unless it is a ``str``: an absolute path on the device.

        Returns:
            ``{"runtime": ..., "outputs": [{"name", "shape", "dtype"}]}``.

        Raises:
            InputError: The artifact or the inputs can't be used, or a runtime is missing there.
            DeviceError: The device can't be reached, or the run failed there.
        """
        with self._place.fresh(outputs) as there:
            given: dict[str, Option] = {"inputs": inputs, "outputs": there, "threads": threads}
            answer = self.ask("run", [path], given, progress=progress)
            self._place.get(there, outputs)
        result: dict[str, Any] = answer["result"]
        return result

    def _put(self, paths: Iterable[Path | str], progress: Progress | None) -> dict[Path | str, str]:
        """Have the files there; the place of each, which no other has, whatever they hold."""
        places: dict[Path | str, str] = {}
        for path in dict.fromkeys(paths):
            if isinstance(path, str):
                places[path] = path
                continue
            taken = set(places.values())
            copies = (self._place.put(path, copy, progress) for copy in itertools.count())
            places[path] = next(place for place in copies if place not in taken)
        return places

    def _answer(self, task: str, done: Done, names: Mapping[str, Path | str]) -> dict[str, Any]:
        lines = done.out.decode(errors="replace").strip().splitlines()
        try:
            answer = json.loads(lines[-1]) if lines else None
        except json.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict) or answer.get("schema") != SCHEMA:
            raise self._failure(task, done)
        if "error" in answer:
            kind = InputError if answer.get("exit_code") == InputError.exit_code else DeviceError
            raise kind(self._said(str(answer["error"]), names))
        return answer

    def _failure(self, task: str, done: Done) -> InputError | DeviceError:
        """What it means that there was no answer."""
        python = " ".join(self._python)
        if done.code in (_MISSING, _NOT_ALLOWED):
            return InputError(
                f"{self.name}: '{python}' can't be started there; install Python 3.8 or newer "
                "(Debian: apt-get install python3), or name it: edgeprune device add --python"
            )
        if done.code == -signal.SIGKILL:
            return DeviceError(
                f"{self.name}: {task}: the agent was killed, most likely for want of memory"
            )
        lines = done.err.strip().splitlines()
        ended = f"signal {-done.code}" if done.code < 0 else f"exit code {done.code}"
        said = lines[-1].strip() if lines else "no message"
        return DeviceError(f"{self.name}: {task}: the agent ended with {ended}: {said}")

    def _said(self, text: str, names: Mapping[str, Path | str]) -> str:
        for place, path in names.items():
            text = text.replace(place, str(path))
        return text if self.name == "local" else f"{self.name}: {text}"


def _is_path(value: object) -> TypeGuard[Path]:
    return isinstance(value, Path)


def _words(options: Mapping[str, Option], places: Mapping[Path | str, str]) -> list[str]:
    words = []
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value is not None and value is not False:
            # one word, so that a value may begin with a dash
            words.append(f"{option}={places[value] if isinstance(value, Path) else value}")
    return words


def _with_paths(answer: dict[str, Any], names: Mapping[str, Path | str]) -> dict[str, Any]:
    files = answer.get("result", {}).get("files", [])
    for file in files:
        if file.get("path") in names:
            file["path"] = str(names[file["path"]])
    return answer


@contextlib.contextmanager
def _told(progress: Progress | None, title: str) -> Iterator[Tell]:
    """Make a bar of the agent's lines; it begins with the first, which says how long it is."""
    with contextlib.ExitStack() as stack:
        bar: Bar | None = None
        shown = 0

        def tell(line: str) -> None:
            nonlocal bar, shown
            match = _ENDED.fullmatch(line)
            if match is None:
                return
            done, total = int(match[1]), int(match[2])
            if bar is None:
                bar = stack.enter_context((progress or Silent()).bar(title, total))
            bar.advance(max(0, done - shown))
            shown = max(shown, done)

        yield tell
