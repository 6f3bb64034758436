// Compares two transcripts and sorts the differences into intended and not.

import { INTENDED } from "./intended.mjs";

/** Returns a list of `{ step, field, reference, bowline, intended }`; `intended` is the id of a row of the table, or undefined. */
export function differences(script, reference, bowline) {
  const found = [];
  const steps = Math.max(reference.length, bowline.length);
  for (let i = 0; i < steps; i++) {
    const [r, b] = [reference[i], bowline[i]];
    if (!r || !b || r.step !== b.step) {
      // the transcripts no longer run side by side: one of them stopped at a time-out, which is already a difference
      break;
    }
    const fields = new Set([...Object.keys(r.fields), ...Object.keys(b.fields)]);
    for (const field of fields) {
      if (r.fields[field] !== b.fields[field]) {
        found.push({ script: script.name, step: r.step, field, reference: r.fields[field], bowline: b.fields[field] });
      }
    }
  }
  for (const difference of found) {
    difference.intended = INTENDED.find((row) => row.covers(difference, found))?.id;
  }
  return found;
}
