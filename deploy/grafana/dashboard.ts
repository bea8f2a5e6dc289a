// The Grafana dashboard, by Grafana's own typed builder. dashboards/weft.json is what it builds: test/grafana.test.ts
// holds the two together, and `npx vitest run test/grafana.test.ts -u` writes the file anew.
import {
  BigValueColorMode,
  BigValueGraphMode,
  LegendDisplayMode,
  LegendPlacement,
  LineInterpolation,
  ReduceDataOptionsBuilder,
  StackingConfigBuilder,
  StackingMode,
  TooltipDisplayMode,
  VisibilityMode,
  VizLegendOptionsBuilder,
  VizTooltipOptionsBuilder,
} from "@grafana/grafana-foundation-sdk/common";
import {
  AnnotationQueryBuilder,
  DashboardBuilder,
  DashboardCursorSync,
  DatasourceVariableBuilder,
  QueryVariableBuilder,
  VariableHide,
  VariableRefresh,
} from "@grafana/grafana-foundation-sdk/dashboard";
import { DataqueryBuilder } from "@grafana/grafana-foundation-sdk/prometheus";
import * as stat from "@grafana/grafana-foundation-sdk/stat";
import * as timeseries from "@grafana/grafana-foundation-sdk/timeseries";

// biome-ignore lint/suspicious/noTemplateCurlyInString: Grafana's variable
const prometheus = { type: "prometheus", uid: "${datasource}" };
const here = '{instance=~"$instance"}';
const perSecond = (metric: string): string => `rate(${metric}${here}[$__rate_interval])`;

type Query = readonly [expression: string, legend: string];

const queries = (list: readonly Query[]): DataqueryBuilder[] =>
  list.map(([expression, legend], i) =>
    new DataqueryBuilder()
      .refId(String.fromCharCode(65 + i))
      .datasource(prometheus)
      .expr(expression)
      .legendFormat(legend),
  );

/** One number of the run, large. */
const figure = (title: string, metric: string, unit = "none", decimals?: number): stat.PanelBuilder => {
  const panel = new stat.PanelBuilder()
    .title(title)
    .datasource(prometheus)
    .targets(queries([[`${metric}${here}`, "{{instance}}"]]))
    .unit(unit)
    .colorMode(BigValueColorMode.Value)
    .graphMode(BigValueGraphMode.Area)
    .reduceOptions(new ReduceDataOptionsBuilder().calcs(["lastNotNull"]))
    .span(3)
    .height(4);
  return decimals === undefined ? panel : panel.decimals(decimals);
};

const curves = (title: string, span: number, unit: string, list: readonly Query[], description = "") => {
  const panel = new timeseries.PanelBuilder()
    .title(title)
    .datasource(prometheus)
    .targets(queries(list))
    .unit(unit)
    .lineWidth(2)
    .fillOpacity(0)
    .showPoints(VisibilityMode.Never)
    .legend(
      new VizLegendOptionsBuilder()
        .displayMode(LegendDisplayMode.List)
        .placement(LegendPlacement.Bottom)
        .showLegend(true),
    )
    .tooltip(new VizTooltipOptionsBuilder().mode(TooltipDisplayMode.Multi))
    .span(span)
    .height(span === 12 ? 9 : 7);
  return description === "" ? panel : panel.description(description);
};

const stepSeconds = (share: number): string =>
  `histogram_quantile(${share}, sum by (le) (${perSecond("weft_step_duration_seconds_bucket")}))`;

export function dashboard() {
  const figures = [
    figure("Step", "weft_steps_total", "none", 0),
    figure("Loss", "weft_loss_nats", "none", 4),
    figure("Validation loss", "weft_validation_loss_nats", "none", 4),
    figure("Tokens / s", "weft_tokens_per_second", "none", 0),
    figure("Workers", "weft_workers_contributing", "none", 0),
    figure("Left", "weft_eta_seconds", "s"),
    figure("Checkpoint age", "weft_checkpoint_age_seconds", "s"),
    figure("Idle", "weft_idle_seconds", "s"),
  ];
  const charts = [
    curves(
      "Loss",
      12,
      "none",
      [
        [`weft_loss_nats${here}`, "step"],
        [`avg_over_time(weft_loss_nats${here}[5m])`, "step, 5 minutes"],
        [`weft_validation_loss_nats${here}`, "validation"],
      ],
      "Nats per token.",
    ),
    curves("Tokens per second", 12, "none", [
      [perSecond("weft_tokens_total"), "run"],
      [`weft_worker_tokens_per_second${here}`, "{{worker}}"],
    ]),
    curves(
      "Where a step's time goes",
      12,
      "s",
      [
        [
          `sum by (phase) (${perSecond("weft_step_phase_duration_seconds_sum")}) / scalar(sum(${perSecond("weft_step_duration_seconds_count")}))`,
          "{{phase}}",
        ],
      ],
      "Mean seconds a step.",
    )
      .lineWidth(1)
      .fillOpacity(40)
      .stacking(new StackingConfigBuilder().mode(StackingMode.Normal)),
    curves("Step time", 12, "s", [
      [stepSeconds(0.5), "median"],
      [stepSeconds(0.95), "95 %"],
    ]),
    curves("Gradient norm", 8, "none", [[`weft_gradient_norm${here}`, "before clipping"]]),
    curves("Learning rate", 8, "sci", [[`weft_learning_rate${here}`, "learning rate"]]),
    curves(
      "Leases",
      8,
      "ops",
      ["counted", "hedged", "lost", "refused"].map((what): Query => [perSecond(`weft_leases_${what}_total`), what]),
    ),
    curves("Workers", 8, "none", [
      [`weft_workers_connected${here}`, "connected"],
      [`weft_workers_contributing${here}`, "contributing"],
    ]).lineInterpolation(LineInterpolation.StepAfter),
    curves("Wire", 8, "Bps", [
      [perSecond("weft_received_bytes_total"), "received"],
      [perSecond("weft_sent_bytes_total"), "sent"],
      [`sum by (worker) (${perSecond("weft_worker_bytes_total")})`, "{{worker}}"],
    ]),
    curves("Round trip", 8, "s", [[`weft_worker_round_trip_seconds${here}`, "{{worker}}"]]),
    curves("Coordinator: memory", 8, "bytes", [
      [`process_resident_memory_bytes${here}`, "resident"],
      [`nodejs_heap_size_used_bytes${here}`, "heap"],
      [`nodejs_external_memory_bytes${here}`, "outside the heap"],
    ]),
    curves("Coordinator: processor", 8, "none", [[perSecond("process_cpu_seconds_total"), "cores"]]),
    curves("Coordinator: event loop lag", 8, "s", [
      [`nodejs_eventloop_lag_p50_seconds${here}`, "median"],
      [`nodejs_eventloop_lag_p99_seconds${here}`, "99 %"],
    ]),
  ];
  const builder = new DashboardBuilder("Weft")
    .uid("weft")
    .tags(["weft"])
    .timezone("browser")
    .refresh("5s")
    .time({ from: "now-30m", to: "now" })
    .tooltip(DashboardCursorSync.Crosshair)
    .withVariable(
      new DatasourceVariableBuilder("datasource")
        .type("prometheus")
        .label("data source")
        .hide(VariableHide.HideVariable),
    )
    .withVariable(
      new QueryVariableBuilder("instance")
        .label("run")
        .datasource(prometheus)
        .query({ query: "label_values(weft_run_info, instance)", refId: "instance" })
        .refresh(VariableRefresh.OnTimeRangeChanged)
        .includeAll(true)
        .allValue(".*")
        .current({ text: "All", value: "$__all" })
        .multi(true),
    )
    .annotation(
      new AnnotationQueryBuilder()
        .name("alerts")
        .enable(true)
        .datasource(prometheus)
        .expr('ALERTS{alertstate="firing"}')
        .titleFormat("{{alertname}}")
        .iconColor("red"),
    );
  for (const panel of [...figures, ...charts]) builder.withPanel(panel);
  return builder.build();
}
