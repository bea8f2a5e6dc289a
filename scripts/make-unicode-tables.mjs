// Writes the tables of shared/tokenizers/unicode.ts: what each code point is to Hugging Face's tokenizers (Unicode 16 for
// letters and digits, Unicode 8 for signs and marks), found by asking it about all of them.
// Usage: node scripts/make-unicode-tables.mjs
import * as hf from "tokenizers";

const all = Array.from({ length: 0x110000 }, (_, code) => code).filter((code) => code < 0xd800 || code >= 0xe000);
const byteLevel = hf.byteLevelPreTokenizer(false, true);
const bert = hf.bertPreTokenizer();
const normalizer = hf.bertNormalizer({
  cleanText: true,
  handleChineseChars: true,
  stripAccents: true,
  lowercase: true,
});

const pieces = (preTokenizer, text) => preTokenizer.preTokenizeString(text).map(([piece]) => piece);
const where = (holds) => all.filter((code) => holds(String.fromCodePoint(code)));

/** Gap and length of each range of neighbours, in base 36. */
function spell(codes) {
  const numbers = [];
  let end = 0;
  for (let i = 0; i < codes.length; ) {
    let length = 1;
    while (codes[i + length] === codes[i] + length) length++;
    numbers.push(codes[i] - end, length);
    end = codes[i] + length;
    i += length;
  }
  return numbers.map((n) => n.toString(36)).join(" ");
}

/** What an added token of single_word may not touch. */
async function wordCharacters() {
  const added = {
    id: 0,
    content: "x",
    single_word: true,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: false,
  };
  const model = { type: "BPE", vocab: {}, merges: [] };
  const tokenizer = hf.Tokenizer.fromString(JSON.stringify({ version: "1.0", added_tokens: [added], model }));
  const encodings = await tokenizer.encodeBatch(all.map((code) => `x${String.fromCodePoint(code)}`));
  return all.filter((_, i) => encodings[i].getIds().length === 0);
}

const tables = {
  letters: where((c) => pieces(byteLevel, `a${c}`).length === 1),
  digits: where((c) => pieces(byteLevel, `1${c}`).length === 1),
  wordCharacters: await wordCharacters(),
  bertSigns: where((c) => pieces(bert, `a${c}b`).length === 3),
  bertDropped: where((c) => normalizer.normalizeString(c) === ""),
  bertKept: where((c) => {
    const kept = normalizer.normalizeString(c);
    return kept === c && c.normalize("NFD").toLowerCase() !== c;
  }),
};
for (const [name, codes] of Object.entries(tables)) {
  const lines = spell(codes).match(/\S.{0,111}(?= |$)/g);
  console.log(`export const ${name} = rangesOf(\`\n  ${lines.join("\n  ")}\n\`);`);
}
