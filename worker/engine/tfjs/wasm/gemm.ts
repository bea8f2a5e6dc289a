// Matrix products in WebAssembly SIMD on tfjs's heap, any strides on either side. tfjs's own kernel (XNNPACK) packs its
// second operand anew at 5 ns a float, wants every transpose written out first and costs a product of 64 x 64 as much
// in calls as in arithmetic. This one packs both operands while they are used, in blocks that stay in the caches, and
// keeps a tile of C in registers. Method: Goto & van de Geijn, "Anatomy of high-performance matrix multiplication",
// ACM TOMS 34(3), 2008. WebAssembly has no fused multiply-add: the same bits on every machine.
import type { Code, Kernel } from "./assembler.ts";
import {
  add,
  and,
  assemble,
  below,
  call,
  equal,
  get,
  i32,
  join,
  Locals,
  least,
  loop,
  mul,
  set,
  store,
  sub,
  when,
  zeros,
} from "./assembler.ts";
import { advance, copy, multiply, pack, tileColumns, tileRows } from "./tile.ts";

/** Products summed in registers at a stretch: a panel of B, 16 KB, stays in the first-level cache. */
const depth = 512;
/** Rows of A that are packed at a time: 512 KB. */
const blockRows = 256;

const panelB = 4 * depth * blockRows;
const tile = panelB + 4 * depth * tileColumns;
const start = tile + 4 * tileRows * tileColumns;
/** Bytes of scratch memory that `gemm` needs, aligned to 16. */
export const scratchBytes = start + 4 * tileColumns;

/**
 * gemm(a, aRow, aStep, b, bColumn, bStep, c, cRow, M, N, K, bias, scratch): C (M, N) = A (M, K) B (K, N) + bias (N).
 * Addresses and strides in bytes: element (m, k) of A is at a + m aRow + k aStep, (k, n) of B at b + n bColumn + k
 * bStep; rows of C are cRow apart. No bias where its address is 0. C may not overlap A or B.
 */
function gemm(packAt: number, multiplyAt: number, copyAt: number): Kernel {
  const [a, aRow, aStep, b, bColumn, bStep, c, cRow, M, N, K, bias, scratch] = [...Array(13).keys()] as number[] as [
    number,
    ...number[],
  ];
  const locals = new Locals(13);
  const [k0, m0, n, m, Kc, Mc, rows, columns, cTile, aPanel] = Array.from({ length: 10 }, () => locals.add("i32"));
  const at = (offset: number): Code => add(get(scratch!), i32(offset));
  const place = (base: number, ...terms: [number, number][]): Code =>
    terms.reduce<Code>((sum, [index, stride]) => add(sum, mul(get(index), get(stride))), get(base));
  const rest = (size: number, from: number): Code => sub(get(size), get(from));

  const packA = join(
    set(m!, i32(0)),
    set(aPanel!, get(scratch!)),
    loop(
      below(get(m!), get(Mc!)),
      join(
        call(
          packAt,
          add(place(a, [m0!, aRow!], [k0!, aStep!]), mul(get(m!), get(aRow!))),
          get(aPanel!),
          i32(4 * tileRows),
          get(aRow!),
          get(aStep!),
          least(rest(Mc!, m!), i32(tileRows)),
          get(Kc!),
        ),
        advance(aPanel!, mul(get(Kc!), i32(4 * tileRows))),
        advance(m!, i32(tileRows)),
      ),
    ),
  );

  const packB = join(
    ...[0, 4].map((half) =>
      call(
        packAt,
        add(place(b!, [n!, bColumn!], [k0!, bStep!]), mul(get(bColumn!), i32(half))),
        at(panelB + 4 * half),
        i32(4 * tileColumns),
        get(bColumn!),
        get(bStep!),
        // How many of these four columns exist: at least 0.
        sub(least(i32(half + 4), get(columns!)), least(i32(half), get(columns!))),
        get(Kc!),
      ),
    ),
    // What a first stretch starts from: the bias, or zeros.
    ...[0, 16].map((offset) => store(at(start), zeros, offset)),
    when(
      get(bias!),
      call(copyAt, add(get(bias!), mul(get(n!), i32(4))), i32(0), at(start), i32(0), i32(1), get(columns!)),
    ),
  );

  const whole = and(equal(get(rows!), i32(tileRows)), equal(get(columns!), i32(tileColumns)));
  const tileStride = i32(4 * tileColumns);
  const multiplyTile = (from: Code, fromStride: Code, to: Code, toStride: Code): Code =>
    call(multiplyAt, get(aPanel!), at(panelB), get(Kc!), from, fromStride, to, toStride);
  const tiles = join(
    set(m!, i32(0)),
    set(aPanel!, get(scratch!)),
    set(cTile!, add(place(c!, [m0!, cRow!]), mul(get(n!), i32(4)))),
    loop(
      below(get(m!), get(Mc!)),
      join(
        set(rows!, least(rest(Mc!, m!), i32(tileRows))),
        when(
          whole,
          when(
            get(k0!),
            multiplyTile(get(cTile!), get(cRow!), get(cTile!), get(cRow!)),
            multiplyTile(at(start), i32(0), get(cTile!), get(cRow!)),
          ),
          // At an edge the tile is a scratch one, so that nothing beyond C is read or written.
          join(
            when(
              get(k0!),
              join(
                call(copyAt, get(cTile!), get(cRow!), at(tile), tileStride, get(rows!), get(columns!)),
                multiplyTile(at(tile), tileStride, at(tile), tileStride),
              ),
              multiplyTile(at(start), i32(0), at(tile), tileStride),
            ),
            call(copyAt, at(tile), tileStride, get(cTile!), get(cRow!), get(rows!), get(columns!)),
          ),
        ),
        advance(aPanel!, mul(get(Kc!), i32(4 * tileRows))),
        advance(cTile!, mul(get(cRow!), i32(tileRows))),
        advance(m!, i32(tileRows)),
      ),
    ),
  );

  const over = (index: number, size: number, step: number, body: Code): Code =>
    join(set(index, i32(0)), loop(below(get(index), get(size)), join(body, advance(index, i32(step)))));
  const body = over(
    k0!,
    K!,
    depth,
    join(
      set(Kc!, least(rest(K!, k0!), i32(depth))),
      over(
        m0!,
        M!,
        blockRows,
        join(
          set(Mc!, least(rest(M!, m0!), i32(blockRows))),
          packA,
          over(n!, N!, tileColumns, join(set(columns!, least(rest(N!, n!), i32(tileColumns))), packB, tiles)),
        ),
      ),
    ),
  );
  return { name: "gemm", parameters: 13, locals: locals.list, body };
}

/** A matrix in the heap: where it starts, in bytes, and how far its rows and columns are apart, in floats. */
export interface Matrix {
  readonly address: number;
  readonly row: number;
  readonly column: number;
}

export type Gemm = (M: number, N: number, K: number, a: Matrix, b: Matrix, c: Matrix, bias: number) => void;

/** The part of the WebAssembly interface that is used here: TypeScript knows it only together with a browser's. */
declare const WebAssembly: {
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object, imports: object) => { readonly exports: Record<string, (...args: number[]) => void> };
};

/**
 * C (M, N) = A (M, K) B (K, N) + bias (N) in a memory. C's columns must be side by side; bias is an address or 0.
 * @param memory a WebAssembly.Memory
 * @param scratch address of `scratchBytes` bytes in it
 */
export function compileGemm(memory: object, scratch: number): Gemm {
  const module = new WebAssembly.Module(assemble([pack(), multiply(), copy(), gemm(0, 1, 2)]));
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  const run = exports.gemm!;
  return (M, N, K, a, b, c, bias) =>
    run(
      a.address,
      4 * a.row,
      4 * a.column,
      b.address,
      4 * b.column,
      4 * b.row,
      c.address,
      4 * c.row,
      M,
      N,
      K,
      bias,
      scratch,
    );
}
