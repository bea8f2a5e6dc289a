// Addresses in an object store: s3://bucket/prefix. Any store that speaks S3 is meant; AWS_ENDPOINT_URL names it.
import { ConfigError } from "../errors.ts";

export interface StoreAddress {
  readonly bucket: string;
  /** Without slashes at its ends; empty: the whole bucket. */
  readonly prefix: string;
}

export function isStoreAddress(text: string): boolean {
  return /^s3:\/\//i.test(text);
}

/** @throws ConfigError for what names no bucket */
export function parseStoreAddress(text: string): StoreAddress {
  const [, bucket, path = ""] = /^s3:\/\/([a-z0-9][a-z0-9._-]{1,253})(?:\/(.*))?$/is.exec(text) ?? [];
  const prefix = path.replace(/^\/+|\/+$/g, "");
  const isPlain = !prefix.split("/").some((part) => part === "." || part === "..");
  if (bucket === undefined || !isPlain || prefix.includes("//"))
    throw new ConfigError(`"${text}" is not the address of an object store, such as s3://bucket/runs/first`);
  return { bucket, prefix };
}
