"""The lab shared as docs/sharing.md says: nginx with HTTPS and a base path, and a sign-in provider."""

import re
import shutil
import socket
import subprocess
import time

import pytest

from pages.shared.navigation import ROOT
from tests.conftest import CHROMIUM
from tests.pages import live_runs
from tests.pages.browsing import OVERHANG

pytestmark = pytest.mark.browser
pytest.importorskip("joserfc", reason="no provider without it: pip install '.[sharing]'")
HOST = "lab.localhost"
"""Browsers know that it is this machine; the server has to be told."""
TEACHER, PUPIL = "Teacher@School.org", "pupil@school.org"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
SECRETS = """\
[auth]
redirect_uri = "{root}/oauth2callback"
cookie_secret = "0123456789abcdef0123456789abcdef"
client_id = "lab"
client_secret = "hush"
server_metadata_url = "{provider}/.well-known/openid-configuration"

[sharing]
may_launch = ["teacher@school.org"]
may_look = ["@school.org"]
"""


@pytest.fixture(scope="module")
def chromium(chromium):
    """One that takes the certificate of the test as it takes any other, and does not ask each time anew."""
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    browser = chromium.browser_type.launch(
        executable_path=CHROMIUM, args=[*arguments, "--ignore-certificate-errors"]
    )
    yield browser
    browser.close()


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _certificate(folder):
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
    files = ["-keyout", folder / "key.pem", "-out", folder / "certificate.pem"]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)


def _settings(folder, port, server_port):
    """The documented block, word for word but for ports, host and files."""
    text = (ROOT / "docs/sharing.md").read_text(encoding="utf-8")
    block = re.search(r"```nginx\n(.*?)```", text, re.DOTALL)[1]
    for old, new in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("server_name lab.school.org", f"server_name {HOST}"),
        ("/etc/ssl/lab.school.org.pem", str(folder / "certificate.pem")),
        ("/etc/ssl/lab.school.org.key", str(folder / "key.pem")),
        ("127.0.0.1:8501", f"127.0.0.1:{server_port}"),
    ):
        assert block.count(old) == 1, old
        block = block.replace(old, new)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log stderr crit;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{places}{block}}}\n"
    )
    return file


@pytest.fixture
def proxy(tmp_path):
    """proxy(port, server_port): nginx at that port, ended with the test."""
    if NGINX is None or shutil.which("openssl") is None:
        pytest.skip("no nginx or no openssl: apt-get install nginx-light openssl")
    folder = tmp_path / "nginx"
    folder.mkdir()
    _certificate(folder)
    started = []

    def start(port, server_port):
        file = _settings(folder, port, server_port)
        command = [NGINX, "-p", str(folder), "-c", str(file), "-e", "stderr"]
        with (folder / "log").open("w") as log:
            started.append(subprocess.Popen(command, stderr=log))
        for _ in range(100):
            assert started[0].poll() is None, (folder / "log").read_text()
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("nginx did not come up")

    yield start
    for process in started:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture
def lab(serve, proxy, tmp_path):
    """The address of the shared lab."""
    from tests.pages.provider import providing

    port = _free_port()
    root = f"https://{HOST}:{port}/lab"
    secrets = tmp_path / ".streamlit" / "secrets.toml"
    secrets.parent.mkdir()
    settings = {
        "HOME": str(tmp_path),
        "STREAMLIT_SERVER_BASE_URL_PATH": "lab",
        "STREAMLIT_SERVER_ALLOWED_HOSTS": HOST,
    }
    with providing() as provider:
        secrets.write_text(SECRETS.format(root=root, provider=provider))
        with serve(**settings) as server:
            proxy(port, int(server.url.rpartition(":")[2]))
            yield root


def sign_in(page, email):
    page.get_by_role("button", name="Sign in").click()
    page.locator("input[name=email]").fill(email)
    page.get_by_role("button", name="Go on").click()
    page.get_by_role("button", name="Sign out").wait_for()


def test_a_pupil_looks_and_a_teacher_launches_behind_a_proxy(lab, visit, home_store):
    from playwright.sync_api import expect

    run_id = live_runs.finished(home_store)
    page = visit(f"{lab}/run?id={run_id}")
    page.get_by_role("heading", name="CIFAR Lab").wait_for()
    assert page.get_by_text(run_id).count() == 0
    assert page.get_by_test_id("stSidebarNav").count() == 0

    sign_in(page, PUPIL)
    page.wait_for_url(f"{lab}/run?id={run_id}")  # the address that was asked for, kept through the sign-in
    page.get_by_role("button", name="Change and train again").wait_for()
    page.locator(".js-plotly-plot").first.wait_for()  # its library comes from below the base path
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("button", name="Delete for good")).to_be_disabled()
    page.keyboard.press("Escape")
    page.get_by_role("tab", name="Files").click()
    with page.expect_download() as loading:
        page.get_by_role("button", name="Predictions").click()
    assert loading.value.suggested_filename == f"{run_id}.predictions.csv"

    page.get_by_role("link", name="Leaderboard", exact=True).first.click()
    page.wait_for_url(re.compile(rf"{lab}/leaderboard"))
    page.get_by_role("link", name=re.compile("base CNN", re.IGNORECASE)).first.click()
    page.wait_for_url(re.compile(rf"{lab}/run\?.*{run_id}"))

    page.goto(f"{lab}/train?preset=base_cnn/recommended")
    page.get_by_role("button", name="Use synthetic scenes").click()
    expect(page.get_by_role("button", name="Launch")).to_be_disabled()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("button", name="Sign in").wait_for()
    assert page.url.rstrip("/") == lab

    sign_in(page, TEACHER)
    # As if the page after the sign-in had not had the time to read it: who goes on to a page stays there.
    page.evaluate("sessionStorage.setItem('cifar_lab.wanted', '/lab/')")
    page.goto(f"{lab}/train?preset=base_cnn/recommended")
    page.get_by_role("button", name="Use synthetic scenes").click()
    page.get_by_role("button", name="Launch").click()
    page.wait_for_url(re.compile(rf"{lab}/runs\?.*runs=base_cnn-"))
    (launched,) = set(home_store.runs()["id"]) - {run_id}
    assert "by teacher@school.org" in home_store.events(launched)["message"].tolist()
    home_store.request_stop(launched)  # a training outlives its app, and would outlive this test
    while not home_store.get(launched).state.is_finished():
        time.sleep(0.2)


def test_a_stranger_is_told_so_and_the_doors_fit_a_phone(lab, visit):
    page = visit(lab)  # without a slash at its end
    page.set_viewport_size({"width": 390, "height": 800})
    page.get_by_role("button", name="Sign in").wait_for()
    assert page.evaluate(OVERHANG) <= 1
    sign_in(page, "somebody@elsewhere.org")
    page.get_by_role("heading", name="You are not on the list").wait_for()
    assert page.evaluate(OVERHANG) <= 1
    page.goto(f"{lab}/leaderboard")
    page.get_by_role("heading", name="You are not on the list").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("button", name="Sign in").wait_for()
