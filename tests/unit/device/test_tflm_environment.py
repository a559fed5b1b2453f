# SPDX-License-Identifier: Apache-2.0
"""Making the environment, with a Python of our own that needs no network."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeprune.device.tflm import environment, examine, find, set_up
from edgeprune.errors import DeviceError, EdgepruneError, InputError, OutputError
from edgeprune.progress import Silent

MAKES = """#!/bin/sh
# python -m venv FOLDER
mkdir -p "$3/bin" && cat > "$3/bin/python" <<'END'
#!/bin/sh
case "$*" in
*pip*) {pip} ;;
*) {other} ;;
esac
END
chmod +x "$3/bin/python"
"""


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def use(pip: str = "exit 0", other: str = "exit 0", text: str = MAKES) -> None:
        path = tmp_path / "python"
        path.write_text(text.format(pip=pip, other=other))
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return use


def left(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir() if path.name != "python")


def test_it_is_made_once(tmp_path: Path, python: Callable[..., None]) -> None:
    python()
    folder = tmp_path / "a" / "tflm"
    assert find(folder) is None
    name = set_up(folder, Silent())
    found = find(folder)
    assert found is not None
    assert found.name == name
    assert name.startswith("tflite-micro 0.dev")
    assert found.python == folder / "bin" / "python"
    assert left(folder.parent) == ["tflm"]
    python(text="#!/bin/sh\nexit 9\n")
    assert set_up(folder, Silent()) == name


def test_an_older_one_is_replaced(tmp_path: Path, python: Callable[..., None]) -> None:
    python()
    folder = tmp_path / "tflm"
    set_up(folder, Silent())
    (folder / "edgeprune-tflm.txt").write_text("tflite-micro==0.dev1\n")
    (folder / "old").touch()
    assert find(folder) is None
    set_up(folder, Silent())
    assert find(folder) is not None
    assert not (folder / "old").exists()


def test_one_whose_python_is_gone_is_none(tmp_path: Path, python: Callable[..., None]) -> None:
    python()
    set_up(tmp_path / "tflm", Silent())
    (tmp_path / "tflm" / "bin" / "python").unlink()
    assert find(tmp_path / "tflm") is None


def test_somebody_elses_folder_is_left_alone(tmp_path: Path, python: Callable[..., None]) -> None:
    python()
    folder = tmp_path / "tflm"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="isn't an environment of edgeprune"):
        set_up(folder, Silent())
    assert (folder / "thesis.txt").read_text() == "years of work"
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OutputError, match="isn't an environment of edgeprune"):
        set_up(file, Silent())


NO_WHEEL = (
    "echo 'WARNING: x'; echo 'ERROR: Could not find a version that satisfies the requirement "
    "tflite-micro==1 (from versions: none)'; "
    "echo 'ERROR: No matching distribution found for tflite-micro==1'; exit 1"
)


@pytest.mark.parametrize(
    ("script", "kind", "text"),
    [
        ({"pip": NO_WHEEL}, InputError, "no wheel of tflite-micro==0.dev"),
        (
            {"pip": "echo 'ERROR: Could not install: disk full'; echo hint; exit 1"},
            DeviceError,
            "tflm: pip install failed: ERROR: Could not install: disk full$",
        ),
        (
            {"other": "echo Traceback; echo 'ImportError: libstdc++'; exit 1"},
            DeviceError,
            "tflm: tflite-micro failed: ImportError: libstdc",
        ),
        (
            {"text": "#!/bin/sh\necho ensurepip is not available; exit 1\n"},
            DeviceError,
            "tflm: python -m venv failed: ensurepip is not available$",
        ),
    ],
    ids=["no wheel", "pip", "import", "venv"],
)
def test_a_failure_is_one_line_and_leaves_nothing(
    tmp_path: Path,
    python: Callable[..., None],
    script: dict[str, str],
    kind: type[EdgepruneError],
    text: str,
) -> None:
    python(**script)
    with pytest.raises(kind, match=text) as raised:
        set_up(tmp_path / "tflm", Silent())
    assert "\n" not in str(raised.value)
    assert left(tmp_path) == []


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_an_interrupt_leaves_nothing(
    tmp_path: Path, python: Callable[..., None], monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    python()
    real, calls = subprocess.run, []

    def run(command: list[str], **options: Any) -> Any:
        calls.append(command)
        if len(calls) == turn:
            raise KeyboardInterrupt
        return real(command, **options)

    monkeypatch.setattr(environment.subprocess, "run", run)
    with pytest.raises(KeyboardInterrupt):
        set_up(tmp_path / "tflm", Silent())
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("other", "kind", "text"),
    [
        ("kill -SEGV $$", DeviceError, r"m\.tflite: tflite-micro failed: it died of signal 11"),
        ("echo oh no >&2; exit 4", DeviceError, r"failed: it ended with 4: oh no$"),
        ("sleep 30", DeviceError, "took more than 1 s"),
        (
            'echo \'{"error": "it has no kernel for GELU", "exit_code": 2}\'',
            InputError,
            r"m\.tflite: TensorFlow Lite Micro doesn't take it: it has no kernel for GELU$",
        ),
    ],
    ids=["crash", "exit", "time", "refusal"],
)
def test_what_happens_to_the_program_is_told(
    tmp_path: Path,
    python: Callable[..., None],
    other: str,
    kind: type[EdgepruneError],
    text: str,
) -> None:
    python(other=f'case "$*" in *program.py) {other} ;; esac')
    set_up(tmp_path / "tflm", Silent())
    found = find(tmp_path / "tflm")
    assert found is not None
    with pytest.raises(kind, match=text) as raised:
        examine(found, tmp_path / "m.tflite", {}, timeout=1.0)
    assert "\n" not in str(raised.value)
