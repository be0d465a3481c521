"""What the app writes goes: within the hour, over the limit, and at the next start."""

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from als.ui.cache import FRESH, LOCK, MAX_AGE, PREFIX, private_cache, remove_abandoned, sweep

HOUR = 3600


@pytest.fixture
def clock(monkeypatch):
    """Moves the time that the sweep sees; ctime cannot be set."""
    real = time.time

    def later(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: real() + seconds)

    return later


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_everything_goes_within_the_hour_whoever_wrote_it(tmp_path, clock):
    for name in ("tmpx81", "deep_links/a/state.json", "als-1/maps.npz", "0f/example.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 10)
    (tmp_path / "als-2").mkdir()  # of an export that failed
    (tmp_path / "link").symlink_to(tmp_path.parent)
    keep = [str(tmp_path / "0f/example.png")]
    before = left(tmp_path)
    clock(MAX_AGE - 1)
    assert sweep(tmp_path, keep) and set(left(tmp_path)) == set(before) - {"als-2"}
    clock(HOUR)
    sweep(tmp_path, keep)
    clock(HOUR + FRESH + 1)
    sweep(tmp_path, keep)
    sweep(tmp_path, keep)  # a folder of folders goes from within
    assert left(tmp_path) == ["0f", "0f/example.png"] and tmp_path.parent.is_dir()


def test_over_the_limit_the_oldest_go_and_no_fresh_one(tmp_path, clock):
    for i in range(4):
        (tmp_path / f"{i}").write_bytes(b"x" * 100)
        time.sleep(0.02)
    assert not sweep(tmp_path, max_bytes=250) and len(left(tmp_path)) == 4
    clock(FRESH + 1)
    assert sweep(tmp_path, max_bytes=250) and left(tmp_path) == ["2", "3"]
    assert not sweep(tmp_path / "none", max_bytes=-1)


def test_an_upload_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    import httpx
    from app_server import served

    from als.ui import cache

    with served(tmp_path) as url, httpx.Client(base_url=url, timeout=60) as web:
        monkeypatch.setattr(cache.sweep, "__defaults__", ((), 1000, MAX_AGE))
        files = {"files": ("a.png", b"x" * 5000)}
        assert web.post("/gradio_api/upload", files=files).status_code == 200
        answer = web.post("/gradio_api/upload", files=files)
        assert answer.status_code == 503 and "no room" in answer.text


START = """
import sys, time
from als.ui.cache import private_cache
with private_cache() as cache:
    (cache / "photo.png").write_bytes(b"x")
    print(cache, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="locks of the kernel")
def test_what_a_killed_app_left_goes_at_the_next_start(tmp_path, clock, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    started = [
        subprocess.Popen([sys.executable, "-c", START], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        dead, alive = (Path(one.stdout.readline().strip()).parent for one in started)
        started[0].send_signal(signal.SIGKILL)
        started[0].wait()
        others = [tmp_path / f"{PREFIX}of-another", tmp_path / "als-other"]
        for other in others:
            other.mkdir()
        (tmp_path / f"{PREFIX}link").symlink_to(others[1])
        (tmp_path / f"{PREFIX}file").write_text("")
        remove_abandoned(tmp_path)
        assert dead.is_dir(), "one that is starting has not locked it yet"
        clock(2 * FRESH)
        with private_cache() as mine:
            assert mine.is_dir() and not dead.exists()
        assert (alive / "cache" / "photo.png").is_file() and (alive / LOCK).is_file()
        assert all(other.is_dir() for other in others) and not mine.exists()
        assert len(list(tmp_path.glob("als-*"))) == 5
    finally:
        for one in started:
            one.kill()
            one.wait()
