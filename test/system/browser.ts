// The real Chromium, Debian's package, and what it complains of.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";

/** Where the pictures go that a person looks at; none are taken without it. */
const pictures = process.env.WEFT_SCREENSHOTS;

export const openBrowser = (): Promise<Browser> =>
  chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: [
      ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"],
      ...["--disable-component-update", "--disable-sync", "--enable-precise-memory-info"],
    ],
  });

/** A picture of the whole page; and with `everywhere` of both themes, on a desktop and on a phone. */
export async function picture(page: Page, name: string, everywhere = false): Promise<void> {
  if (pictures === undefined) return;
  mkdirSync(pictures, { recursive: true });
  const shoot = (more: string) => page.screenshot({ path: join(pictures, `${name}${more}.png`), fullPage: true });
  if (!everywhere) return void (await shoot(""));
  const before = page.viewportSize()!;
  for (const [device, size] of [
    ["desktop", { width: 1280, height: 900 }],
    ["phone", { width: 390, height: 844 }],
  ] as const)
    for (const colorScheme of ["light", "dark"] as const) {
      await page.setViewportSize(size);
      await page.emulateMedia({ colorScheme });
      await page.waitForTimeout(400);
      await shoot(`-${device}-${colorScheme}`);
    }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize(before);
}
