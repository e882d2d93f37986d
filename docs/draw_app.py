"""Take the screenshots of the privacy app: start it, protect scikit-image's astronaut, save the screens.

python docs/draw_app.py    # needs chromium and chromedriver
"""

import io
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from skimage import data

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.flood import run_app

PICTURES = Path(__file__).parent / "pictures"
TIMEOUT = 600  # seconds
DESKTOP, PHONE = (1280, 1440), (390, 844)  # windows, in pixels
GAP = 24  # between the screens of a phone, in pixels
T = TypeVar("T")


@contextmanager
def open_browser() -> Iterator[webdriver.Chrome]:
    """Open a headless browser."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.binary_location = shutil.which("chromium") or ""
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def wait_for(condition: Callable[[], T]) -> T:
    """Return the first true value of a condition."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        try:
            if result := condition():
                return result
        except (WebDriverException, IndexError):
            pass
        time.sleep(0.3)
    sys.exit("the page does not show the expected element")


def take_screen(driver: webdriver.Chrome, size: tuple[int, int], heading_text: str) -> Image.Image:
    """Return a screen of this size, scrolled to the heading with this text."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    path = " | ".join(f"//{tag}[contains(., '{heading_text}')]" for tag in ("h2", "h3"))
    heading = wait_for(partial(driver.find_element, By.XPATH, path))
    time.sleep(0.5)  # until the page has its new layout
    driver.execute_script("arguments[0].scrollIntoView(true)", heading)
    time.sleep(0.5)
    return Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")


def protect_photo(driver: webdriver.Chrome, url: str, photo: Path) -> tuple[Image.Image, list[Image.Image]]:
    """Protect a photo; return the result on a desktop, and faces, queue and result on a phone."""
    driver.get(url)
    wait_for(lambda: driver.find_element(By.CSS_SELECTOR, "input[type=file]")).send_keys(str(photo))
    button = wait_for(lambda: driver.find_element(By.CSS_SELECTOR, ".st-key-protect button:enabled"))
    faces = take_screen(driver, PHONE, "Choose faces")
    driver.execute_script("arguments[0].click()", button)
    queue = take_screen(driver, PHONE, "In the queue")  # at once: a small photo takes few seconds
    wait_for(lambda: driver.find_element(By.XPATH, "//button[contains(., 'Download PNG')]"))
    phone = take_screen(driver, PHONE, "Check and download")
    return take_screen(driver, DESKTOP, "Check and download"), [faces, queue, phone]


def save(image: Image.Image, name: str) -> None:
    """Write a screenshot with few colours, to keep the file small."""
    image.quantize(192, dither=Image.Dither.NONE).save(PICTURES / name, optimize=True)


def main() -> None:
    """Save the results on a desktop, and all three steps on a phone."""
    with tempfile.TemporaryDirectory() as folder, run_app() as url, open_browser() as driver:
        photo = Path(folder) / "portrait.jpg"
        Image.fromarray(data.astronaut()).save(photo, quality=95)
        desktop, screens = protect_photo(driver, url, photo)
    save(desktop, "app_desktop.png")
    width, height = PHONE
    sheet = Image.new("RGB", (len(screens) * (width + GAP) - GAP, height), "lightgrey")
    for number, phone in enumerate(screens):
        sheet.paste(phone, (number * (width + GAP), 0))
    save(sheet, "app_phone.png")


if __name__ == "__main__":
    main()
