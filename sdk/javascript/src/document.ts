// SPDX-License-Identifier: Apache-2.0
// Members of what the server sent, held against what they have to be. What a newer server adds is passed over.

/** It is something else than the server's documentation says. */
export class UnexpectedDocument extends Error {}

export type Members = Readonly<Record<string, unknown>>;

function wrong(name: string, wanted: string): never {
  throw new UnexpectedDocument(`'${name}' is no ${wanted}`);
}

export function membersOf(value: unknown, name = "document"): Members {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Members) : wrong(name, "object");
}

export function text(members: Members, name: string): string {
  const value = members[name];
  return typeof value === "string" ? value : wrong(name, "text");
}

export function number(members: Members, name: string): number {
  const value = members[name];
  return typeof value === "number" ? value : wrong(name, "number");
}

export function flag(members: Members, name: string): boolean {
  const value = members[name];
  return typeof value === "boolean" ? value : wrong(name, "boolean");
}

export function time(members: Members, name: string): Date {
  const value = new Date(text(members, name));
  return Number.isNaN(value.getTime()) ? wrong(name, "time") : value;
}

export function object(members: Members, name: string): Members {
  return membersOf(members[name], name);
}

export function texts(members: Members, name: string): Record<string, string> {
  const found = object(members, name);
  return Object.fromEntries(Object.keys(found).map(key => [key, text(found, key)]));
}

/** An array whose elements `read` reads. */
export function list<T>(members: Members, name: string, read: (element: Members) => T): T[] {
  const value = members[name];
  return Array.isArray(value) ? value.map(element => read(membersOf(element, name))) : wrong(name, "array");
}

/** `read`, but for what is null. It has to be there. */
export function nullable<T>(read: (members: Members, name: string) => T, members: Members, name: string): T | null {
  return members[name] === null ? null : read(members, name);
}

/** `read`, but for what is null or missing. */
export function optional<T>(read: (members: Members, name: string) => T, members: Members, name: string): T | null {
  return members[name] === undefined ? null : nullable(read, members, name);
}
