/** The one error of the SDK: what failed, whether it may succeed later, and after how long. */

export class RingwayError extends Error {
  override readonly name = "RingwayError";

  constructor(
    /**
     * The protocol's `error.code`, or one of ours: `network` (no HTTP answer), `no_token` (the application gave
     * none), `outbox_full`, `outcome_unknown` (see `send`), `storage`, `http_STATUS` (an answer that is not
     * the API's).
     */
    readonly code: string,
    message: string,
    /** Whether the same may succeed later. */
    readonly temporary = false,
    readonly retryAfterMs?: number,
  ) {
    super(message);
  }
}

/** What somebody threw, as a sentence. */
export function sentence(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
