// Prometheus' alerts (../prometheus/rules.yml, where each stands once) as Grafana's own, by its typed builder, so that
// Grafana can send them where there is no Alertmanager. provisioning/alerting/weft.json is what it builds: held together
// by test/grafana.test.ts.
import { QueryBuilder, RuleBuilder } from "@grafana/grafana-foundation-sdk/alerting";
import { TypeMathBuilder } from "@grafana/grafana-foundation-sdk/expr";
import { DataqueryBuilder } from "@grafana/grafana-foundation-sdk/prometheus";

export interface PrometheusAlert {
  readonly alert: string;
  readonly expr: string;
  readonly for?: string;
  readonly labels: Record<string, string>;
  readonly annotations: Record<string, string>;
}

/** The data source of provisioning/datasources/prometheus.yml. */
const source = { type: "prometheus", uid: "prometheus" };
const expressions = { type: "__expr__", uid: "__expr__" };
const now = { from: 600, to: 0 };

/**
 * Prometheus fires where an expression has a series, whatever its number; Grafana where a number is not 0. Source: how
 * Grafana itself imports Prometheus' rules (pkg/services/ngalert/prom/convert.go).
 */
const hasSeries = (refId: string): string => `is_number($${refId}) || is_nan($${refId}) || is_inf($${refId})`;

function rule({ alert, expr, labels, annotations, for: pending = "0s" }: PrometheusAlert) {
  const query = new DataqueryBuilder().refId("query").datasource(source).expr(expr).instant();
  const fires = new TypeMathBuilder().refId("fires").datasource(expressions).expression(hasSeries("query"));
  const words = Object.entries(annotations).map(([name, text]) => [name, inGrafana(text)]);
  const {
    folderUID: _folder,
    orgID: _organisation,
    ruleGroup: _group,
    ...built
  } = new RuleBuilder(alert)
    .uid(alert)
    .condition("fires")
    .withQuery(new QueryBuilder("query").datasourceUid(source.uid).relativeTimeRange(now).model(query))
    .withQuery(new QueryBuilder("fires").datasourceUid(expressions.uid).relativeTimeRange(now).model(fires))
    .forDuration(pending)
    .noDataState("OK") // no series is what is well
    .execErrState("Error")
    .labels(labels)
    .annotations(Object.fromEntries(words))
    .build();
  return { ...built, missing_series_evals_to_resolve: 1 }; // well again with the first evaluation that has no series
}

/** In Prometheus $value is the number of the expression, in Grafana a text of all of them. */
const inGrafana = (text: string): string => text.replaceAll("$value", "$values.query.Value");

/** Grafana's file of provisioned rules. @param groups those of rules.yml */
export function alerting(groups: ReadonlyArray<{ name: string; rules: readonly PrometheusAlert[] }>) {
  return {
    apiVersion: 1,
    groups: groups.map(({ name, rules }) => ({
      orgId: 1,
      name,
      folder: "Weft",
      interval: "15s",
      rules: rules.map(rule),
    })),
  };
}
