"""A headless Chromium, driven over a pipe by the DevTools protocol; it needs no package."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 60  # seconds
# The protocol reads descriptor 3 and writes 4.
_CONNECT = """
import fcntl, os, sys
for place, kept in zip((3, 4), [fcntl.fcntl(int(each), fcntl.F_DUPFD, 10) for each in sys.argv[1:3]]):
    os.dup2(kept, place)
os.execv(sys.argv[3], sys.argv[3:])
"""
_KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), "Escape": (27, ""), "End": (35, ""), "Home": (36, "")}
_KEYS |= {
    name: (37 + place, "") for place, name in enumerate(["ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown"])
}


def find_browser() -> str | None:
    """Return the program, if there is one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class BrowserError(Exception):
    """The browser refused something, a script failed, or it did not answer in time."""


class Browser:
    """A page in a headless browser.

    Attributes:
        errors: what scripts raised, and what the console said as an error or a warning.
        requests: addresses that the page asked for, but for data that it holds.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._out, self._in = to_browser, from_browser
        self._waiting = b""
        self._number = 0
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                result = answer["result"]
                assert isinstance(result, dict)
                return result
            self._note(answer)

    def _read(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._waiting:
            if not select.select([self._in], [], [], max(0.0, until - time.monotonic()))[0]:
                raise BrowserError("the browser does not answer")
            read = os.read(self._in, 1 << 20)
            if not read:
                raise BrowserError("the browser ended")
            self._waiting += read
        message, _, self._waiting = self._waiting.partition(b"\0")
        found = json.loads(message)
        assert isinstance(found, dict)
        return found

    def _note(self, event: dict[str, Any]) -> None:
        method, told = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.errors.append(str([each.get("value") for each in told["args"]]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.errors.append(told["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            url = told["request"]["url"]
            if not url.startswith(("data:", "blob:")):
                self.requests.append(url)

    def size(self, width: int, height: int, *, phone: bool = False, dark: bool = False) -> None:
        """Set the size of the window in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, path: Path, anchor: str = "") -> float:
        """Open a page, and return the seconds until its script has run to its end and it answers."""
        self.call("Page.navigate", url="about:blank")
        self.wait("location.href === 'about:blank'")  # or the page before this one is taken for it
        self.errors.clear()
        self.requests.clear()
        begin = time.monotonic()
        self.call("Page.navigate", url=path.resolve().as_uri() + anchor)
        self.wait("document.documentElement?.dataset.ready !== undefined")
        return time.monotonic() - begin

    def run(self, script: str) -> Any:
        """Evaluate JavaScript in the page, and return its value."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until JavaScript becomes true in the page."""
        until = time.monotonic() + PATIENCE
        while not self.run(f"!!({condition})"):
            if time.monotonic() > until:
                raise BrowserError(f"{condition} did not become true")
            time.sleep(0.01)

    def settle(self) -> None:
        """Wait until what is seen is drawn, and filters that were typed hold."""
        frames = "requestAnimationFrame(() => requestAnimationFrame(done))"
        self.run(f"new Promise(done => setTimeout(() => {frames}, 120))")

    def key(self, name: str) -> None:
        """Press a key, such as `Tab`, `ArrowRight` or `j`."""
        code, text = _KEYS.get(name, (ord(name[0].upper()), name))
        common = {"key": name, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def place(self, selector: str) -> tuple[float, float]:
        """Scroll to an element, and return where its centre is in the window."""
        x, y = self.run(
            f"(() => {{ const node = document.querySelector({json.dumps(selector)});"
            "node.scrollIntoView({block: 'center'}); const box = node.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2] })()"
        )
        return float(x), float(y)

    def point(self, selector: str) -> None:
        """Move the mouse over an element."""
        x, y = self.place(selector)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector: str) -> None:
        """Click on an element with the mouse."""
        x, y = self.place(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def tap(self, selector: str) -> None:
        """Tap on an element with a finger."""
        x, y = self.place(selector)
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def text(self, selector: str) -> str:
        """What an element shows."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write what is seen, or the whole page, as PNG."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def print(self) -> bytes:
        """Return the page printed, as PDF."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"])


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """Start a browser, which ends with the block.

    Args:
        profile: a folder for what it keeps.
    """
    program = find_browser()
    assert program is not None
    asked, to_browser = os.pipe()
    from_browser, answered = os.pipe()

    process = subprocess.Popen(
        [
            *(sys.executable, "-c", _CONNECT, str(asked), str(answered)),
            program,
            "--headless=new",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            "--no-sandbox",  # which root cannot have; the pages are this project's own
            "--no-first-run",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--hide-scrollbars",
        ],
        pass_fds=(asked, answered),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for descriptor in (asked, answered):
            os.close(descriptor)
        browser = Browser(to_browser, from_browser)
        yield browser
        browser._session = None
        browser.call("Browser.close")
        process.wait(PATIENCE)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for descriptor in (to_browser, from_browser):
            os.close(descriptor)
