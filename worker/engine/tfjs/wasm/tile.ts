// The inner kernels of a matrix product in WebAssembly SIMD: packing four lanes of a matrix side by side, a tile of C
// kept in registers, and copying a tile at an edge. wasm-gemm.ts drives them.
import type { Code, Kernel } from "./assembler.ts";
import {
  above,
  add,
  addFloats,
  and,
  atLeast,
  below,
  equal,
  f32Load,
  f32Store,
  f32Zero,
  get,
  i32,
  join,
  Locals,
  load,
  loadSplat,
  loop,
  mul,
  mulFloats,
  set,
  shuffle,
  store,
  sub,
  when,
} from "./assembler.ts";

/** Rows and columns of C that are kept in registers: 8 sums of 4 floats. */
export const tileRows = 4;
export const tileColumns = 8;
const unrolled = 4;

export const advance = (local: number, by: Code): Code => set(local, add(get(local), by));

/**
 * pack(from, to, toStride, lane, step, lanes, count): to[k * toStride + 4 r] = from[r * lane + k * step] for four r and
 * `count` k, 0 where r >= lanes. Strides in bytes. Two fast cases: lanes lie side by side, or steps do.
 */
export function pack(): Kernel {
  const [from, to, toStride, lane, step, lanes, count] = [0, 1, 2, 3, 4, 5, 6] as const;
  const locals = new Locals(7);
  const rows = [0, 1, 2, 3].map(() => locals.add("v128"));
  const pairs = [0, 1, 2, 3].map(() => locals.add("v128"));
  const full = equal(get(lanes), i32(4));
  const next = join(advance(from, get(step)), advance(to, get(toStride)), set(count, sub(get(count), i32(1))));

  const sideBySide = loop(get(count), join(store(get(to), load(get(from))), next));

  const rowAddress = (r: number): Code => add(get(from), mul(get(lane), i32(r)));
  const transpose4 = join(
    ...rows.map((row, r) => set(row, load(rowAddress(r)))),
    set(pairs[0]!, shuffle(get(rows[0]!), get(rows[1]!), [0, 4, 1, 5])),
    set(pairs[1]!, shuffle(get(rows[2]!), get(rows[3]!), [0, 4, 1, 5])),
    set(pairs[2]!, shuffle(get(rows[0]!), get(rows[1]!), [2, 6, 3, 7])),
    set(pairs[3]!, shuffle(get(rows[2]!), get(rows[3]!), [2, 6, 3, 7])),
    ...[0, 1, 2, 3].flatMap((k) => [
      store(get(to), shuffle(get(pairs[k & 2]!), get(pairs[(k & 2) + 1]!), k % 2 === 0 ? [0, 1, 4, 5] : [2, 3, 6, 7])),
      advance(to, get(toStride)),
    ]),
    advance(from, i32(16)),
    set(count, sub(get(count), i32(4))),
  );
  const stepsSideBySide = loop(atLeast(get(count), i32(4)), transpose4);

  const oneByOne = join(
    ...[0, 1, 2, 3].map((r) =>
      when(
        below(i32(r), get(lanes)),
        f32Store(get(to), f32Load(rowAddress(r)), 4 * r),
        f32Store(get(to), f32Zero, 4 * r),
      ),
    ),
    next,
  );
  const body = join(
    when(and(full, equal(get(lane), i32(4))), sideBySide, when(and(full, equal(get(step), i32(4))), stepsSideBySide)),
    loop(get(count), oneByOne),
  );
  return { name: "pack", parameters: 7, locals: locals.list, body };
}

/** multiply(a, b, count, from, fromStride, c, cStride): c = from + a b over packed panels (count, 4) and (count, 8). */
export function multiply(): Kernel {
  const [a, b, count, from, fromStride, c, cStride] = [0, 1, 2, 3, 4, 5, 6] as const;
  const locals = new Locals(7);
  const sums = Array.from({ length: tileRows }, () => [locals.add("v128"), locals.add("v128")] as const);
  const right = [locals.add("v128"), locals.add("v128")] as const;
  const left = locals.add("v128");
  const products = (k: number): Code =>
    join(
      ...right.map((local, half) => set(local, load(get(b), 32 * k + 16 * half))),
      ...sums.flatMap((row, r) => [
        set(left, loadSplat(get(a), 16 * k + 4 * r)),
        ...row.map((sum, half) => set(sum, addFloats(get(sum), mulFloats(get(left), get(right[half]!))))),
      ]),
    );
  // Unrolled with a test between: in one straight run V8 would load everything first and spill the sums.
  const upTo = (k: number): Code =>
    join(products(k), k + 1 < unrolled ? when(above(get(count), i32(k + 1)), upTo(k + 1)) : []);
  const stretch = join(
    upTo(0),
    advance(a, i32(16 * unrolled)),
    advance(b, i32(32 * unrolled)),
    set(count, sub(get(count), i32(unrolled))),
  );
  const body = join(
    ...sums.flatMap((row) => [
      ...row.map((sum, half) => set(sum, load(get(from), 16 * half))),
      advance(from, get(fromStride)),
    ]),
    loop(above(get(count), i32(0)), stretch),
    ...sums.flatMap((row) => [...row.map((sum, half) => store(get(c), get(sum), 16 * half)), advance(c, get(cStride))]),
  );
  return { name: "multiply", parameters: 7, locals: locals.list, body };
}

/** copy(from, fromStride, to, toStride, rows, columns) of floats, strides in bytes. */
export function copy(): Kernel {
  const [from, fromStride, to, toStride, rows, columns] = [0, 1, 2, 3, 4, 5] as const;
  const locals = new Locals(6);
  const i = locals.add("i32");
  const bytes = mul(get(columns), i32(4));
  const row = join(
    set(i, i32(0)),
    loop(
      below(get(i), bytes),
      join(f32Store(add(get(to), get(i)), f32Load(add(get(from), get(i)))), advance(i, i32(4))),
    ),
    advance(from, get(fromStride)),
    advance(to, get(toStride)),
    set(rows, sub(get(rows), i32(1))),
  );
  return { name: "copy", parameters: 6, locals: locals.list, body: loop(get(rows), row) };
}
