// What has been measured, a line each, so that a run that was broken off goes on where it was.
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync, readFileSync, renameSync } from "node:fs";
import { dirname } from "node:path";

/**
 * What a measurement is known by. The run is the hash of all programs in it, not of the one that is
 * measured: figures of different hours are not to be compared, and the load tool is one of them.
 */
export function keyOf({ run, workload, server, round, args }) {
  return [run, workload, server, round, args.join(" ")].join("|");
}

/** The hash of all these files that there are. */
export function runOf(files) {
  const hash = createHash("sha256");
  for (const file of files.filter((file) => existsSync(file))) hash.update(file).update(readFileSync(file));
  return hash.digest("hex").slice(0, 12);
}

export class Journal {
  file;
  #lines;

  constructor(file) {
    this.file = file;
    mkdirSync(dirname(file), { recursive: true });
    this.#lines = existsSync(file) ? parse(readFileSync(file, "utf8")) : [];
  }

  /** Puts what there is aside. */
  beginAnew() {
    if (existsSync(this.file)) renameSync(this.file, `${this.file}.old`);
    this.#lines = [];
  }

  has(measurement) {
    return this.#lines.some((line) => keyOf(line) === keyOf(measurement));
  }

  append(line) {
    this.#lines.push(line);
    // A line that was cut off must not take this one with it.
    appendFileSync(this.file, `\n${JSON.stringify(line)}`);
  }

  /** The lines of a run, by default of the one that measured last. */
  lines(run = this.#lines.at(-1)?.run) {
    return this.#lines.filter((line) => line.run === run);
  }
}

/** Lines that are not whole are left out: their measurement is repeated. */
export function parse(text) {
  return text.split("\n").flatMap((line) => {
    try {
      return line === "" ? [] : [JSON.parse(line)];
    } catch {
      return [];
    }
  });
}
