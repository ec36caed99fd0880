# SPDX-License-Identifier: Apache-2.0
"""A web-browsing agent: Chromium in a sandbox logs in to a site, reads a table, and returns it with a screenshot.

The sandbox reaches that one site and nothing else, whatever a page tells the browser to fetch. The image needs Chromium, its
driver and Selenium; `scripts/images --all` makes one, "browser". The server's operator allows rules that allow something, by
`"allow": {"scope": "any"}` in server.json.

    MSB_SERVER_URL=http://127.0.0.1:5555 MSB_API_KEY=... python3 web_agent.py http://SITE/ [SCREENSHOT.png]
"""

import json
import socket
import sys
import urllib.parse

from microsandbox.sync import Sandbox

# The interpreter keeps its state, and so the browser: each step is a run of code, as a model would write it after the one
# before.
BROWSER = """
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

options = webdriver.ChromeOptions()
# The sandbox is the machine itself: in it the browser is root, and has no other one within.
for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
               "--disable-component-update", "--no-first-run", "--window-size=800,600"):
    options.add_argument(option)
browser = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
browser.set_page_load_timeout(600)
print(browser.capabilities["browserName"], browser.capabilities["browserVersion"].split(".")[0])
"""
LOG_IN = """
browser.get({site!r})
browser.find_element(By.NAME, "user").send_keys("ada")
browser.find_element(By.NAME, "password").send_keys("engine")
browser.find_element(By.TAG_NAME, "form").submit()
WebDriverWait(browser, 300).until(lambda browser: browser.find_elements(By.TAG_NAME, "table"))
print(browser.title)
"""
READ = """
import json
browser.save_screenshot("/tmp/screenshot.png")
rows = browser.find_elements(By.TAG_NAME, "tr")
print(json.dumps([[cell.text for cell in row.find_elements(By.CSS_SELECTOR, "th, td")] for row in rows]))
"""
GO_ASTRAY = """
try:
    browser.get({elsewhere!r})
except WebDriverException as error:
    print(error.msg.splitlines()[0])
"""


def rules_for(site):
    """Rules of the network that allow this site and its name."""
    parts = urllib.parse.urlsplit(site)
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    addresses = sorted({address[4][0] for address in socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)})
    return ["allow dns", *(f"allow tcp {address} {port}" for address in addresses)]


def main():
    site = sys.argv[1]
    screenshot = sys.argv[2] if len(sys.argv) > 2 else "screenshot.png"
    with Sandbox.create("browser", memory="2G", scope="none", network=rules_for(site)) as sandbox:
        def step(code):
            return sandbox.run(code, timeout=900).check()

        print("Browser:", step(BROWSER).stdout.strip())
        print("Logged in:", step(LOG_IN.format(site=site)).stdout.strip())
        for row in json.loads(step(READ).stdout):
            print("  " + "  ".join(f"{cell:<10}" for cell in row).rstrip())
        sandbox.files.download("/tmp/screenshot.png", screenshot)
        for elsewhere in ("http://169.254.169.254/latest/meta-data/", "http://1.1.1.1/"):
            print(f"{elsewhere}: {step(GO_ASTRAY.format(elsewhere=elsewhere)).stdout.strip()}")


if __name__ == "__main__":
    main()
