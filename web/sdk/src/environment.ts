/** The world around the client as a browser has it; tests bring a world with a clock of their own. */

import type { Environment, WebSocketLike } from "./types.js";

export function browserEnvironment(): Environment {
  return {
    openSocket: (url, protocols) => new WebSocket(url, protocols) as unknown as WebSocketLike,
    fetch: (...request) => fetch(...request),
    random: () => Math.random(),
    now: () => Date.now(),
    setTimeout: (run, milliseconds) => setTimeout(run, milliseconds),
    clearTimeout: (timer) => clearTimeout(timer as number | undefined),
    watchNetwork,
  };
}

function watchNetwork(listener: (online: boolean) => void): () => void {
  const target = globalThis as Partial<Pick<typeof globalThis, "addEventListener" | "removeEventListener">>;
  const up = () => listener(true);
  const down = () => listener(false);
  target.addEventListener?.("online", up);
  target.addEventListener?.("offline", down);
  return () => {
    target.removeEventListener?.("online", up);
    target.removeEventListener?.("offline", down);
  };
}

/** 128 random bits in hex. (`crypto.randomUUID` is there on secure pages only.) */
export function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Back-off after a lost socket or a refusal: full jitter over a span that doubles from the first to the last. */
export const BACKOFF_MS_BASE = 1_000;
/** See `BACKOFF_MS_BASE`. */
export const BACKOFF_MS_MAX = 60_000;

/** How long to wait before the try after `attempt` (from 0) failed ones. */
export function backoff(world: Environment, attempt: number): number {
  return world.random() * Math.min(BACKOFF_MS_MAX, BACKOFF_MS_BASE * 2 ** attempt);
}
