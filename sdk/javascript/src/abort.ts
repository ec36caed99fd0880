// SPDX-License-Identifier: Apache-2.0

/** Whoever waits for one signal. */
class Waiting {
  readonly acts = new Set<() => void>();
  readonly abort = () => {
    for (const act of this.acts) act();
  };
}

const signals = new WeakMap<AbortSignal, Waiting>();

/**
 * Calls `act` when the signal is aborted, unless what this gives was called before. However many wait for a signal, it has
 * one listener: Node warns of more than ten as of a leak.
 */
export function onAbort(signal: AbortSignal | undefined, act: () => void): () => void {
  if (signal === undefined) return () => {};
  const waiting = signals.get(signal) ?? new Waiting();
  signals.set(signal, waiting);
  if (waiting.acts.size === 0) signal.addEventListener("abort", waiting.abort);
  waiting.acts.add(act);
  return () => {
    if (waiting.acts.delete(act) && waiting.acts.size === 0) signal.removeEventListener("abort", waiting.abort);
  };
}
