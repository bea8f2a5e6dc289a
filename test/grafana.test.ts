// deploy/grafana/dashboards/weft.json is what the builder builds: `npx vitest run test/grafana.test.ts -u` writes it.
import { expect, test } from "vitest";
import { dashboard } from "../deploy/grafana/dashboard.ts";

test("the committed dashboard is the builder's, panel by panel in place", async () => {
  const built = dashboard();
  const places = built.panels!.map((panel) => ("gridPos" in panel ? panel.gridPos : undefined));
  for (const place of places) expect(place!.x + place!.w).toBeLessThanOrEqual(24);
  expect(new Set(places.map((place) => `${place!.x},${place!.y}`)).size).toBe(places.length);
  await expect(`${JSON.stringify(built, null, 2)}\n`).toMatchFileSnapshot("../deploy/grafana/dashboards/weft.json");
});
