"""A real browser, headless, for the tests of pages."""

import shutil
import time
from contextlib import contextmanager
from urllib.parse import urlencode

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser: pip install selenium")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
DRIVER = shutil.which("chromedriver")
OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
)
NAMES = "return [...document.querySelectorAll(arguments[0])].map(node => node.textContent.toWellFormed())"
ROWS = "#lines tbody .name button"


@contextmanager
def opened(profile):
    """A browser with a profile of its own; skips the test where there is none."""
    if not CHROMIUM or not DRIVER:
        pytest.skip("chromium and chromedriver are not on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS.split(), f"--user-data-dir={profile}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.get("about:blank")  # leaves the browser's own first page, whose requests no test shall count
    try:
        yield driver
    finally:
        driver.quit()


@contextmanager
def watched(browser, written):
    """Gives what opens the board's page at a track; see `silent`."""

    def at(track="one", part="held", path=written):
        browser.get_log("performance")
        there = browser.current_url.partition("#")[0] == path.as_uri()
        browser.get(f"{path.as_uri()}#{urlencode({'track': track, 'part': part})}")
        if there:
            browser.refresh()
        return browser

    with silent(browser, written.name):
        yield at


@contextmanager
def silent(browser, name):
    """Afterwards nothing but the page of that name was asked for, nothing has complained, no stranger's script run."""
    view(browser)
    yield
    assert browser.execute_script("return window.hacked === undefined")
    assert browser.get_log("browser") == []
    requests = [entry["message"] for entry in browser.get_log("performance") if "requestWillBeSent" in entry["message"]]
    assert len(requests) == 1
    assert name in requests[0]


def view(browser, width=1280, height=900, scheme="light"):
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def names(browser, rows=ROWS):
    return browser.execute_script(NAMES, rows)


def find(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def until(browser, script, *arguments):
    """What the script returns, once that is something."""
    end = time.monotonic() + 20
    while not (found := browser.execute_script(script, *arguments)):
        assert time.monotonic() < end, f"never came: {script}"
        time.sleep(0.02)
    return found


def drawn(browser, count):
    """Waits until as many points of lines are drawn, each with its interval."""
    bars = "return document.querySelectorAll('#plot .trace .errorbar').length === arguments[0]"
    until(browser, bars, count)


def refuses_strangers(browser, page):
    """The page's policy runs no script that is put into it, loads no picture and lets no request leave."""
    browser.get(page.as_uri())
    tried = browser.execute_async_script("""const done = arguments[0], script = document.createElement('script');
        script.textContent = 'window.ran = 1';
        document.body.append(script);
        document.body.insertAdjacentHTML('beforeend', '<img src="x" onerror="window.ran = 1">');
        const end = () => setTimeout(() => done(window.ran ?? 'refused'), 100);
        fetch('http://localhost:9/').then(() => done('left'), end);""")
    assert tried == "refused"
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    assert all("Content Security Policy" in complaint for complaint in complaints)
    assert all(any(part in complaint for complaint in complaints) for part in ("script-src", "img-src", "localhost:9"))
