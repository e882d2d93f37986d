"""A tab of Chromium that shows the app: what a person does there."""

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

CHANGING = (NoSuchElementException, StaleElementReferenceException)  # Streamlit draws anew at any time


class Tab:
    """A browser of its own with one page: nothing is shared with another."""

    def __init__(self, url, folder, width=1280, height=1000):
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        options = ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
            options.add_argument(word)
        options.add_argument("--ignore-certificate-errors")
        options.add_argument(f"--window-size={width},{height}")
        settings = {
            "download.default_directory": str(self.folder),
            "profile.default_content_setting_values.automatic_downloads": 1,  # a second file without a question
        }
        options.add_experimental_option("prefs", settings)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = Chrome(options, ChromeService("/usr/bin/chromedriver"))
        self.driver.get(url)
        self.wait(lambda: self.find("input[type=file]"), 60)

    def find(self, css):
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def all(self, css):
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def wait(self, condition, seconds):
        """Return the first truth that ``condition`` gives."""
        try:
            return WebDriverWait(self.driver, seconds, 0.3, CHANGING).until(lambda _: condition())
        except TimeoutException:
            raise AssertionError(f"not within {seconds} seconds; the page says: {self.text}") from None

    @property
    def text(self):
        with contextlib.suppress(*CHANGING):
            return self.find("body").text
        return ""

    def upload(self, paths):
        """Choose files as a person does in the dialog, all at once."""
        self.find("input[type=file]").send_keys("\n".join(map(str, paths)))

    def buttons(self, words):
        """Return the buttons that can be pressed whose label has these words."""
        return [button for button in self.all("button") if words in button.text and button.is_enabled()]

    def click(self, words, seconds=60):
        """Press the first button that has these words."""
        self.press(lambda: self.buttons(words)[:1], seconds)

    def open_part(self, words, seconds=60):
        """Open the part of the page that has this title."""
        self.press(lambda: [part for part in self.all("summary") if words in part.text][:1], seconds)

    def press(self, choose, seconds):
        """Press what is chosen as soon as it is there; what covers it is no hindrance."""

        def pressed():
            for element in choose():
                self.driver.execute_script("arguments[0].click()", element)
                return True
            return False

        self.wait(pressed, seconds)

    def download(self, words, ending, seconds=60):
        """Press a button and return the bytes of the file that comes."""
        before = set(self.folder.iterdir())
        self.click(words)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            fresh = [path for path in set(self.folder.iterdir()) - before if path.name.endswith(ending)]
            if fresh:
                return fresh[0].read_bytes()
            time.sleep(0.2)
        raise AssertionError(f"no {ending} came: {sorted(path.name for path in self.folder.iterdir())}")

    def hosts(self):
        """Return all hosts that the page asked for something since the last time."""
        messages = [json.loads(line["message"])["message"] for line in self.driver.get_log("performance")]
        asked = {"Network.requestWillBeSent": "request", "Network.webSocketCreated": None}
        urls = [
            message["params"]["request"]["url"] if asked[message["method"]] else message["params"]["url"]
            for message in messages
            if message["method"] in asked
        ]
        return {urlsplit(url).netloc for url in urls if urlsplit(url).scheme in ("http", "https", "ws", "wss")}

    def complaints(self):
        """Return what the page's console has to say, but for trifles."""
        return [line["message"] for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]

    def pictures(self):
        """Return the addresses of all pictures on the page."""
        script = "return [...document.images].map(image => image.src)"
        return set(self.driver.execute_script(script))

    def close(self):
        with contextlib.suppress(Exception):
            self.driver.quit()
