// SPDX-License-Identifier: Apache-2.0
// What sdk/conformance/README.md says of cases, steps and matchers.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { basename, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const SERVER_OPERATIONS = new Set(["create", "connect", "list", "client", "old.new", "old.create"]);

/** { file, case, shared } of all there are. */
export function load(folder) {
  return readdirSync(join(folder, "cases")).filter(name => name.endsWith(".json")).sort().flatMap(name => {
    const document = JSON.parse(readFileSync(join(folder, "cases", name), "utf8"));
    assert.equal(document.format, 1, name);
    return document.cases.map(one => ({ file: basename(name, ".json"), case: one, shared: document.shared ?? {} }));
  });
}

// Matchers.

export class Mismatch extends Error {}

/** An operation failed: `error` as the README describes it. */
export class Failed extends Error {
  constructor(error, where) {
    super(`${where ? `${where}: ` : ""}${JSON.stringify(error)}`);
    this.error = error;
  }
}

const shown = value => (JSON.stringify(value) ?? "undefined").slice(0, 2000);
const isObject = value => typeof value === "object" && value !== null && !Array.isArray(value);

/** Throws a Mismatch when the value is not as expected. */
export function match(value, expected, where = "the result") {
  if (Array.isArray(expected) && Array.isArray(value)) {
    if (value.length !== expected.length) {
      throw new Mismatch(`${where} has ${value.length} elements instead of ${expected.length}: ${shown(value)}`);
    }
    value.forEach((one, index) => match(one, expected[index], `${where}[${index}]`));
  } else if (!isObject(expected)) {
    if (value !== expected) throw new Mismatch(`${where} is ${shown(value)} instead of ${shown(expected)}`);
  } else if (Object.keys(expected).length > 0 && Object.keys(expected).every(name => name.startsWith("$"))) {
    for (const [operator, operand] of Object.entries(expected)) {
      if (!holds(value, operator, operand, where)) {
        throw new Mismatch(`${where} is ${shown(value)}, of which ${operator} ${shown(operand)} does not hold`);
      }
    }
  } else {
    if (!isObject(value)) throw new Mismatch(`${where} is ${shown(value)} instead of an object`);
    for (const [name, inner] of Object.entries(expected)) {
      if (value[name] === undefined) throw new Mismatch(`${where} has no '${name}': ${shown(value)}`);
      match(value[name], inner, `${where}.${name}`);
    }
  }
}

function matches(value, expected) {
  try {
    match(value, expected);
    return true;
  } catch (error) {
    if (error instanceof Mismatch) return false;
    throw error;
  }
}

const TYPES = {
  string: value => typeof value === "string", number: value => typeof value === "number", integer: Number.isInteger,
  boolean: value => typeof value === "boolean", array: Array.isArray, object: isObject, null: value => value === null,
};

function holds(value, operator, operand, where) {
  const isText = typeof value === "string";
  switch (operator) {
    case "$any": return value !== undefined;
    case "$type": return TYPES[operand](value);
    case "$contains": return isText && value.includes(operand);
    case "$starts": return isText && value.startsWith(operand);
    case "$ends": return isText && value.endsWith(operand);
    case "$matches": return isText && new RegExp(operand, "u").test(value);
    case "$at_least": return typeof value === "number" && value >= operand;
    case "$at_most": return typeof value === "number" && value <= operand;
    case "$length":  // of a text in characters, as in other languages
      match(isText ? [...value].length : value.length, operand, `the length of ${where}`);
      return true;
    case "$each": return Array.isArray(value) && value.every(one => matches(one, operand));
    case "$has": return Array.isArray(value) && value.some(one => matches(one, operand));
    case "$not": return !matches(value, operand);
    case "$one_of": return operand.some(one => matches(value, one));
    default: assert.fail(`there is no operator ${operator}`);
  }
}

function substitute(value, variables) {
  if (typeof value === "string") {
    if (/^\$\w+$/.test(value) && value.slice(1) in variables) return variables[value.slice(1)];
    return value.replace(/\$\{(\w+)\}/g, (whole, name) => (name in variables ? String(variables[name]) : whole));
  }
  if (Array.isArray(value)) return value.map(one => substitute(one, variables));
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, substitute(one, variables)]));
}

function pointed(document, pointer) {
  return pointer.split("/").slice(1).reduce((found, part) => found[part.replaceAll("~1", "/").replaceAll("~0", "~")], document);
}

// Steps.

async function nowhere() {
  const server = net.createServer();
  await new Promise(resolve => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise(resolve => server.close(resolve));
  return `http://127.0.0.1:${port}`;
}

async function inEnvironment(variables, act) {
  const names = ["MSB_SERVER_URL", "MSB_API_KEY"];
  const before = names.map(name => process.env[name]);
  for (const name of names) delete process.env[name];
  Object.assign(process.env, variables);
  try {
    return await act();
  } finally {
    names.forEach((name, index) => {
      if (before[index] === undefined) delete process.env[name];
      else process.env[name] = before[index];
    });
  }
}

/**
 * Carries the steps of a case out. `sdk` has a method for each operation, by its name, which gets the handle it is on, its
 * arguments, { settings, enter } where the operation takes a server, and a signal; it gives [result, handle], or throws a Failed.
 */
export class Case {
  constructor(sdk, url, key, directory) {
    this.sdk = sdk;
    this.settings = { server_url: url, api_key: key };
    this.directory = directory;
  }

  async run(one, shared) {
    const unique = `c${randomUUID().replaceAll("-", "").slice(0, 12)}`;
    const { server_url: url, api_key: key } = this.settings;
    await this.steps(one.steps, { ...shared, unique, url, key, dir: `${this.directory}/${unique}`, nowhere: await nowhere() });
  }

  async steps(steps, variables) {
    for (const step of steps) await this.step(step, variables);
  }

  async step(step, variables) {
    if (step.within) {
      await this.scope(step, variables);
    } else if (step.together) {
      const ended = await Promise.allSettled(step.together.map(steps => this.steps(steps, { ...variables })));
      for (const { status, reason } of ended) if (status === "rejected") throw reason;
    } else if (step.repeat) {
      for (let count = 0; count < step.repeat; ++count) await this.steps(step.steps, variables);
    } else if (step.until) {
      await this.until(step.until, variables, step.seconds ?? 30);
    } else if (step.abandon) {
      await this.abandon(step, variables);
    } else {
      await this.judge(step, variables, () => this.operation(step, variables));
    }
  }

  async until(step, variables, seconds) {
    for (const deadline = performance.now() + seconds * 1000; ;) {
      try {
        return await this.step(step, variables);
      } catch (error) {
        if (!(error instanceof Mismatch || error instanceof Failed) || performance.now() > deadline) throw error;
      }
      await pause(50);
    }
  }

  async abandon(step, variables) {
    const controller = new AbortController();
    const reason = new Error("abandoned");
    let ended = false;
    const call = this.operation(step.abandon, variables, { signal: controller.signal }).finally(() => ended = true);
    call.catch(() => {});
    try {
      await this.until(step.when, variables, 30);
      assert.ok(!ended, "what is to be abandoned has ended");
    } finally {
      controller.abort(reason);
      await call.then(() => assert.fail("what was abandoned gave a result"), error => assert.equal(error, reason));
    }
  }

  async scope(step, variables) {
    let scope;
    await this.judge(step.within, variables, async () => scope = await this.operation(step.within, variables, { enter: true }));
    if (scope === undefined) return;
    try {
      await this.steps(step.steps, variables);
    } finally {
      await this.sdk.leave(scope[1]);
    }
  }

  /** Holds what an operation gives against what the step expects. */
  async judge(step, variables, operation) {
    const where = `${step.do} ${JSON.stringify(step.with ?? {}).slice(0, 200)}`;
    let result, handle;
    try {
      [result, handle] = await operation();
    } catch (error) {
      if (!(error instanceof Failed)) throw error;
      if (!step.error) throw new Failed(error.error, where);
      match(error.error, substitute(step.error, variables), `the error of ${where}`);
      return;
    }
    if (step.error) throw new Mismatch(`${where} was to fail, and gave ${shown(result)}`);
    if ("expect" in step) match(result, substitute(step.expect, variables), `the result of ${where}`);
    if (step.as) variables[step.as] = handle;
    for (const [name, pointer] of Object.entries(step.save ?? {})) variables[name] = pointed(result, pointer);
  }

  async operation(step, variables, { enter = false, signal } = {}) {
    const given = substitute(step.with ?? {}, variables);
    let { environment = {}, ...settings } = step.settings ? substitute(step.settings, variables) : this.settings;
    if (step.client) settings = { client: variables[step.client] };
    const options = SERVER_OPERATIONS.has(step.do) ? { settings, enter } : {};
    return inEnvironment(environment, () => this.sdk[step.do](variables[step.on], given, { ...options, signal }));
  }
}

/** Ends the connections that Node's fetch keeps for later, which programs cannot: a scripted server would wait for them. */
async function endThoseOfFetch() {
  const name = Symbol.for("undici.globalDispatcher.1");
  const dispatcher = globalThis[name];
  if (dispatcher === undefined) return;
  globalThis[name] = new dispatcher.constructor();
  await dispatcher.close();
}

/** Calls `act` with the URL of a server that answers so; gives what that saw. */
export async function scripted(folder, answers, act) {
  const directory = mkdtempSync("/tmp/scripted-");
  writeFileSync(join(directory, "script"), JSON.stringify(answers));
  const server = spawn("/usr/bin/python3", [join(folder, "scripted_server.py"), join(directory, "script")],
    { stdio: ["pipe", "pipe", "inherit"] });
  try {
    const lines = server.stdout.setEncoding("utf8")[Symbol.asyncIterator]();
    const { value: port } = await lines.next();
    await act(`http://127.0.0.1:${port.trim()}`);
    await endThoseOfFetch();
    server.stdin.end();
    let said = "";
    for (let piece = await lines.next(); !piece.done; piece = await lines.next()) said += piece.value;
    return JSON.parse(said);
  } finally {
    server.kill();
    rmSync(directory, { recursive: true });
  }
}
