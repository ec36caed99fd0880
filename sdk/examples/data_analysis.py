# SPDX-License-Identifier: Apache-2.0
"""Data analysis: a CSV file goes into a sandbox without a network, a table and a chart come back.

What the code sees of your data stays there: the sandbox reaches nothing, and nothing is left of it.

    MSB_SERVER_URL=http://127.0.0.1:5555 MSB_API_KEY=... python3 data_analysis.py [CHART.png]
"""

import math
import sys

from microsandbox.sync import Sandbox

ANALYSIS = """
import numpy, pandas
from matplotlib import pyplot

sales = pandas.read_csv("/data/sales.csv", parse_dates=["day"])
by_month = sales.pivot_table(index=sales.day.dt.strftime("%b"), columns="region", values="amount", aggfunc="sum", sort=False)
growth = {region: numpy.polyfit(range(len(by_month)), by_month[region], 1)[0] for region in by_month}
by_month.plot(kind="bar", figsize=(7, 4), rot=0, title="Sales by month", xlabel="", ylabel="EUR")
pyplot.legend(loc="upper center", ncol=2)
by_month.round().astype(int).rename_axis(None)
"""


def sales():
    """A year of a shop with two regions, one line a day and region."""
    lines = ["day,region,amount"]
    for month in range(1, 13):
        for day in range(1, 29):
            lines.append(f"2025-{month:02}-{day:02},north,{100 + 5 * month + day % 7}")
            lines.append(f"2025-{month:02}-{day:02},south,{140 - 3 * month + round(20 * math.sin(day))}")
    return "\n".join(lines) + "\n"


def main():
    chart = sys.argv[1] if len(sys.argv) > 1 else "chart.png"
    with Sandbox.create("python", memory="1G", scope="none") as sandbox:
        sandbox.files.write("/data/sales.csv", sales(), parents=True)
        result = sandbox.run(ANALYSIS, timeout=300).check()
        print(result.value.text)
        [picture] = result.pictures()
        with open(chart, "wb") as file:
            file.write(picture)
        print("A month adds, in EUR:", sandbox.run("{region: round(slope) for region, slope in growth.items()}").text)
        # The same interpreter, and what it may not: send the data away.
        attempt = sandbox.run("import socket; socket.create_connection(('192.0.2.1', 443), timeout=10)")
        print("Sending it away:", attempt.error.name, attempt.error.message)
    print(f"The chart is {len(picture) // 1000} kB of PNG, {width_of(picture)} pixels wide.")


def width_of(png):
    return int.from_bytes(png[16:20], "big")


if __name__ == "__main__":
    main()
