/** The one error of the SDK: what failed, whether it may succeed later, and after how long. */
export declare class RingwayError extends Error {
    /**
     * The protocol's `error.code`, or one of ours: `network` (no HTTP answer), `no_token` (the application gave
     * none), `outbox_full`, `outcome_unknown` (see `send`), `storage`, `http_STATUS` (an answer that is not
     * the API's).
     */
    readonly code: string;
    /** Whether the same may succeed later. */
    readonly temporary: boolean;
    readonly retryAfterMs?: number | undefined;
    readonly name = "RingwayError";
    constructor(
    /**
     * The protocol's `error.code`, or one of ours: `network` (no HTTP answer), `no_token` (the application gave
     * none), `outbox_full`, `outcome_unknown` (see `send`), `storage`, `http_STATUS` (an answer that is not
     * the API's).
     */
    code: string, message: string, 
    /** Whether the same may succeed later. */
    temporary?: boolean, retryAfterMs?: number | undefined);
}
/** What somebody threw, as a sentence. */
export declare function sentence(error: unknown): string;
