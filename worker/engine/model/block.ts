// A transformer block of either architecture, forward and backward by hand: two branches, attention and feed-forward, and
// where the norms stand. Each forward returns what its backward needs; each backward emits its parameters' gradients.
import { familyOf } from "../../../shared/family/families.ts";
import type { Role } from "../../../shared/family/family.ts";
import type { ModelConfig } from "../../../shared/model.ts";
import type { EntrySaved, Net, Pass } from "./net.ts";
import { drop, entry, entryBackward, linear, linearBackward, norm, normBackward } from "./net.ts";
import type { AttentionSaved, NormSaved, Tensor } from "./ops.ts";

interface AttendSaved {
  readonly entry: EntrySaved;
  /** None in generation. */
  readonly attention: AttentionSaved | undefined;
  readonly attended: Tensor;
  readonly mask: Tensor | undefined;
}

interface FeedSaved {
  readonly entry: EntrySaved;
  readonly slope: Tensor;
  readonly active: Tensor;
  readonly mask: Tensor | undefined;
}

export interface BlockSaved {
  readonly attend: AttendSaved;
  readonly feed: FeedSaved;
  /** Norms behind a branch; those before it are its entry's. */
  readonly norm1?: NormSaved;
  readonly norm2?: NormSaved;
}

const isPreNorm = (model: ModelConfig): boolean => familyOf(model).architecture === "pre-norm";

/** The norm before a branch. */
const before = ({ model }: Net, norm: Role): Role | undefined => (isPreNorm(model) ? norm : undefined);

function attend(net: Net, pass: Pass, l: number, x: Tensor): { y: Tensor; saved: AttendSaved } {
  const { B, T, H } = pass.heads;
  const { y: qkv, saved: entered } = entry(net, pass, `${l}.qkv`, before(net, `${l}.norm1`), x); // (N, 3C)
  const { y: attended, saved } = pass.cached
    ? { y: pass.cached(l, qkv), saved: undefined }
    : net.ops.attention(qkv, pass.heads, pass.mask(1 + 3 * l, [B * H, T, T]));
  const mask = pass.mask(2 + 3 * l, x.shape);
  const y = drop(net, linear(net, `${l}.projection`, attended), mask);
  return { y, saved: { entry: entered, attention: saved, attended, mask } };
}

function attendBackward(net: Net, pass: Pass, l: number, saved: AttendSaved, dy: Tensor): Tensor {
  const dAttended = linearBackward(net, pass, `${l}.projection`, saved.attended, drop(net, dy, saved.mask));
  const dQkv = net.ops.attentionBackward(dAttended, saved.attention!, pass.heads);
  return entryBackward(net, pass, `${l}.qkv`, before(net, `${l}.norm1`), saved.entry, dQkv);
}

function feed(net: Net, pass: Pass, l: number, x: Tensor): { y: Tensor; saved: FeedSaved } {
  const { y: expanded, saved: entered } = entry(net, pass, `${l}.expand`, before(net, `${l}.norm2`), x); // (N, 4C)
  const { y: active, slope } = net.ops.gelu(expanded, net.model.activation);
  const mask = pass.mask(3 + 3 * l, x.shape);
  return { y: drop(net, linear(net, `${l}.contract`, active), mask), saved: { entry: entered, slope, active, mask } };
}

function feedBackward(net: Net, pass: Pass, l: number, saved: FeedSaved, dy: Tensor): Tensor {
  const dActive = linearBackward(net, pass, `${l}.contract`, saved.active, drop(net, dy, saved.mask));
  const dExpanded = net.ops.mul(dActive, saved.slope);
  return entryBackward(net, pass, `${l}.expand`, before(net, `${l}.norm2`), saved.entry, dExpanded);
}

/** Block l on x (N, C). */
export function block(net: Net, pass: Pass, l: number, x: Tensor): { y: Tensor; saved: BlockSaved } {
  const { ops } = net;
  const attended = attend(net, pass, l, x);
  const middle = ops.add(x, attended.y);
  if (isPreNorm(net.model)) {
    const fed = feed(net, pass, l, middle);
    return { y: ops.add(middle, fed.y), saved: { attend: attended.saved, feed: fed.saved } };
  }
  const norm1 = norm(net, `${l}.norm1`, middle);
  const fed = feed(net, pass, l, norm1.y);
  const norm2 = norm(net, `${l}.norm2`, ops.add(norm1.y, fed.y));
  return { y: norm2.y, saved: { attend: attended.saved, feed: fed.saved, norm1: norm1.saved, norm2: norm2.saved } };
}

/** @returns the gradient of block l's input */
export function blockBackward(net: Net, pass: Pass, l: number, saved: BlockSaved, dy: Tensor): Tensor {
  const { ops } = net;
  const { attend, feed, norm1, norm2 } = saved;
  const dSum2 = norm2 ? normBackward(net, pass, `${l}.norm2`, norm2, dy) : dy;
  const dMiddle = ops.stored(ops.add(dSum2, feedBackward(net, pass, l, feed, dSum2)));
  const dSum1 = norm1 ? normBackward(net, pass, `${l}.norm1`, norm1, dMiddle) : dMiddle;
  return ops.stored(ops.add(dSum1, attendBackward(net, pass, l, attend, dSum1)));
}
