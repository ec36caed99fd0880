// SPDX-License-Identifier: Apache-2.0
// Bytes, texts and base64, in Node and browsers alike.

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const strict = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });

export const encoded = (text: string): Uint8Array => encoder.encode(text);

/** What is not UTF-8 is replaced by U+FFFD. */
export const decoded = (data: Uint8Array): string => decoder.decode(data);

/** The same; null: it is no UTF-8. */
export function decodedStrictly(data: Uint8Array): string | null {
  try {
    return strict.decode(data);
  } catch {
    return null;
  }
}

export function fromBase64(text: string): Uint8Array {
  const binary = atob(text);
  const data = new Uint8Array(binary.length);
  for (let index = 0; index < binary.length; ++index) data[index] = binary.charCodeAt(index);
  return data;
}

export function toBase64(data: Uint8Array): string {
  const parts: string[] = [];
  for (let at = 0; at < data.length; at += 8192) {  // an engine bounds how many arguments there may be
    parts.push(String.fromCharCode(...data.subarray(at, at + 8192)));
  }
  return btoa(parts.join(""));
}

export function joined(pieces: readonly Uint8Array[]): Uint8Array {
  if (pieces.length === 1) return pieces[0]!;
  const all = new Uint8Array(pieces.reduce((size, piece) => size + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

/** Lower-case hexadecimal digits that nobody can guess. `crypto.randomUUID` is not there on pages without TLS. */
export function randomWord(bytes: number): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)), byte => byte.toString(16).padStart(2, "0")).join("");
}
