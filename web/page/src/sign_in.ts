/** Who uses the page, and the tokens for it: development ones by the server, or one that was pasted. */

export interface Account {
  user: string;
  token: () => Promise<string>;
}

/** The server gives no development tokens: a token has to be brought. */
export class NoDevelopmentTokens extends Error {}

/** An account whose tokens the server makes, tried once. */
export async function developmentAccount(user: string): Promise<Account> {
  let first: string | undefined = await developmentToken(user);
  return {
    user,
    token: async () => {
      const token = first ?? (await developmentToken(user));
      first = undefined;
      return token;
    },
  };
}

/** An account of one token, for as long as that holds. */
export function tokenAccount(token: string): Account {
  return { user: subject(token), token: async () => token };
}

async function developmentToken(user: string): Promise<string> {
  const response = await fetch("/dev/token", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ user }),
  });
  if (response.status === 404 || response.status === 403) {
    throw new NoDevelopmentTokens("This server gives no development logins. Paste a token instead.");
  }
  const answer = (await response.json().catch(() => ({}))) as { token?: string; detail?: string };
  if (!response.ok || !answer.token) throw new Error(answer.detail ?? `The server answered HTTP ${response.status}.`);
  return answer.token;
}

/** The `sub` of a token, unchecked: the server checks. */
function subject(token: string): string {
  try {
    const part = (token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/");
    const bytes = Uint8Array.from(atob(part), (letter) => letter.charCodeAt(0));
    return String(JSON.parse(new TextDecoder().decode(bytes)).sub);
  } catch {
    throw new Error("This is not a token: it has three parts with dots between them.");
  }
}
