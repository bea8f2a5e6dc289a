// The whole network from token ids to losses, logits and gradients: embedding, blocks, final norm, head. The head works
// through the positions in slices, so that logits over 50,257 tokens never exist for a whole batch.
import type { ParameterKey } from "../../../shared/family/family.ts";
import type { BlockSaved } from "./block.ts";
import { block, blockBackward } from "./block.ts";
import type { Net, Pass } from "./net.ts";
import { drop, norm, normBackward } from "./net.ts";
import type { Ids, NormSaved, Tensor } from "./ops.ts";

/** The weights (V, C) of the head: a tied one shares the token embedding's. */
const headKey = ({ model }: Net): ParameterKey => (model.tiedHead ? "tokens.weight" : "head.weight");

/** Token plus position embeddings. @returns (N, C) and the dropout mask that was applied */
function embed(net: Net, pass: Pass, tokens: Ids): { y: Tensor; mask: Tensor | undefined } {
  const { B, T, H, D } = pass.heads;
  const C = H * D;
  const { ops, weights } = net;
  return ops.scope(() => {
    const rows = ops.gather(weights["tokens.weight"]!, tokens);
    const positions = ops.rows(weights["positions.weight"]!, 0, T);
    const sum = ops.reshape(ops.add(ops.reshape(rows, [B, T, C]), positions), [B * T, C]);
    const mask = pass.mask(0, [B * T, C]);
    return { y: drop(net, sum, mask), mask };
  });
}

/** Embeddings (N, C) of ids at given positions, in generation. */
export function embedAt(net: Net, ids: Ids, positions: Ids): Tensor {
  const { ops, weights } = net;
  return ops.add(ops.gather(weights["tokens.weight"]!, ids), ops.gather(weights["positions.weight"]!, positions));
}

const hasFinalNorm = ({ weights }: Net): boolean => weights["finalNorm.weight"] !== undefined;

/** Blocks and final norm on embeddings (N, C); x is consumed. @returns what enters the head (N, C) */
export function hiddenOf(net: Net, pass: Pass, x: Tensor): Tensor {
  for (let l = 0; l < net.model.nLayer; l++) {
    const input = x;
    const y = net.ops.scope(() => block(net, pass, l, input).y);
    net.ops.free(x);
    x = y;
  }
  return hasFinalNorm(net) ? net.ops.scope(() => norm(net, "finalNorm", x).y) : x;
}

function embedBackward(
  net: Net,
  pass: Pass,
  tokens: Ids,
  saved: { mask: Tensor | undefined; tableGradient: Tensor | undefined },
  dy: Tensor,
): void {
  const { B, T, H, D } = pass.heads;
  const { ops } = net;
  const { vocabSize, blockSize } = net.model;
  ops.scope(() => {
    const d = drop(net, dy, saved.mask);
    const perPosition = ops.reshape(ops.columnSum(ops.reshape(d, [B, T * H * D])), [T, H * D]);
    pass.emit("positions.weight", T < blockSize ? ops.padRows(perPosition, blockSize) : perPosition);
    const scattered = ops.scatterAdd(d, tokens, vocabSize);
    pass.emit("tokens.weight", saved.tableGradient ? ops.add(saved.tableGradient, scattered) : scattered);
  });
}

/** Calls `each` with stretches of positions whose logits may exist at once. */
function slices({ model, ops }: Net, N: number, each: (from: number, rows: number) => void): void {
  const most = ops.headRows(model.vocabSize);
  for (let from = 0; from < N; from += most) each(from, Math.min(most, N - from));
}

/** Logits (rows, V) of hidden states (rows, C). */
export function headLogits(net: Net, x: Tensor): Tensor {
  return net.ops.logits(x, net.weights[headKey(net)]!);
}

interface Kept {
  /** What enters the head (N, C). */
  readonly hidden: Tensor;
  readonly mask: Tensor | undefined;
  /** One a block: its input and, unless that is to be computed again, what its backward pass needs. */
  readonly blocks: readonly { readonly x: Tensor; readonly saved?: BlockSaved }[];
  readonly normed: NormSaved | undefined;
}

/** Embedding, blocks and final norm, keeping what the backward pass needs. */
function forward(net: Net, pass: Pass, tokens: Ids, recompute: boolean): Kept {
  const embedded = embed(net, pass, tokens);
  const blocks: { x: Tensor; saved?: BlockSaved }[] = [];
  let x = embedded.y;
  for (let l = 0; l < net.model.nLayer; l++) {
    const input = x;
    const { y, saved } = net.ops.scope((): { y: Tensor; saved?: BlockSaved } => {
      const out = block(net, pass, l, input);
      return recompute ? { y: out.y } : out;
    });
    blocks.push(saved ? { x, saved } : { x });
    x = y;
  }
  if (!hasFinalNorm(net)) return { hidden: x, mask: embedded.mask, blocks, normed: undefined };
  const { y, saved } = net.ops.scope(() => norm(net, "finalNorm", x));
  net.ops.free(x);
  return { hidden: y, mask: embedded.mask, blocks, normed: saved };
}

/**
 * Losses of all positions and the gradient of their mean; all parameters are emitted.
 * @param takeLosses receives (rows) losses from position `from` on; the tensor is consumed
 */
export function gradient(
  net: Net,
  pass: Pass,
  tokens: Ids,
  targets: Ids,
  recompute: boolean,
  takeLosses: (losses: Tensor, from: number) => void,
): void {
  const { ops, model, weights } = net;
  const N = tokens.length;
  const table = weights["table.weight"];
  if (table) {
    const { losses, dLogits } = ops.crossEntropy(ops.gather(table, tokens), targets, 1 / N);
    takeLosses(losses, 0);
    pass.emit("table.weight", ops.scatterAdd(dLogits, tokens, model.vocabSize));
    return;
  }

  const kept = forward(net, pass, tokens, recompute);
  const head = headKey(net);
  const headTable = ops.padVocabulary(weights[head]!);
  const hiddenParts: Tensor[] = [];
  let tableGradient: Tensor | undefined;
  slices(net, N, (from, rows) => {
    const part = ops.scope(() => {
      const entering = ops.rows(kept.hidden, from, rows);
      const x = tableGradient ? ops.after(entering, tableGradient) : entering;
      const { losses, dLogits } = ops.crossEntropy(
        ops.matMul(x, headTable, false, true),
        targets.subarray(from, from + rows),
        1 / N,
      );
      takeLosses(losses, from);
      const dx = ops.matMul(dLogits, headTable, false, false);
      const dTable = ops.weightGradient(dLogits, x);
      return { dx, dTable: tableGradient ? ops.add(tableGradient, dTable) : dTable };
    });
    ops.free(tableGradient);
    tableGradient = part.dTable;
    hiddenParts.push(part.dx);
  });
  ops.free(kept.hidden);
  if (headTable !== weights[head]) tableGradient = ops.rows(tableGradient!, 0, model.vocabSize);
  if (!model.tiedHead) {
    pass.emit(head, tableGradient!);
    tableGradient = undefined;
  }

  let d = ops.scope(() => {
    const dHidden = ops.stack(hiddenParts);
    return kept.normed ? normBackward(net, pass, "finalNorm", kept.normed, dHidden) : dHidden;
  });
  ops.free([kept.normed, hiddenParts.filter((part) => part !== d)]);
  for (let l = model.nLayer - 1; l >= 0; l--) {
    const { x, saved } = kept.blocks[l]!;
    const dx = ops.scope(() => blockBackward(net, pass, l, saved ?? block(net, pass, l, ops.after(x, d)).saved, d));
    ops.free([x, saved, d]);
    d = dx;
  }
  embedBackward(net, pass, tokens, { mask: kept.mask, tableGradient }, d);
}

/** What enters the head (N, C). */
export function hidden(net: Net, pass: Pass, tokens: Ids): Tensor {
  return hiddenOf(net, pass, embed(net, pass, tokens).y);
}

/** Calls `each` with the logits (rows, V) of the positions from `from` on, slice by slice; the tensor is consumed. */
export function logits(
  net: Net,
  pass: Pass,
  tokens: Ids,
  each: (logits: Tensor, from: number, rows: number) => void,
): void {
  const table = net.weights["table.weight"];
  const x = table ? undefined : hidden(net, pass, tokens);
  slices(net, tokens.length, (from, rows) => {
    net.ops.scope(() => {
      const part = x
        ? headLogits(net, net.ops.rows(x, from, rows))
        : net.ops.gather(table!, tokens.subarray(from, from + rows));
      each(part, from, rows);
    });
  });
}
