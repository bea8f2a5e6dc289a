// Files of many documents: JSON lines, and Parquet by hyparquet (no native code, reads column by column, in row groups),
// with the text in a column that has a name.
import { ConfigError, messageOf } from "../../shared/errors.ts";
import { StoredFile } from "../../shared/stored-file.ts";

/** Longest line of a JSON lines file, in characters: what has no line breaks is no such file. */
const longestLine = 2 ** 28;

/** The texts of a column, in order. @param text of the file @throws ConfigError with the line that is not as it should be */
export async function* jsonLines(text: AsyncIterable<string>, path: string, column: string): AsyncGenerator<string> {
  let number = 0;
  const textOf = (line: string): string | undefined => {
    number++;
    if (line.trim() === "") return undefined;
    let row: unknown;
    try {
      row = JSON.parse(line);
    } catch (error) {
      throw new ConfigError(`${path}: line ${number} is not JSON: ${messageOf(error)}`, { cause: error });
    }
    const value = (row as Record<string, unknown> | null)?.[column];
    // A row may lack its text, as in Parquet.
    if (value === null) return undefined;
    if (typeof value === "string") {
      // JSON can say it, a file of text cannot: no checkpoint's tokenizer could hold it.
      const half = /\p{Surrogate}/u.exec(value);
      if (!half) return value;
      throw new ConfigError(
        `${path}: line ${number} has half a character (a lone surrogate) at position ${half.index} of "${column}"; it has ` +
          "no UTF-8 bytes: take it out",
      );
    }
    const columns = typeof row === "object" && row !== null ? Object.keys(row) : [];
    throw new ConfigError(`${path}: line ${number} has ${noText(column, value, columns)}`);
  };
  let held = "";
  for await (const piece of text) {
    const lines = (held + piece).split("\n");
    held = lines.pop()!;
    if (held.length > longestLine)
      throw new ConfigError(`${path}: line ${number + 1} has more than ${longestLine} characters; is it JSON lines?`);
    for (const line of lines) {
      const found = textOf(line);
      if (found !== undefined) yield found;
    }
  }
  const last = textOf(held);
  if (last !== undefined) yield last;
}

function noText(column: string, value: unknown, columns: readonly string[]): string {
  const what =
    value === undefined ? `no "${column}"` : `no text in "${column}" but ${JSON.stringify(value)?.slice(0, 60)}`;
  const near = columns.length > 0 ? `; there are ${columns.slice(0, 20).join(", ")}` : "";
  return `${what}${near}; name the column with --text-column`;
}

/**
 * The texts of a Parquet file's column, row group by row group.
 * @param onRead hears of bytes of the file that are done
 * @throws ConfigError where it is no Parquet file, is damaged, or has no such column of text
 */
export async function* parquet(path: string, column: string, onRead: (bytes: number) => void): AsyncGenerator<string> {
  const { parquetMetadataAsync, parquetRead, parquetSchema } = await import("hyparquet");
  const { compressors } = await import("hyparquet-compressors");
  const stored = await StoredFile.open(path);
  const damaged = (error: unknown): never => {
    if (error instanceof ConfigError) throw error;
    throw new ConfigError(`${path}: not a Parquet file, or damaged: ${messageOf(error)}`, { cause: error });
  };
  try {
    const file = {
      byteLength: stored.size,
      slice: async (start: number, end = stored.size): Promise<ArrayBuffer> => {
        const bytes = new Uint8Array(Math.max(0, end - start));
        await stored.read(bytes, start);
        return bytes.buffer;
      },
    };
    const metadata = await parquetMetadataAsync(file).catch(damaged);
    const columns = parquetSchema(metadata).children.map(({ element }) => element.name);
    if (!columns.includes(column)) throw new ConfigError(`${path}: has ${noText(column, undefined, columns)}`);
    let rowStart = 0;
    for (const group of metadata.row_groups) {
      const rowEnd = rowStart + Number(group.num_rows);
      let rows: unknown[] = [];
      await parquetRead({
        file,
        metadata,
        columns: [column],
        rowStart,
        rowEnd,
        compressors,
        onComplete: (found) => {
          rows = found;
        },
      }).catch(damaged);
      for (const [i, row] of rows.entries()) {
        const [value] = row as unknown[];
        if (typeof value === "string") yield value;
        // A row may lack its text; a number in its place is another column than was meant.
        else if (value !== null && value !== undefined)
          throw new ConfigError(`${path}: row ${rowStart + i} has ${noText(column, value, columns)}`);
      }
      rowStart = rowEnd;
      onRead(Number(group.total_compressed_size ?? group.total_byte_size));
    }
  } finally {
    await stored.close();
  }
}
