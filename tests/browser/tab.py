"""A tab of Chromium with the app, and the actions of a user."""

import contextlib
import json
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException, TimeoutException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

TRANSIENT_ERRORS = (NoSuchElementException, StaleElementReferenceException)  # Streamlit may redraw at any time


class Tab:
    """A browser with one page; nothing is shared with other browsers."""

    def __init__(self, url, folder, width=1280, height=1000):
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        options = ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
            options.add_argument(argument)
        options.add_argument("--ignore-certificate-errors")
        options.add_argument(f"--window-size={width},{height}")
        settings = {
            "download.default_directory": str(self.folder),
            "profile.default_content_setting_values.automatic_downloads": 1,  # no question at the second file
        }
        options.add_experimental_option("prefs", settings)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = Chrome(options, ChromeService("/usr/bin/chromedriver"))
        self.driver.get(url)
        self.wait(lambda: self.find("input[type=file]"), 60)

    def find(self, css):
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def find_all(self, css):
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def wait(self, condition, seconds):
        """Return the first true value of ``condition``."""
        try:
            return WebDriverWait(self.driver, seconds, 0.3, TRANSIENT_ERRORS).until(lambda _: condition())
        except TimeoutException:
            raise AssertionError(f"not within {seconds} seconds; the page shows: {self.text}") from None

    @property
    def text(self):
        with contextlib.suppress(*TRANSIENT_ERRORS):
            return self.find("body").text
        return ""

    def upload(self, paths):
        """Choose files in the dialog, all at once."""
        self.find("input[type=file]").send_keys("\n".join(map(str, paths)))

    def buttons(self, label):
        """Return the enabled buttons whose label contains this text."""
        return [button for button in self.find_all("button") if label in button.text and button.is_enabled()]

    def click(self, label, seconds=60):
        """Click the first button whose label contains this text."""
        self.click_element(lambda: self.buttons(label)[:1], seconds)

    def open_expander(self, label, seconds=60):
        """Open the expander with this label."""
        self.click_element(lambda: [part for part in self.find_all("summary") if label in part.text][:1], seconds)

    def click_element(self, find, seconds):
        """Click an element as soon as it exists, even if another covers it."""

        def is_clicked():
            for element in find():
                self.driver.execute_script("arguments[0].click()", element)
                return True
            return False

        self.wait(is_clicked, seconds)

    def download(self, label, suffix, seconds=60):
        """Click a button and return the content of the downloaded file."""
        before = set(self.folder.iterdir())
        self.click(label)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            new = [path for path in set(self.folder.iterdir()) - before if path.name.endswith(suffix)]
            if new:
                return new[0].read_bytes()
            time.sleep(0.2)
        raise AssertionError(f"no {suffix} file: {sorted(path.name for path in self.folder.iterdir())}")

    def hosts(self):
        """Return all hosts that the page sent requests to since the last call."""
        messages = [json.loads(line["message"])["message"] for line in self.driver.get_log("performance")]
        keys = {"Network.requestWillBeSent": "request", "Network.webSocketCreated": None}
        urls = [
            message["params"]["request"]["url"] if keys[message["method"]] else message["params"]["url"]
            for message in messages
            if message["method"] in keys
        ]
        return {urlsplit(url).netloc for url in urls if urlsplit(url).scheme in ("http", "https", "ws", "wss")}

    def console_errors(self):
        """Return the errors in the console of the page."""
        return [line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]

    def image_urls(self):
        """Return the URLs of all images on the page."""
        script = "return [...document.images].map(image => image.src)"
        return set(self.driver.execute_script(script))

    def close(self):
        with contextlib.suppress(Exception):
            self.driver.quit()
