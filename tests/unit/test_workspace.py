# SPDX-License-Identifier: Apache-2.0
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from edgeprune.errors import OutputError
from edgeprune.workspace import Workspace, chain, check, claim, kept, staged, writable

KEY = "k" * 64


def opened(out: Path, **options: bool) -> AbstractContextManager[Workspace]:
    flags = {"overwrite": False, "resume": False, "keep": False} | options
    return claim(out, "rpi4", KEY, **flags)


def publish(work: Workspace, text: str) -> None:
    work.publish({"model.onnx": text, "manifest.json": json.dumps({"run": work.key})})


def seal(work: Workspace, stage: str, key: str, text: str = "weights") -> Path:
    folder = work.begin(stage, key)
    (folder / "model.pt2").write_text(text)
    work.seal(stage, key, ["model.pt2"])
    return folder


class Killed(BaseException):
    pass


def test_key_depends_on_every_part_and_on_the_order() -> None:
    keys = {chain("a"), chain("b"), chain("a", "x"), chain("a", {"x": 1}), chain("a", {"x": 2})}
    assert len(keys) == 5
    assert chain("a", "b", "c") != chain("a", "c", "b")
    assert chain("a", {"x": 1, "y": 2}) == chain("a", {"y": 2, "x": 1})


def test_result_appears_whole_and_nothing_else_stays(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with opened(out) as work:
        seal(work, "prune", "k1")
        publish(work, "new")
        assert (work.folder / "prune").is_dir()
    assert [path.name for path in out.iterdir()] == ["rpi4"]
    assert sorted(path.name for path in (out / "rpi4").iterdir()) == ["manifest.json", "model.onnx"]


def test_keep_leaves_the_work_folder(tmp_path: Path) -> None:
    with opened(tmp_path, keep=True) as work:
        seal(work, "prune", "k1")
        publish(work, "new")
    assert (tmp_path / ".rpi4.work" / "prune" / "model.pt2").read_text() == "weights"


def test_sealed_only_under_its_key_and_with_its_files_unchanged(tmp_path: Path) -> None:
    with opened(tmp_path) as work:
        assert not work.sealed("prune", "k1")
        folder = seal(work, "prune", "k1")
        assert work.sealed("prune", "k1")
        assert not work.sealed("prune", "k2")
        (folder / "model.pt2").write_text("others")
        assert not work.sealed("prune", "k1")
        (folder / "model.pt2").unlink()
        assert not work.sealed("prune", "k1")


def test_truncated_seal_counts_as_none(tmp_path: Path) -> None:
    with opened(tmp_path) as work:
        folder = seal(work, "prune", "k1")
        (folder / "done.json").write_text('{"key": "k1", "fil')
        assert not work.sealed("prune", "k1")


def test_begin_keeps_checkpoints_of_the_same_key_only(tmp_path: Path) -> None:
    with opened(tmp_path) as work:
        (work.begin("finetune", "k1") / "checkpoint.pt").write_text("half")
        assert (work.begin("finetune", "k1") / "checkpoint.pt").exists()
        assert not (work.begin("finetune", "k2") / "checkpoint.pt").exists()


def interrupt(out: Path, **options: bool) -> None:
    with pytest.raises(Killed), opened(out, **options) as work:
        seal(work, "prune", "k1")
        raise Killed


def test_resume_takes_up_what_a_dead_run_left(tmp_path: Path) -> None:
    interrupt(tmp_path)
    with opened(tmp_path, resume=True) as work:
        assert work.sealed("prune", "k1")


def test_without_resume_what_a_dead_run_left_is_discarded(tmp_path: Path) -> None:
    interrupt(tmp_path)
    with opened(tmp_path) as work:
        assert not work.sealed("prune", "k1")


def test_failure_before_any_stage_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(Killed), opened(tmp_path / "a" / "b") as work:
        work.begin("prune", "k1")
        raise Killed
    assert list(tmp_path.iterdir()) == []


def test_failure_before_any_stage_spares_the_users_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(Killed), opened(tmp_path):
        raise Killed
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_existing_result_needs_overwrite(tmp_path: Path) -> None:
    with opened(tmp_path) as work:
        publish(work, "old")
    with pytest.raises(OutputError, match="--overwrite"), opened(tmp_path):
        pass
    with opened(tmp_path, overwrite=True) as work:
        publish(work, "new")
    assert (tmp_path / "rpi4" / "model.onnx").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["rpi4"]


def test_overwrite_spares_a_folder_that_is_no_result(tmp_path: Path) -> None:
    (tmp_path / "rpi4").mkdir()
    (tmp_path / "rpi4" / "thesis.txt").write_text("years")
    with pytest.raises(OutputError, match="left alone"):
        check(tmp_path, "rpi4", overwrite=True)


def test_failed_run_leaves_the_old_result(tmp_path: Path) -> None:
    with opened(tmp_path) as work:
        publish(work, "old")
    interrupt(tmp_path, overwrite=True)
    assert (tmp_path / "rpi4" / "model.onnx").read_text() == "old"


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_death_around_the_renames_loses_neither_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    with opened(tmp_path) as work:
        publish(work, "old")
    rename, done = Path.rename, []

    def dying(self: Path, target: Path) -> Path:
        if len(done) == renames:
            raise Killed
        done.append(self)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", dying)
    monkeypatch.setattr("edgeprune.workspace._sync", lambda path: _die_after(done, 2))
    with pytest.raises(Killed), opened(tmp_path, overwrite=True, keep=True) as work:
        seal_quietly(work)
        publish(work, "new")
    monkeypatch.undo()
    with opened(tmp_path, overwrite=True, resume=True) as work:
        expected = "new" if renames == 2 else "old"
        assert (work.result / "model.onnx").read_text() == expected
        publish(work, "new")
    assert (tmp_path / "rpi4" / "model.onnx").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["rpi4"]


def _die_after(done: list[Path], count: int) -> None:
    if len(done) == count:
        raise Killed


def seal_quietly(work: Workspace) -> None:
    folder = work.begin("prune", "k1")
    (folder / "model.pt2").write_text("weights")
    (folder / "done.json").write_text('{"key": "k1", "files": {}}')


def test_resume_accepts_the_result_of_the_very_same_run(tmp_path: Path) -> None:
    with opened(tmp_path) as work:
        publish(work, "done")
    with opened(tmp_path, resume=True) as work:
        assert work.published()
    with (
        pytest.raises(OutputError),
        claim(tmp_path, "rpi4", "other", overwrite=False, resume=True, keep=False),
    ):
        pass


def test_second_run_on_the_same_result_is_refused(tmp_path: Path) -> None:
    with (
        opened(tmp_path),
        pytest.raises(OutputError, match=r"\.rpi4\.lock: .* name another output"),
        opened(tmp_path),
    ):
        pass


def test_lock_of_a_killed_process_does_not_hold(tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; from edgeprune.workspace import claim\n"
        f"with claim(Path({str(tmp_path)!r}), 'rpi4', 'k',"
        " overwrite=False, resume=False, keep=False): os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9
    assert (tmp_path / ".rpi4.lock").exists()
    with opened(tmp_path) as work:
        publish(work, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["rpi4"]


@pytest.mark.parametrize("below", [".", "deeper/out"])
def test_out_that_is_a_file_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="is a file"):
        check(tmp_path / "out" / below, "rpi4", overwrite=False)


def test_folder_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(OutputError, match="no permission"):
        check(tmp_path / "out", "rpi4", overwrite=False)


def test_full_disk_is_one_line_and_other_errors_stay(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="can't be written: No space left"), writable(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(PermissionError), writable(tmp_path):
        raise PermissionError(errno.EACCES, "denied", "/elsewhere/photo.jpg")


def test_staged_folder_goes_in_any_case(tmp_path: Path) -> None:
    with pytest.raises(Killed), staged(tmp_path / "pruned.pt2") as folder:
        (folder / "half").write_text("half")
        raise Killed
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_is_taken_up_by_the_same_run_only(tmp_path: Path) -> None:
    out = tmp_path / "t.safetensors"
    with pytest.raises(Killed), kept(out, {"seed": 0, "rate": 0.2}, resume=False) as folder:
        (folder / "level-0.pt").write_text("work")
        raise Killed
    with (
        pytest.raises(OutputError, match=r"of another run: seed was 0, is 1; give what was given"),
        kept(out, {"seed": 1, "rate": 0.2}, resume=True),
    ):
        pass
    with kept(out, {"seed": 0, "rate": 0.2}, resume=True) as folder:
        assert (folder / "level-0.pt").read_text() == "work"
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_is_discarded_without_resume(tmp_path: Path) -> None:
    out = tmp_path / "t.safetensors"
    with pytest.raises(Killed), kept(out, {"seed": 0}, resume=False) as folder:
        (folder / "level-0.pt").write_text("work")
        raise Killed
    with pytest.raises(Killed), kept(out, {"seed": 1}, resume=False) as folder:
        assert [path.name for path in folder.iterdir()] == ["begun.json"]
        raise Killed
    assert list(tmp_path.iterdir()) == []  # nothing was made: nothing to resume


def test_what_is_made_beside_a_file_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for out in (tmp_path / "t.safetensors", Path("t.safetensors")):
        for number in (errno.EACCES, errno.ENOENT, errno.EIO):
            with pytest.raises(OutputError, match=r"t\.safetensors: can't be written: "):
                fail(out, OSError(number, os.strerror(number), ".t.safetensors.work/level-0.pt"))
        with pytest.raises(OutputError, match=r"t\.safetensors: can't be written: "):
            fail(out, OSError(errno.EXDEV, "Invalid cross-device link", "/elsewhere", 0, str(out)))
        for other in (".t.safetensors.worker", "t.safetensors.jpg", b"photo.jpg", 7):
            with pytest.raises(PermissionError):
                fail(out, PermissionError(errno.EACCES, "denied", other))


def fail(out: Path, error: OSError) -> None:
    with staged(out):
        raise error


@pytest.mark.parametrize("hold", [staged, lambda out: kept(out, {}, resume=False)])
def test_a_lock_that_cannot_be_made_is_one_line(
    tmp_path: Path, hold: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    places = [tmp_path / ("n" * 238 + ".safetensors")]
    if Path("/proc/1").exists():
        places.append(Path("/proc/1/t.safetensors"))
    for out in places:
        with pytest.raises(OutputError, match=f"^{out}: can't be written: "), hold(out):
            pass


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(OutputError, match=r"t\.pt2: can't be written: No locks"):
        fail(tmp_path / "t.pt2", OSError())


def test_what_went_wrong_is_told_though_the_work_folder_vanished(tmp_path: Path) -> None:
    out = tmp_path / "t.safetensors"
    with pytest.raises(Killed), kept(out, {}, resume=False) as folder:
        shutil.rmtree(folder)
        raise Killed


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="can't be written: File name too long"):
        check(tmp_path / ("n" * 300), "rpi4", overwrite=False)
