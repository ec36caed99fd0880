# SPDX-License-Identifier: Apache-2.0
"""The image `browser`: Chromium without a screen, and Selenium for Python to drive it. It is large, and made only for long tests."""

import debian_image

PACKAGES = ["python3", "chromium", "chromium-driver", "python3-selenium", "fonts-dejavu-core"]
WORKS = """
chromium --version
chromedriver --version
python3 -c 'import selenium.webdriver'
"""


def make(folder):
    return debian_image.make(folder, "browser", PACKAGES, "python3", ["sh", "-e", "-c", WORKS])
