"""Takes the screenshots of the privacy app: starts it, protects scikit-image's astronaut, looks.

python docs/draw_app.py, where chromium and chromedriver are
"""

import io
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from skimage import data

PICTURES = Path(__file__).parent / "pictures"
PATIENCE = 600  # seconds
SIZES = ((1280, 1440), (390, 844))  # pixels of a desktop's window and a phone's
GAP = 24  # pixels between the screens of a phone
T = TypeVar("T")


@contextmanager
def served() -> Iterator[str]:
    """Start the app on a free port; yield its address."""
    process = subprocess.Popen(["visor", "app", "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout or ():
            if line.startswith("open "):
                yield line.split()[1].rstrip(";")
                return
        sys.exit("the app did not start")
    finally:
        process.terminate()
        process.wait()


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """Open a browser that nobody sees."""
    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(word)
    options.binary_location = shutil.which("chromium") or ""
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def wait(found: Callable[[], T]) -> T:
    """Return what is found as soon as there is something."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if result := found():
                return result
        except (WebDriverException, IndexError):
            pass
        time.sleep(0.3)
    sys.exit("the page does not show what it should")


def screens(driver: webdriver.Chrome, words: str) -> list[Image.Image]:
    """Return what each of SIZES shows when the page is scrolled to the heading of these words."""
    seen = []
    for width, height in SIZES:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        time.sleep(1)
        heading = wait(
            lambda: driver.find_element(By.XPATH, f"//h2[contains(., '{words}')] | //h3[contains(., '{words}')]")
        )
        driver.execute_script("arguments[0].scrollIntoView(true)", heading)
        time.sleep(1)
        seen.append(Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB"))
    return seen


def visit(driver: webdriver.Chrome, url: str, photo: Path) -> list[list[Image.Image]]:
    """Go through the page from upload to result; return the screens of faces, queue and results."""
    driver.get(url)
    wait(lambda: driver.find_element(By.CSS_SELECTOR, "input[type=file]")).send_keys(str(photo))
    button = wait(lambda: driver.find_element(By.CSS_SELECTOR, ".st-key-protect button:enabled"))
    faces = screens(driver, "Choose faces")
    driver.execute_script("arguments[0].click()", button)
    queue = screens(driver, "In the queue")
    wait(lambda: driver.find_element(By.XPATH, "//button[contains(., 'Download PNG')]"))
    return [faces, queue, screens(driver, "Look, and download")]


def save(image: Image.Image, name: str) -> None:
    """Write a screenshot with few colours: a page is flat, and a repository's pictures are small."""
    image.quantize(192, dither=Image.Dither.NONE).save(PICTURES / name, optimize=True)


def main() -> None:
    """Take both: results on a desktop, all three on a phone."""
    with tempfile.TemporaryDirectory() as folder, served() as url, browser() as driver:
        photo = Path(folder) / "portrait.jpg"
        Image.fromarray(data.astronaut()).save(photo, quality=95)
        taken = visit(driver, url, photo)
    save(taken[-1][0], "app_desktop.png")
    width, height = SIZES[1]
    sheet = Image.new("RGB", (len(taken) * (width + GAP) - GAP, height), "lightgrey")
    for number, (_, phone) in enumerate(taken):
        sheet.paste(phone, (number * (width + GAP), 0))
    save(sheet, "app_phone.png")


if __name__ == "__main__":
    main()
