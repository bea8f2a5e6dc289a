// What an operator copies must fit the program: every flag is one of its command's, every metric one of the run's.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { expect, test } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { coordinatorCommand } from "../cli/coordinator.ts";
import { workerCommand } from "../cli/worker.ts";
import { Metrics } from "../coordinator/metrics.ts";
import { presets } from "../shared/presets.ts";
import { fakeStatus } from "./coordinator/fake-run.ts";
import { temporary } from "./system/weft.ts";

const read = (path: string): string => readFileSync(join(import.meta.dirname, "../deploy", path), "utf8");
const commands: Record<string, Command> = { coordinator: coordinatorCommand(), worker: workerCommand() };

/** Flags of a command line of ours that its command does not have. */
function unknownFlags(words: readonly string[]): string[] {
  const [name, ...rest] = words;
  const known = commands[name!]!.options.map((option) => option.long);
  expect(known.length).toBeGreaterThan(5);
  return rest
    .filter((word) => word.startsWith("--"))
    .map((word) => word.split("=")[0]!)
    .filter((flag) => !known.includes(flag));
}

interface Named {
  readonly name: string;
}

interface Container {
  readonly name: string;
  readonly image: string;
  readonly args: string[];
  readonly volumeMounts: Named[];
  readonly ports?: Array<{ name: string; containerPort: number }>;
}

interface Workload {
  readonly template: { readonly spec: { readonly volumes: Named[]; readonly containers: Container[] } };
  readonly volumeClaimTemplates?: Array<{ metadata: Named }>;
}

/** Flags are the program's, and what is mounted is there. */
function expectContainersFit({ template, volumeClaimTemplates = [] }: Workload): void {
  const volumes = [...template.spec.volumes, ...volumeClaimTemplates.map(({ metadata }) => metadata)];
  for (const container of template.spec.containers) {
    expect(unknownFlags(container.args)).toEqual([]);
    for (const mount of container.volumeMounts) expect(volumes.map(({ name }) => name)).toContain(mount.name);
  }
}

test("compose.yaml starts a coordinator, two workers, Prometheus and Grafana", () => {
  const { services, secrets } = parse(read("compose.yaml"), { merge: true });
  expect(Object.keys(services)).toEqual(["coordinator", "worker", "prometheus", "grafana"]);
  for (const name of ["coordinator", "worker"]) {
    expect(services[name].command[0]).toBe(name);
    expect(unknownFlags(services[name].command)).toEqual([]);
    expect(services[name].secrets).toEqual(Object.keys(secrets));
  }
  expect(services.worker.deploy.replicas).toBe(2);
  expect(services.worker.command).toContain("--coordinator=ws://coordinator:7070");
  expect(Object.keys(presets)).toContain(/WEFT_PRESET:-([^}]*)}/.exec(read("compose.yaml"))![1]);
  const [job] = parse(read("prometheus/prometheus.yml")).scrape_configs;
  expect(job.static_configs).toEqual([{ targets: ["coordinator:7070"] }]);
  expect(job.authorization.credentials_file).toBe(`/run/secrets/${Object.keys(secrets)[0]}`);
});

test("the Kubernetes manifests fit the program and each other", () => {
  const files = ["service", "coordinator", "worker", "network-policy", "disruption-budget"];
  expect(parse(read("kubernetes/base/kustomization.yaml")).resources).toEqual(files.map((name) => `${name}.yaml`));
  const [service, coordinator, worker] = files.map((name) =>
    parseAllDocuments(read(`kubernetes/base/${name}.yaml`))[0]!.toJS(),
  );
  for (const { spec } of [coordinator, worker]) {
    expect(spec.selector.matchLabels).toEqual(spec.template.metadata.labels);
    expectContainersFit(spec);
  }
  expect(service.spec.selector).toEqual(coordinator.spec.template.metadata.labels);
  const [{ port }] = service.spec.ports;
  expect(coordinator.spec.template.spec.containers[0].ports[0].containerPort).toBe(port);
  expect(worker.spec.template.spec.containers[0].args).toContain(`--coordinator=ws://${service.metadata.name}:${port}`);
});

test("the JobSet fits the program: its workers find its coordinator by the name that JobSet gives it", () => {
  const { metadata, spec } = parse(read("kubernetes/jobset/jobset.yaml"));
  const jobs = spec.replicatedJobs as Array<{ name: string; template: { spec: Workload } }>;
  expect(jobs.map(({ name }) => name)).toEqual(["coordinator", "worker"]);
  for (const { template } of jobs) expectContainersFit(template.spec);
  const [{ containerPort }] = jobs[0]!.template.spec.template.spec.containers[0]!.ports!;
  // <jobset>-<job>-<replica>-<pod>.<jobset>
  const url = `ws://${metadata.name}-coordinator-0-0.${metadata.name}:${containerPort}`;
  expect(jobs[1]!.template.spec.template.spec.containers[0]!.args).toContain(`--coordinator=${url}`);
});

test("the command lines of the Slurm script and the systemd units are ours", () => {
  const files = ["slurm/train.sbatch", "systemd/weft-coordinator.service", "systemd/weft-worker.service"];
  const lines = files.flatMap((file) =>
    [...read(file).matchAll(/^(?!#).*\bweft (coordinator|worker) (.*)$/gm)].map(([, name, rest]) => [
      file,
      name!,
      ...rest!.split(/\s+/),
    ]),
  );
  expect(lines.map(([file, name]) => `${file} ${name}`)).toEqual([
    "slurm/train.sbatch coordinator",
    "slurm/train.sbatch worker",
    "systemd/weft-coordinator.service coordinator",
    "systemd/weft-worker.service worker",
  ]);
  for (const [file, ...words] of lines) expect([file, unknownFlags(words)]).toEqual([file, []]);
});

test("a Slurm job that is asked to leave before its coordinator has begun goes back into the queue", async () => {
  const folder = temporary();
  const said = join(folder, "said");
  const program = (name: string, line: string) =>
    writeFileSync(join(folder, name), `#!/bin/sh\necho ${name} $* >>${said}\n${line}\n`, { mode: 0o755 });
  program("weft", "exec sleep 600");
  program("srun", "exec sleep 600");
  program("scontrol", "");
  const job = spawn("bash", [join(import.meta.dirname, "../deploy/slurm/train.sbatch")], {
    cwd: folder,
    env: { PATH: `${folder}:${process.env.PATH}`, SLURM_JOB_NAME: "weft", SLURM_JOB_ID: "7" },
    stdio: "inherit",
  });
  const ended = once(job, "exit");
  const lines = () => (existsSync(said) ? readFileSync(said, "utf8").trim().split("\n") : []);
  await expect.poll(() => lines().map((line) => line.split(" ")[0])).toEqual(expect.arrayContaining(["weft", "srun"]));
  job.kill("SIGTERM");
  expect(await ended).toEqual([0, null]);
  expect(lines().slice(2)).toEqual(["scontrol requeue 7"]);
});

/** Names in PromQL, without the endings that a histogram's series have. */
function metricsIn(expressions: string): string[] {
  const names = expressions.match(/\b(?:weft|process|nodejs)_\w+/g) ?? [];
  return [...new Set(names.map((name) => name.replace(/_(?:bucket|count|sum)$/, "")))];
}

test("every metric of the Grafana dashboard and of the alerts exists", async () => {
  const text = await new Metrics(() => fakeStatus()).render();
  const existing = [...text.matchAll(/^# TYPE (\w+)/gm)].map(([, name]) => name!);
  const { panels } = JSON.parse(read("grafana/dashboards/weft.json")) as {
    panels: Array<{ title: string; targets: Array<{ expr: string }> }>;
  };
  const shown = metricsIn(panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)).join("\n"));
  const { groups } = parse(read("prometheus/rules.yml")) as { groups: Array<{ rules: Array<{ expr: string }> }> };
  const watched = metricsIn(groups.flatMap(({ rules }) => rules.map(({ expr }) => expr)).join("\n"));
  expect([shown.length > 20, watched.length > 8]).toEqual([true, true]);
  expect([...shown, ...watched].filter((name) => !existing.includes(name))).toEqual([]);
});
