"""A headless Chromium, driven over the W3C's WebDriver protocol without a package for it."""

import contextlib
import http.client
import json
import shutil
import subprocess
import threading

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
RIGHT, HOME = "\ue014", "\ue011"
SECONDS_TO_START = 60


def missing():
    """Why there is no browser here; None if there is one."""
    names = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"{' and '.join(names)} not installed" if names else None


class Browser:
    """A session of a driver that listens on a port."""

    def __init__(self, port, profile):
        self.port = port
        options = {
            "args": [*ARGUMENTS, f"--user-data-dir={profile}"],
            "binary": shutil.which("chromium"),
        }
        asked = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        found = self.call("POST", "/session", {"capabilities": {"alwaysMatch": asked}})
        self.session = f"/session/{found['sessionId']}"

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            value = json.loads(connection.getresponse().read())["value"]
        assert not (isinstance(value, dict) and "error" in value), value
        return value

    def post(self, path, **body):
        return self.call("POST", self.session + path, body)

    def open(self, url):
        self.post("/url", url=url)

    def run(self, script):
        return self.post("/execute/sync", script=script, args=[])

    def press(self, selector, keys):
        """Type into an element."""
        found = self.post("/element", using="css selector", value=selector)
        self.post(f"/element/{found[ELEMENT]}/value", text=keys)

    def click(self, selector):
        found = self.post("/element", using="css selector", value=selector)
        self.post(f"/element/{found[ELEMENT]}/click")

    def resize(self, width):
        """Another width of the screen."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.post("/goog/cdp/execute", cmd="Emulation.setDeviceMetricsOverride", params=size)

    def problems(self):
        """What the browser complained of."""
        return [entry["message"] for entry in self.post("/se/log", type="browser")]

    def requests_of(self, page):
        """Addresses of all that a page asked for."""
        messages = [
            json.loads(entry["message"])["message"]
            for entry in self.post("/se/log", type="performance")
        ]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
            and message["params"]["documentURL"] == page
        ]


@contextlib.contextmanager
def started(profile):
    """A browser with a profile in this new folder, which ends with the block."""
    driver = subprocess.Popen(
        [shutil.which("chromedriver"), "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    patience = threading.Timer(SECONDS_TO_START, driver.kill)
    patience.start()
    try:
        line = next(line for line in driver.stdout if "started successfully on port" in line)
        patience.cancel()
        browser = Browser(int(line.strip().rstrip(".").split()[-1]), profile)
        try:
            yield browser
        finally:
            browser.call("DELETE", browser.session)
    finally:
        patience.cancel()
        driver.terminate()
        driver.wait()
        driver.stdout.close()
