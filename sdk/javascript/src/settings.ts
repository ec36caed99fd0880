// SPDX-License-Identifier: Apache-2.0
// Where the server is, and the key for it.

import { InvalidRequestError } from "./errors.js";
import { nodeProcess } from "./node.js";

const DEFAULT_URL = "http://127.0.0.1:5555";

export class Settings {
  /** Without a slash at its end. */
  readonly url: string;
  readonly #key: string | null;

  /** Arguments count, then MSB_SERVER_URL and MSB_API_KEY; what is empty is as none. */
  constructor(serverUrl?: string, apiKey?: string) {
    const environment = nodeProcess()?.env ?? {};
    this.url = (serverUrl || environment.MSB_SERVER_URL || DEFAULT_URL).replace(/\/+$/, "");
    if (!/^https?:\/\/[^/]/i.test(this.url) || !canParse(this.url)) {
      throw new InvalidRequestError(`'${this.url}' is no address of a server`, {
        code: "invalid",
        hint: `give one as serverUrl or MSB_SERVER_URL, like ${DEFAULT_URL}`,
      });
    }
    this.#key = (apiKey || environment.MSB_API_KEY || "").trim() || null;
    if (this.#key !== null && !/^[\x20-\x7e]+$/.test(this.#key)) {
      throw new InvalidRequestError("the key has characters that no key has", {
        code: "invalid",
        hint: "give what `msb server keygen` printed as apiKey or MSB_API_KEY",
      });
    }
  }

  get key(): string | null {
    return this.#key;
  }

  /** Where the server shows a sandbox's port, as an origin of its own. */
  appUrl(name: string, namespace: string, port: number): string {
    const { protocol, port: own } = new URL(this.url);
    const space = namespace === "default" ? "" : `.${namespace}`;
    return `${protocol}//${port}-${name}${space}.localhost:${own || (protocol === "https:" ? 443 : 80)}/`;
  }
}

function canParse(url: string): boolean {
  try {
    return new URL(url).hostname !== "";
  } catch {
    return false;
  }
}
