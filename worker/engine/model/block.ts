// A transformer block of either architecture, forward and backward by hand: two branches, attention and feed-forward, and
// where the norms stand. Each forward returns what its backward needs; each backward emits its parameters' gradients.
import { familyOf } from "../../../shared/family/families.ts";
import type { ModelConfig } from "../../../shared/model.ts";
import type { Net, Pass } from "./net.ts";
import { drop, linear, linearBackward, norm, normBackward } from "./net.ts";
import type { AttentionSaved, NormSaved, Tensor } from "./ops.ts";

interface AttendSaved {
  readonly x: Tensor;
  /** None in generation. */
  readonly attention: AttentionSaved | undefined;
  readonly attended: Tensor;
  readonly mask: Tensor | undefined;
}

interface FeedSaved {
  readonly x: Tensor;
  readonly slope: Tensor;
  readonly active: Tensor;
  readonly mask: Tensor | undefined;
}

export interface BlockSaved {
  readonly attend: AttendSaved;
  readonly feed: FeedSaved;
  readonly norm1: NormSaved;
  readonly norm2: NormSaved;
}

const isPreNorm = (model: ModelConfig): boolean => familyOf(model).architecture === "pre-norm";

function attend(net: Net, pass: Pass, l: number, x: Tensor): { y: Tensor; saved: AttendSaved } {
  const { B, T, H } = pass.heads;
  const qkv = linear(net, `${l}.qkv`, x); // (N, 3C)
  const { y: attended, saved } = pass.cached
    ? { y: pass.cached(l, qkv), saved: undefined }
    : net.ops.attention(qkv, pass.heads, pass.mask(1 + 3 * l, [B * H, T, T]));
  const mask = pass.mask(2 + 3 * l, x.shape);
  const y = drop(net, linear(net, `${l}.projection`, attended), mask);
  return { y, saved: { x, attention: saved, attended, mask } };
}

function attendBackward(net: Net, pass: Pass, l: number, saved: AttendSaved, dy: Tensor): Tensor {
  const dAttended = linearBackward(net, pass, `${l}.projection`, saved.attended, drop(net, dy, saved.mask));
  const dQkv = net.ops.attentionBackward(dAttended, saved.attention!, pass.heads);
  return linearBackward(net, pass, `${l}.qkv`, saved.x, dQkv);
}

function feed(net: Net, pass: Pass, l: number, x: Tensor): { y: Tensor; saved: FeedSaved } {
  const { y: active, slope } = net.ops.gelu(linear(net, `${l}.expand`, x), net.model.activation); // (N, 4C)
  const mask = pass.mask(3 + 3 * l, x.shape);
  return { y: drop(net, linear(net, `${l}.contract`, active), mask), saved: { x, slope, active, mask } };
}

function feedBackward(net: Net, pass: Pass, l: number, saved: FeedSaved, dy: Tensor): Tensor {
  const dActive = linearBackward(net, pass, `${l}.contract`, saved.active, drop(net, dy, saved.mask));
  return linearBackward(net, pass, `${l}.expand`, saved.x, net.ops.mul(dActive, saved.slope));
}

/** Block l on x (N, C). */
export function block(net: Net, pass: Pass, l: number, x: Tensor): { y: Tensor; saved: BlockSaved } {
  const { ops } = net;
  if (isPreNorm(net.model)) {
    const norm1 = norm(net, `${l}.norm1`, x);
    const attended = attend(net, pass, l, norm1.y);
    const middle = ops.add(x, attended.y);
    const norm2 = norm(net, `${l}.norm2`, middle);
    const fed = feed(net, pass, l, norm2.y);
    const y = ops.add(middle, fed.y);
    return { y, saved: { attend: attended.saved, feed: fed.saved, norm1: norm1.saved, norm2: norm2.saved } };
  }
  const attended = attend(net, pass, l, x);
  const norm1 = norm(net, `${l}.norm1`, ops.add(x, attended.y));
  const fed = feed(net, pass, l, norm1.y);
  const norm2 = norm(net, `${l}.norm2`, ops.add(norm1.y, fed.y));
  return { y: norm2.y, saved: { attend: attended.saved, feed: fed.saved, norm1: norm1.saved, norm2: norm2.saved } };
}

/** @returns the gradient of block l's input */
export function blockBackward(net: Net, pass: Pass, l: number, saved: BlockSaved, dy: Tensor): Tensor {
  const { ops } = net;
  if (isPreNorm(net.model)) {
    const dFed = normBackward(net, pass, `${l}.norm2`, saved.norm2, feedBackward(net, pass, l, saved.feed, dy));
    const dMiddle = ops.add(dy, dFed);
    const dAttended = normBackward(
      net,
      pass,
      `${l}.norm1`,
      saved.norm1,
      attendBackward(net, pass, l, saved.attend, dMiddle),
    );
    return ops.add(dMiddle, dAttended);
  }
  const dSum2 = normBackward(net, pass, `${l}.norm2`, saved.norm2, dy);
  const dMiddle = ops.add(dSum2, feedBackward(net, pass, l, saved.feed, dSum2));
  const dSum1 = normBackward(net, pass, `${l}.norm1`, saved.norm1, dMiddle);
  return ops.add(dSum1, attendBackward(net, pass, l, saved.attend, dSum1));
}
