"""Inside the browser's container: look at pages as a person would, and print what was seen as one line of JSON.

    LAB_VISIT='{"url": ..., "choices": {field: [value, ...]}, "login": null}' python3 drive.py
    LAB_VISIT=null python3 drive.py < pages.json     pages that are one file each, by name, as a reader would open them

Waiting is for conditions, not for time: a page on a busy machine may take long, and one that never comes is an error
with the condition's name in it.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

_DOWNLOADS = Path("/tmp/downloads")  # noqa: S108 - a tmpfs of this container's own
_WAIT_SECONDS = 40.0

# Readings of each tab: the first one, and one that differs. The page asks for numbers every other second.
_READINGS = 2

# A page that is one file, where it is put; and who reads it: name -> width of the window, whether it is dark, and the
# medium. Paper is A4, across. The last one is the one to sort with.
_PAGE = Path("/tmp/index.html")  # noqa: S108 - a tmpfs of this container's own
_READERS = {
    "400, light": (400, False, "screen"),
    "400, dark": (400, True, "screen"),
    "paper": (1047, False, "print"),
    "1280, dark": (1280, True, "screen"),
    "1920, dark": (1920, True, "screen"),
    "1920, light": (1920, False, "screen"),
    "1280, light": (1280, False, "screen"),
}

# Texts that the window cuts off, and pictures whose text alternative is missing.
_FIND_CUT = """
return [...document.querySelectorAll("svg text, figcaption, th, td")].filter((each) => {
  const box = each.getBoundingClientRect();
  return box.width && (box.left < -1 || box.right > innerWidth + 1);
}).map((each) => each.textContent);
"""
_FIND_SILENT = """
const says = (svg) => (svg.getAttribute("aria-labelledby") ?? "").split(" ")
  .every((id) => document.getElementById(id)?.textContent.trim());
return [...document.querySelectorAll("svg.chart, img")].filter((each) => !(each.alt || says(each)))
  .map((each) => each.outerHTML.slice(0, 80));
"""

# Point at a mark; what the page then shows beside it, and how many marks stand out.
_POINT = """
const mark = document.querySelector(".series");
mark?.dispatchEvent(new PointerEvent("pointermove", {bubbles: true, clientX: 9, clientY: 9}));
const tip = document.getElementById("tip");
return mark && [tip.hidden ? "" : tip.textContent, document.querySelectorAll(".series.lit").length];
"""

# Pictures: name -> width and height of the window, and whether it is dark. The last one is the one to go on with.
_WINDOWS = {"dark": (1440, 1120, True), "narrow": (414, 896, False), "light": (1440, 1120, False)}


class Visitor:
    """A browser, and what it is asked to do."""

    def __init__(self, driver: Chrome) -> None:
        self._driver = driver

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until a condition gives something, and return that."""

        def look(_: Chrome) -> Any:
            # The page redraws itself all the time: an element may disappear between two calls.
            return condition()

        return WebDriverWait(self._driver, _WAIT_SECONDS, ignored_exceptions=[Exception]).until(look, what)

    def find(self, xpath: str) -> WebElement:
        """The first visible element, as soon as there is one."""
        found: WebElement = self.wait(
            lambda: next((item for item in self._driver.find_elements(By.XPATH, xpath) if item.is_displayed()), None),
            f"nothing to see at {xpath}",
        )
        return found

    def click(self, xpath: str) -> None:
        """Click on it, once it can be clicked on."""

        def try_click() -> bool:
            self.find(xpath).click()
            return True

        self.wait(try_click, f"cannot be clicked on: {xpath}")

    def log_in(self, login: str) -> None:
        """Fill the login's form in."""
        user, _, password = login.partition(":")
        self.find("//input[@name='username']").send_keys(user)
        self.find("//input[@name='password']").send_keys(password)
        self.click("//button[@type='submit']")

    def fill_in(self, choices: dict[str, list[str]]) -> dict[str, list[str]]:
        """Fill the form in; returns what its drop-downs offer."""
        self.find("//input[@name='userCount']")
        # Options of our own are folded away.
        if folded := self._driver.find_elements(By.XPATH, "//*[contains(text(), 'Custom parameters')]"):
            folded[0].click()
        offered = {}
        for element in self._driver.find_elements(By.XPATH, "//select"):
            offered[element.get_attribute("name")] = [
                str(option.get_attribute("value")) for option in Select(element).options
            ]
        for name, values in choices.items():
            element = self.find(f"//*[@name='{name}']")
            if element.tag_name == "select":
                chosen = Select(element)
                if chosen.is_multiple:
                    chosen.deselect_all()
                for value in values:
                    chosen.select_by_value(value)
            else:
                # `clear` empties the field, and the page puts its default back.
                element.send_keys(Keys.CONTROL, "a")
                element.send_keys(values[0])
        return offered

    def open_tab(self, title: str) -> None:
        """Show one of the page's tabs."""
        self.click(f"//*[@role='tab'][normalize-space()='{title}']")

    def read_table(self) -> list[dict[str, str]]:
        """The table of the tab that is shown."""
        # In one call: the page may redraw it between two calls.
        rows: list[dict[str, str]] = self._driver.execute_script(
            """
            const table = [...document.querySelectorAll('table')].find((each) => each.offsetParent);
            const titles = [...table.querySelectorAll('th')].map((cell) => cell.innerText.trim());
            return [...table.querySelectorAll('tbody tr')].map((row) =>
              Object.fromEntries([...row.querySelectorAll('td')].map((cell, n) => [titles[n], cell.innerText.trim()])));
            """
        )
        return rows

    def watch_table(self) -> list[list[dict[str, str]]]:
        """Read it as often as it has changed."""
        readings: list[list[dict[str, str]]] = []

        def read_new() -> list[dict[str, str]] | None:
            rows = self.read_table()
            return rows if rows and rows not in readings else None

        for number in range(_READINGS):
            readings.append(self.wait(read_new, f"the table was read {number} times, and does not change any more"))
        return readings

    def read_end(self) -> str | None:
        """What the page says of a run that has ended; None while it goes on."""
        path = "//*[normalize-space()='STATUS' or normalize-space()='Status']/following-sibling::*"
        state = str(self.find(path).text).strip().lower()
        return None if state in ("running", "spawning", "cleanup", "stopping") else state

    def take_pictures(self, tab: str) -> dict[str, str]:
        """A PNG in base64 of the page in each window of `_WINDOWS`, with the numbers of a tab."""
        pictures = {}
        for name, (width, height, dark) in _WINDOWS.items():
            self._driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
            )
            self._driver.execute_script("localStorage.theme = arguments[0]", "dark" if dark else "light")
            self._driver.refresh()
            self.open_tab(tab)
            self.wait(self.read_table, "the table stays empty")
            pictures[name] = self._driver.get_screenshot_as_base64()
        return pictures

    def download(self) -> dict[str, str]:
        """Follow every link to a CSV file; returns the files by the links' titles."""
        files = {}
        for link in self._driver.find_elements(By.XPATH, "//a[contains(@href, 'csv')]"):
            link.click()
            path = self.wait(find_download, f"no file came from {link.text}")
            files[link.text] = path.read_text()
            path.unlink()
        return files


def watch_live(driver: Chrome, visitor: Visitor, url: str, fault: str | None) -> dict[str, Any]:
    """Open the live page, start a workload, and perhaps inject a fault, by its buttons; return what the page shows."""
    driver.get(f"{url}/lab/live")

    def read_lines() -> list[str] | None:
        # In one call: the page replaces its lines each second.
        labels: list[str] | None = driver.execute_script(
            "const lines = [...document.querySelectorAll('#charts svg path.model')];"
            "const labels = [...document.querySelectorAll('svg[role=img]')].map((chart) => chart.ariaLabel);"
            "return lines.some((line) => (line.getAttribute('d') || '').includes('L')) ? labels : null"
        )
        return labels

    def act(summary: str, name: str, expected: str) -> str:
        visitor.click(f"//summary[normalize-space()='{summary}']")
        visitor.click(f"//details[summary[normalize-space()='{summary}']]//button[normalize-space()='{name}']")
        said = driver.find_element(By.ID, "said")
        return str(
            visitor.wait(lambda: said.text if expected in said.text else None, f"the page does not say: {expected}")
        )

    visitor.wait(read_lines, "no line is drawn")
    said = []
    if fault:
        said.append(act("Inject a fault", fault, "Asked for"))
        visitor.wait(lambda: driver.find_elements(By.CSS_SELECTOR, "#charts rect.band"), "the fault has no band")
    said.append(act("Start a workload", "session", "Running: session"))
    begin = int(driver.execute_script("return latest"))
    visitor.wait(lambda: driver.execute_script("return latest") > begin + 3, "the page gets no more figures")
    visitor.click("//tbody//button")
    wide, pictures = [], {}
    for width in (400, 1280, 1920):
        for is_dark in (False, True):
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", describe_medium(is_dark, "screen"))
            driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": 1200, "deviceScaleFactor": 1, "mobile": False},
            )
            if driver.execute_script("return document.documentElement.scrollWidth") > width:
                wide.append(width)
            pictures[f"live {width} {'dark' if is_dark else 'light'}"] = driver.get_screenshot_as_base64()
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    chosen = [row.text for row in driver.find_elements(By.CSS_SELECTOR, "tbody tr.chosen button")]
    return {"said": said, "labels": read_lines(), "chosen": chosen, "wide": wide, "pictures": pictures}


def find_download() -> Path | None:
    """A file that has been downloaded to its end: until then it has another suffix."""
    return next(_DOWNLOADS.glob("*.csv"), None)


def read_console(driver: Chrome) -> list[str]:
    """The errors on the browser's console."""
    return [item["message"] for item in driver.get_log("browser") if item["level"] == "SEVERE"]


def open_browser() -> Chrome:
    """Debian's Chromium. Its own sandbox needs privileges that this container does not have; the container is one."""
    _DOWNLOADS.mkdir(exist_ok=True)
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        "--headless=new",
        "--window-size=1440,900",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-extensions",
        "--no-first-run",
    ):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(_DOWNLOADS)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Chrome(options=options, service=Service("/usr/bin/chromedriver"))


def visit(url: str, choices: dict[str, list[str]], login: str | None) -> dict[str, Any]:
    """The whole visit; see `tools.browser.Visit`."""
    with open_browser() as driver:
        try:
            return walk_through(driver, url, choices, login)
        except WebDriverException as error:
            shown = driver.find_element(By.TAG_NAME, "body").text
            sys.exit(f"the page shows:\n{shown}\n{type(error).__name__}: {error.msg}")


def walk_through(driver: Chrome, url: str, choices: dict[str, list[str]], login: str | None) -> dict[str, Any]:
    """From the form to the files."""
    visitor = Visitor(driver)
    driver.get(url)
    if login:
        visitor.log_in(login)
    options = visitor.fill_in(choices)
    form = driver.get_screenshot_as_base64()
    visitor.click("//button[@type='submit']")
    readings = {}
    for tab in ("Servers", "Microseconds"):
        visitor.open_tab(tab)
        readings[tab] = visitor.watch_table()
    visitor.open_tab("Faults")
    asked = len(choices["models"]) if "fault" in choices else 0
    rows = visitor.wait(
        lambda: (rows,) if len(rows := visitor.read_table()) >= asked else None, f"fewer than {asked} faults are shown"
    )
    readings["Faults"] = list(rows)
    pictures = {"form": form, **visitor.take_pictures("Microseconds")}
    live = watch_live(driver, visitor, url, next(iter(choices.get("fault", ())), None))
    pictures |= live.pop("pictures")
    driver.get(url)
    visitor.click("//button[normalize-space()='Stop']")
    state = visitor.wait(visitor.read_end, "the run did not stop")
    visitor.open_tab("Download Data")
    # Of files that do not come over HTTPS the browser complains anywhere but on the machine's own loopback.
    return {
        "options": options,
        "readings": readings,
        "state": state,
        "live": live,
        "files": visitor.download(),
        "pictures": pictures,
        "complaints": [text for text in read_console(driver) if "over an insecure connection" not in text],
    }


def read_pages(pages: dict[str, str]) -> dict[str, Any]:
    """See `tools.browser.read_pages`: one browser opens all pages."""
    with open_browser() as driver:
        return {name: read_page(driver, html) for name, html in pages.items()}


def read_page(driver: Chrome, html: str) -> dict[str, Any]:
    """See `tools.browser.Page`."""
    _PAGE.write_text(html, encoding="utf-8")
    driver.get(_PAGE.as_uri())
    wide, cut = [], []
    for name, (width, dark, medium) in _READERS.items():
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", describe_medium(dark, medium))
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        if driver.execute_script("return document.documentElement.scrollWidth") > width:
            wide.append(name)
        cut += [f"{name}: {text}" for text in driver.execute_script(_FIND_CUT)]
    links = [str(link.get_attribute("href")) for link in driver.find_elements(By.TAG_NAME, "a")]
    tables = [sort_table(driver, table) for table in driver.find_elements(By.TAG_NAME, "table")]
    return {
        "links": [link.removeprefix(_PAGE.parent.as_uri() + "/") for link in links],
        "requested": driver.execute_script("return performance.getEntriesByType('resource').map((it) => it.name)"),
        "sorted": [columns for columns, _ in tables],
        "marked": [marks for _, marks in tables],
        "wide": wide,
        "cut": cut,
        "charts": len(driver.find_elements(By.CSS_SELECTOR, "svg.chart")),
        "silent": driver.execute_script(_FIND_SILENT),
        "tip": driver.execute_script(_POINT),
        "complaints": [item["message"] for item in driver.get_log("browser")],
    }


def describe_medium(dark: bool, medium: str) -> dict[str, Any]:
    """As Chrome's protocol wants it."""
    return {"media": medium, "features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}


def sort_table(driver: Chrome, table: WebElement) -> tuple[dict[str, list[list[str]]], list[dict[str, str]]]:
    """Click on each heading twice; what its column holds then, and the headings with an arrow after each click."""
    script = "const [table, n] = arguments; return [...table.tBodies[0].rows].map((row) => row.cells[n].dataset.value)"
    find_marks = (
        "return Object.fromEntries([...arguments[0].querySelectorAll('th[aria-sort]')]"
        ".map((head) => [head.innerText.trim(), head.getAttribute('aria-sort')]))"
    )
    found: dict[str, list[list[str]]] = {}
    marks: list[dict[str, str]] = []
    for head in table.find_elements(By.TAG_NAME, "th"):
        for button in head.find_elements(By.TAG_NAME, "button"):
            readings: list[list[str]] = []
            found[button.text] = readings
            for _ in range(2):
                button.click()
                readings.append(driver.execute_script(script, table, int(head.get_property("cellIndex"))))
                marks.append(driver.execute_script(find_marks, table))
    return found, marks


if __name__ == "__main__":
    task = json.loads(os.environ["LAB_VISIT"])
    print(json.dumps(visit(**task) if task else read_pages(json.load(sys.stdin))))
