// SPDX-License-Identifier: Apache-2.0

/** Seconds to wait for a connection. */
export const CONNECTING = 10;

/** A request that had no answer, or not all of it. */
export class Failure extends Error {
  /**
   * `kind`: "unreachable": no connection; "broken": it ended; "silent": nothing came for as long as was waited.
   * `neverSent`: the server cannot have seen the request.
   */
  constructor(readonly kind: "unreachable" | "broken" | "silent", message: string, readonly neverSent: boolean, cause?: unknown) {
    super(message, { cause });
  }
}

/** Calls `act` when nothing was heard for so many seconds. */
export class Patience {
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(readonly seconds: number | null, readonly act: () => void) {}

  /** Something was heard, or is waited for from now on. */
  renew(): void {
    this.end();
    // A longer time than timers take is as good as none.
    if (this.seconds !== null && this.seconds < 2e6) this.#timer = setTimeout(this.act, this.seconds * 1000);
  }

  end(): void {
    clearTimeout(this.#timer);
  }

  failure(): Failure {
    return new Failure("silent", `nothing came from the server for ${this.seconds} s`, false);
  }
}
