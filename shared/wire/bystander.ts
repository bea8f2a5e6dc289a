// What stands between us and a coordinator and answers in its place: a proxy, a login page, another server. Of its page
// one line reaches people: what answered, and what to set.
import { unseen } from "./names.ts";

export interface HttpAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  /** The beginning of the body. */
  readonly body: string;
}

/** What to set where a proxy answers so; a coordinator never does. */
const cures: Readonly<Record<number, string>> = {
  401: "asks for a login of its own: let the header Authorization pass to the coordinator",
  403: "forbids it: allow this address, or this client",
  404: "knows no such path: is the address complete, with the prefix under which the coordinator lies?",
  405: "does not let this method pass",
  407: "asks for a login of its own: name one in its settings, or go around it",
  408: "waited too short a time: raise its timeouts",
  413: "limits the size of a body: raise that (nginx: client_max_body_size 0)",
  429: "limits the rate of requests: raise that for the coordinator",
  502: "does not reach the coordinator: is it running, and is its upstream address right?",
  503: "does not reach the coordinator: is it running, and is its upstream address right?",
  504: "waited too short a time for the coordinator: raise its timeouts (nginx: proxy_read_timeout)",
};

/**
 * One line on an answer that no coordinator gave: that of a proxy, or of another server.
 * @param upgrading a WebSocket was asked for
 * @returns undefined where it may be a coordinator's own
 */
export function bystander({ status, headers, body }: HttpAnswer, upgrading: boolean): string | undefined {
  const header = (name: string): string => String(headers[name] ?? "");
  const isPage = /html/i.test(header("content-type")) || /^\s*</.test(body);
  const redirects = status >= 300 && status < 400;
  const passed = status >= 200 && status < 300;
  if (!isPage && !redirects && status !== 407 && !(upgrading && (passed || status === 426))) return undefined;
  const server = header("server");
  const who = server === "" ? "a proxy or another server" : `a proxy or another server (${clear(server)})`;
  const answers = `${who} answers HTTP ${status}${title(body)}`;
  if (redirects) return `${answers} and sends to ${clear(header("location")) || "nowhere"}; use that address`;
  if (upgrading && (passed || status === 400 || status === 426))
    return `${answers} instead of upgrading: let it pass Upgrade and Connection (nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade")`;
  if (passed) return `${answers}, a web page and no coordinator's answer: is this its address, with its whole path?`;
  return `${answers}; it ${cures[status] ?? "stands before the coordinator: look into its log"}`;
}

function title(page: string): string {
  const found = /<(title|h1)[^>]*>([^<]*)</i.exec(page)?.[2] ?? "";
  return found.trim() === "" ? "" : ` "${clear(found)}"`;
}

const everyUnseen = new RegExp(unseen, "gu");

/** Others' words for one line. */
export const clear = (words: string): string =>
  words.replace(everyUnseen, " ").replace(/\s+/g, " ").trim().slice(0, 120);
