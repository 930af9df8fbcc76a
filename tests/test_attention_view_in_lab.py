"""Attention views in JupyterLab itself, opened by a browser that reaches nothing but this machine."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
import torch

from xlmr_course import attention_view

pytest.importorskip("jupyterlab")
websocket = pytest.importorskip("websocket")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")]
PATIENCE = 120  # seconds, on a machine that may be busy
DRAWN = """JSON.stringify([document.querySelectorAll(".live line").length,
  [...document.querySelectorAll(".still img")].filter(picture => picture.naturalWidth > 100).length])"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def patiently(attempt):
    """The first result of `attempt` that is not None; errors count as none until time is up."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if (result := attempt()) is not None or time.monotonic() > end:
                return result
        except (OSError, KeyError, StopIteration):
            if time.monotonic() > end:
                raise
        time.sleep(0.5)


@pytest.fixture
def environment(tmp_path):
    """Nothing of the user's own Jupyter takes part."""
    folders = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("DATA", "CONFIG", "RUNTIME")}
    return {**os.environ, **folders, "HOME": str(tmp_path), "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings")}


@pytest.fixture
def lab(tmp_path, environment):
    """The address of a JupyterLab that serves `tmp_path`."""
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--ServerApp.ip=127.0.0.1", "--IdentityProvider.token=", f"--ServerApp.root_dir={tmp_path}"]
    command += ["--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        patiently(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=5).status)
        yield f"http://127.0.0.1:{port}/lab/tree"
    finally:
        server.kill()  # it holds nothing that it would have to save
        server.wait(30)


@pytest.fixture
def page(tmp_path):
    """A function that sends a command to a browser's page (Chrome DevTools Protocol) and gives its result."""
    port, numbers = free_port(), iter(range(1, 10_000))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [
        f"--remote-debugging-port={port}",
        "--remote-allow-origins=*",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "about:blank"]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        tabs = patiently(lambda: json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=5)))
        address = next(tab for tab in tabs if tab["type"] == "page")["webSocketDebuggerUrl"]
        connection = websocket.create_connection(address, timeout=PATIENCE)

        def send(method, **parameters):
            number = next(numbers)
            connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
            while (answer := json.loads(connection.recv())).get("id") != number:
                pass
            return answer["result"]

        yield send
        connection.close()
    finally:
        browser.kill()
        browser.wait(30)


@pytest.mark.parametrize("trusted", [True, False])
def test_jupyterlab_draws_a_stored_view_or_its_still_picture(trusted, tmp_path, environment, lab, page):
    weights = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).softmax(dim=-1)
    views = [attention_view.head_view("abcd", weights), attention_view.model_view("abcd", weights)]
    cells = [
        nbformat.v4.new_code_cell("view", outputs=[nbformat.v4.new_output("display_data", view._repr_mimebundle_())])
        for view in views
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "views.ipynb")
    if trusted:
        trust = [sys.executable, "-m", "jupyter", "trust", str(tmp_path / "views.ipynb")]
        subprocess.run(trust, env=environment, check=True, capture_output=True)
    page("Page.navigate", url=f"{lab}/views.ipynb")
    wanted = [(3 + 2 * 3) * 4 * 4, 0] if trusted else [0, 2]  # lines that BertViz drew, still pictures

    def drawn():
        found = json.loads(page("Runtime.evaluate", expression=DRAWN, returnByValue=True)["result"]["value"])
        return found if found == wanted else None

    assert patiently(drawn) == wanted
