// What deploy/grafana/ has in JSON is what its builders build: `npx vitest run test/grafana.test.ts -u` writes it.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { alerting } from "../deploy/grafana/alerts.ts";
import { dashboard } from "../deploy/grafana/dashboard.ts";

const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;

test("the committed dashboard is the builder's, panel by panel in place", async () => {
  const built = dashboard();
  const places = built.panels!.map((panel) => ("gridPos" in panel ? panel.gridPos : undefined));
  for (const place of places) expect(place!.x + place!.w).toBeLessThanOrEqual(24);
  expect(new Set(places.map((place) => `${place!.x},${place!.y}`)).size).toBe(places.length);
  await expect(json(built)).toMatchFileSnapshot("../deploy/grafana/dashboards/weft.json");
});

test("the committed alerts are the builder's, one for each of Prometheus' rules, and find their data source", async () => {
  const deploy = join(import.meta.dirname, "../deploy");
  const { groups } = parse(readFileSync(join(deploy, "prometheus/rules.yml"), "utf8"));
  const built = alerting(groups);
  const [source] = parse(
    readFileSync(join(deploy, "grafana/provisioning/datasources/prometheus.yml"), "utf8"),
  ).datasources;
  const rules = built.groups.flatMap((group) => group.rules);
  expect(rules.map(({ title }) => title)).toEqual(groups[0].rules.map(({ alert }: { alert: string }) => alert));
  for (const { uid, data, condition } of rules) {
    expect(data.map(({ refId, datasourceUid }) => [refId, datasourceUid])).toEqual([
      ["query", source.uid],
      [condition, "__expr__"],
    ]);
    expect(uid).toMatch(/^[\w-]{1,40}$/); // Grafana's rule for them
  }
  await expect(json(built)).toMatchFileSnapshot("../deploy/grafana/provisioning/alerting/weft.json");
});
