# SPDX-License-Identifier: Apache-2.0
"""A language playground: programs of strangers in three languages, eight sandboxes at once, one for each.

    MSB_SERVER_URL=http://127.0.0.1:5555 MSB_API_KEY=... python3 playground.py
"""

import asyncio

from microsandbox import Client, Sandbox

# How many primes there are below N, as three strangers would count them.
PYTHON = """
def primes(n):
    return sum(all(i % d for d in range(2, int(i ** 0.5) + 1)) for i in range(2, n))
primes({n})
"""
JAVASCRIPT = """
const isPrime = (i) => {{ for (let d = 2; d * d <= i; d++) if (i % d === 0) return false; return true; }};
let found = 0;
for (let i = 2; i < {n}; i++) if (isPrime(i)) found++;
found
"""
C = """
#include <stdio.h>
int main(void) {{
  int found = 0;
  for (int i = 2; i < {n}; i++) {{
    int d = 2;
    while (d * d <= i && i % d != 0) d++;
    found += d * d > i;
  }}
  printf("%d\\n", found);
}}
"""


async def python(sandbox, code):
    return (await sandbox.run(code, timeout=300)).check().text


async def javascript(sandbox, code):
    return (await sandbox.run(code, language="javascript", timeout=300)).check().text


async def compiled(sandbox, code):
    await sandbox.files.write("/app/main.c", code, parents=True)
    (await sandbox.command.run("cc", ["-O2", "-o", "/app/main", "/app/main.c"], timeout=300)).check()
    return (await sandbox.command.run("/app/main", timeout=300)).check().stdout.strip()


LANGUAGES = {"Python": ("python", python, PYTHON), "JavaScript": ("node", javascript, JAVASCRIPT), "C": ("develop", compiled, C)}
ASKED = [("Python", 100), ("JavaScript", 1000), ("C", 10_000), ("Python", 2000), ("JavaScript", 20_000), ("C", 100_000),
         ("Python", 500), ("JavaScript", 5000)]


async def play(client, language, n):
    image, run, code = LANGUAGES[language]
    async with Sandbox.create(image, scope="none", labels={"for": "playground"}, start_timeout=300, client=client) as sandbox:
        return await run(sandbox, code.format(n=n))


async def main():
    async with Client() as client:
        answers = await asyncio.gather(*(play(client, *asked) for asked in ASKED))
        for (language, n), answer in zip(ASKED, answers):
            print(f"{language:<11}{answer:>6} primes below {n}")
        left = [info async for info in Sandbox.list(labels={"for": "playground"}, client=client)]
        print(f"{len(ASKED)} sandboxes, of which {len(left)} are left")


if __name__ == "__main__":
    asyncio.run(main())
