"""A browser and a JupyterLab of its own: a copy of the notebooks, a token, a port that is free.

``make browser`` runs this folder; the other tests leave it out, as does a computer without Chromium
or playwright.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from motionlib.files import repository

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = next((path for path in map(shutil.which, NAMES) if path), None)
START_S = 120
SETTINGS = {  # no news from the network; every cell is drawn, those below the screen too
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}


def pytest_collection_modifyitems(config, items):
    """Leave these tests out unless ``-m browser`` asks for them."""
    here = Path(__file__).parent
    if "browser" not in (config.getoption("-m") or ""):
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="opens a browser: make browser"))


@pytest.fixture(scope="session")
def browser():
    """Chromium, without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra browser")
    if CHROMIUM is None:
        pytest.skip(f"needs one of {', '.join(NAMES)} on the search path")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    """A repository whose notebooks may be run and saved; the rest is that of this one."""
    root = tmp_path_factory.mktemp("lab")
    shutil.copytree(repository() / "notebooks", root / "notebooks")
    for name in ("motionlib", "data_manifests", "results"):
        (root / name).symlink_to(repository() / name)
    rating = root / "notebooks" / "08_rate_scans.ipynb"
    few = rating.read_text().replace("n_scans: int = 40", "n_scans: int = 8")
    rating.write_text(few.replace("local:2", "inline"))
    assert few != rating.read_text()
    return root


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Variables of a process that works in `place`: no data, no runs of somebody's own."""
    known = {k: v for k, v in os.environ.items() if not k.startswith("MOTIONLIB_")}
    folders = [str(repository()), os.environ.get("PYTHONPATH")]
    return known | {"PYTHONPATH": os.pathsep.join(filter(None, folders))}


@pytest.fixture(scope="session")
def lab(place, environment):
    """Address of a notebook in a running JupyterLab, as a function of its name."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port, token = taken.getsockname()[1], secrets.token_hex(16)
    for name, values in SETTINGS.items():
        path = place / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    environment = environment | {"JUPYTERLAB_SETTINGS_DIR": str(place / "settings")}
    environment |= {f"JUPYTER_{part}_DIR": str(place / part.lower())
                    for part in ("CONFIG", "RUNTIME", "DATA")}  # fmt: skip
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--ip=127.0.0.1"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={place}"]
    command += [f"--IdentityProvider.token={token}", "--allow-root"]
    with open(place / "server.log", "w") as log:
        server = subprocess.Popen(command, cwd=place, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/api?token={token}", server, place / "server.log")
        yield lambda name: f"{address}/lab/tree/notebooks/{name}.ipynb?reset&token={token}"
    finally:
        server.terminate()
        server.wait(timeout=30)


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    """Wait until the server answers."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not answer:\n{log.read_text()[-2000:]}")
