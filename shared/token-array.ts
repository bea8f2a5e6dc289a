// Ids of a vocabulary in the narrowest type that holds them: in files, in memory and on the wire.

/** Bytes of one id. */
export function widthOf(vocabSize: number): 2 | 4 {
  return vocabSize > 65_536 ? 4 : 2;
}

export function tokenArray(vocabSize: number, length: number): Uint16Array<ArrayBuffer> | Uint32Array<ArrayBuffer> {
  return widthOf(vocabSize) === 2 ? new Uint16Array(length) : new Uint32Array(length);
}
